"""HTTP/1.1 as one device needs it, by h11: one request to bytes, bytes to one bounded response; opens no socket."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import h11

from vagus.errors import LimitExceeded, Malformed, VagusError
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_HEAD: Final = 16 * 1024
"""Bytes of a status line with its headers, of a chunk's line, and of a trailer."""
MAX_HEADERS: Final = 64
MAX_BODY: Final = 8 * 1024 * 1024  # limit in bytes of a body: a complete CRL of 100,000 entries fits

_TOO_LARGE: Final = 431  # the status that h11 suggests for a head, a chunk line or a trailer above its limit
_UNKNOWN_CODING: Final = 501
_HIGHEST_STATUS: Final = 599
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Response:
    """One whole response. Header names are in lower case; a repeated header is joined by ", "."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    keeps_alive: bool


class HttpExchange:
    """One request and its response. Every part is bounded; docs/adr/0016 says where h11 is lenient.

    Send `request`, then give `feed` the bytes that arrive, and call `end` when the peer closes. Both return the
    response once it is whole.
    """

    def __init__(
        self,
        method: str,
        path: str,
        host: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_body: int = MAX_BODY,
    ) -> None:
        """Raises Malformed(BAD_ARGUMENT) where path, host or a header holds characters that HTTP does not allow."""
        self._max_body = max_body
        self._body = bytearray()
        self._head: h11.Response | None = None
        self._headers: dict[str, str] = {}
        self._received = 0
        self._http = h11.Connection(our_role=h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        fields = {"Host": host, **(headers or {})}
        if body is not None:
            fields["Content-Length"] = str(len(body))
        try:
            asked = h11.Request(method=method, target=path, headers=list(fields.items()))
            parts = (asked, *(() if not body else (h11.Data(data=body),)), h11.EndOfMessage())
            self.request: Final = b"".join(self._http.send(part) or b"" for part in parts)
        except (h11.LocalProtocolError, UnicodeEncodeError) as fault:
            msg = "a request line or header holds characters that HTTP does not allow; check the server's address"
            raise Malformed(Reason.BAD_ARGUMENT, msg) from fault

    def feed(self, data: bytes) -> Response | None:
        """Take bytes; the response when this completes it.

        Raises Malformed(BAD_ENCODING) for what is not HTTP, Malformed(SMUGGLING) for a body that two rules frame,
        LimitExceeded(TOO_LARGE, TOO_MANY) past a bound.
        """
        self._received += len(data)
        return self._read(data)

    def end(self) -> Response:
        """The peer closed. Raises Malformed(BAD_ENCODING) where the response is cut short."""
        with suppress(Malformed):
            response = self._read(b"")
            if response is not None:
                return response
        msg = f"the server closed the connection after {self._received} bytes of a response; try again"
        raise Malformed(Reason.BAD_ENCODING, msg)

    def _read(self, data: bytes) -> Response | None:
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.Response):
                    self._take_head(event)
                elif isinstance(event, h11.Data):
                    self._check_body(len(self._body) + len(event.data))
                    self._body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return self._finish()
                elif not isinstance(event, h11.InformationalResponse):  # h11 is paused or closed: no data may follow
                    raise Malformed(
                        Reason.BAD_ENCODING,
                        "bytes follow a complete HTTP response, which is a fault of the server; ask its operator",
                    )
        except h11.RemoteProtocolError as fault:
            raise _refusal_of(fault) from fault

    def _take_head(self, head: h11.Response) -> None:
        """Check what h11 leaves to its user: version and status, the size of a head that came at once, framing."""
        if head.http_version not in {b"1.0", b"1.1"} or head.status_code > _HIGHEST_STATUS:
            what = f"HTTP/{head.http_version.decode('ascii')} {head.status_code}"
            raise Malformed(Reason.BAD_ENCODING, f"the response is not HTTP/1.1 but {what}; check the server's address")
        if sum(len(name) + len(value) + 4 for name, value in head.headers) > MAX_HEAD:
            raise _head_too_large()
        self._head = head
        self._headers = _joined(head.headers)
        length = self._headers.get("content-length")
        # RFC 9112 6.3: only one of the two length rules may apply
        if length is not None and "transfer-encoding" in self._headers:
            raise Malformed(
                Reason.SMUGGLING,
                "the HTTP response has chunked framing and Content-Length, so its end is unclear; mend the server",
            )
        if length is not None and head.status_code not in {204, 304}:
            self._check_body(int(length))

    def _check_body(self, size: int) -> None:
        if size > self._max_body:
            msg = f"the HTTP response has a body of {size} bytes or more, {self._max_body} is the limit"
            raise LimitExceeded(Reason.TOO_LARGE, msg, limit=self._max_body, value=size)

    def _finish(self) -> Response:
        after, _ = self._http.trailing_data
        if after:
            raise Malformed(
                Reason.BAD_ENCODING,
                f"{len(after)} bytes follow a complete HTTP response, which is a fault of the server; ask its operator",
            )
        if self._head is None:  # h11 reports no end of a message without its head
            raise Malformed(
                Reason.BAD_ENCODING,
                "an HTTP body came without a response head, which is a fault of the server; ask its operator",
            )
        # A body without Content-Length or chunks ends with the connection, whatever h11's state says.
        ends_by_itself = self._head.status_code in {204, 304} or not _FRAMING.isdisjoint(self._headers)
        keeps_alive = self._http.their_state is h11.DONE and ends_by_itself
        return Response(self._head.status_code, self._headers, bytes(self._body), keeps_alive)


def _joined(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header fields by name, repeated ones joined; h11 has made names lower case and checked both."""
    found = list(fields)
    if len(found) > MAX_HEADERS:
        msg = f"the HTTP response has {len(found)} header fields, {MAX_HEADERS} is the limit"
        raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_HEADERS, value=len(found))
    headers: dict[str, str] = {}
    for raw_name, raw_value in found:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = value if headers.get(name, value) == value else f"{headers[name]}, {value}"
    return headers


def _head_too_large() -> LimitExceeded:
    msg = f"the head or a line of the HTTP response is over {MAX_HEAD} bytes; check the server's address"
    return LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_HEAD)


def _refusal_of(fault: h11.RemoteProtocolError) -> VagusError:
    """What h11 refused, as an error of ours."""
    if fault.error_status_hint == _TOO_LARGE:
        return _head_too_large()
    if fault.error_status_hint == _UNKNOWN_CODING or "conflicting" in str(fault):
        return Malformed(Reason.SMUGGLING, f"the response is framed in a way that is not read ({fault})")
    return Malformed(
        Reason.BAD_ENCODING, f"the response is not HTTP/1.1 as RFC 9112 has it ({fault}); check the address"
    )
