"""The part that reports on /health and metrics how current this process knows the revocation sequence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from vagus.jobs.part import Part, PartHealth

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from vagus.clock import Clock
    from vagus.events.revocations import RevocationFollower
    from vagus.wiring import Installation


@dataclass(frozen=True, slots=True)
class SequenceHealth:
    """The revocation sequence is lost when it was not known to be complete for longer than `bound`."""

    clock: Clock
    follower: RevocationFollower
    bound: timedelta
    graces: Mapping[str, tuple[timedelta, timedelta]] = field(default_factory=dict)
    """By function: how long the sequence may be unknown, and how much longer connections may go on by grace."""

    def part(self) -> Part:
        """As the server runs it."""
        return Part("revocation-sequence", health=self.report, metrics=self.measure)

    def report(self) -> PartHealth:
        """Failing while the sequence is lost: no verdict of this process can be relied on."""
        now = self.clock.now()
        is_lost = self.follower.is_lost(now, self.bound)
        facts: dict[str, object] = {
            "sequence": {
                "position": self.follower.position,
                "is_lost": is_lost,
                "bound_seconds": self.bound.total_seconds(),
                "seen_at": int(self.follower.current_at.timestamp()),
            }
        }
        if on_grace := self._find_on_grace(now):
            facts["on_grace"] = on_grace
        return PartHealth(facts, is_failing=is_lost)

    def measure(self) -> Iterable[Metric]:
        """The same as numbers."""
        now, follower = self.clock.now(), self.follower
        rows = (
            ("position", "The newest revocation that this process knows.", follower.position),
            ("lost", "1 while newer revocations may be unknown here.", int(follower.is_lost(now, self.bound))),
            ("age_seconds", "Since all were known.", (now - follower.current_at).total_seconds()),
        )
        return [GaugeMetricFamily(f"vagus_sequence_{name}", text, value) for name, text, value in rows]

    def _find_on_grace(self, now: datetime) -> dict[str, dict[str, int]]:
        """The functions whose connections go on by grace alone, and for how many seconds more."""
        age = now - self.follower.current_at
        return {
            function: {"seconds_left": int((bound + grace - age).total_seconds())}
            for function, (bound, grace) in self.graces.items()
            if bound < age <= bound + grace
        }


def sequence_bound(installation: Installation) -> timedelta:
    """How long this node may not know the newest revocation before it says so."""
    return timedelta(seconds=installation.settings.serve.sequence_bound_seconds)


def sequence_part(installation: Installation) -> Part:
    """As the settings and the policy pack bound it."""
    rules = installation.pack.functions.items()
    graces = {function.value: (rule.status_max_age, rule.grace) for function, rule in rules}
    return SequenceHealth(installation.clock, installation.follower, sequence_bound(installation), graces).part()
