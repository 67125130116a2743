"""The contract with uvicorn's httptools protocol: time-outs, bounds and errors that it does not have of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from tests.simulator.certificates import pump
from tests.simulator.listeners import PATIENCE, Client, PeerJudge, PlainClient, serving
from tests.simulator.waiting import wait_until
from tests.transport.test_listeners import LIMITS, SHORT, echo, gate
from vagus.endpoints.http import Receive, Scope, Send, read_body, send_response
from vagus.fleet.admission import Admitted
from vagus.reasons import Reason
from vagus.tls import Peer
from vagus.transport.limits import Limits
from vagus.transport.listeners import ListenerSpec


def drip(client: Client, most: int) -> tuple[bytes, int]:
    """Send byte after byte until a response comes, at most so many; gives its begin and how many were sent."""
    client.socket.settimeout(0.05)
    answer, sent = b"", 0
    while not answer and sent < most:
        sent += 1
        with contextlib.suppress(TimeoutError, ConnectionError):
            client.send(b"b")
            answer = client.receive()
    return answer, sent


class TestTimeOuts:
    @pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"])
    def test_a_request_that_does_not_come_to_its_end_is_answered_408(self, judge: PeerJudge, sent: bytes) -> None:
        with serving(gate(judge, limits=SHORT)) as served, Client(served.port(), pump().credential) as client:
            if sent:
                client.send(sent)
            assert client.read_response().refusal == (408, Reason.TIME_OUT)
            assert client.is_closed()

    def test_a_header_that_drips_gains_no_time(self, judge: PeerJudge) -> None:
        with serving(gate(judge, limits=SHORT)) as served, Client(served.port(), pump().credential) as client:
            client.send(b"GET / HTTP/1.1\r\nA: ")
            assert drip(client, 200)[0].startswith(b"HTTP/1.1 408 ")

    def test_a_body_that_trickles_gains_no_time(self, judge: PeerJudge) -> None:
        """No pause is as long as the stall limit, and each byte adds a hundredth of a second."""
        slow = Limits(stall_seconds=5, body_seconds=0.5, body_octets_per_second=100, linger_seconds=0.5)
        with serving(gate(judge, limits=slow)) as served, Client(served.port(), pump().credential) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n")
            answer, sent = drip(client, 500)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert sent < 100, "0.5 s and a hundredth for each byte do not last for so many pauses of 0.05 s"

    def test_a_body_that_comes_at_the_least_rate_is_taken(self, judge: PeerJudge) -> None:
        slow = Limits(stall_seconds=5, body_seconds=1.5, body_octets_per_second=100, linger_seconds=0.5)
        with serving(gate(judge, limits=slow)) as served, Client(served.port(), pump().credential) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000\r\n\r\n")
            for _ in range(20):
                time.sleep(0.1)
                client.send(b"b" * 400)
            assert client.read_response().status == 200

    def test_an_idle_connection_is_closed_in_time(self, judge: PeerJudge) -> None:
        short = Limits(keep_alive_seconds=1, linger_seconds=0.2)
        with serving(gate(judge, limits=short)) as served, Client(served.port(), pump().credential) as client:
            assert client.get().status == 200
            assert client.receive() == b""

    def test_a_pause_of_the_loop_is_not_charged_to_the_client(self, judge: PeerJudge) -> None:
        is_paused = threading.Event()

        def admit(peer: Peer, source: str) -> Admitted:
            if judge.judged:
                is_paused.set()
                time.sleep(2 * SHORT.header_seconds)
            return judge.admit(peer, source)

        with (
            serving(gate(judge, admit=admit, limits=SHORT)) as served,
            Client(served.port(), pump().credential) as first,
            Client(served.port(), pump().credential),
        ):
            assert is_paused.wait(PATIENCE)
            assert first.get().status == 200


class TestBounds:
    @pytest.mark.parametrize("count", [1, 300])
    def test_a_header_too_large_is_431_in_one_piece_or_in_many(self, judge: PeerJudge, count: int) -> None:
        with serving(gate(judge)) as served, Client(served.port(), pump().credential) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
            for _ in range(count):
                try:
                    client.send(b"A: " + b"b" * (100_000 // count) + b"\r\n")
                except ConnectionError:
                    break
            assert client.read_response().refusal == (431, Reason.TOO_LARGE)
            assert client.is_closed()

    def test_too_many_fields_are_431(self, judge: PeerJudge) -> None:
        with serving(gate(judge)) as served, Client(served.port(), pump().credential) as client:
            assert client.get("/", "A: b\r\n" * 150).status == 431

    def test_a_body_too_large_is_413_before_and_after_it_is_sent(self, judge: PeerJudge) -> None:
        async def small(scope: Scope, receive: Receive, send: Send) -> None:
            await read_body(scope, receive, 1000)
            await send_response(send, 200, [(b"content-length", b"0")])

        with serving(gate(judge, app=small)) as served:
            with Client(served.port(), pump().credential) as client:
                client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
                assert client.read_response().refusal == (413, Reason.TOO_LARGE)
            with Client(served.port(), pump().credential) as client:
                head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                client.send(head + b"800\r\n" + b"x" * 2048 + b"\r\n")
                assert client.read_response().status == 413
                assert client.is_closed()
            with Client(served.port(), pump().credential) as client:
                assert client.post(b"x" * 1000).status == 200

    def test_a_queue_of_requests_is_bounded(self, judge: PeerJudge) -> None:
        with serving(gate(judge)) as served, Client(served.port(), pump().credential) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
            answered = 0
            with contextlib.suppress(ConnectionError):
                while True:
                    assert client.read_response().status == 200
                    answered += 1
            assert 30 < answered < 500


class TestWords:
    def test_a_request_that_does_not_parse_leaves_the_one_before_it_its_response(self, judge: PeerJudge) -> None:
        async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.05)
            await send_response(send, 200, [(b"content-length", b"4")], b"good")

        with serving(gate(judge, app=slow)) as served, Client(served.port(), pump().credential) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")
            assert client.read_response().body == b"good"
            assert client.is_closed()

    def test_an_application_that_fails_is_500_without_the_cause(
        self, judge: PeerJudge, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
            raise ZeroDivisionError("secret detail")

        with serving(gate(judge, app=broken)) as served, Client(served.port(), pump().credential) as client:
            response = client.get()
        assert response.status == 500
        assert b"secret" not in response.body
        assert "secret detail" in caplog.text

    def test_forwarding_headers_change_nothing_that_the_application_sees(self, judge: PeerJudge) -> None:
        async def who(scope: Scope, _receive: Receive, send: Send) -> None:
            text = f"{scope['client'][0]} {scope['scheme']}".encode()
            await send_response(send, 200, [(b"content-length", b"%d" % len(text))], text)

        with serving(gate(judge, app=who)) as served, Client(served.port(), pump().credential) as client:
            forged = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\n"
            assert client.get("/", forged).body == b"127.0.0.1 https"


class TestPlain:
    def test_the_same_bounds_hold_without_tls(self) -> None:
        spec = ListenerSpec("gate", "127.0.0.1", 0, app=echo, limits=LIMITS)
        with serving(spec) as served:
            with PlainClient(served.port()) as client:
                assert client.post(b"x" * 1_000_000).body == b"x" * 1_000_000
                assert client.get().status == 200
            with PlainClient(served.port()) as client:
                client.send(b"\x16\x03\x01 TLS on a plain port")
                assert client.read_response().status == 400
            wait_until(lambda: served.running.counts()["gate"][0] == 0)

    def test_the_same_time_outs_hold_without_tls(self) -> None:
        spec = ListenerSpec("gate", "127.0.0.1", 0, app=echo, limits=SHORT)
        with serving(spec) as served, PlainClient(served.port()) as client:
            client.send(b"POST / HT")
            assert client.read_response().status == 408
            assert client.is_closed()

    def test_a_plain_client_that_asks_for_h2c_is_served_twice(self) -> None:
        # Java's HTTP client does so with every first request.
        with serving(ListenerSpec("gate", "127.0.0.1", 0, app=echo, limits=LIMITS)) as served:
            for _ in range(2):
                with PlainClient(served.port()) as client:
                    assert client.get("/", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n").status == 200
                    assert client.is_closed()


async def echo_target(scope: Scope, _receive: Receive, send: Send) -> None:
    """Respond with what an application sees of the target, and with a name in lower case."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    query = scope["query_string"]
    body = b" ".join([scope["raw_path"] + (b"?" + query if query else b""), *hosts])
    await send_response(send, 200, [(b"content-length", b"%d" % len(body)), (b"etag", b'"a"')], body)


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "seen"),
        [
            (b"/a?b", b"/a?b x"),
            (b"https://other:8443/a?b", b"/a?b other:8443"),
            (b"HTTPS://other", b"/ other"),
        ],
    )
    def test_an_application_sees_a_path_and_one_host(self, judge: PeerJudge, target: bytes, seen: bytes) -> None:
        """RFC 9112 3.2.2: the host of the target takes the place of the Host field."""
        with serving(gate(judge, app=echo_target)) as served, Client(served.port(), pump().credential) as client:
            for _ in range(2):
                client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
                assert client.read_response().body == seen

    @pytest.mark.parametrize("target", [b"http://x/", b"https://a@x/", b"ftp://x/"])
    def test_another_scheme_and_userinfo_are_refused_and_end_the_connection(
        self, judge: PeerJudge, target: bytes
    ) -> None:
        with serving(gate(judge, app=echo_target)) as served, Client(served.port(), pump().credential) as client:
            client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            assert client.read_response().refusal == (400, Reason.BAD_REQUEST)
            assert client.is_closed()

    def test_two_hosts_are_refused_whatever_the_target_says(self, judge: PeerJudge) -> None:
        with serving(gate(judge, app=echo_target)) as served:
            for hosts in (b"", b"Host: x\r\nHost: y\r\n"):
                with Client(served.port(), pump().credential) as client:
                    client.send(b"GET https://x/ HTTP/1.1\r\n" + hosts + b"\r\n")
                    assert client.read_response().refusal == (400, Reason.BAD_REQUEST)


