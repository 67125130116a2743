"""Runs `monitoring` periodically as parts of a serving process: CRL ages, the prober, ANALYZE of large tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from vagus.jobs.part import Part, PartHealth
from vagus.jobs.periodic import Task
from vagus.monitoring.http_fetch import HttpFetch
from vagus.monitoring.prober import Prober
from vagus.monitoring.status_watch import StatusWatch
from vagus.records.engine.planner_statistics import TableSizeCheck
from vagus.server.metrics import fill

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from vagus.authority.crls.published import CrlCacheState
    from vagus.clock import Clock
    from vagus.records.engine.database import Database
    from vagus.server.listeners.current import CurrentListeners
    from vagus.wiring import Installation

_THREAD = "watching"
_SECONDS = 60.0
_LONGEST_ANALYSIS = 900.0  # seconds that ANALYZE of the largest tables may take


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
        find_prober=_follow_plan(installation, listeners),
        read_crl_cache=read_crl_cache,
        probe_seconds=settings.probe_seconds,
    )
    tasks = [Task("list-ages", _SECONDS, watch.refresh, runs_first=False)]
    if settings.probe != "off":
        # One round of the prober waits for each CRL that cannot be fetched, so it may take long; /health shows the age
        # of its report.
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
    task = Task("statistics", _SECONDS, TableSizeCheck(database).analyse_misjudged, _LONGEST_ANALYSIS, runs_first=False)
    return Part("planner-statistics", [] if database.is_sqlite else [task], _THREAD)


def _follow_plan(installation: Installation, listeners: CurrentListeners) -> Callable[[], Prober | None]:
    """Finds the prober for the plan in force; called by the watching thread.

    It probes the status URL, or with `serve.probe = "listener"` this process's own listener; None without one. One
    prober serves as long as nothing changes, since it remembers the signatures that it has verified.
    """
    is_own = installation.settings.serve.probe == "listener"

    @lru_cache(maxsize=1)
    def make(status_url: str, address: tuple[str, int] | None) -> Prober:
        return Prober(
            installation.pack,
            installation.database,
            installation.clock,
            installation.entropy,
            HttpFetch(address),
            status_url=status_url,
            writer=installation.writer,
            through_caches=not is_own,
        )

    def find() -> Prober | None:
        address = listeners.status_address if is_own else None
        return None if is_own and address is None else make(listeners.plan.status_url, address)

    return find


def _measure(watch: StatusWatch, now: float) -> Iterable[Metric]:
    watched, report = watch.watched, watch.report
    help_text = "How long a revocation list still holds."
    left = GaugeMetricFamily("vagus_list_seconds_left", help_text, labels=["authority", "shard"])
    for one in watched.crls:
        left.add_metric([one.authority, one.shard], one.seconds_left)
    yield left
    due, overdue = sum(one.is_due for one in watched.crls), sum(one.crls for one in watched.unpublished)
    yield GaugeMetricFamily("vagus_lists_due", "CRLs that an operator should have renewed.", due)
    yield GaugeMetricFamily("vagus_lists_behind", "CRLs that lack a revocation which is overdue.", overdue)
    yield GaugeMetricFamily("vagus_authorities_silent", "Authorities without any CRL.", len(watched.without_crl))
    if report is None:
        return
    defects = GaugeMetricFamily("vagus_probe_defects", "Defects of what is published.", labels=["reason"])
    yield fill(defects, Counter(sorted(one.reason.value for one in report.defects)))
    yield GaugeMetricFamily("vagus_probe_lists", "CRLs that the newest round fetched.", report.crls)
    yield GaugeMetricFamily("vagus_probe_answers", "OCSP responses of the newest round.", report.responses)
    yield GaugeMetricFamily("vagus_probe_seconds", "How long the newest round took.", report.seconds)
    yield GaugeMetricFamily("vagus_probe_age_seconds", "Since the newest round.", now - report.at.timestamp())
