"""What all connections of one listener share while it runs: caps, deadlines, judgement, records; parses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vagus.endpoints.gateway.decisions import Outcome, decide
from vagus.errors import LimitExceeded, VagusError
from vagus.reasons import Reason
from vagus.tls import Peer
from vagus.transport.limits import Limits, Occupancy
from vagus.transport.open_connections import OpenConnections, Rules, Standing


class Ticking(Protocol):
    """Whoever has deadlines."""

    def tick(self, now: float) -> None:
        """Look at them; `now` is the loop's time."""
        ...


class ListenerState:
    """One listener at run time."""

    def __init__(self, rules: Rules, limits: Limits, connections: OpenConnections, on_refusal: str) -> None:
        self.rules = rules
        self.limits = limits
        self.connections = connections
        self.on_refusal = on_refusal
        self.occupancy = Occupancy(limits)
        self.ticking: set[Ticking] = set()
        self.closers: dict[object, Callable[[], None]] = {}
        """How to end each open socket of this listener at once, for the end of a graceful stop."""
        self._told_turned_away = 0

    def judge(self, peer: Peer, source: str) -> Standing:
        """The verdict on a peer whose handshake is through, recorded."""
        standing = Standing(self.rules, peer, source)
        if standing.refusal is not None:
            standing.tell(Outcome.REFUSED, standing.refusal)
        elif self.rules.admit is not None:
            standing.tell(Outcome.ADMITTED)
        return standing

    def tell_failure(self, source: str, error: VagusError) -> None:
        """Record that no connection came about."""
        self.rules.record(decide(self.rules.listener, source, Outcome.FAILED, error=error))

    def tick(self, now: float) -> None:
        """Look at every deadline, and tell in one sentence of those that were turned away since the last look."""
        for each in tuple(self.ticking):
            each.tick(now)
        count = self.occupancy.turned_away - self._told_turned_away
        if count:
            self._told_turned_away = self.occupancy.turned_away
            error = LimitExceeded(
                Reason.OVERLOADED,
                f"{count} connections were closed at once: {len(self.occupancy)} are open, and the limits are "
                f"{self.limits.connections} in all and {self.limits.connections_per_source} for each source",
                limit=self.limits.connections,
            )
            self.rules.record(decide(self.rules.listener, "", Outcome.REFUSED, error=error, count=count))


def source_of(peername: object) -> str:
    """The address part of a socket's peer name."""
    return str(peername[0]) if isinstance(peername, tuple) and peername else ""
