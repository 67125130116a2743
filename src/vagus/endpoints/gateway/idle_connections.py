"""Idle upstream connections, stored until the same peer asks again; opens none, and gives none to another peer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial

from vagus.endpoints.gateway.upstream import UpstreamConnection

IDLE_SECONDS = 20.0
IDLE_PEERS = 2_000


class IdleConnections:
    """At most `per_peer` connections for each of `peers` peers, each for at most `seconds`.

    A connection that ends while it is idle is forgotten at once, so its memory and its file descriptor are freed.
    The caller names a peer by bytes of its choice. For one event loop.
    """

    def __init__(self, per_peer: int, *, peers: int = IDLE_PEERS, seconds: float = IDLE_SECONDS) -> None:
        self._per_peer = per_peer
        self._peers = peers
        self._seconds = seconds
        self._by_peer: OrderedDict[bytes, list[UpstreamConnection]] = OrderedDict()
        self._ends: dict[UpstreamConnection, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """How many connections are stored here."""
        return len(self._ends)

    def take(self, peer: bytes) -> UpstreamConnection | None:
        """Remove and return the connection that this peer used last; None where there is none."""
        idle = self._by_peer.get(peer)
        if not idle:
            return None
        connection = idle[-1]
        self._forget(peer, connection)
        return connection

    def keep(self, peer: bytes, connection: UpstreamConnection) -> None:
        """Store a connection for this peer, or close it where it can take no further request."""
        if not connection.is_reusable or connection.transport.is_closing():
            connection.transport.close()
            return
        self._by_peer.setdefault(peer, []).append(connection)
        self._by_peer.move_to_end(peer)
        self._ends[connection] = asyncio.get_running_loop().call_later(self._seconds, self._close, peer, connection)
        connection.when_lost = partial(self._forget, peer, connection)
        for surplus in self._by_peer[peer][: -self._per_peer]:
            self._close(peer, surplus)
        while len(self._by_peer) > self._peers:
            oldest = next(iter(self._by_peer))
            for surplus in list(self._by_peer[oldest]):
                self._close(oldest, surplus)

    def close(self) -> None:
        """Close every stored connection."""
        for peer, idle in list(self._by_peer.items()):
            for connection in list(idle):
                self._close(peer, connection)

    def _close(self, peer: bytes, connection: UpstreamConnection) -> None:
        self._forget(peer, connection)
        connection.transport.close()

    def _forget(self, peer: bytes, connection: UpstreamConnection) -> None:
        self._ends.pop(connection).cancel()
        connection.when_lost = None
        idle = self._by_peer[peer]
        idle.remove(connection)
        if not idle:
            del self._by_peer[peer]
