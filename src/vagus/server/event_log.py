"""The part of a serving process that logs and counts issuances, revocations and refusals, by `vagus.events.log`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, TextIO

from prometheus_client.core import CounterMetricFamily

from vagus.events.log import REFUSALS, EventLog, Refusals
from vagus.jobs.part import Part
from vagus.jobs.periodic import Task
from vagus.server.metrics import fill

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_LOG = logging.getLogger("vagus.events")
_STDERR: Final = 2


def event_part(log: EventLog, refusals: Refusals = REFUSALS) -> Part:
    """Logs each second, on a thread of its own: a standard error that blocks delays nothing else.

    The metrics are the counts since the start of the process. The last lines are written after all other parts have
    ended.
    """

    def measure() -> Iterable[Metric]:
        events = CounterMetricFamily("vagus_events", "Ledger entries that this process committed.", labels=["kind"])
        yield fill(events, dict(sorted(log.counts.items())))
        refused = CounterMetricFamily("vagus_refusals", "Requests that were refused over HTTP.", labels=["reason"])
        yield fill(refused, dict(sorted(refusals.counts.items())))

    write = partial(flush, log)
    return Part("events", [Task("events", 1.0, write)], metrics=measure, start=write_to_stderr, close=write)


def flush(log: EventLog) -> None:
    """Log what waits, and write the lines of the last second in one system call."""
    log.flush()
    for handler in _LOG.handlers:
        if isinstance(handler, _BufferedHandler):
            handler.stream.flush()


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
