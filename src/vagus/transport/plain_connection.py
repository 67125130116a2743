"""A plain connection with the same caps, deadlines and orderly end as a TLS one; for what is public, such as CRLs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from vagus.transport.accepted_socket import AcceptedSocket
from vagus.transport.listener_state import ListenerState


class PlainConnection(AcceptedSocket):
    """One accepted connection without TLS: the peer is not known here, so it is not judged."""

    def __init__(self, listener: ListenerState, upper: Callable[[], asyncio.Protocol]) -> None:
        super().__init__(listener)
        self._make_upper = upper

    def _begin(self) -> None:
        self._upper = self._make_upper()
        self._upper.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Hand up, unless the connection is ending."""
        if self._upper is not None and not self._is_closing:
            self._upper.data_received(data)

    def eof_received(self) -> bool:
        """The client sends no more; its requests still get their responses, then the connection ends."""
        self._is_socket_done = True
        return self._upper is not None and not self._is_lingering and bool(self._upper.eof_received())

    def pause_writing(self) -> None:
        """The client does not read what we send."""
        self._watch_stall()
        if self._upper is not None:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._end_stall()
        if self._upper is not None:
            self._upper.resume_writing()

    # The interface of asyncio.Transport.

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send."""
        if not self._is_closing:
            self._socket.write(data)

    def write_eof(self) -> None:
        """Send no more; reading goes on."""
        if not self._is_closing:
            self._socket.write_eof()

    def close(self) -> None:
        """End after what is queued has been sent."""
        if not self._is_closing:
            self._is_closing = True
            self._linger(is_peer_done=False)

    def pause_reading(self) -> None:
        """Leave further input with the kernel."""
        if not self._is_closing:
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Go on with it."""
        if not self._is_closing:
            self._socket.resume_reading()

    def is_reading(self) -> bool:
        """Whether input is handed up."""
        return not self._is_closing and self._socket.is_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes unsent."""
        return 0 if self._is_lost else self._socket.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The socket's own."""
        return self._socket.get_write_buffer_limits()