class TestHeaderNames:
    @pytest.mark.parametrize(
        ("request_line", "names"),
        [
            (b"GET / HTTP/1.1", [b"Date", b"Content-Length", b"ETag"]),
            (b"HEAD / HTTP/1.1", [b"Date", b"Content-Length", b"ETag"]),
            (b"GET / HTTP/1.0", [b"Date", b"Content-Length", b"ETag", b"Connection"]),
            (b"GET ftp://x/ HTTP/1.1", [b"Date", b"Content-Type", b"Content-Length", b"Cache-Control", b"Connection"]),
            (b"GET", [b"Date", b"Content-Type", b"Content-Length", b"Cache-Control", b"Connection"]),
        ],
    )
    def test_names_are_written_as_rfcs_write_them(
        self, judge: PeerJudge, request_line: bytes, names: list[bytes]
    ) -> None:
        """A client such as libest compares them byte by byte."""
        with serving(gate(judge, app=echo_target)) as served, Client(served.port(), pump().credential) as client:
            client.send(request_line + b"\r\nHost: x\r\n\r\n")
            head = client.receive_until(b"\r\n\r\n")
        assert [line.partition(b":")[0] for line in head.split(b"\r\n")[1:-2]] == names

    def test_chunks_and_100_continue_are_as_they_were(self, judge: PeerJudge) -> None:
        async def chunked(scope: Scope, receive: Receive, send: Send) -> None:
            await send_response(send, 200, [], await read_body(scope, receive, 100) + b"etag: x\r\n\r\n")

        with serving(gate(judge, app=chunked)) as served, Client(served.port(), pump().credential) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            assert client.receive_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"abc")
            response = client.read_response()
            assert response.body == b"abcetag: x\r\n\r\n"
            assert response.headers["transfer-encoding"] == "chunked"
