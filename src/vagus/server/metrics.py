"""GET /metrics: what the parts of a serving process measure, for Prometheus; names no device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from vagus.endpoints.routing import Request, Response, Route, RouteTable
from vagus.server.health import Health, health_route

_CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: the prometheus registry distinguishes collectors by identity
class HealthMetrics:
    """A collector over a process's Health: every scrape reads the present."""

    health: Health

    def collect(self) -> Iterable[Metric]:
        """The families of the tasks, then of each part."""
        parts, states = self.health.parts, self.health.parts.states()
        runs = CounterMetricFamily("vagus_task_runs", "Turns of a periodic task.", labels=["task"])
        yield fill(runs, {name: state.runs for name, state in states.items()})
        failures = CounterMetricFamily("vagus_task_failures", "Failed turns of a periodic task.", labels=["task"])
        yield fill(failures, {name: state.failures for name, state in states.items()})
        hangs = GaugeMetricFamily("vagus_task_hangs", "1 for a task whose turn does not end.", labels=["task"])
        yield fill(hangs, dict.fromkeys(self.health.find_hanging(), 1))
        lacks = GaugeMetricFamily("vagus_lacks", "1 for what this process has no means to do.", labels=["what"])
        yield fill(lacks, {subject: 1 for one in self.health.read_parts() for subject in one.lacks})
        for part in parts.every:
            yield from part.metrics()


def fill(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]) -> Metric:
    """`family`, which has one label, with a sample for each value of that label."""
    for label, value in values.items():
        family.add_metric([label], value)
    return family


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
