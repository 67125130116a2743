"""One HTTP/1.1 connection from the gateway to its upstream: connects, parses responses, reports failures."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httptools

from vagus.addresses import join_address
from vagus.errors import Unavailable
from vagus.reasons import Reason

_HIGH = 131_072
_HEADER_BYTES = 131_072


@dataclass(frozen=True, slots=True)
class Upstream:
    """The address of the server that a gateway relays to, on a network of its own, with the bounds of waiting."""

    host: str
    port: int
    connect_seconds: float = 5.0
    response_seconds: float = 60.0
    """For HTTP: from the end of the request until the header of the response."""
    silence_seconds: float = 300.0
    """For HTTP: the longest pause inside the body of a response."""
    idle_per_peer: int = 2
    """For HTTP: connections kept for the next request of the same peer; never shared between peers."""

    def __str__(self) -> str:
        return join_address(self.host, self.port)


def unreachable(upstream: Upstream, error: Exception) -> Unavailable:
    """The error for an upstream that took no connection."""
    what = "no response" if isinstance(error, TimeoutError) else str(getattr(error, "strerror", None) or error)
    return Unavailable(
        Reason.UPSTREAM_UNREACHABLE,
        f"{upstream} behind this gateway takes no connection ({what}); try again later",
    )


def reset(transport: asyncio.Transport) -> None:
    """Abort with an RST, so that what was cut does not look complete. Alone, uvloop's abort sends a clean FIN."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


@dataclass(frozen=True, slots=True)
class Head:
    """The header of a response; names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class UpstreamBroken(ConnectionError):
    """The upstream ended in the middle of a response, or sent what is no HTTP response to one request."""


class UpstreamConnection(asyncio.Protocol):
    """One connection, one request at a time; bounded in what it holds in either direction.

    The parser's callbacks append to `_events`, and `next` takes from them: a header, parts of the body, None at the
    end. More than `_HIGH` bytes of body in `_events` pause the reading of the socket. Both run on the loop's thread.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._events: deque[Head | bytes | None] = deque()  # None in this queue: the response is whole
        self._held = 0
        self._head: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._fresh = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._is_head_request = self._is_answering = self._is_bounded = False
        self._has_head = False
        self.failure: Exception | None = None
        self.has_answered = False
        """Whether a byte of the response has come: then the request must not be sent again."""
        self.is_reusable = False
        self.when_lost: Callable[[], None] | None = None
        """Called once, when the connection has ended for whatever cause."""

    # asyncio calls the following methods when the socket has news.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Bytes of the response."""
        if not self._is_answering:
            self._fail(UpstreamBroken("the upstream sends data before a request"))
            return
        self.has_answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(UpstreamBroken(f"the response of the upstream is not HTTP/1.1 ({error})"))
        if not self._has_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEADER_BYTES:
                self._fail(UpstreamBroken(f"the upstream's header exceeds {_HEADER_BYTES} bytes"))
        if self._held > _HIGH:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """The end of the stream; it also ends a response without a length (RFC 9112 6.3)."""
        if self._is_answering and self._has_head and not self._is_bounded:
            self._finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended: wake the tasks that wait for it."""
        self.is_reusable = False
        if self.failure is None:
            self.failure = exc or UpstreamBroken("the upstream closed the connection before its response was whole")
        self._fresh.set()
        self._may_write.set()
        if self.when_lost is not None:
            self.when_lost()

    def pause_writing(self) -> None:
        """The upstream does not read."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """The upstream reads again."""
        self._may_write.set()

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self._fresh.set()
        reset(self.transport)

    # httptools calls the following methods while it parses a response.

    def on_message_begin(self) -> None:
        """A response begins, or an interim one."""
        self._head = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field; those of a trailer are dropped."""
        if not self._has_head:
            self._head.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The header is whole."""
        if not self._is_answering:
            raise UpstreamBroken("the upstream sent more than one response to one request")
        status = self._parser.get_status_code()
        if status == 101:
            raise UpstreamBroken("the upstream switched protocols (status 101) without a request to do so")
        self._put(Head(status, self._head))
        if status < 200:
            return  # an interim response (RFC 9110 15.2): the final response is still to come
        self._has_head = True
        names = {name for name, _ in self._head}
        self._is_bounded = (
            self._is_head_request or status in {204, 304} or bool(names & {b"content-length", b"transfer-encoding"})
        )
        self.is_reusable = self._is_bounded and self._parser.should_keep_alive()
        if self._is_head_request:
            # A response to HEAD never has a body (RFC 9110 9.3.2), but llhttp would wait for one.
            self.is_reusable = False
            self._finish()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._is_answering:
            self._put(body)
            self._held += len(body)

    def on_message_complete(self) -> None:
        """A response is whole, unless it was an interim one."""
        if self._is_answering and self._has_head:
            self._finish()

    def _put(self, event: Head | bytes | None) -> None:
        self._events.append(event)
        self._fresh.set()

    def _finish(self) -> None:
        self._is_answering = False
        self._put(None)

    # The relay calls the following methods.

    def ask(self, head: bytes, *, is_head_request: bool) -> None:
        """Send the header of a request."""
        self._events.clear()
        self._held = self._head_bytes = 0
        self._is_head_request = is_head_request
        self._is_answering, self._has_head = True, False
        self.has_answered = self.is_reusable = False
        self.transport.write(head)

    async def write(self, data: bytes) -> None:
        """Send a part of the body, when the upstream takes it. Raises ConnectionError."""
        await self._may_write.wait()
        if self.failure is not None:
            raise UpstreamBroken(str(self.failure))
        self.transport.write(data)

    async def next(self) -> Head | bytes | None:
        """A header (interim ones too), a part of the body, or None at the end. Raises UpstreamBroken."""
        while not self._events:
            if self.failure is not None:
                raise UpstreamBroken(str(self.failure))
            self._fresh.clear()
            await self._fresh.wait()
        event = self._events.popleft()
        if isinstance(event, bytes):
            was_full = self._held > _HIGH
            self._held -= len(event)
            if was_full and self._held <= _HIGH and not self.transport.is_closing():
                self.transport.resume_reading()
        return event

    @property
    def is_at_end(self) -> bool:
        """Whether nothing of the response is left to come."""
        return bool(self._events) and self._events[0] is None

    def give_up(self) -> None:
        """End it now, with a reset: the upstream must not take a request that was cut for a complete one."""
        self.is_reusable = False
        self.failure = self.failure or UpstreamBroken("given up")
        reset(self.transport)


async def connect(upstream: Upstream) -> UpstreamConnection:
    """A new connection. Raises Unavailable(UPSTREAM_UNREACHABLE)."""
    try:
        async with asyncio.timeout(upstream.connect_seconds):
            _, connection = await asyncio.get_running_loop().create_connection(
                UpstreamConnection, upstream.host, upstream.port
            )
    except OSError as error:  # TimeoutError is an OSError too
        raise unreachable(upstream, error) from error
    return connection
