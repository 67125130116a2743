"""Logs and counts what a serving process committed and refused (`vagus.events.log`), as a part of the server."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily

from vagus.events.log import REFUSALS, EventLog, Refusals
from vagus.jobs.part import Part
from vagus.jobs.periodic import Task

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from vagus.records.engine.writer import Writer


@dataclass(frozen=True, slots=True)
class EventLogging:
    """The log of one process. It has a thread of its own: a standard error that blocks delays nothing else."""

    log: EventLog
    refusals: Refusals = REFUSALS

    def part(self) -> Part:
        """As the server runs it. The last lines are written after all other parts have ended."""
        task = Task("events", 1.0, self.log.flush)
        return Part("events", [task], metrics=self.measure, start=write_to_stderr, close=self.log.flush)

    def measure(self) -> Iterable[Metric]:
        """The counts since the start of the process."""
        yield _count("vagus_events", "Ledger entries that this process committed.", "kind", self.log.counts)
        yield _count("vagus_refusals", "Requests that were refused over HTTP.", "reason", self.refusals.counts)


def event_part(writer: Writer) -> Part:
    """For the entries that `writer` commits."""
    log = EventLog()
    log.follow(writer)
    return EventLogging(log).part()


def write_to_stderr() -> None:
    """Write the lines of `vagus.events` to standard error, unless logging is configured already."""
    logger = logging.getLogger("vagus.events")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s vagus.events %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _count(name: str, help_text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
