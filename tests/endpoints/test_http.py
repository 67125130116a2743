"""Errors as HTTP responses, bodies with a bound, framing without two readings."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.refusals import refuses
from vagus.endpoints.http import (
    STATUS,
    Message,
    Receive,
    Scope,
    Send,
    check_framing,
    read_body,
    read_target,
    refusing,
    reporting_errors,
    send_response,
    spell_head,
    spell_name,
    status_of,
)
from vagus.errors import IntegrityFailure, LimitExceeded, Malformed, NotTrusted, Unavailable, VagusError
from vagus.reasons import Reason


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_its_status(reason: Reason) -> None:
    assert 400 <= STATUS[reason] <= 504


def run(app: object, scope: Scope | None = None, messages: list[Message] | None = None) -> list[Message]:
    """What an application sends."""
    sent: list[Message] = []
    waiting = list(messages or [{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope or {"type": "http", "headers": []}, receive, send))  # type: ignore[operator]
    return sent


class TestProblems:
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (NotTrusted(Reason.REVOKED, "the certificate is revoked"), 403),
            (Malformed(Reason.NON_DER, "not DER"), 400),
            (LimitExceeded(Reason.TOO_LARGE, "too large"), 413),
            (Unavailable(Reason.OVERLOADED, "busy"), 503),
            (IntegrityFailure(Reason.LOG_TAMPERED, "stop"), 500),
        ],
    )
    def test_an_error_is_a_problem_document_with_its_reason(self, error: VagusError, status: int) -> None:
        start, body = run(refusing(error))
        headers = dict(start["headers"])
        assert (start["status"], status_of(error)) == (status, status)
        assert headers[b"content-type"] == b"application/problem+json"
        assert headers[b"content-length"] == b"%d" % len(body["body"])
        assert headers[b"cache-control"] == b"no-store"
        assert (b"retry-after" in headers) == (status == 503)
        document = json.loads(body["body"])
        assert (document["status"], document["reason"], document["detail"]) == (status, error.reason, error.message)

    def test_an_error_after_the_answer_began_is_left_to_the_server(self) -> None:
        async def late(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise Unavailable(Reason.OVERLOADED, "busy")

        with pytest.raises(Unavailable):
            run(reporting_errors(late))

    def test_a_fault_of_ours_says_nothing_of_itself(self) -> None:
        async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
            raise KeyError("secret")

        start, body = run(reporting_errors(broken))
        assert start["status"] == 500
        assert b"secret" not in body["body"]


class TestBodies:
    @staticmethod
    def read(limit: int, *parts: bytes, declared: bytes | None = None, is_cut: bool = False) -> bytes:
        got: list[bytes] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            got.append(await read_body(scope, receive, limit))
            await send_response(send, 200, [])

        headers = [] if declared is None else [(b"content-length", declared)]
        messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": is_cut or place < len(parts) - 1}
            for place, part in enumerate(parts)
        ]
        run(app, {"type": "http", "headers": headers}, messages)
        return got[0]

    def test_a_body_up_to_the_limit_is_whole(self) -> None:
        assert self.read(10, b"hello", b"", b"world") == b"helloworld"

    def test_one_byte_more_is_too_large_declared_or_not(self) -> None:
        for parts, declared in (((b"",), b"11"), ((b"hello", b" world"), None), ((b"",), b"9" * 5000)):
            with refuses(Reason.TOO_LARGE, LimitExceeded):
                self.read(10, *parts, declared=declared)

    def test_a_client_that_leaves_is_distinguished_from_an_empty_body(self) -> None:
        with refuses(Reason.BAD_REQUEST, Malformed):
            self.read(10, b"half", is_cut=True)


class TestFraming:
    HOST = (b"host", b"x")

    def test_plain_requests_pass(self) -> None:
        check_framing("1.1", [self.HOST])
        check_framing("1.1", [self.HOST, (b"content-length", b"0")])
        check_framing("1.1", [self.HOST, (b"transfer-encoding", b" Chunked ")])
        check_framing("1.0", [])

    @pytest.mark.parametrize(
        "fields",
        [
            [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
            [(b"content-length", b"1"), (b"content-length", b"1")],
            [(b"content-length", b"0x1")],
            [(b"content-length", b"")],
            [(b"content-length", b"1" * 19)],
            [(b"transfer-encoding", b"gzip, chunked")],
            [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
            [(b"content_length", b"1")],
            [(b"transfer_encoding", b"chunked")],
        ],
    )
    def test_two_readings_are_smuggling(self, fields: list[tuple[bytes, bytes]]) -> None:
        with refuses(Reason.SMUGGLING, Malformed):
            check_framing("1.1", [self.HOST, *fields])

    def test_http_1_0_has_no_chunked_coding(self) -> None:
        with refuses(Reason.SMUGGLING, Malformed):
            check_framing("1.0", [(b"transfer-encoding", b"chunked")])

    def test_there_is_one_host(self) -> None:
        for hosts in ([], [self.HOST, self.HOST]):
            with refuses(Reason.BAD_REQUEST, Malformed):
                check_framing("1.1", hosts)

    @given(st.lists(st.tuples(st.sampled_from([b"content-length", b"transfer-encoding", b"host"]), st.binary())))
    def test_nothing_but_our_own_errors_comes_out(self, fields: list[tuple[bytes, bytes]]) -> None:
        try:
            check_framing("1.1", fields)
        except Malformed as error:
            assert error.reason in {Reason.SMUGGLING, Reason.BAD_REQUEST}


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "path", "host"),
        [
            (b"/a?b", b"/a?b", None),
            (b"*", b"*", None),
            (b"//x/a", b"//x/a", None),
            (b"/http://x/", b"/http://x/", None),
            (b"http://x/a/b?c=d", b"/a/b?c=d", b"x"),
            (b"HTTP://X.example:8080/", b"/", b"X.example:8080"),
            (b"http://x", b"/", b"x"),
            (b"http://x?c", b"/?c", b"x"),
            (b"http://x//a", b"//a", b"x"),
            (b"http://x/a@b", b"/a@b", b"x"),
            (b"http://[::1]:80/a", b"/a", b"[::1]:80"),
        ],
    )
    def test_a_path_and_the_host_are_read_in_both_forms(self, target: bytes, path: bytes, host: bytes | None) -> None:
        assert read_target(target, "http") == (path, host)
        if host is not None:
            assert read_target(target.replace(b"http:", b"https:").replace(b"HTTP:", b"HTTPS:"), "https")[0] == path
            with refuses(Reason.BAD_REQUEST, Malformed, match="scheme"):
                read_target(target, "https")

    @pytest.mark.parametrize(
        "target",
        [
            b"http://user@x/",
            b"http://user:word@x/",
            b"http:///a",
            b"http://",
            b"http://:80/",
            b"http://x:/",
            b"http://x:99999999/",
            b"http://x,y/",
            b"http://x/a#b",
            b"http://x\\y/",
            b"http:/x/",
            b"ftp://x/",
            b"ws://x/",
            b"x:443",
            b"a/b",
            b"",
        ],
    )
    def test_other_targets_are_refused(self, target: bytes) -> None:
        with refuses(Reason.BAD_REQUEST, Malformed):
            read_target(target, "http")

    @given(st.binary(max_size=60))
    def test_any_target_is_a_path_without_another_host_or_is_refused(self, target: bytes) -> None:
        try:
            path, _ = read_target(b"http://" + target, "http")
        except Malformed:
            return
        assert path[:1] == b"/"


def test_too_much_in_one_request_is_no_rate_limit() -> None:
    """RFC 6585 4: clients take 429 as an invitation to send the same request again."""
    assert 429 not in {int(status) for status in STATUS.values()}
    assert STATUS[Reason.TOO_MANY] == 400


@pytest.mark.parametrize(
    "name",
    [b"Content-Type", b"ETag", b"WWW-Authenticate", b"Content-Transfer-Encoding", b"Cache-Control", b"Date", b"X-A-1"],
)
def test_header_names_are_spelt_as_rfcs_write_them(name: bytes) -> None:
    assert spell_name(name.lower()) == spell_name(name.upper()) == name
    head = b"HTTP/1.1 200 OK\r\n%b: a:b-c\r\n\r\n"
    assert spell_head(head % name.lower()) == head % name
