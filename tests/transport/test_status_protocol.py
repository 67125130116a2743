"""A response from the cache is what the whole protocol would have sent, byte for byte, on every connection."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.certificates import server_credential
from tests.simulator.listeners import PATIENCE, PlainClient, Served, serving
from tests.simulator.refusals import refuses
from tests.simulator.status_listeners import (
    AGE,
    LAST,
    SLOW_SECONDS,
    StatusListeners,
    both,
    get,
    post,
    question,
    say,
    say_cut,
    status_listeners,
    status_of,
)
from tests.simulator.waiting import wait_until
from vagus.authority.ocsp.responses import CachedResponse, SignedResponse
from vagus.endpoints.revocation_status import OcspReplies
from vagus.errors import Misconfigured
from vagus.reasons import Reason
from vagus.tls import ServerContext, ServerTls
from vagus.transport.http_protocol import PIPELINED
from vagus.transport.limits import Limits
from vagus.transport.listeners import ListenerSpec
from vagus.transport.ocsp_cache import OcspCache
from vagus.transport.plain_connection import PlainConnection
from vagus.transport.status_protocol import StatusHttp

GOOD, REVOKED = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED
TRY_LATER = ocsp.OCSPResponseStatus.TRY_LATER
SLOW_FIELD = 'If-None-Match: "none"\r\n'
"""A field that the parser must see, and that changes nothing."""


@pytest.fixture
def status(template: Path, tmp_path: Path) -> Iterator[StatusListeners]:
    with status_listeners(template, tmp_path) as made:
        yield made


@pytest.fixture
def fast(status: StatusListeners) -> Iterator[int]:
    """The port of a listener with the cache."""
    with serving(status.spec("fast")) as served:
        yield served.port("fast")


@pytest.fixture
def client(fast: int) -> Iterator[PlainClient]:
    with PlainClient(fast) as made:
        yield made


def ask(client: PlainClient, stream: bytes) -> ocsp.OCSPCertStatus | ocsp.OCSPResponseStatus:
    """Send a request and give the status in its response."""
    client.send(stream)
    return status_of(client.read_response())


@dataclass(frozen=True)
class Pair:
    """Both listeners, and what to ask them."""

    status: StatusListeners
    served: Served
    questions: list[bytes]

    def check(self, stream: bytes) -> bytes:
        """The responses of both listeners, which are equal.

        The end of a segment has no meaning in HTTP. But the parser adds "connection: close" to the response when the
        same segment holds nonsense after the request. So it gets one by one the requests that the cache knows.
        """
        received = say(self.served.port("fast"), stream)
        assert received == say(self.served.port("slow"), *self.status.cut(stream))
        return received


@pytest.fixture(scope="module")
def asked(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with status_listeners(template, tmp_path_factory.mktemp("same")) as status:
        issued, other, revoked = (status.clinic.issue() for _ in range(3))
        status.clinic.revoke(revoked)
        questions = [
            *(question(one) for one in (issued, other, revoked)),
            question(issued, nonce=b"n" * 32),
            question(revoked, nonce=b"n" * 16),
            question(issued, serial=4711),
            question(issued)[:-1],
            question(issued) + b"\0",
            b"\x30\x00",
            b"0" * 1200,
        ]
        with both(status) as served:
            yield Pair(status, served, questions)


class TestSameWords:
    """Whatever is sent, both listeners say the same."""

    def test_each_ocsp_request_by_each_method(self, asked: Pair) -> None:
        for one in asked.questions:
            for stream in (post(one), get(one), get(one).replace(b"%2F", b"/"), get(one).replace(b"=", b"%3d")):
                assert asked.check(stream + LAST).count(b"HTTP/1.1 ") in {1, 2}

    @pytest.mark.parametrize(
        "fields",
        [
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Content_Length: 3\r\n",
            "Content-Length : 80\r\n",
            "Content-Length:\t80\r\n",
            "X: a\r\n b\r\n",
            "X: a\n",
            "X: a\r\r\n",
            "X\r\n",
            ": x\r\n",
            "Host: other\r\n",
            "Expect: 100-continue\r\n",
            "Connection: close\r\n",
            "Connection: keep-alive, close\r\n",
            "Connection: upgrade\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
            "If-None-Match: *\r\n",
            "If-Modified-Since: Sun, 22 Nov 2026 00:00:00 GMT\r\n",
            "Range: bytes=0-3\r\n",
            "Content-Type: text/plain\r\n",
            "Content-Type: application/ocsp-request; a=b\r\n",
            "content-type: APPLICATION/OCSP-REQUEST\r\n",
            "User-Agent: \r\n",
            "User-Agent: caf\xe9\r\n",
            "User-Agent: a\0b\r\n",
            "User-Agent: a\x7fb\r\n",
            "Cookie: a=b\r\n",
            "X-Forwarded-For: 6.6.6.6\r\n",
            "A: b\r\n" * 30,
            "A: b\r\n" * 150,
            "User-Agent: " + "x" * 3000 + "\r\n",
        ],
        ids=lambda fields: repr(fields[:40]),
    )
    def test_each_field(self, asked: Pair, fields: str) -> None:
        one = asked.questions[0]
        raw = fields.encode("latin-1")
        for stream in (post(one), get(one)):
            asked.check(stream.replace(b"Host:", raw + b"Host:", 1) + LAST)
            asked.check(stream.replace(b"\r\n\r\n", b"\r\n" + raw + b"\r\n", 1) + LAST)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"HTTP/1.1", b"HTTP/1.0"),
            (b"HTTP/1.1", b"HTTP/1.2"),
            (b"HTTP/1.1", b"http/1.1"),
            (b" HTTP/1.1", b""),
            (b" HTTP/1.1", b"  HTTP/1.1"),
            (b" HTTP/1.1", b"?a=b HTTP/1.1"),
            (b" HTTP/1.1", b"#a HTTP/1.1"),
            (b" /ocsp", b" //ocsp"),
            (b" /ocsp", b" http://a/ocsp"),
            (b" /ocsp", b" /ocsp/"),
            (b" /ocsp", b" /pki/ocsp"),
            (b" /ocsp", b"\t/ocsp"),
            (b"POST", b"post"),
            (b"POST", b"PUT"),
            (b"POST", b"GET"),
            (b"GET", b"HEAD"),
            (b"GET", b"POST"),
            (b"Host: status.example\r\n", b""),
            (b"Host: status.example", b"Host:status.example"),
            (b"Host: status.example", b"Host:"),
            (b"Host: status.example", b"Host : status.example"),
            (b"Content-Length: ", b"Content-Length: 0"),
            (b"Content-Length: ", b"Content-Length: +"),
            (b"Content-Length: ", b"Content-Length: -"),
            (b"Content-Length: ", b"Content-Length: 0x"),
            (b"Content-Length: ", b"Content-Length: 9"),
            (b"Content-Length: ", b"Content-Length: 99999999999999999999"),
            (b"\r\n", b"\n"),
            (b"/ocsp/M", b"/ocsp//M"),
            (b"/ocsp/M", b"/ocsp/%4D"),
            (b"/ocsp/M", b"/ocsp/M%"),
            (b"/ocsp/M", b"/ocsp/M%0a"),
            (b"/ocsp/M", b"/ocsp/ M"),
            (b"/ocsp/M", b"/ocsp/M="),
            (b"/ocsp/M", b"/ocsp/M\xff"),
        ],
    )
    def test_each_change(self, asked: Pair, old: bytes, new: bytes) -> None:
        one = asked.questions[0]
        for stream in (post(one), get(one)):
            for count in (1, -1):
                asked.check(stream.replace(old, new, count) + LAST)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_whatever_is_sent(self, asked: Pair, data: st.DataObject) -> None:
        fields = ("Connection: keep-alive\r\n", "Accept: */*\r\nPragma: no-cache\r\n")
        stream = bytearray(data.draw(_requests(asked.questions, [post, get], *fields)))
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(stream) - 1))
            new = data.draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b":", b"\0", b"0", b"GET ", b"\xff"]))
            stream[at : at + data.draw(st.integers(0, 3))] = new
        asked.check(bytes(stream) + LAST)

    def test_wherever_a_request_is_cut_in_two(self, asked: Pair) -> None:
        for one in (*asked.questions[2:4], *asked.questions[6:9]):
            stream = post(one)
            whole = asked.check(stream + LAST)
            for at in range(1, len(stream)):
                assert say_cut(asked.served.port("fast"), stream[:at], stream[at:] + LAST) == whole, at

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_wherever_requests_are_cut(self, asked: Pair, data: st.DataObject) -> None:
        stream = data.draw(_requests(asked.questions, [post, post, get], "Expect: 100-continue\r\n"))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=6)))
        pieces = [stream[begin:end] for begin, end in pairwise([0, *cuts, len(stream)])]
        pieces[-1] += LAST
        assert say_cut(asked.served.port("fast"), *pieces) == say_cut(asked.served.port("slow"), *pieces)

    def test_a_listener_with_tighter_bounds_keeps_them(self, status: StatusListeners) -> None:
        for limits in (Limits(header_bytes=100), Limits(header_fields=3)):
            with both(status, limits) as served:
                stream = post(status.question(), "User-Agent: a\r\nAccept: */*\r\n") + LAST
                assert Pair(status, served, []).check(stream).startswith(b"HTTP/1.1 431 ")


def _requests(questions: list[bytes], forms: list[Callable[..., bytes]], *more: str) -> st.SearchStrategy[bytes]:
    """One to four requests in a stream, with a field among `more` and some others, or with none."""
    fields = st.sampled_from(["", "User-Agent: a\r\n", SLOW_FIELD, *more])
    one = st.builds(lambda form, *given: form(*given), st.sampled_from(forms), st.sampled_from(questions), fields)
    return st.lists(one, min_size=1, max_size=4).map(b"".join)


class _Broken:
    """A source that fails otherwise than by our own errors."""

    def respond(self, _request_der: bytes, _at: datetime) -> SignedResponse:
        raise OSError("the disk is gone")

    def find_cached(self, _request_der: bytes, _at: datetime) -> CachedResponse | None:
        raise OSError("the disk is gone")


class TestCached:
    def test_an_ocsp_request_reaches_no_application(self, status: StatusListeners, client: PlainClient) -> None:
        for stream in (post(status.question()), get(status.question()), post(status.question(nonce=b"n" * 32))):
            for _ in range(2):
                assert ask(client, stream) is GOOD
        assert status.seen == []
        assert client.get("/crl/h1.icu/1/0.crl").status == 200
        assert ask(client, post(status.question())) is GOOD
        assert status.seen == ["/crl/h1.icu/1/0.crl"]

    def test_an_ocsp_request_whose_body_comes_apart_reaches_no_application(
        self, status: StatusListeners, client: PlainClient
    ) -> None:
        stream = post(status.question())
        body = stream.index(b"\r\n\r\n") + 4
        for at in (body, body + 1, len(stream) - 1):
            for before in (b"", get(status.question())):
                client.send(before + stream[:at])
                time.sleep(0.005)
                client.send(stream[at:])
                for _ in range(2 if before else 1):
                    assert status_of(client.read_response()) is GOOD
        for byte in (stream[:body], *(bytes((one,)) for one in stream[body:])):
            client.send(byte)
        assert status_of(client.read_response()) is GOOD
        assert status.seen == []

    def test_a_revocation_reaches_open_connections_at_once(self, status: StatusListeners, client: PlainClient) -> None:
        for stream in (post(status.question()), get(status.question())):
            assert ask(client, stream) is GOOD
        status.clinic.revoke(status.issued)
        for stream in (post(status.question()), get(status.question()), post(status.question(nonce=b"n" * 32))):
            assert ask(client, stream) is REVOKED
        assert status.seen == []

    def test_a_responder_that_lost_the_sequence_says_try_later(
        self, status: StatusListeners, client: PlainClient
    ) -> None:
        assert ask(client, post(status.question())) is GOOD
        status.clinic.built.advance(seconds=10)
        assert ask(client, post(status.question())) is TRY_LATER
        status.clinic.responses.follower.catch_up()
        assert ask(client, post(status.question())) is GOOD

    def test_under_load_cached_responses_go_out_and_what_must_be_signed_gets_try_later(
        self, status: StatusListeners, client: PlainClient
    ) -> None:
        assert ask(client, post(status.question())) is GOOD
        status.gauge.now = True
        assert ask(client, post(status.question()) + post(status.question(nonce=b"n" * 32))) is GOOD
        assert status_of(client.read_response()) is TRY_LATER
        assert status.gauge.turned_away == 1

    def test_a_fault_of_ours_is_an_ocsp_error_and_cuts_no_connection(
        self, status: StatusListeners, caplog: pytest.LogCaptureFixture
    ) -> None:
        replies = OcspReplies(_Broken(), status.clinic.built.clock, AGE)
        spec = ListenerSpec("fast", "127.0.0.1", 0, app=status.app, ocsp_cache=OcspCache(replies))
        with serving(spec) as served, PlainClient(served.port("fast")) as client:
            for _ in range(2):
                assert ask(client, post(status.question())) is ocsp.OCSPResponseStatus.INTERNAL_ERROR
        assert "the disk is gone" in caplog.text

    def test_max_age_falls_as_the_end_comes_near(self, status: StatusListeners) -> None:
        responses = status.clinic.responses
        whole = responses.rules.presigned_lifetime
        responses.rules = type(responses.rules)(**{**dict(responses.rules), "renew_after": whole})
        stream, found = post(status.question()), []
        for wait in (0, 11 * 3600 + 59 * 60 - 1, 1, 1, 1, 57):
            status.clinic.advance(seconds=wait)
            answer = status.ready.find_response(stream, 0)
            assert answer is not None
            head = answer[0].partition(b"\r\n\r\n")[0]
            found.append(int(head.split(b"max-age=")[1].split(b",")[0]))
        assert found == [60, 60, 60, 59, 58, 1]

    def test_what_is_ready_has_a_bound(self, status: StatusListeners) -> None:
        status.ready._most_ready = 3
        for _ in range(5):
            stream = post(question(status.clinic.issue()))
            assert status.ready.find_response(stream, 0) == status.ready.find_response(stream, 0)
        assert len(status.ready._ready) == 3

    def test_the_forms_of_headers_that_are_remembered_have_a_bound(self, status: StatusListeners) -> None:
        for number in range(3000):
            assert status.ready.find_response(post(status.question(), f"User-Agent: {number}\r\n"), 0) is not None
            assert len(status.ready._forms) <= 1024

    def test_the_path_of_the_status_url_comes_before_the_ocsp_request(self, status: StatusListeners) -> None:
        under = type(status.ready)(status.replies, "/pki")
        for stream in (post(status.question()), get(status.question())):
            assert under.find_response(stream, 0) is None
            assert under.find_response(stream.replace(b"/ocsp", b"/pki/ocsp", 1), 0) is not None


def connection_of(served: Served) -> PlainConnection:
    """The server's side of the only connection."""
    closers = served.running._every["fast"].listener.closers
    wait_until(lambda: len(closers) == 1)
    (connection,) = closers
    assert isinstance(connection, PlainConnection)
    return connection


