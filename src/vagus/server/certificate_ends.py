"""Counts hourly how many devices' certificates have ended or end soon, by unit, and shows it as a metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily

from vagus.fleet.lifecycle import HAS_ENDED
from vagus.jobs.part import Part
from vagus.jobs.periodic import Task
from vagus.records.expiry import count_ends
from vagus.records.units import list_units

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from vagus.clock import Clock
    from vagus.records.engine.database import Database

DAYS: Final = (7, 14, 30, 60, 90)
"""A certificate counts under the first of these numbers of days within which it ends."""

_SECONDS = 3600.0
_DAY = 86_400
_EXPIRED = "expired"


@dataclass(slots=True)
class CertificateEnds:
    """The newest count. One thread writes it, as a whole; a scrape reads what is there and no database."""

    database: Database
    clock: Clock
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By unit and bucket ("expired", "7", "14" ...), each unit with every bucket."""

    def part(self) -> Part:
        """As the server runs it. With a million certificates a turn may take many seconds, so it has its own thread."""
        task = Task("certificate-ends", _SECONDS, self.count, None, runs_first=False)
        return Part("certificate-ends", [task], metrics=self.measure)

    def count(self) -> None:
        """Count anew. Raises Unavailable."""
        at = int(self.clock.now().timestamp())
        bounds = {at - 1: _EXPIRED} | {at + days * _DAY: str(days) for days in DAYS}
        with self.database.reading() as connection:
            counts = {(str(unit.name), bucket): 0 for unit in list_units(connection) for bucket in bounds.values()}
            for (unit, bound), number in count_ends(connection, at=at, bounds=tuple(bounds), beside=HAS_ENDED).items():
                counts[unit, bounds[bound]] = number
        self.counts = counts

    def measure(self) -> Iterable[Metric]:
        """The count, for Prometheus."""
        text = "Newest certificates of devices in use by the days within which they end; each is in one of the buckets."
        family = GaugeMetricFamily("vagus_certificates_ending", text, labels=["unit", "days"])
        for labels, number in self.counts.items():
            family.add_metric(labels, number)
        yield family
