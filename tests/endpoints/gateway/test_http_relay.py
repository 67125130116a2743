"""HTTP through the gateway: what crosses, what never does, and what happens to both sides when one of them fails."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.simulator.certificates import authority, pump
from tests.simulator.listeners import Client, PeerJudge, Served, serving
from tests.simulator.programs import free_port
from tests.simulator.upstreams import (
    Seen,
    check_stops,
    raw_upstream,
    read_head,
    reset_at_close,
)
from tests.simulator.waiting import wait_until
from tests.transport.test_listeners import gate
from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.gateway.http_relay import HttpRelay
from vagus.endpoints.gateway.upstream import Upstream
from vagus.reasons import Reason


def relaying(port: int, judge: PeerJudge, **bounds: float) -> contextlib.AbstractContextManager[Served]:
    """A gateway before the upstream at `port`."""
    relay = HttpRelay(Upstream("127.0.0.1", port, **bounds), judge.decisions.append)  # type: ignore[arg-type]
    return serving(gate(judge, app=relay, close=relay.close), judges=[judge])


@contextlib.contextmanager
def client_of(act: Callable[[socket.socket], None], judge: PeerJudge, **bounds: float) -> Iterator[Client]:
    """A client of a gateway whose upstream does `act` with each connection."""
    with (
        raw_upstream(act) as port,
        relaying(port, judge, **bounds) as served,
        Client(served.port(), pump().credential) as client,
    ):
        yield client


@pytest.fixture
def client(upstream: tuple[int, Seen], judge: PeerJudge) -> Iterator[Client]:
    with relaying(upstream[0], judge) as served, Client(served.port(), pump().credential) as client:
        yield client


class TestWhoAsks:
    def test_the_upstream_gets_leaf_and_chain_in_the_form_of_rfc_9440(self, client: Client, seen: Seen) -> None:
        assert client.get("/vitals/5?unit=icu").status == 200
        assert seen.lines == ["GET /vitals/5?unit=icu HTTP/1.1"]
        assert seen.values("client-cert") == [f":{base64.b64encode(pump().der).decode()}:"]
        assert seen.values("client-cert-chain") == [f":{base64.b64encode(authority().issuing.der).decode()}:"]
        assert seen.values("x-forwarded-for") == ["127.0.0.1"]

    @pytest.mark.parametrize(
        "forged",
        [
            "Client-Cert: :bm9ib2R5:",
            "CLIENT-CERT: :bm9ib2R5:",
            "Client_Cert: :bm9ib2R5:",
            "client-cert-chain: :bm9ib2R5:",
            "Client_Cert-Chain: :bm9ib2R5:",
            "X-Forwarded-Client-Cert: Hash=bm9ib2R5",
            "X_SSL_Client_Cert: bm9ib2R5",
            "X-Forwarded-For: bm9ib2R5",
            "X-Real-IP: bm9ib2R5",
            "Forwarded: for=bm9ib2R5",
            "X-Vagus-Device: bm9ib2R5",
            "x_vagus_unit: bm9ib2R5",
            "X-VAGUS_Serial: bm9ib2R5",
            "X-Vagus-Anything: bm9ib2R5",
        ],
    )
    def test_what_the_client_says_of_itself_is_stripped(self, client: Client, seen: Seen, forged: str) -> None:
        client.get("/5", f"{forged}\r\n{forged}\r\nX-Kept: yes\r\n")
        assert "bm9ib2R5" not in str(seen.headers)
        assert seen.values("x-kept") == ["yes"]
        assert len(seen.values("client-cert")) == 1

    def test_a_forged_field_in_a_trailer_is_stripped_too(self, client: Client, seen: Seen) -> None:
        client.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\nClient-Cert: :bm9ib2R5:\r\n\r\n"
        )
        assert client.read_response().body == b"hello"
        assert "bm9ib2R5" not in str(seen.headers)

    def test_connection_cannot_name_our_own_field_away(self, client: Client, seen: Seen) -> None:
        client.get("/5", "Connection: client-cert, x-mine\r\nX-Mine: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n")
        assert len(seen.values("client-cert")) == 1
        for gone in ("x-mine", "te", "keep-alive", "connection"):
            assert seen.values(gone) == []


class TestBodies:
    def test_ten_megabytes_go_up_and_come_back(self, client: Client, seen: Seen) -> None:
        body = hashlib.sha256(b"seed").digest() * 320_000
        response = client.post(body)
        assert response.headers["x-upstream"] == "here"
        assert "x-private" not in response.headers
        assert hashlib.sha256(response.body).digest() == hashlib.sha256(body).digest()
        assert len(seen.bodies[0]) == len(body)

    def test_chunked_both_ways(self, client: Client, seen: Seen) -> None:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"5\r\nhello\r\n")
        client.send(b"6\r\n world\r\n0\r\n\r\n")
        assert client.read_response().body == b"hello world"
        assert seen.bodies == [b"hello world"]
        assert client.get("/chunked").body == b"hello" * 3

    def test_100_continue_is_the_upstreams_to_give(self, client: Client) -> None:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.read_response().status == 100
        client.send(b"hello")
        assert client.read_response().body == b"hello"

    def test_a_body_that_the_upstream_does_not_want_is_never_sent(self, client: Client, seen: Seen) -> None:
        client.send(b"POST /refuses-bodies HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        response = client.read_response()
        assert (response.status, response.headers["connection"]) == (417, "close")
        assert client.is_closed()
        assert seen.bodies == [b""]

    def test_head_and_304_have_a_length_and_no_body(self, client: Client) -> None:
        client.send(b"HEAD /1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.read_response(is_head=True).headers["content-length"] == "1000"
        assert client.get("/same/5").status == 304
        assert client.get("/5").body == b"xxxxx"

    def test_idle_connections_serve_one_peer_and_no_other(
        self, upstream: tuple[int, Seen], judge: PeerJudge, seen: Seen
    ) -> None:
        with relaying(upstream[0], judge) as served:
            for device in (pump(), pump(), authority().issue("monitor.icu.h1.test")):
                with Client(served.port(), device.credential) as client:
                    assert client.get("/5").status == client.get("/5").status == 200
        assert seen.connections == 2

    def test_pipelined_requests_are_answered_in_order(self, client: Client) -> None:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % size for size in range(1, 9)))
        assert [len(client.read_response().body) for _ in range(8)] == list(range(1, 9))


SMUGGLED = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, other order": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a list of lengths": b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": b"Content-Length: +5\r\n\r\nhello",
    "a length with an underscore": b"Content_Length: 5\r\n\r\n",
    "a coding with an underscore": b"Transfer_Encoding: chunked\r\n\r\n",
    "a coding in disguise": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked and more": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk without its end": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX0\r\n\r\n",
    "a chunk size with a space": b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
    "an upgrade with a body": b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
}


class TestFraming:
    @pytest.mark.parametrize("tail", SMUGGLED.values(), ids=SMUGGLED.keys())
    def test_what_servers_could_cut_in_two_places_is_refused(
        self, client: Client, seen: Seen, judge: PeerJudge, tail: bytes
    ) -> None:
        client.send(b"POST /first HTTP/1.1\r\nHost: x\r\n" + tail + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.read_response().refusal == (400, Reason.SMUGGLING)
        assert client.is_closed()
        assert not any("smuggled" in line for line in seen.lines)
        assert judge.wait_decided(Outcome.REFUSED).reason is Reason.SMUGGLING

    @pytest.mark.parametrize(
        "head",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nFolded: a\r\n b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nSpace : a\r\n\r\n",
            b"GET / HTTP/1.1\nHost: x\n\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x00\x01\x02\r\n\r\n",
        ],
    )
    def test_what_is_not_plain_http_1_1_is_refused(self, client: Client, seen: Seen, head: bytes) -> None:
        client.send(head)
        assert client.read_response().refusal == (400, Reason.BAD_REQUEST)
        assert client.is_closed()
        assert seen.lines == []

    def test_a_websocket_is_refused(self, client: Client, seen: Seen) -> None:
        fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"
        assert client.get("/", fields).refusal == (501, Reason.UPGRADE_REFUSED)
        assert seen.lines == []

    def test_another_upgrade_is_ignored_and_the_connection_ends(self, client: Client, seen: Seen) -> None:
        response = client.get("/5", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n")
        assert (response.status, response.body) == (200, b"xxxxx")
        assert client.is_closed()
        for gone in ("upgrade", "http2-settings", "connection"):
            assert seen.values(gone) == []


def _half_an_answer(connection: socket.socket) -> None:
    read_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    reset_at_close(connection)


class TestUpstreamFailures:
    def test_one_that_is_not_there(self, judge: PeerJudge) -> None:
        with relaying(free_port(), judge) as served, Client(served.port(), pump().credential) as client:
            assert client.get().refusal == (502, Reason.UPSTREAM_UNREACHABLE)
        assert judge.wait_decided(Outcome.FAILED).device == "pump.icu.h1.test"

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"no HTTP at all\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        ],
    )
    def test_one_that_answers_nonsense_or_hangs_up(self, judge: PeerJudge, answer: bytes) -> None:
        def act(connection: socket.socket) -> None:
            read_head(connection)
            connection.sendall(answer)

        with client_of(act, judge) as client:
            assert client.get().refusal == (502, Reason.UPSTREAM_UNREACHABLE)

    def test_a_reset_after_the_answer_began_cuts_the_client_too(self, judge: PeerJudge) -> None:
        with client_of(_half_an_answer, judge) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.was_cut()
        assert judge.wait_decided(Outcome.FAILED).reason is Reason.UPSTREAM_UNREACHABLE

    def test_one_that_never_answers(self, judge: PeerJudge) -> None:
        def act(connection: socket.socket) -> None:
            read_head(connection)
            connection.recv(1)

        with client_of(act, judge, response_seconds=0.2) as client:
            assert client.get().refusal == (504, Reason.UPSTREAM_TIME_OUT)

    def test_a_second_response_to_one_request_reaches_no_client(self, judge: PeerJudge) -> None:
        def act(connection: socket.socket) -> None:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * 2)
            connection.recv(1)

        with client_of(act, judge) as client:
            for _ in range(3):
                assert client.get().body == b"ok"

    def test_an_answer_that_ends_with_the_connection(self, judge: PeerJudge) -> None:
        def act(connection: socket.socket) -> None:
            read_head(connection)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")

        with client_of(act, judge) as client:
            assert client.get().body == b"until the end"

    def test_an_upstream_that_does_not_read_stops_the_client_and_fills_no_memory(self, judge: PeerJudge) -> None:
        done: list[bool] = []
        with client_of(lambda _: wait_until(lambda: bool(done)), judge) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
            check_stops(client)
            done.append(True)

    def test_a_client_that_leaves_ends_the_upstreams_work(self, judge: PeerJudge) -> None:
        ends: list[str] = []

        def act(connection: socket.socket) -> None:
            read_head(connection)
            try:
                ends.append("end" if not connection.recv(1000) else "more")
            except ConnectionResetError:
                ends.append("reset")

        with raw_upstream(act) as port, relaying(port, judge) as served:
            client = Client(served.port(), pump().credential)
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            wait_until(lambda: len(judge.told(Outcome.ADMITTED)) == 1)
            client.reset()
            wait_until(lambda: bool(ends))
        assert ends in (["reset"], ["end"])
