"""Logs and counts what a serving process committed and refused (`vagus.events.log`), as a part of the server."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO

from prometheus_client.core import CounterMetricFamily

from vagus.events.log import REFUSALS, EventLog, Refusals
from vagus.jobs.part import Part
from vagus.jobs.periodic import Task

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from vagus.records.engine.writer import Writer

_LOG = logging.getLogger("vagus.events")
_STDERR: Final = 2


@dataclass(frozen=True, slots=True)
class EventLogging:
    """The log of one process. It has a thread of its own: a standard error that blocks delays nothing else."""

    log: EventLog
    refusals: Refusals = REFUSALS

    def part(self) -> Part:
        """As the server runs it. The last lines are written after all other parts have ended."""
        task = Task("events", 1.0, self.flush)
        return Part("events", [task], metrics=self.measure, start=write_to_stderr, close=self.flush)

    def flush(self) -> None:
        """Log what waits, and write the lines of the last second in one system call."""
        self.log.flush()
        for handler in _LOG.handlers:
            if isinstance(handler, _BufferedHandler):
                handler.stream.flush()

    def measure(self) -> Iterable[Metric]:
        """The counts since the start of the process."""
        yield _count("vagus_events", "Ledger entries that this process committed.", "kind", self.log.counts)
        yield _count("vagus_refusals", "Requests that were refused over HTTP.", "reason", self.refusals.counts)


def event_part(writer: Writer) -> Part:
    """For the entries that `writer` commits."""
    log = EventLog()
    log.follow(writer)
    return EventLogging(log).part()


class _BufferedHandler(logging.StreamHandler[TextIO]):
    """Gathers lines for standard error. A system call for each line would cost as much as the line."""

    def flush(self) -> None:
        """Called by `logging` after each line: waits for `EventLogging.flush`."""


def write_to_stderr() -> None:
    """Write the lines of `vagus.events` to standard error, unless logging is configured already."""
    if not _LOG.hasHandlers():
        handler = _BufferedHandler(os.fdopen(_STDERR, "w", encoding="utf-8", closefd=False))
        handler.setFormatter(logging.Formatter("%(created)d vagus.events %(message)s"))
        _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)


def _count(name: str, help_text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
