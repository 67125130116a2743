"""Raw streams through the gateway: every byte, every end and every reset, each on its own side."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.simulator.certificates import pump, stranger
from tests.simulator.listeners import Client, PeerJudge, Served, serving
from tests.simulator.programs import free_port
from tests.simulator.upstreams import check_stops, raw_upstream, reset_at_close
from tests.simulator.waiting import wait_until
from tests.transport.test_listeners import LIMITS, SHORT, gate
from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.gateway.tcp_relay import tcp_relay
from vagus.endpoints.gateway.upstream import Upstream
from vagus.reasons import Reason
from vagus.transport.limits import Limits


def relaying(port: int, judge: PeerJudge, limits: Limits = LIMITS) -> contextlib.AbstractContextManager[Served]:
    """A gateway before the upstream at `port`."""
    stream = tcp_relay(Upstream("127.0.0.1", port))
    return serving(gate(judge, app=None, stream=stream, limits=limits), judges=[judge])


@contextlib.contextmanager
def client_of(act: Callable[[socket.socket], None], judge: PeerJudge) -> Iterator[Client]:
    """A client of a gateway whose upstream does `act` with each connection."""
    with (
        raw_upstream(act) as port,
        relaying(port, judge) as served,
        Client(served.port(), pump().credential) as client,
    ):
        yield client


def echo(connection: socket.socket) -> None:
    """Return every byte, and the end last."""
    while data := connection.recv(65_536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


class TestEnds:
    def test_megabytes_go_through_and_come_back_and_both_sides_end(self, judge: PeerJudge) -> None:
        sent = hashlib.sha256(b"seed").digest() * 65_536
        with (
            raw_upstream(echo) as port,
            relaying(port, judge) as served,
            Client(served.port(), pump().credential) as client,
        ):
            got = b""
            for at in range(0, len(sent), 262_144):
                client.send(sent[at : at + 262_144])
                got += client.receive_exactly(262_144)
            client.close_notify()
            assert client.receive() == b""
            assert got == sent
            wait_until(lambda: served.running.counts()["gate"][0] == 0)

    def test_the_client_may_end_first_and_still_read_the_answer(self, judge: PeerJudge) -> None:
        def total(connection: socket.socket) -> None:
            size = 0
            while data := connection.recv(65_536):
                size += len(data)
            connection.sendall(b"%d octets" % size)

        with client_of(total, judge) as client:
            client.send(b"x" * 100_000)
            client.close_notify()
            assert client.receive_until(b"octets") == b"100000 octets"
            assert client.receive() == b""

    def test_the_upstream_may_end_first_and_still_read_the_rest(self, judge: PeerJudge) -> None:
        got: list[bytes] = []

        def hello(connection: socket.socket) -> None:
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65_536):
                got.append(data)
            got.append(b"<end>")

        with client_of(hello, judge) as client:
            assert client.receive_until(b"hello") == b"hello"
            assert client.receive() == b""
            client.send(b"still here")
            client.close_notify()
            wait_until(lambda: b"".join(got) == b"still here<end>")

    @pytest.mark.parametrize("how", ["reset", "fin"])
    def test_a_client_that_is_cut_is_not_complete_upstream(self, judge: PeerJudge, how: str) -> None:
        ends: list[str] = []

        def watch(connection: socket.socket) -> None:
            try:
                while connection.recv(65_536):
                    pass
                ends.append("a complete end")
            except ConnectionResetError:
                ends.append("reset")

        with raw_upstream(watch) as port, relaying(port, judge) as served:
            client = Client(served.port(), pump().credential)
            client.send(b"half of a mess")
            wait_until(lambda: len(judge.told(Outcome.ADMITTED)) == 1)
            if how == "reset":
                client.reset()
            else:
                client.socket.close()  # FIN without close_notify: a truncated stream
            wait_until(lambda: bool(ends))
        assert ends == ["reset"]

    def test_an_upstream_that_is_reset_cuts_the_client(self, judge: PeerJudge) -> None:
        def half(connection: socket.socket) -> None:
            connection.sendall(b"half")
            connection.recv(1)
            reset_at_close(connection)

        with client_of(half, judge) as client:
            assert client.receive() == b"half"
            client.send(b"x")
            assert client.was_cut()

    def test_an_upstream_that_is_not_there_is_recorded_and_the_client_cut(self, judge: PeerJudge) -> None:
        with relaying(free_port(), judge) as served, Client(served.port(), pump().credential) as client:
            assert client.was_cut()
        assert judge.wait_decided(Outcome.FAILED).reason is Reason.UPSTREAM_UNREACHABLE

    def test_a_refused_client_reaches_no_upstream(self, judge: PeerJudge) -> None:
        reached: list[bytes] = []

        with (
            raw_upstream(lambda connection: reached.append(connection.recv(100))) as port,
            relaying(port, judge) as served,
            Client(served.port(), stranger().issue("pump.icu.h1.test").credential) as client,
        ):
            with contextlib.suppress(ConnectionError):
                client.send(b"canary")
            assert client.is_closed()
        assert reached == []
        assert judge.told(Outcome.REFUSED)[0].reason is Reason.BAD_SIGNATURE


class TestPressure:
    def test_an_upstream_that_does_not_read_stops_the_client(self, judge: PeerJudge) -> None:
        done: list[bool] = []
        with client_of(lambda _: wait_until(lambda: bool(done)), judge) as client:
            check_stops(client)
            done.append(True)

    def test_a_client_that_does_not_read_stops_the_upstream_and_is_cut_in_time(self, judge: PeerJudge) -> None:
        sent: list[int] = []

        def flood(connection: socket.socket) -> None:
            while True:
                sent.append(connection.send(b"x" * 65_536))

        with (
            raw_upstream(flood) as port,
            relaying(port, judge, SHORT) as served,
            Client(served.port(), pump().credential),
        ):
            assert judge.wait_decided(Outcome.FAILED).reason is Reason.TIME_OUT
            wait_until(lambda: served.running.counts()["gate"][0] == 0)
        assert sum(sent) < 30_000_000
