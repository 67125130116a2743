"""Clients that are slow, broken or hostile: each loses its own connection and nothing else."""

from __future__ import annotations

import random
import socket
import time
from contextlib import suppress

import pytest

from tests.simulator.certificates import pump
from tests.simulator.listeners import PATIENCE, Client, PeerJudge, serving
from tests.simulator.waiting import wait_until
from tests.tls.test_stream import client_context
from tests.transport.test_listeners import SHORT, gate
from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.http import ASGIApp, Receive, Scope, Send, send_response
from vagus.reasons import Reason


def hello() -> bytes:
    """A ClientHello."""
    stream = client_context().new_stream("localhost")
    stream.handshake()
    return stream.take()


def _await_end(connection: socket.socket) -> None:
    connection.settimeout(PATIENCE)
    with suppress(ConnectionError):
        while connection.recv(65_536):
            pass


class TestHandshake:
    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (b"", Reason.TIME_OUT),
            (hello()[:100], Reason.TIME_OUT),
            (hello(), Reason.TIME_OUT),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Reason.TLS_HANDSHAKE),
            (b"\x16\x03\x01" + b"\xff" * 1000, Reason.TLS_HANDSHAKE),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Reason.TLS_HANDSHAKE),
        ],
        ids=["silence", "half a hello", "a hello and no more", "plain HTTP", "a record too long", "SSH"],
    )
    def test_what_never_becomes_tls_is_closed_and_recorded(self, judge: PeerJudge, sent: bytes, reason: Reason) -> None:
        with serving(gate(judge, limits=SHORT)) as served:
            with socket.create_connection(("127.0.0.1", served.port())) as odd:
                odd.sendall(sent)
                _await_end(odd)
            decision = judge.wait_decided(Outcome.FAILED)
            assert (decision.reason, decision.source) == (reason, "127.0.0.1")
            served.check_admits()

    def test_a_reset_in_the_handshake_and_an_immediate_end(self, judge: PeerJudge) -> None:
        with serving(gate(judge)) as served:
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", served.port())) as odd:
                    odd.sendall(hello()[:50])
            wait_until(lambda: served.running.counts()["gate"][0] == 0)
            served.check_admits()

    def test_one_byte_at_a_time_is_slow_but_fine(self, judge: PeerJudge) -> None:
        with serving(gate(judge)) as served, Client(served.port(), pump().credential) as client:
            client.stream.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            for octet in client.stream.take():
                client.socket.sendall(bytes([octet]))
            assert client.read_response().status == 200


class TestRecords:
    def test_a_flipped_bit_ends_its_connection_with_an_alert(self, judge: PeerJudge) -> None:
        with serving(gate(judge)) as served:
            with Client(served.port(), pump().credential) as client:
                client.stream.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                data = bytearray(client.stream.take())
                data[-1] ^= 1
                client.socket.sendall(data)
                _await_end(client.socket)
            assert judge.wait_decided(Outcome.FAILED).reason is Reason.TLS_HANDSHAKE
            served.check_admits()

    def test_a_truncated_record_reaches_no_application(self, judge: PeerJudge) -> None:
        with serving(gate(judge)) as served:
            with Client(served.port(), pump().credential) as client:
                client.stream.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                client.socket.sendall(client.stream.take()[:-5])
                client.socket.shutdown(socket.SHUT_WR)
                _await_end(client.socket)
            wait_until(lambda: served.running.counts()["gate"][0] == 0)

    def test_random_damage_never_stops_the_listener(self, judge: PeerJudge) -> None:
        dice = random.Random(4)
        with serving(gate(judge)) as served:
            for _ in range(40):
                try:
                    client = Client(served.port(), pump().credential)
                except Exception as error:  # noqa: BLE001
                    pytest.fail(f"the listener stopped serving: {error}")
                with client:
                    client.stream.write(dice.randbytes(dice.randrange(1, 3000)))
                    data = bytearray(client.stream.take())
                    for _ in range(dice.randrange(4)):
                        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
                    client.socket.sendall(data[: dice.randrange(len(data)) + 1])
            wait_until(lambda: served.running.counts()["gate"][0] == 0)
            served.check_admits()


def large(body: bytes) -> ASGIApp:
    """An application whose response has this body."""

    async def respond(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_response(send, 200, [(b"content-length", b"%d" % len(body))], body)

    return respond


class TestPressure:
    def test_a_client_that_reads_nothing_is_cut_in_time_and_costs_no_copy(self, judge: PeerJudge) -> None:
        body = b"x" * 30_000_000
        with serving(gate(judge, app=large(body), limits=SHORT)) as served:
            with Client(served.port(), pump().credential) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert judge.wait_decided(Outcome.FAILED).reason is Reason.TIME_OUT
            wait_until(lambda: served.running.counts()["gate"][0] == 0)
            with Client(served.port(), pump().credential) as client:
                assert client.get().body == body

    def test_a_slow_reader_gets_all_of_it(self, judge: PeerJudge) -> None:
        body = random.Random(1).randbytes(6_000_000)
        with (
            serving(gate(judge, app=large(body), limits=SHORT)) as served,
            Client(served.port(), pump().credential) as client,
        ):
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            client.receive_until(b"\r\n\r\n")
            got = b""
            while len(got) < len(body):
                got += client.receive_exactly(min(500_000, len(body) - len(got)))
                time.sleep(0.05)  # longer in all than the stall limit, never still
            assert got == body

    def test_the_last_response_arrives_although_the_client_is_still_sending(self, judge: PeerJudge) -> None:
        async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send_response(send, 413, [(b"content-length", b"0"), (b"connection", b"close")])

        with serving(gate(judge, app=refuse)) as served, Client(served.port(), pump().credential) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
            for _ in range(30):
                try:
                    client.send(b"x" * 100_000)
                except ConnectionError:
                    break
            assert client.read_response().status == 413
            assert client.is_closed()