def protocol_of(connection: PlainConnection) -> StatusHttp:
    """What speaks HTTP on it."""
    assert isinstance(connection._upper, StatusHttp)
    return connection._upper


class TestConnections:
    def test_a_request_may_be_cut_anywhere(self, status: StatusListeners, client: PlainClient) -> None:
        stream = post(status.question()) + get(status.question())
        client.send(stream)
        whole = [client.read_response() for _ in range(2)]
        for at in range(1, len(stream)):
            client.send(stream[:at])
            time.sleep(0.002)
            client.send(stream[at:])
            assert [client.read_response() for _ in range(2)] == whole

    def test_byte_by_byte(self, status: StatusListeners, client: PlainClient) -> None:
        for byte in post(status.question()):
            client.send(bytes((byte,)))
        assert status_of(client.read_response()) is GOOD

    def test_responses_come_in_the_order_of_requests_of_every_kind(self, status: StatusListeners, fast: int) -> None:
        status.clinic.revoke(other := status.clinic.issue())
        good, bad = status.question(), question(other)
        wishes = [post(good), get(bad), post(bad, SLOW_FIELD), post(good, "Accept: a\r\n"), get(good)]
        with PlainClient(fast) as client:
            client.send(b"".join(wishes * 4) + b"GET /crl/h1.icu/1/0.crl HTTP/1.1\r\nHost: a\r\n\r\n" + get(bad))
            found = [status_of(client.read_response()) for _ in range(20)]
            assert found == [GOOD, REVOKED, REVOKED, GOOD, GOOD] * 4
            assert client.read_response().headers["content-type"] == "application/pkix-crl"
            assert status_of(client.read_response()) is REVOKED
            assert ask(client, post(good)) is GOOD

    def test_a_burst_beyond_what_may_wait_is_not_answered_to_its_end(self, status: StatusListeners, fast: int) -> None:
        answered = 0
        with PlainClient(fast) as client, contextlib.suppress(ConnectionError):
            client.send(post(status.question()) * 300)
            while True:
                assert status_of(client.read_response()) is GOOD
                answered += 1
        assert 60 < answered < 300

    def test_close_and_http_1_0_end_the_connection(self, status: StatusListeners, fast: int) -> None:
        for stream in (post(status.question(), "Connection: close\r\n"), get(status.question(), version="1.0")):
            with PlainClient(fast) as client:
                client.send(get(status.question()) + stream)
                assert "connection" not in client.read_response().headers
                last = client.read_response()
                assert (status_of(last), last.headers["connection"]) == (GOOD, "close")
                assert client.is_closed()

    def test_a_client_that_has_the_answer_gets_304(self, status: StatusListeners, client: PlainClient) -> None:
        client.send(get(status.question()))
        etag = client.read_response().headers["etag"]
        client.send(get(status.question(), f"If-None-Match: {etag}\r\n") + get(status.question()))
        assert client.read_response().status == 304
        assert client.read_response().status == 200

    @pytest.mark.parametrize("before", [b"", b"fast", b"slow"])
    def test_a_header_that_does_not_come_to_its_end_is_cut_wherever_it_begins(
        self, status: StatusListeners, fast: int, before: bytes
    ) -> None:
        whole = post(status.question())
        good = {b"": b"", b"fast": whole, b"slow": post(status.question(), SLOW_FIELD)}[before]
        for begun in (b"POST /ocsp HTT", whole[:-1], whole[: whole.index(b"\r\n\r\n") + 4], b"G"):
            with PlainClient(fast) as client:
                client.send(good + begun)
                if before:
                    assert client.read_response().status == 200
                assert client.read_response().status == 408
                assert client.is_closed()

    def test_a_body_that_comes_byte_by_byte_does_not_move_its_deadline(
        self, status: StatusListeners, fast: int
    ) -> None:
        stream = post(status.question())
        with PlainClient(fast) as client, contextlib.suppress(ConnectionError):
            client.socket.settimeout(0.02)
            client.send(stream[:-80])
            heard = b""
            for byte in stream[-80:-1]:  # eighty bytes take four header deadlines
                client.send(bytes((byte,)))
                with contextlib.suppress(TimeoutError):
                    heard += client.receive()
                if heard:
                    break
            assert heard.startswith(b"HTTP/1.1 408 ")
        assert status.seen in ([], ["/ocsp"])

    def test_what_was_asked_in_part_when_the_server_ends_is_answered(self, status: StatusListeners) -> None:
        stream = post(status.question())
        with serving(status.spec("fast")) as served, PlainClient(served.port("fast")) as client:
            client.send(stream[:-5])
            http = protocol_of(connection_of(served))
            wait_until(lambda: bool(http._held))
            served.on_loop(http.shutdown)
            assert ask(client, stream[-5:]) is GOOD
            assert client.is_closed()

    def test_an_idle_connection_is_closed_in_time_and_an_asking_one_is_not(self, status: StatusListeners) -> None:
        short = Limits(keep_alive_seconds=1.5, linger_seconds=0.2, header_seconds=0.4)
        with serving(status.spec("fast", short)) as served, PlainClient(served.port("fast")) as client:
            for _ in range(10):
                assert ask(client, get(status.question())) is GOOD
                time.sleep(0.2)
            assert client.receive() == b""

    def test_a_request_inside_the_body_of_another_is_none(self, status: StatusListeners, fast: int) -> None:
        inner = post(status.question())
        for size in (len(inner), len(inner) + 10):
            with PlainClient(fast) as client:
                client.send(post(b"x" * size)[:-size])
                time.sleep(0.02)
                client.send(inner)
                time.sleep(0.02)
                client.send(b"x" * (size - len(inner)) + LAST)
                assert status_of(client.read_response()) is ocsp.OCSPResponseStatus.MALFORMED_REQUEST
                assert client.read_response().status == 404
                assert client.is_closed()

    def test_a_body_of_a_refused_request_is_no_request(self, status: StatusListeners, client: PlainClient) -> None:
        inner = post(status.question())
        client.send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(inner))
        assert client.read_response().status == 404
        client.send(inner)
        time.sleep(0.02)
        client.send(LAST)
        assert client.read_response().status == 404
        assert client.is_closed()

    def test_an_ocsp_request_waits_for_the_response_of_the_application(
        self, status: StatusListeners, client: PlainClient
    ) -> None:
        client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: status.seen == ["/slow"])
        client.send(post(status.question()))
        assert client.read_response().body == b"slow"
        assert status_of(client.read_response()) is GOOD

    def test_what_follows_the_last_request_of_a_connection_is_not_parsed(self, status: StatusListeners) -> None:
        slow, more = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", post(status.question(), SLOW_FIELD)
        with serving(status.spec("fast")) as served, PlainClient(served.port("fast")) as client:
            client.send(slow + more * 200)
            wait_until(lambda: status.seen == ["/slow"])
            assert len(protocol_of(connection_of(served)).pipeline) == PIPELINED + 1
            assert client.read_response().body == b"slow"
            for _ in range(PIPELINED + 1):
                last = client.read_response()
            assert status_of(last) is GOOD
            assert last.headers["connection"] == "close"
            assert client.is_closed()

    def test_an_answer_that_takes_longer_than_idleness_may_is_waited_for(self, status: StatusListeners) -> None:
        short = Limits(keep_alive_seconds=SLOW_SECONDS / 4, linger_seconds=0.2)
        with serving(status.spec("fast", short)) as served, PlainClient(served.port("fast")) as client:
            assert ask(client, post(status.question()) + b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n") is GOOD
            assert client.read_response().body == b"slow"

    def test_what_is_asked_while_answers_wait_to_be_taken_is_not_answered_yet(self, status: StatusListeners) -> None:
        with serving(status.spec("fast", Limits())) as served, PlainClient(served.port("fast")) as client:
            assert ask(client, post(status.question())) is GOOD
            connection = connection_of(served)
            served.on_loop(connection.pause_writing)
            client.send(post(status.question()))
            wait_until(lambda: status.seen == ["/ocsp"])
            client.socket.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.receive()
            served.on_loop(connection.resume_writing)
            client.socket.settimeout(PATIENCE)
            assert status_of(client.read_response()) is GOOD
            assert ask(client, post(status.question())) is GOOD
            assert status.seen == ["/ocsp"]

    def test_a_client_that_takes_nothing_is_cut_and_holds_a_bounded_share(self, status: StatusListeners) -> None:
        with serving(status.spec("fast")) as served, PlainClient(served.port("fast")) as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.socket.settimeout(0.2)
            with contextlib.suppress(ConnectionError, TimeoutError):
                for _ in range(2000):
                    client.send(post(status.question()) * 60)
            wait_until(lambda: served.running.counts()["fast"][0] == 0)

    def test_caps_hold_and_count(self, status: StatusListeners) -> None:
        limits = Limits(connections=3, connections_per_source=2)
        with serving(status.spec("fast", limits)) as served:
            with PlainClient(served.port("fast")) as one, PlainClient(served.port("fast")) as two:
                for client in (one, two):
                    assert ask(client, post(status.question())) is GOOD
                with PlainClient(served.port("fast")) as third, contextlib.suppress(ConnectionError):
                    third.send(post(status.question()))
                    assert third.receive() == b""
                assert served.running.counts()["fast"] == (2, 1)
            wait_until(lambda: served.running.counts()["fast"] == (0, 1))

    def test_requests_are_counted_with_and_without_the_cache(self, status: StatusListeners) -> None:
        with serving(status.spec("fast")) as served, PlainClient(served.port("fast")) as client:
            client.send(post(status.question()) * 3 + post(status.question(), SLOW_FIELD))
            for _ in range(4):
                client.read_response()
            state = served.running._every["fast"].state
            assert state is not None
            wait_until(lambda: state.total_requests == 4)

    def test_the_date_is_the_listeners(self, status: StatusListeners, client: PlainClient) -> None:
        client.send(post(status.question()) + post(status.question(), SLOW_FIELD))
        first, second = client.read_response(), client.read_response()
        assert first == second
        assert next(iter(first.headers)) == "date"

    def test_a_stop_ends_idle_connections(self, status: StatusListeners) -> None:
        with serving(status.spec("fast"), grace=10 * PATIENCE) as served:
            client = PlainClient(served.port("fast"))
            assert ask(client, post(status.question())) is GOOD
        with client:
            assert client.is_closed()


def test_the_cache_serves_plain_http_alone(status: StatusListeners) -> None:
    tls = ServerContext(server_credential(), ServerTls())
    with refuses(Reason.BAD_SETTINGS, Misconfigured):
        ListenerSpec("status", "127.0.0.1", 0, app=status.app, ocsp_cache=status.ready, tls=tls)
