"""Recognises plain OCSP requests in received octets and has whole answers ready for them; reads no other request.

Only the forms that nearly every client sends are known here, and each is held to more than the server's parser asks:
what differs in one octet is left to that parser, which knows all of HTTP and refuses what must be refused.
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
"""Octets of request line and fields, the empty line included."""

MOST_FIELDS: Final = 24
LONGEST_QUESTION: Final = 1024

_MOST_READY: Final = 16_384
"""CachedResponses with their header fields, about 1.5 kB each; what is kept beyond is put together each time."""

_MOST_FORMS: Final = 1024
"""Forms of header fields that are remembered: a client's are the same for each of its requests."""

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
"""Fields that change nothing in what an OCSP question is answered. Any other unknown one is the parser's affair."""

_IDLE_VALUES: Final = {b"connection": b"keep-alive", b"content-type": OCSP_REQUEST.encode()}
"""Values that say what holds anyway."""


class _Ready:
    """What goes out behind status line and Date, until `until`, while `kept` is what is kept."""

    __slots__ = ("kept", "octets", "until")

    def __init__(self, kept: CachedResponse, octets: bytes, until: datetime) -> None:
        self.kept = kept
        self.octets = octets
        self.until = until


class OcspCache:
    """The answers of the status listeners of one process. `prefix` is the path of the status URL."""

    def __init__(self, replies: OcspReplies, prefix: str = "", *, most_ready: int = _MOST_READY) -> None:
        path = f"{prefix}/ocsp".encode("ascii")
        self._replies = replies
        self._source, self._clock = replies.source, replies.clock
        self._post = b"POST %b HTTP/1.1\r\n" % path
        self._get = b"GET %b/" % path
        self._forms: dict[bytes, int] = {}
        self._ready: OrderedDict[bytes, _Ready] = OrderedDict()
        self._most_ready = most_ready

    def answer(self, data: bytes, at: int) -> tuple[bytes, int] | None:
        """The answer to the request that begins at octet `at`, without status line and Date, and where it ends.

        None for whatever is not, or not yet, one whole request of the known forms. The status is always 200.
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
        octets = self._answer_question(request_der)
        return None if octets is None else (octets, end)

    def is_begun(self, data: bytes, at: int) -> bool:
        """Whether there stands a whole head that `answer` knows, with less than the body that it declares."""
        head_end = data.find(b"\r\n\r\n", at, at + LONGEST_HEAD)
        if head_end < 0 or not data.startswith(self._post, at):
            return False
        size = self._size_of(data[at + len(self._post) : head_end + 2])
        return size > 0 and head_end + 4 + size > len(data)

    def _answer_question(self, request_der: bytes) -> bytes | None:
        now = self._clock.now()
        try:
            kept = self._source.find_cached(request_der, now)
        except Exception:  # noqa: BLE001  `reply` meets it again, logs it, and says so in OCSP's own words
            kept = None
        if kept is not None:
            ready = self._ready.get(request_der)
            # The object that is kept decides: what was made of another one is not looked at again.
            if ready is not None and ready.kept is kept and now <= ready.until:
                return ready.octets
            return self._make_ready(request_der, kept, now)
        reply = self._replies.reply(request_der)
        return None if reply.ends_connection else reply.encode()

    def _make_ready(self, request_der: bytes, kept: CachedResponse, now: datetime) -> bytes:
        octets = self._replies.reply_with(kept.unfold(), now).encode()
        until = kept.next_update - self._replies.max_age  # from then on max-age falls with each second
        if now <= until:
            self._ready.pop(request_der, None)
            self._ready[request_der] = _Ready(kept, octets, until)
            if len(self._ready) > self._most_ready:
                self._ready.popitem(last=False)
        return octets

    def _size_of(self, fields: bytes) -> int:
        """The body's length that header fields declare, 0 without one; -1 for fields that are the parser's affair."""
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
    is_plain = hosts == 1 and lengths <= 1 and size <= LONGEST_QUESTION
    return size if is_plain else -1


def _decode_target(rest: bytes) -> bytes:
    """The question in the rest of a request line; b"" for what is no canonical base64 of a SEQUENCE, or too long."""
    if not rest.endswith(b" HTTP/1.1") or rest[:1] != b"M":
        return b""
    text = rest[:-9]
    if b"%" in text:
        for escape, octet in _ESCAPES:
            text = text.replace(escape, octet)
    try:
        request_der = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return b""
    return request_der if len(request_der) <= LONGEST_QUESTION else b""
