"""Recognises plain OCSP requests in received bytes and has whole HTTP responses ready; reads no other request.

This is a second recogniser of HTTP requests beside llhttp. Two recognisers of one stream are safe only if they agree
about where each request ends, so this one is exact where it says yes, and says yes to little:

- The request line is one of two byte strings, and each field line matches `_FIELD` whole: no folding, no control
  character, no space around the name. Only names in `_IDLE_FIELDS`, Host and Content-Length are known. A request with
  Transfer-Encoding, Expect, Upgrade, If-None-Match or any unknown field is not recognised.
- There is exactly one Host, at most one Content-Length, and that is a number of at most four digits without a leading
  zero. So the length of the body has one reading, and it is the one of llhttp too (RFC 9112 6.3).
- What differs in one byte gets None. The connection then hands these bytes, and all that follow, to the whole parser,
  which knows all of HTTP and refuses what must be refused.

A test sends each form, and damaged ones, to a listener with this cache and to one without; both must respond the same.
Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import binascii
import re
from collections import OrderedDict
from datetime import datetime
from typing import Final

from vagus.authority.ocsp.responses import CachedResponse
from vagus.endpoints.revocation_status import OCSP_REQUEST, OcspReplies

LONGEST_HEAD: Final = 2048
"""Bytes of request line and fields, the empty line included."""

MOST_FIELDS: Final = 24
LONGEST_REQUEST: Final = 1024

_MOST_READY: Final = 16_384
"""Responses with their header fields, about 1.5 kB each; those beyond are put together for each request."""

_MOST_FORMS: Final = 1024
"""Forms of header fields that are remembered: a client sends the same ones with each of its requests."""

_FIELD = re.compile(rb"([A-Za-z-]{1,40}): ?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_LENGTH = re.compile(rb"[1-9][0-9]{0,3}")
_ESCAPES: Final = (
    (b"%2F", b"/"),
    (b"%2f", b"/"),
    (b"%2B", b"+"),
    (b"%2b", b"+"),
    (b"%3D", b"="),
    (b"%3d", b"="),
)
_IDLE_FIELDS: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"date",
        b"forwarded",
        b"from",
        b"pragma",
        b"referer",
        b"user-agent",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
"""Fields that change nothing in the response to an OCSP request. A request with any other is left to the parser."""

_IDLE_VALUES: Final = {b"connection": b"keep-alive", b"content-type": OCSP_REQUEST.encode()}
"""Fields that are harmless with this value alone, because it says what holds without them."""


class _Ready:
    """The bytes after status line and Date. They are valid until `until`, and while `source` is the cached object."""

    __slots__ = ("data", "source", "until")

    def __init__(self, source: CachedResponse, data: bytes, until: datetime) -> None:
        self.source = source
        self.data = data
        self.until = until


class OcspCache:
    """The ready responses of the status listeners of one process. `prefix` is the path of the status URL."""

    def __init__(self, replies: OcspReplies, prefix: str = "") -> None:
        path = f"{prefix}/ocsp".encode("ascii")
        self._replies = replies
        self._source, self._clock = replies.source, replies.clock
        self._post = b"POST %b HTTP/1.1\r\n" % path
        self._get = b"GET %b/" % path
        self._forms: dict[bytes, int] = {}
        self._ready: OrderedDict[bytes, _Ready] = OrderedDict()
        self._most_ready = _MOST_READY

    def find_response(self, data: bytes, at: int) -> tuple[bytes, int] | None:
        """The response to the request that begins at `at`, without status line and Date, and where that request ends.

        None where there is not, or not yet, one whole request of a known form. The status is always 200.
        """
        head_end = data.find(b"\r\n\r\n", at, at + LONGEST_HEAD)
        if head_end < 0:
            return None
        if data.startswith(self._post, at):
            size = self._size_of(data[at + len(self._post) : head_end + 2])
            start = head_end + 4
            end = start + size
            if size < 0 or end > len(data):
                return None
            request_der = data[start:end]
        elif data.startswith(self._get, at):
            end = head_end + 4
            line_end = data.find(b"\r\n", at)
            if self._size_of(data[line_end + 2 : head_end + 2]) != 0:
                return None
            request_der = _decode_target(data[at + len(self._get) : line_end])
            if not request_der:
                return None
        else:
            return None
        response = self._respond(request_der)
        return None if response is None else (response, end)

    def is_begun(self, data: bytes, at: int) -> bool:
        """Whether a whole head of a known form begins at `at`, with less than the body that it declares."""
        head_end = data.find(b"\r\n\r\n", at, at + LONGEST_HEAD)
        if head_end < 0 or not data.startswith(self._post, at):
            return False
        size = self._size_of(data[at + len(self._post) : head_end + 2])
        return size > 0 and head_end + 4 + size > len(data)

    def _respond(self, request_der: bytes) -> bytes | None:
        now = self._clock.now()
        try:
            cached = self._source.find_cached(request_der, now)
        except Exception:  # noqa: BLE001 `reply` meets the same error again, logs it and turns it into an OCSP error
            cached = None
        if cached is not None:
            ready = self._ready.get(request_der)
            # The ready bytes are used only while the very OCSP response that they were made from is cached (compared by
            # identity). A revocation replaces or drops that object, so a ready "good" cannot outlive it.
            if ready is not None and ready.source is cached and now <= ready.until:
                return ready.data
            return self._make_ready(request_der, cached, now)
        reply = self._replies.reply(request_der)
        return None if reply.ends_connection else reply.encode()

    def _make_ready(self, request_der: bytes, cached: CachedResponse, now: datetime) -> bytes:
        data = self._replies.reply_with(cached.unfold(), now).encode()
        until = cached.next_update - self._replies.max_age  # from this time on max-age falls with each second
        # Keep the bytes only while max-age is at its full value: after `until` it falls with each second, and each
        # response is built anew.
        if now <= until:
            self._ready.pop(request_der, None)
            self._ready[request_der] = _Ready(cached, data, until)
            if len(self._ready) > self._most_ready:
                self._ready.popitem(last=False)
        return data

    def _size_of(self, fields: bytes) -> int:
        """The body's length that header fields declare, 0 without one; -1 for fields that are left to the parser."""
        size = self._forms.get(fields)
        if size is None:
            size = _read_fields(fields)
            if len(self._forms) >= _MOST_FORMS:
                self._forms.clear()
            self._forms[fields] = size
        return size


def _read_fields(fields: bytes) -> int:
    hosts = lengths = size = 0
    lines = fields.split(b"\r\n")
    if lines.pop() or len(lines) > MOST_FIELDS:
        return -1
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            return -1
        name, value = found[1].lower(), found[2]
        if name == b"host":
            hosts += 1
        elif name == b"content-length" and _LENGTH.fullmatch(value):
            lengths += 1
            size = int(value)
        elif name not in _IDLE_FIELDS and value.lower() != _IDLE_VALUES.get(name):
            return -1
    is_plain = hosts == 1 and lengths <= 1 and size <= LONGEST_REQUEST
    return size if is_plain else -1


def _decode_target(rest: bytes) -> bytes:
    """The OCSP request in the rest of a request line; b"" for what is no base64 of a SEQUENCE, or too long."""
    if not rest.endswith(b" HTTP/1.1") or rest[:1] != b"M":
        return b""
    text = rest[:-9]
    if b"%" in text:
        for escape, plain in _ESCAPES:
            text = text.replace(escape, plain)
    try:
        request_der = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return b""
    return request_der if len(request_der) <= LONGEST_REQUEST else b""
