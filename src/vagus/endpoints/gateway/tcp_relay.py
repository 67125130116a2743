"""Carries an admitted raw stream to one upstream address and back; reads no byte of it.

Where the upstream takes a PROXY header, ours is written before the client is read at all. It is written once, so a
header that the client sends arrives as the first bytes of its stream, behind ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from vagus.clock import Entropy
from vagus.endpoints.gateway.decisions import Outcome, Record, decide
from vagus.endpoints.gateway.proxy_protocol import proxy_header
from vagus.endpoints.gateway.upstream import Upstream, reset, unreachable
from vagus.errors import VagusError
from vagus.fleet.admission import Admitted
from vagus.tls import Peer

_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class AdmittedStream:
    """What the protocol of a raw stream knows of its client; `record` takes decisions about it."""

    listener: str
    source: str
    peer: Peer
    admitted: Admitted | None
    record: Record


def tcp_relay(upstream: Upstream, proxy_entropy: Entropy | None = None) -> Callable[[AdmittedStream], asyncio.Protocol]:
    """A protocol for each admitted stream, relaying it to `upstream`.

    With `proxy_entropy` each connection begins with a PROXY header, whose unique id it makes.
    """
    return lambda client: TcpRelay(upstream, client, proxy_entropy)


class TcpRelay(asyncio.Protocol):
    """The client's half of a relayed stream. An end of one side goes to the other as an end, a reset as a reset.

    Backpressure goes through both halves: a side that does not read pauses the reading of the other side. What the
    relay holds is therefore bounded by the buffers of the two transports. Both halves run on the loop's thread.
    """

    def __init__(self, upstream: Upstream, client: AdmittedStream, proxy_entropy: Entropy | None = None) -> None:
        self._upstream = upstream
        self._proxy_entropy = proxy_entropy
        self._client = client
        self._to_upstream: asyncio.Transport | None = None
        self._ended_ways = 0
        self._is_writing_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing until the upstream is there to take it."""
        self.to_client: asyncio.Transport = transport  # type: ignore[assignment]
        self.to_client.pause_reading()
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        loop, where = asyncio.get_running_loop(), self._upstream
        try:
            first = self._make_header()
            async with asyncio.timeout(where.connect_seconds):
                transport, _ = await loop.create_connection(lambda: _UpstreamHalf(self), where.host, where.port)
        except (OSError, VagusError) as error:  # TimeoutError is an OSError too
            self._record_failure(error if isinstance(error, VagusError) else unreachable(where, error))
            self.to_client.abort()
            return
        if self.to_client.is_closing():
            reset(transport)
            return
        if first:
            transport.write(first)
        self._to_upstream = transport
        if self._is_writing_paused:
            transport.pause_reading()
        self.to_client.resume_reading()

    def _make_header(self) -> bytes:
        """What goes to the upstream before the first byte of the client. Raises NotAuthorised(CREDENTIAL_MISSING)."""
        if self._proxy_entropy is None:
            return b""
        source, destination = (self.to_client.get_extra_info(end) for end in ("peername", "sockname"))
        salt = self._proxy_entropy(_SALT_BYTES)
        return proxy_header(self._client.peer, self._client.admitted, source, destination, salt)

    def _record_failure(self, error: VagusError) -> None:
        of = self._client
        of.record(decide(of.listener, of.source, Outcome.FAILED, peer=of.peer, admitted=of.admitted, error=error))

    def data_received(self, data: bytes) -> None:
        """From the client to the upstream."""
        if self._to_upstream is not None:
            self._to_upstream.write(data)

    def eof_received(self) -> bool:
        """The client's close_notify; a bare FIN is a cut and comes as `connection_lost`."""
        if self._to_upstream is None:
            return False
        self._to_upstream.write_eof()
        self.end_one_way()
        return True

    def end_one_way(self) -> None:
        """One direction has ended; with both, so does the connection."""
        self._ended_ways += 1
        if self.is_complete:
            self.to_client.close()
            if self._to_upstream is not None:
                self._to_upstream.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        """The client has left. When its stream was cut, the upstream gets a reset and can tell that from an end."""
        self._dialling.cancel()
        if self._to_upstream is not None and not self.is_complete:
            reset(self._to_upstream)

    def pause_writing(self) -> None:
        """The client does not read: stop reading from the upstream."""
        self._is_writing_paused = True
        if self._to_upstream is not None:
            self._to_upstream.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._is_writing_paused = False
        if self._to_upstream is not None:
            self._to_upstream.resume_reading()

    @property
    def is_complete(self) -> bool:
        """Whether both directions have ended."""
        return self._ended_ways >= 2


class _UpstreamHalf(asyncio.Protocol):
    """The upstream's half of a relayed stream."""

    def __init__(self, relay: TcpRelay) -> None:
        self._relay = relay

    def data_received(self, data: bytes) -> None:
        self._relay.to_client.write(data)

    def eof_received(self) -> bool:
        self._relay.to_client.write_eof()
        self._relay.end_one_way()
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self._relay.is_complete:
            self._relay.to_client.abort()

    def pause_writing(self) -> None:
        self._relay.to_client.pause_reading()

    def resume_writing(self) -> None:
        self._relay.to_client.resume_reading()
