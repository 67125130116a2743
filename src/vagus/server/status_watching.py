"""The periodic checks of published status and of the database's statistics, as parts of a serving process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from vagus.jobs.part import Part, PartHealth
from vagus.jobs.periodic import Task
from vagus.monitoring.http_fetch import HttpFetch
from vagus.monitoring.prober import Prober
from vagus.monitoring.status_watch import StatusWatch
from vagus.records.engine.planner_statistics import BelievedSizes

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from vagus.authority.crls.published import CrlCacheState
    from vagus.clock import Clock
    from vagus.records.engine.database import Database
    from vagus.server.current_listeners import CurrentListeners
    from vagus.wiring import Installation

_THREAD = "watching"
_SECONDS = 60.0
_LONGEST_ANALYSIS = 900.0  # seconds, for the largest tables


def status_part(
    installation: Installation, listeners: CurrentListeners, read_crl_cache: Callable[[], CrlCacheState]
) -> Part:
    """Reads how old the CRLs are each minute and, unless `serve.probe` is off, fetches what is published."""
    settings = installation.settings.serve
    watch = StatusWatch(
        installation.pack,
        installation.database,
        installation.clock,
        installation.settings.keystores,
        find_prober=CurrentProber(installation, listeners).find,
        read_crl_cache=read_crl_cache,
        probe_seconds=settings.probe_seconds,
    )
    tasks = [Task("list-ages", _SECONDS, watch.refresh, runs_first=False)]
    if settings.probe != "off":
        # A round waits for each CRL that cannot be fetched. It may take long; the age of the newest report shows that.
        tasks.append(Task("probe", settings.probe_seconds, watch.probe, None, runs_first=False))
    return watch_part(watch, installation.clock, tasks)


def watch_part(watch: StatusWatch, clock: Clock, tasks: list[Task]) -> Part:
    """What a watch found, on /health and as metrics.

    Overdue CRLs degrade the process and do not make it fail: every other process hands out the same.
    """
    return Part(
        "status-watch",
        tasks,
        _THREAD,
        health=lambda: PartHealth(
            {"published": watch.facts()}, is_degraded=bool(watch.overdue), waits=watch.find_waiting()
        ),
        metrics=lambda: _measure(watch, clock.now().timestamp()),
        stop=watch.stop,
    )


def statistics_part(database: Database) -> Part:
    """Compares PostgreSQL's statistics with the tables each minute. SQLite keeps none."""
    task = Task("statistics", _SECONDS, BelievedSizes(database).mend, _LONGEST_ANALYSIS, runs_first=False)
    return Part("planner-statistics", [] if database.is_sqlite else [task], _THREAD)


@dataclass(slots=True)
class CurrentProber:
    """The prober for the plan in force; belongs to the watching thread.

    One prober serves as long as nothing changes: it remembers the signatures that it has verified.
    """

    installation: Installation
    listeners: CurrentListeners
    _place: tuple[str, tuple[str, int] | None] | None = None
    _prober: Prober | None = None

    def find(self) -> Prober | None:
        """Probes the status URL, or with `serve.probe = "listener"` this process's own listener; None without one."""
        installation = self.installation
        is_own = installation.settings.serve.probe == "listener"
        address = self.listeners.status_address if is_own else None
        place = self.listeners.plan.status_url, address
        if place != self._place:
            self._place = place
            self._prober = None
            if address is not None or not is_own:
                self._prober = Prober(
                    installation.pack,
                    installation.database,
                    installation.clock,
                    installation.entropy,
                    HttpFetch(address),
                    status_url=place[0],
                    writer=installation.writer,
                    through_caches=not is_own,
                )
        return self._prober


def _measure(watch: StatusWatch, now: float) -> Iterable[Metric]:
    help_text = "How long a revocation list still holds."
    left = GaugeMetricFamily("vagus_list_seconds_left", help_text, labels=["authority", "shard"])
    for one in watch.watched.crls:
        left.add_metric([one.authority, one.shard], one.seconds_left)
    yield left
    due = sum(one.is_due for one in watch.watched.crls)
    yield GaugeMetricFamily("vagus_lists_due", "CRLs that an operator should have renewed.", due)
    overdue = sum(one.crls for one in watch.watched.unpublished)
    help_text = "CRLs that lack a revocation which they should have by now."
    yield GaugeMetricFamily("vagus_lists_behind", help_text, overdue)
    silent = len(watch.watched.without_crl)
    yield GaugeMetricFamily("vagus_authorities_silent", "Authorities without any CRL.", silent)
    report = watch.report
    if report is None:
        return
    defects = GaugeMetricFamily("vagus_probe_defects", "Defects of what is published.", labels=["reason"])
    for reason, count in sorted(Counter(one.reason.value for one in report.defects).items()):
        defects.add_metric([reason], count)
    yield defects
    yield GaugeMetricFamily("vagus_probe_lists", "CRLs that the newest round fetched.", report.crls)
    help_text = "OCSP responses that the newest round asked for."
    yield GaugeMetricFamily("vagus_probe_answers", help_text, report.responses)
    yield GaugeMetricFamily("vagus_probe_seconds", "How long the newest round took.", report.seconds)
    yield GaugeMetricFamily("vagus_probe_age_seconds", "Since the newest round.", now - report.at.timestamp())
