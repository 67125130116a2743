"""HTTP/1.1 as one device needs it: requests to bytes, bytes to bounded responses (RFC 9112); opens no socket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from vagus.errors import LimitExceeded, Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEAD: Final = 16 * 1024
MAX_HEADERS: Final = 64
MAX_BODY: Final = 8 * 1024 * 1024  # a complete CRL of 100,000 entries fits
_MAX_LINE: Final = 1024

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t -~\x80-\xff]*)?\Z")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\Z")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t -~\x80-\xff]*)?\Z")
_LENGTH = re.compile(r"[0-9]{1,12}\Z")
_TEXT = re.compile(r"[\t -~]*\Z")


@dataclass(frozen=True, slots=True)
class Response:
    """One whole answer. Header names are in lower case; a repeated header is joined by ", "."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    keeps_alive: bool


def encode_request(
    method: str, path: str, host: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> bytes:
    """The bytes of one request with its Content-Length. Raises Malformed(BAD_ARGUMENT) for control characters."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if not all(_TEXT.match(line) for line in lines) or " " in path:
        msg = "a request line or header holds characters that HTTP does not allow; check the server's address"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + (body or b"")


class _Stage(Enum):
    HEAD = auto()
    SIZED = auto()
    CHUNK_LINE = auto()
    CHUNK_DATA = auto()
    TRAILER = auto()
    UNTIL_CLOSE = auto()
    DONE = auto()


class ResponseReader:
    """Bytes in, one response out. Every part is bounded; what a server may not send is refused, not repaired.

    `feed` takes what arrived, `end` says that the peer closed; both give the response once it is whole.
    """

    def __init__(self, *, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self._buffer = bytearray()
        self._body = bytearray()
        self._stage = _Stage.HEAD
        self._left = 0
        self._status = 0
        self._headers: dict[str, str] = {}
        self._keeps_alive = False

    def feed(self, data: bytes) -> Response | None:
        """Take bytes; the response when this completes it.

        Raises Malformed(BAD_ENCODING) for what is not HTTP, LimitExceeded(TOO_LARGE) past a bound.
        """
        if self._stage is _Stage.DONE:
            raise Malformed(Reason.BAD_ENCODING, f"{len(data)} bytes follow a complete answer; the server is broken")
        self._buffer += data
        while self._step():
            pass
        return self._response() if self._is_whole() else None

    def end(self) -> Response:
        """The peer closed. Raises Malformed(BAD_ENCODING) where the answer is cut short."""
        if self._stage is _Stage.UNTIL_CLOSE:
            self._stage = _Stage.DONE
            return self._response()
        read = len(self._buffer) + len(self._body)
        raise Malformed(Reason.BAD_ENCODING, f"the server closed after {read} bytes of an answer; try again")

    def _is_whole(self) -> bool:
        return self._stage is _Stage.DONE

    def _step(self) -> bool:
        """One step forward; False where more bytes are needed or nothing is left to do."""
        match self._stage:
            case _Stage.HEAD:
                return self._read_head()
            case _Stage.SIZED:
                return self._take_body(_Stage.DONE)
            case _Stage.CHUNK_LINE:
                return self._read_chunk_line()
            case _Stage.CHUNK_DATA:
                return self._take_body(_Stage.CHUNK_LINE, terminator=b"\r\n")
            case _Stage.TRAILER:
                return self._read_trailer()
            case _Stage.UNTIL_CLOSE:
                self._check_body(len(self._body) + len(self._buffer))
                self._body += self._buffer
                self._buffer.clear()
                return False
            case _Stage.DONE:
                if self._buffer:
                    msg = f"{len(self._buffer)} bytes follow a complete answer; the server is broken"
                    raise Malformed(Reason.BAD_ENCODING, msg)
                return False

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD + 4)
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                msg = f"the answer's head is over {MAX_HEAD} bytes; this is not the server we expect"
                raise LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_HEAD)
            return False
        status_line, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        status = _STATUS.match(status_line)
        if status is None:
            raise Malformed(Reason.BAD_ENCODING, "this does not begin as an HTTP/1.1 answer does; check the address")
        self._status = int(status[2])
        self._headers = _decode_headers(lines)
        if 100 <= self._status < 200:  # interim answers carry no body; the real one follows (RFC 9110 15.2)
            if self._status == 101:
                raise Malformed(Reason.BAD_ENCODING, "the server switches protocols, which nobody asked for")
            return True
        tokens = [token.strip() for token in self._headers.get("connection", "").lower().split(",")]
        self._keeps_alive = status[1] == b"1" and "close" not in tokens
        self._choose_framing()
        return True

    def _choose_framing(self) -> None:
        """Where the body ends (RFC 9112 6.3): never by two rules at once."""
        coding = self._headers.get("transfer-encoding")
        length = self._headers.get("content-length")
        if self._status in {204, 304}:
            self._stage = _Stage.DONE
        elif coding is not None:
            if coding.lower() != "chunked" or length is not None:
                msg = f"the answer is framed as {coding!r}{' and by length' if length else ''}; chunked alone is read"
                raise Malformed(Reason.SMUGGLING, msg)
            self._stage = _Stage.CHUNK_LINE
        elif length is not None:
            if not _LENGTH.match(length):
                raise Malformed(Reason.BAD_ENCODING, "the answer's Content-Length is no number")
            self._left = int(length)
            self._check_body(self._left)
            self._stage = _Stage.SIZED
        else:
            self._keeps_alive = False
            self._stage = _Stage.UNTIL_CLOSE

    def _take_body(self, then: _Stage, terminator: bytes = b"") -> bool:
        taken = min(self._left, len(self._buffer))
        self._body += self._buffer[:taken]
        del self._buffer[:taken]
        self._left -= taken
        if self._left or len(self._buffer) < len(terminator):
            return False
        if terminator and bytes(self._buffer[: len(terminator)]) != terminator:
            raise Malformed(Reason.BAD_ENCODING, "a chunk of the answer is not as long as it says")
        del self._buffer[: len(terminator)]
        self._stage = then
        return True

    def _read_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, _MAX_LINE + 2)
        if end < 0:
            if len(self._buffer) > _MAX_LINE:
                msg = f"a line between chunks of the answer is over {_MAX_LINE} bytes"
                raise LimitExceeded(Reason.TOO_LARGE, msg, limit=_MAX_LINE)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_chunk_line(self) -> bool:
        line = self._read_line()
        if line is None:
            return False
        size = _CHUNK.match(line)
        if size is None:
            raise Malformed(Reason.BAD_ENCODING, "a chunk of the answer begins with no hexadecimal length")
        self._left = int(size[1], 16)
        self._check_body(len(self._body) + self._left)
        self._stage = _Stage.CHUNK_DATA if self._left else _Stage.TRAILER
        return True

    def _read_trailer(self) -> bool:
        line = self._read_line()
        if line is None:
            return False
        if not line:
            self._stage = _Stage.DONE
            return True
        self._left += 1  # trailers are read and dropped, so many and no more
        if self._left > MAX_HEADERS or _HEADER.match(line) is None:
            raise Malformed(Reason.BAD_ENCODING, "the answer's trailer is no list of headers")
        return True

    def _check_body(self, size: int) -> None:
        if size > self._max_body:
            msg = f"the answer's body is {size} bytes or more, {self._max_body} is the limit"
            raise LimitExceeded(Reason.TOO_LARGE, msg, limit=self._max_body, value=size)

    def _response(self) -> Response:
        return Response(self._status, self._headers, bytes(self._body), self._keeps_alive)


def _decode_headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        msg = f"the answer has {len(lines)} headers, {MAX_HEADERS} is the limit"
        raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_HEADERS, value=len(lines))
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.match(line)
        if match is None:
            raise Malformed(Reason.BAD_ENCODING, "a header of the answer is malformed")
        name, value = match[1].decode("ascii").lower(), match[2].decode("latin-1")
        if name in {"content-length", "transfer-encoding"} and headers.get(name, value) != value:
            raise Malformed(Reason.SMUGGLING, f"the answer gives two different {name} headers")
        headers[name] = value if name not in headers or headers[name] == value else f"{headers[name]}, {value}"
    return headers
