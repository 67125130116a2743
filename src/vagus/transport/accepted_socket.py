"""What every accepted socket needs, TLS or not: a place under the caps, deadlines, a last word; reads no byte."""

from __future__ import annotations

import asyncio
from typing import Any

from vagus.endpoints.gateway.upstream import reset
from vagus.errors import LimitExceeded, VagusError
from vagus.reasons import Reason
from vagus.transport.listener_state import ListenerState, source_of
from vagus.transport.open_connections import Standing


class AcceptedSocket(asyncio.Transport, asyncio.Protocol):
    """The owner of one accepted socket: an asyncio protocol to the socket, an asyncio transport to what runs on it."""

    standing: Standing | None = None

    def __init__(self, gate: ListenerState) -> None:
        super().__init__()
        self._gate = gate
        self._upper: asyncio.Protocol | None = None
        self._deadline = 0.0
        self._stalled_at: int | None = None  # octets that waited for the socket when it was last looked at
        self._is_counted = self._is_closing = self._is_lingering = self._is_lost = False
        self._is_socket_done = False  # the other side's FIN was seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place under the caps, or close at once."""
        self._socket: asyncio.Transport = transport  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()
        self._source = source_of(transport.get_extra_info("peername"))
        self._is_counted = self._gate.occupancy.enter(self._source)
        if not self._is_counted:
            self._is_lost = self._is_closing = True
            self._socket.abort()
            return
        self._gate.closers[self] = self.cut
        self._begin()

    def _begin(self) -> None:
        """The connection has its place."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: give everything back."""
        self._is_lost = self._is_closing = True
        self._gate.ticking.discard(self)
        self._gate.closers.pop(self, None)
        self._gate.connections.discard(self)
        if self._is_counted:
            self._gate.occupancy.leave(self._source)
        upper, self._upper = self._upper, None
        if upper is not None:
            upper.connection_lost(exc)

    # Deadlines

    def tick(self, now: float) -> None:
        """Stall and linger time-outs."""
        if self._is_lingering:
            if now > self._deadline:
                self._socket.abort()
        elif self._stalled_at is not None:
            waiting = self._socket.get_write_buffer_size()
            if waiting < self._stalled_at:
                self._watch_stall()  # slow, but alive
            elif now > self._deadline:
                self._expire("the peer took nothing of what it was sent", self._gate.limits.stall_seconds)

    def _expire(self, what: str, seconds: float) -> None:
        message = f"{what} for {seconds:g} s; the connection was cut"
        self._gate.tell_failure(self._source, LimitExceeded(Reason.TIME_OUT, message, limit=int(seconds)))
        self.cut()

    def _watch_stall(self) -> None:
        self._gate.ticking.add(self)
        self._stalled_at = self._socket.get_write_buffer_size()
        self._deadline = self._loop.time() + self._gate.limits.stall_seconds

    def _end_stall(self) -> None:
        self._stalled_at = None
        self._gate.ticking.discard(self)

    def _linger(self, *, is_peer_done: bool) -> None:
        """All is said. Let the other side read it before the socket goes: unread input would turn it into an RST."""
        if self._is_lingering or self._is_lost:
            return
        self._is_lingering = True
        if is_peer_done or self._is_socket_done:
            self._socket.close()
            return
        self._gate.ticking.add(self)
        self._deadline = self._loop.time() + self._gate.limits.linger_seconds
        self._socket.write_eof()
        self._socket.resume_reading()  # to drop what comes

    def _tell_failure(self, error: VagusError) -> None:
        self._gate.tell_failure(self._source, error)

    # asyncio.Transport

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

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand over to another upper protocol."""
        if isinstance(protocol, asyncio.Protocol):
            self._upper = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The upper protocol, or this connection itself before there is one."""
        return self._upper or self

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The limits are ours."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The socket's facts."""
        return self._socket.get_extra_info(name, default)
