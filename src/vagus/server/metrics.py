"""GET /metrics: what the parts of a serving process measure, for Prometheus; names no device."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from vagus.endpoints.routing import Request, Response, Route, RouteTable
from vagus.server.health import Health, health_route

_CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class HealthMetrics:
    """A collector over a process's Health: every scrape reads the present."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        """The families of the tasks, then of each part."""
        runs = CounterMetricFamily("vagus_task_runs", "Turns of a periodic task.", labels=["task"])
        failures = CounterMetricFamily("vagus_task_failures", "Failed turns of a periodic task.", labels=["task"])
        for name, state in self._health.parts.states().items():
            runs.add_metric([name], state.runs)
            failures.add_metric([name], state.failures)
        yield runs
        yield failures
        hangs = GaugeMetricFamily("vagus_task_hangs", "1 for a task whose turn does not end.", labels=["task"])
        for name in self._health.find_hanging():
            hangs.add_metric([name], 1)
        yield hangs
        lacks = GaugeMetricFamily("vagus_lacks", "1 for what this process has no means to do.", labels=["what"])
        for one in self._health.read_parts():
            for subject in one.lacks:
                lacks.add_metric([subject], 1)
        yield lacks
        for part in self._health.parts.every:
            yield from part.metrics()


def encode_metrics(health: Health) -> bytes:
    """The text exposition format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(HealthMetrics(health))
    return generate_latest(registry)


def operator_pages(health: Health) -> RouteTable:
    """GET /metrics and /health, for operators."""

    async def report(_request: Request) -> Response:
        return Response(HTTPStatus.OK, _CONTENT_TYPE, encode_metrics(health))

    return RouteTable((Route(re.compile(r"/metrics\Z"), report), health_route(health)), is_terse=True)
