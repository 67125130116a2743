"""The base of plain and TLS connections: a place under the caps, deadlines, stalls, an orderly end; reads no byte.

All methods run on the thread of the event loop. The fields and who sets them:

- `_upper` is the protocol above, None before there is one and after the end. The subclass sets it.
- `_deadline` serves one time-out at a time: the handshake, then a stall or the linger.
- `_is_closing`: `close` or `abort` was called. `_is_lingering`: everything was sent, and FIN too. `_is_lost`: the
  socket is gone. `_is_socket_done`: the FIN of the other side has come.
"""

from __future__ import annotations

import asyncio
from typing import Any

from vagus.endpoints.gateway.upstream import reset
from vagus.errors import LimitExceeded, VagusError
from vagus.reasons import Reason
from vagus.transport.listener_state import ListenerState, source_of


class AcceptedSocket(asyncio.Transport, asyncio.Protocol):
    """The owner of one accepted socket: an asyncio protocol to the socket, an asyncio transport to what runs on it."""

    def __init__(self, listener: ListenerState) -> None:
        super().__init__()
        self._listener = listener
        self._upper: asyncio.Protocol | None = None
        self._deadline = 0.0
        self._stalled_at: int | None = None  # how many bytes waited for the socket at the last check
        self._is_counted = self._is_closing = self._is_lingering = self._is_lost = False
        self._is_socket_done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place under the caps, or close at once."""
        self._socket: asyncio.Transport = transport  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()
        self._source = source_of(transport.get_extra_info("peername"))
        self._is_counted = self._listener.occupancy.enter(self._source)
        if not self._is_counted:
            self._is_lost = self._is_closing = True
            self._socket.abort()
            return
        self._listener.closers[self] = self.cut
        self._begin()

    def _begin(self) -> None:
        """The connection has its place."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: free its place and its entries."""
        self._is_lost = self._is_closing = True
        self._listener.ticking.discard(self)
        self._listener.closers.pop(self, None)
        if self._is_counted:
            self._listener.occupancy.leave(self._source)
        upper, self._upper = self._upper, None
        if upper is not None:
            upper.connection_lost(exc)

    # Deadlines of the connection.

    def tick(self, now: float) -> None:
        """Stall and linger time-outs."""
        if self._is_lingering:
            if now > self._deadline:
                self._socket.abort()
        elif self._stalled_at is not None:
            waiting = self._socket.get_write_buffer_size()
            if waiting < self._stalled_at:
                self._watch_stall()  # the peer is slow, but takes bytes
            elif now > self._deadline:
                self._expire("the peer took nothing of what it was sent", self._listener.limits.stall_seconds)

    def _expire(self, what: str, seconds: float) -> None:
        message = f"{what} for {seconds:g} s, so the connection was cut"
        self._record_failure(LimitExceeded(Reason.TIME_OUT, message, limit=int(seconds)))
        self.cut()

    def _watch_stall(self) -> None:
        self._listener.ticking.add(self)
        self._stalled_at = self._socket.get_write_buffer_size()
        self._deadline = self._loop.time() + self._listener.limits.stall_seconds

    def _end_stall(self) -> None:
        self._stalled_at = None
        self._listener.ticking.discard(self)

    def _linger(self, *, is_peer_done: bool) -> None:
        """Everything was sent. Let the other side read it before the socket is closed.

        The kernel answers a close with an RST while input is unread, and an RST discards what the other side has not
        read yet. So FIN is sent, input is read and dropped, and the socket closes at the other side's FIN or in time.
        """
        if self._is_lingering or self._is_lost:
            return
        self._is_lingering = True
        if is_peer_done or self._is_socket_done:
            self._socket.close()
            return
        self._listener.ticking.add(self)
        self._deadline = self._loop.time() + self._listener.limits.linger_seconds
        self._socket.write_eof()
        self._socket.resume_reading()  # read again, to drop what arrives until the peer closes

    def _record_failure(self, error: VagusError) -> None:
        self._listener.record_failure(self._source, error)

    # The interface of asyncio.Transport.

    def abort(self) -> None:
        """End now, with a reset."""
        self._is_closing = True
        if not self._is_lost:
            reset(self._socket)

    def cut(self) -> None:
        """End now, with a reset: the right to be open is gone, or time is up."""
        self.abort()

    def is_closing(self) -> bool:
        """Whether `close` or `abort` was called, or the socket is gone."""
        return self._is_closing

    def can_write_eof(self) -> bool:
        """One direction may end alone: FIN and close_notify (RFC 8446 6.1) leave the other open."""
        return True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand over to another upper protocol."""
        if isinstance(protocol, asyncio.Protocol):
            self._upper = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The upper protocol, or this connection itself before there is one."""
        return self._upper or self

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Ignored: the subclass has limits of its own."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The socket's facts."""
        return self._socket.get_extra_info(name, default)
