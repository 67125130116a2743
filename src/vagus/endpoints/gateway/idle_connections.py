"""Upstream connections at rest until the same peer asks again; opens none, and hands none to another peer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial

from vagus.endpoints.gateway.upstream import UpstreamConnection

KEPT_SECONDS = 20.0
KEPT_PEERS = 2_000


class KeptConnections:
    """At most `per_peer` connections for each of `peers` peers, each for at most `seconds`.

    One that ends meanwhile is forgotten at once: the memory and the file of a connection last no longer than it does.
    A peer is known by octets of the caller's choice. For one event loop.
    """

    def __init__(self, per_peer: int, *, peers: int = KEPT_PEERS, seconds: float = KEPT_SECONDS) -> None:
        self._per_peer = per_peer
        self._peers = peers
        self._seconds = seconds
        self._by_peer: OrderedDict[bytes, list[UpstreamConnection]] = OrderedDict()
        self._ends: dict[UpstreamConnection, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """How many rest here."""
        return len(self._ends)

    def take(self, peer: bytes) -> UpstreamConnection | None:
        """The connection that this peer used last; it rests here no more."""
        kept = self._by_peer.get(peer)
        if not kept:
            return None
        connection = kept[-1]
        self._forget(peer, connection)
        return connection

    def keep(self, peer: bytes, connection: UpstreamConnection) -> None:
        """Let it rest for this peer, or close it where no further request may be put to it."""
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
            longest = next(iter(self._by_peer))
            for surplus in list(self._by_peer[longest]):
                self._close(longest, surplus)

    def close(self) -> None:
        """Close all."""
        for peer, kept in list(self._by_peer.items()):
            for connection in list(kept):
                self._close(peer, connection)

    def _close(self, peer: bytes, connection: UpstreamConnection) -> None:
        self._forget(peer, connection)
        connection.transport.close()

    def _forget(self, peer: bytes, connection: UpstreamConnection) -> None:
        self._ends.pop(connection).cancel()
        connection.when_lost = None
        kept = self._by_peer[peer]
        kept.remove(connection)
        if not kept:
            del self._by_peer[peer]
