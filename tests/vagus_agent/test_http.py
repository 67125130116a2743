from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of
from vagus.errors import LimitExceeded, Malformed, VagusError
from vagus.reasons import Reason
from vagus_agent.http import MAX_HEAD, MAX_HEADERS, HttpExchange, Response

OK = b"HTTP/1.1 200 OK\r\n"
IN_CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED = OK + b"Content-Length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 100 Continue\r\n\r\n" + IN_CHUNKS + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: t\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def asked(max_body: int = 1000) -> HttpExchange:
    """A request that was sent, and whose response is to be read."""
    return HttpExchange("GET", "/", "h", max_body=max_body)


def read(data: bytes, max_body: int = 1000) -> Response | None:
    return asked(max_body).feed(data)


def test_a_sized_body() -> None:
    response = read(SIZED)
    assert response is not None
    assert (response.status, response.body, response.keeps_alive) == (200, b"hello", True)
    assert response.headers["x-a"] == "1, 2"


def test_chunks_after_an_interim_response() -> None:
    response = read(CHUNKED)
    assert response is not None
    assert response.body == b"hello"


def test_no_content_ends_at_once() -> None:
    response = read(EMPTY)
    assert response is not None
    assert not response.keeps_alive


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_without_a_length_the_body_ends_with_the_connection(version: bytes) -> None:
    reader = asked()
    assert reader.feed(b"HTTP/" + version + b" 200 OK\r\n\r\nabc") is None
    assert reader.feed(b"def") is None
    response = reader.end()
    assert (response.body, response.keeps_alive) == (b"abcdef", False)


@given(st.sampled_from([SIZED, CHUNKED, EMPTY]), st.data())
@settings(max_examples=150, deadline=None)
def test_pieces_of_any_size_give_the_same_response(whole: bytes, data: st.DataObject) -> None:
    reader, at, response = asked(), 0, None
    while at < len(whole):
        assert response is None
        step = data.draw(st.integers(1, 40))
        response = reader.feed(whole[at : at + step])
        at += step
    assert response == read(whole)


@given(st.binary(max_size=300), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", SIZED[:40], CHUNKED[:80]]))
@settings(max_examples=400, deadline=None)
def test_junk_gives_an_error_of_ours_or_nothing(junk: bytes, prefix: bytes) -> None:
    reader = asked(100)
    try:
        if reader.feed(prefix + junk) is None:
            reader.end()
    except VagusError as error:
        assert error.reason in {Reason.BAD_ENCODING, Reason.TOO_LARGE, Reason.TOO_MANY, Reason.SMUGGLING}


@given(st.integers(0, len(CHUNKED) - 1), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_never_escapes_the_error_tree(at: int, value: int) -> None:
    bent = bytearray(CHUNKED)
    bent[at] = value
    try:
        reader = asked(100)
        if reader.feed(bytes(bent)) is None:
            reader.end()
    except VagusError:
        pass


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", Malformed, Reason.BAD_ENCODING),
        (b"HTTP/2 200\r\n\r\n", Malformed, Reason.BAD_ENCODING),
        (b"HTTP/2.0 200 OK\r\n\r\n", Malformed, Reason.BAD_ENCODING),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", Malformed, Reason.BAD_ENCODING),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD + b"\r\n\r\n", LimitExceeded, Reason.TOO_LARGE),
        (b"HTTP/1.1 101 Switching\r\n\r\n", Malformed, Reason.BAD_ENCODING),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Malformed, Reason.BAD_ENCODING),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", LimitExceeded, Reason.TOO_LARGE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Malformed, Reason.SMUGGLING),
        (OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed, Reason.SMUGGLING),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Malformed, Reason.SMUGGLING),
        (IN_CHUNKS + b"ffffff\r\n" + b"b" * 1001, LimitExceeded, Reason.TOO_LARGE),
        (IN_CHUNKS + b"1\r\nab\r\n", Malformed, Reason.BAD_ENCODING),
        (b"HTTP/1.1 200 OK\r\n X: folded\r\n\r\n", Malformed, Reason.BAD_ENCODING),
        (b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", Malformed, Reason.BAD_ENCODING),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n", LimitExceeded, Reason.TOO_MANY),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD, LimitExceeded, Reason.TOO_LARGE),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"b" * 1001, LimitExceeded, Reason.TOO_LARGE),
        (SIZED + b"x", Malformed, Reason.BAD_ENCODING),
        (IN_CHUNKS + b"1" * (MAX_HEAD + 1), LimitExceeded, Reason.TOO_LARGE),
    ],
)
def test_what_a_server_may_not_send(data: bytes, kind: type[VagusError], reason: Reason) -> None:
    assert reason_of(read, data, error=kind) is reason


def test_endless_trailers_are_cut() -> None:
    trailers = b"A: b\r\n" * (MAX_HEAD // 6 + 1)
    assert reason_of(read, IN_CHUNKS + b"0\r\n" + trailers, error=LimitExceeded) is Reason.TOO_LARGE


def test_a_closed_connection_cuts_a_response_short() -> None:
    for part in (b"", SIZED[:30], SIZED[:-1], CHUNKED[:-2]):
        exchange = asked()
        if part:
            assert exchange.feed(part) is None
        with pytest.raises(Malformed, match=f"closed the connection after {len(part)} bytes"):
            exchange.end()


def test_a_request_has_its_length_and_no_injected_header() -> None:
    exchange = HttpExchange("POST", "/a", "h", headers={"X": "y"}, body=b"12")
    assert exchange.request == b"POST /a HTTP/1.1\r\nHost: h\r\nX: y\r\nContent-Length: 2\r\n\r\n12"
    for path, value in (("/a\r\nX: y", "v"), ("/a b", "v"), ("/a", "v\r\nEvil: 1"), ("/a", "\u20ac")):
        assert reason_of(HttpExchange, "GET", path, "h", headers={"X": value}, error=Malformed) is Reason.BAD_ARGUMENT
