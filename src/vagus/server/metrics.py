"""What /health says, as numbers for Prometheus; measures nothing by itself and names no device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from vagus.endpoints.http import ASGIApp, Receive, Scope, Send, send_response
from vagus.monitoring.status_watch import StatusWatch
from vagus.server.health import Health

_CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class HealthMetrics:
    """A collector over a process's Health: every scrape reads the present."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        """The families, in the order of /health."""
        yield from self._sequence()
        yield from self._work()
        yield from self._listeners()
        lacks = GaugeMetricFamily("vagus_lacks", "1 for what this process has no means to do.", labels=["what"])
        for what in tuple(self._health.lacks):  # a thread of periodic work may add to it
            lacks.add_metric([what], 1)
        yield lacks
        if self._health.watch is not None:
            yield from _status(self._health.watch, self._health.clock.now().timestamp())

    def _sequence(self) -> Iterable[Metric]:
        health = self._health
        follower, now = health.follower, health.clock.now()
        yield _gauge("vagus_sequence_position", "The newest revocation that this process knows.", follower.position)
        lost = follower.is_lost(now, health.bound)
        yield _gauge("vagus_sequence_lost", "1 while the revocation sequence is out of sight.", int(lost))
        age = (now - follower.current_at).total_seconds()
        yield _gauge("vagus_sequence_age_seconds", "Since the sequence was last known to be complete.", age)

    def _work(self) -> Iterable[Metric]:
        runs = CounterMetricFamily("vagus_task_runs", "Turns of a periodic task.", labels=["task"])
        failures = CounterMetricFamily("vagus_task_failures", "Failed turns of a periodic task.", labels=["task"])
        for name, state in self._health.states().items():
            runs.add_metric([name], state.runs)
            failures.add_metric([name], state.failures)
        yield runs
        yield failures
        hangs = GaugeMetricFamily("vagus_task_hangs", "1 for a task that does not come back.", labels=["task"])
        for name in self._health.hanging():
            hangs.add_metric([name], 1)
        yield hangs

    def _listeners(self) -> Iterable[Metric]:
        opened = GaugeMetricFamily("vagus_listener_connections", "Open connections.", labels=["listener"])
        turned = CounterMetricFamily("vagus_listener_turned_away", "Connections over a bound.", labels=["listener"])
        for name, (open_now, turned_away) in self._health.counts().items():
            opened.add_metric([name], open_now)
            turned.add_metric([name], turned_away)
        yield opened
        yield turned
        if self._health.load is not None:
            count = self._health.load.turned_away
            yield CounterMetricFamily("vagus_ocsp_turned_away", "Questions that got tryLater under load.", value=count)


def encode_metrics(health: Health) -> bytes:
    """The text exposition format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(HealthMetrics(health))
    return generate_latest(registry)


def metrics_app(health: Health, otherwise: ASGIApp) -> ASGIApp:
    """GET and HEAD of /metrics; every other path is `otherwise`'s."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/metrics" or scope["method"] not in {"GET", "HEAD"}:
            await otherwise(scope, receive, send)
            return
        body = encode_metrics(health)
        headers = [(b"content-type", _CONTENT_TYPE), (b"content-length", b"%d" % len(body))]
        await send_response(send, HTTPStatus.OK, headers, b"" if scope["method"] == "HEAD" else body)

    return app


def _status(watch: StatusWatch, now: float) -> Iterable[Metric]:
    left = GaugeMetricFamily(
        "vagus_list_seconds_left", "How long a revocation list still holds.", labels=["authority", "shard"]
    )
    for one in watch.watched.lists:
        left.add_metric([one.authority, one.shard], one.seconds_left)
    yield left
    yield _gauge("vagus_lists_due", "Lists that somebody should renew.", sum(one.is_due for one in watch.watched.lists))
    unlisted = sum(one.lists for one in watch.watched.unlisted)
    yield _gauge("vagus_lists_behind", "Lists that lack a revocation which they should have by now.", unlisted)
    yield _gauge("vagus_authorities_silent", "Authorities without any list.", len(watch.watched.silent))
    report = watch.report
    if report is None:
        return
    defects = GaugeMetricFamily("vagus_probe_defects", "Defects of what is published.", labels=["reason"])
    for reason, count in sorted(Counter(one.reason.value for one in report.defects).items()):
        defects.add_metric([reason], count)
    yield defects
    yield _gauge("vagus_probe_lists", "Lists that the newest round fetched.", report.lists)
    yield _gauge("vagus_probe_answers", "OCSP answers that the newest round asked for.", report.answers)
    yield _gauge("vagus_probe_seconds", "How long the newest round took.", report.seconds)
    yield _gauge("vagus_probe_age_seconds", "Since the newest round.", now - report.at.timestamp())


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=value)
