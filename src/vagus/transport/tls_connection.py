"""A TLS connection as an asyncio transport: ciphertext below, plaintext above; reaches no verdict itself.

Everything runs on the thread of the event loop; no lock is needed and none is held.

Order. `_is_shaking` lasts until the handshake is done. Then the listener judges the peer, and only then is the upper
protocol made: `_upper` is None until then, so no application byte can reach it before the verdict.

Reading. `data_received` feeds ciphertext to the TLS stream, and `_pump` hands plaintext up until there is no more, the
upper protocol pauses, or the connection ends. A paused upper protocol pauses the socket; what the stream holds by then
stays in it as ciphertext. When reading yields nothing, OpenSSL may have queued bytes of its own, above all the response
to a KeyUpdate (RFC 8446 4.6.3) or an alert. `_pump` sends them: a peer that waits for its KeyUpdate would hang. A peer
may send KeyUpdates without end and read nothing, so the socket is not read while it is not written either.

Writing. `write` queues plaintext in `_out` (`_out_size` bytes), and `_flush`, once a turn of the loop, encrypts a slice
at a time while the socket takes it. Only what the socket takes is encrypted, so a client that does not read costs no
second copy. More than `_HIGH` bytes in `_out`, or a full socket, pauses the upper protocol; it resumes at `_LOW`.

End. `close` sets `_is_closing` and `_is_eof_due`; `_flush` sends the rest, then close_notify, then lets the socket
linger. `_is_eof_sent` and `_is_peer_done` are the two directions' close_notify: one may end before the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from vagus.errors import VagusError
from vagus.tls import ServerContext, TlsStream
from vagus.transport.accepted_socket import AcceptedSocket
from vagus.transport.listener_state import ListenerState
from vagus.transport.open_connections import ConnectionRight

_HIGH, _LOW, _SLICE = 65_536, 16_384, 65_536
Upper = Callable[[ConnectionRight], asyncio.Protocol]


class TlsConnection(AcceptedSocket):
    """One accepted connection, from its first byte to its last."""

    def __init__(self, listener: ListenerState, tls: ServerContext, upper: Upper) -> None:
        super().__init__(listener)
        self._tls = tls
        self._make_upper = upper
        self._stream: TlsStream | None = None
        self._out: deque[bytes | memoryview] = deque()
        self._out_size = 0
        self._is_flush_due = self._is_pumping = self._is_reading_paused = self._is_writing_paused = False
        self._is_upper_paused = self._is_eof_due = self._is_eof_sent = False
        self._is_peer_done = False  # the peer has sent close_notify
        self._is_shaking = False
        self._right: ConnectionRight | None = None

    # Events of the socket.

    def _begin(self) -> None:
        self._is_shaking = True
        self._stream = self._tls.new_stream()
        self._deadline = self._loop.time() + self._listener.limits.handshake_seconds
        self._listener.ticking.add(self)

    def data_received(self, data: bytes) -> None:
        """Ciphertext."""
        stream = self._stream
        if stream is None or self._is_lost or self._is_closing:
            return
        stream.feed(data)
        if not self._is_shaking or self._shake(stream):
            self._pump()

    def eof_received(self) -> bool:
        """FIN. After a close_notify it says nothing new; without one the stream was cut (RFC 8446 6.1)."""
        if self._is_lingering or self._upper is None:
            return False
        self._is_socket_done = True
        self._pump()
        # True keeps the socket open: `_pump` and `_linger` close it, once the remaining bytes were read and written
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone. A stream that was cut must not look complete to a relay above."""
        is_cut = exc is None and not (self._is_peer_done or self._is_closing)
        self._stream = None
        self._out.clear()
        if self._right is not None:
            self._listener.connections.discard(self._right)
        super().connection_lost(ConnectionResetError("the TLS stream was cut") if is_cut else exc)

    def pause_writing(self) -> None:
        """The client does not read what we send."""
        self._is_writing_paused = True
        self._watch_stall()
        self._pause_upper()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._is_writing_paused = False
        self._end_stall()
        self._flush()
        if not self._is_reading_paused and not self._is_lost:
            self._socket.resume_reading()

    # TLS records in and out.

    def _shake(self, stream: TlsStream) -> bool:
        try:
            is_done = stream.handshake()
        except VagusError as error:
            self._record_failure(error)
            self._fail()
            return False
        self._send(stream.take())
        if not is_done:
            return False
        self._is_shaking = False
        self._listener.ticking.discard(self)
        self._right = right = self._listener.judge(stream.peer(), self._source)
        if right.refusal is not None and self._listener.closes_silently:
            self.close()
            return False
        self._listener.connections.add(right, self.cut)
        self._upper = self._make_upper(right)
        self._upper.connection_made(self)
        return True

    def _pump(self) -> None:
        """Plaintext upwards, while the upper protocol wants it."""
        stream = self._stream
        if self._is_pumping or stream is None:
            return
        self._is_pumping = True
        try:
            while not (self._is_reading_paused or self._is_closing or self._is_peer_done or self._upper is None):
                data = stream.read()
                if data is None:
                    if stream.has_answer and (own := stream.take()):
                        self._send(own)  # OpenSSL's own output: a response to a KeyUpdate, or an alert
                        if self._is_writing_paused:
                            # without this pause, the peer could make the output queue grow without end
                            self._socket.pause_reading()
                    if self._is_socket_done:
                        self._socket.close()
                    break
                if data:
                    self._upper.data_received(data)
                    continue
                self._is_peer_done = True
                if not self._upper.eof_received():
                    self.close()
        except VagusError as error:
            self._record_failure(error)
            self._fail()
        finally:
            self._is_pumping = False

    def _flush(self) -> None:
        """Encrypt and send while the socket takes it."""
        self._is_flush_due = False
        stream, out = self._stream, self._out
        if self._is_lost or stream is None:
            return
        try:
            while out and not self._is_writing_paused:
                data = self._next_slice()
                stream.write(data)
                self._out_size -= len(data)
                self._send(stream.take(len(data) + 512))
        except VagusError as error:
            self._record_failure(error)
            self._fail()
            return
        if not out and self._is_eof_due and not self._is_eof_sent:
            self._is_eof_sent = True
            stream.close()
            self._send(stream.take())
        if not out and self._is_closing:
            self._linger(is_peer_done=self._is_peer_done)
        elif self._is_upper_paused and not self._is_writing_paused and self._out_size <= _LOW:
            self._is_upper_paused = False
            if self._upper is not None:
                self._upper.resume_writing()

    def _next_slice(self) -> bytes | memoryview:
        """At most 64 kB; small pieces together, so that head and body share a record."""
        data = self._out.popleft()
        if len(data) > _SLICE:
            view = memoryview(data)
            self._out.appendleft(view[_SLICE:])
            return view[:_SLICE]
        if not self._out:
            return data
        parts, size = [data], len(data)
        while self._out and size + len(self._out[0]) <= _SLICE:
            parts.append(self._out.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def _send(self, data: bytes) -> None:
        if data and not self._is_lost:
            self._socket.write(data)

    def _fail(self) -> None:
        if self._stream is not None:
            self._send(self._stream.take())  # send the TLS alert
        self._is_closing = True
        self._out.clear()
        self._linger(is_peer_done=self._is_peer_done)

    # Deadlines of the TLS connection.

    def tick(self, now: float) -> None:
        """Handshake, stall and linger time-outs."""
        if not self._is_shaking or self._is_lingering:
            super().tick(now)
        elif now > self._deadline:
            self._expire("no handshake came about", self._listener.limits.handshake_seconds)

    def _pause_upper(self) -> None:
        if not self._is_upper_paused and self._upper is not None:
            self._is_upper_paused = True
            self._upper.pause_writing()

    # The interface of asyncio.Transport that the HTTP protocol uses.

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Queue plaintext."""
        if self._is_closing or self._is_eof_due or not data:
            return
        self._out.append(bytes(data) if isinstance(data, bytearray) else data)
        self._out_size += len(data)
        self._flush_soon()
        if self._out_size > _HIGH:
            self._pause_upper()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Queue several pieces."""
        for data in list_of_data:
            self.write(data)

    def write_eof(self) -> None:
        """Send close_notify after what is queued; reading goes on."""
        if not self._is_eof_due:
            self._is_eof_due = True
            self._flush_soon()

    def close(self) -> None:
        """End after what is queued has been sent."""
        if not self._is_closing:
            self._is_closing = self._is_eof_due = True
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def pause_reading(self) -> None:
        """Leave further plaintext where it is."""
        if not self._is_reading_paused:
            self._is_reading_paused = True
            if not self._is_closing:
                self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Go on with it."""
        if self._is_reading_paused:
            self._is_reading_paused = False
            if not self._is_closing:
                self._socket.resume_reading()
                self._loop.call_soon(self._pump)

    def is_reading(self) -> bool:
        """Whether plaintext is handed up."""
        return not self._is_reading_paused and not self._is_closing

    def get_write_buffer_size(self) -> int:
        """Plaintext queued and ciphertext unsent, in bytes."""
        return self._out_size + (0 if self._is_lost else self._socket.get_write_buffer_size())

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high water."""
        return _LOW, _HIGH

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The socket's facts, and `sslcontext` so that uvicorn knows the scheme."""
        if name == "sslcontext":
            return self._tls
        return super().get_extra_info(name, default)
