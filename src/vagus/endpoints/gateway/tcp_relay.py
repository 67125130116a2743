"""Carries an admitted raw stream to one upstream address and back; looks at no byte of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from vagus.endpoints.gateway.decisions import Guest, Outcome, Record, decide
from vagus.endpoints.gateway.upstream import Upstream, reset, unreachable
from vagus.errors import VagusError
from vagus.tls import Peer


class StreamClient(Protocol):
    """Who is at the other end: `server.listeners.AdmittedStream` is one."""

    @property
    def listener(self) -> str:
        """The listener's name."""
        ...

    @property
    def source(self) -> str:
        """The client's address."""
        ...

    @property
    def peer(self) -> Peer:
        """Its TLS side."""
        ...

    @property
    def guest(self) -> Guest | None:
        """The verdict."""
        ...

    @property
    def record(self) -> Record:
        """Where decisions go."""
        ...


def tcp_relay(upstream: Upstream) -> Callable[[StreamClient], asyncio.Protocol]:
    """A protocol for each admitted stream, relaying it to `upstream`."""
    return lambda client: TcpRelay(upstream, client)


class TcpRelay(asyncio.Protocol):
    """The client's half. Each side's end goes to the other as an end, each reset as a reset."""

    def __init__(self, upstream: Upstream, client: StreamClient) -> None:
        self._upstream = upstream
        self._client = client
        self._far: asyncio.Transport | None = None
        self._ends = 0
        self._is_writing_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing until the upstream is there to take it."""
        self._near: asyncio.Transport = transport  # type: ignore[assignment]
        self._near.pause_reading()
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._upstream.connect_seconds):
                far, _ = await loop.create_connection(lambda: _Far(self), self._upstream.host, self._upstream.port)
        except OSError as error:  # a time-out is one
            self._tell(unreachable(self._upstream, error))
            self._near.abort()
            return
        if self._near.is_closing():
            reset(far)
            return
        self._far = far
        if self._is_writing_paused:
            far.pause_reading()
        self._near.resume_reading()

    def _tell(self, error: VagusError) -> None:
        client = self._client
        client.record(
            decide(client.listener, client.source, Outcome.FAILED, peer=client.peer, guest=client.guest, error=error)
        )

    def data_received(self, data: bytes) -> None:
        """From the client to the upstream."""
        if self._far is not None:
            self._far.write(data)

    def eof_received(self) -> bool:
        """The client's close_notify; a bare FIN is a cut and comes as `connection_lost`."""
        if self._far is None:
            return False
        self._far.write_eof()
        self.end_one_way()
        return True

    def end_one_way(self) -> None:
        """One direction has ended; with both, so does the connection."""
        self._ends += 1
        if self._ends == 2:  # both ways
            self._near.close()
            if self._far is not None:
                self._far.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        """The client is gone: complete, or cut, which the upstream must be able to tell apart."""
        self._dialling.cancel()
        if self._far is not None and self._ends < 2:
            reset(self._far)

    def pause_writing(self) -> None:
        """The client does not read: neither do we from the upstream."""
        self._is_writing_paused = True
        if self._far is not None:
            self._far.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self._is_writing_paused = False
        if self._far is not None:
            self._far.resume_reading()

    @property
    def near(self) -> asyncio.Transport:
        """The client's transport."""
        return self._near

    @property
    def is_complete(self) -> bool:
        """Whether both directions have ended."""
        return self._ends >= 2


class _Far(asyncio.Protocol):
    """The upstream's half."""

    def __init__(self, relay: TcpRelay) -> None:
        self._relay = relay

    def data_received(self, data: bytes) -> None:
        self._relay.near.write(data)

    def eof_received(self) -> bool:
        self._relay.near.write_eof()
        self._relay.end_one_way()
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self._relay.is_complete:
            self._relay.near.abort()

    def pause_writing(self) -> None:
        self._relay.near.pause_reading()

    def resume_writing(self) -> None:
        self._relay.near.resume_reading()
