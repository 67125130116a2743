"""What all connections of one running listener share: caps, deadlines, validator, records; parses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vagus.endpoints.gateway.decisions import Outcome, decide
from vagus.errors import LimitExceeded, VagusError
from vagus.reasons import Reason
from vagus.tls import Peer
from vagus.transport.limits import Limits, Occupancy
from vagus.transport.open_connections import ConnectionRight, OpenConnections, Rules


class HasDeadlines(Protocol):
    """An accepted socket, or an HTTP protocol on it."""

    def tick(self, now: float) -> None:
        """End what is past its deadline; `now` is the loop's time."""
        ...


class ListenerState:
    """One listener at run time. `closes_silently`: a refused peer gets no response, as on a raw stream."""

    def __init__(self, rules: Rules, limits: Limits, connections: OpenConnections, *, closes_silently: bool) -> None:
        self.rules = rules
        self.limits = limits
        self.connections = connections
        self.closes_silently = closes_silently
        self.occupancy = Occupancy(limits)
        self.ticking: set[HasDeadlines] = set()
        self.closers: dict[object, Callable[[], None]] = {}
        """How to end each open socket of this listener at once, for the end of a graceful stop."""
        self._recorded_turned_away = 0

    def judge(self, peer: Peer, source: str) -> ConnectionRight:
        """The verdict on a peer after its handshake, recorded."""
        right = ConnectionRight(self.rules, peer, source)
        if right.refusal is not None:
            right.record(Outcome.REFUSED, right.refusal)
        elif self.rules.admit is not None:
            right.record(Outcome.ADMITTED)
        return right

    def record_failure(self, source: str, error: VagusError) -> None:
        """Record that no connection came about."""
        self.rules.record(decide(self.rules.listener, source, Outcome.FAILED, error=error))

    def tick(self, now: float) -> None:
        """Check every deadline, and record once how many connections were turned away since the last tick."""
        for each in tuple(self.ticking):
            each.tick(now)
        count = self.occupancy.turned_away - self._recorded_turned_away
        if count:
            self._recorded_turned_away = self.occupancy.turned_away
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
