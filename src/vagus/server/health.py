"""GET /health: what the parts of a serving process report, as JSON for operators; judges nothing, names no device."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from vagus.endpoints.routing import Request, Response, Route
from vagus.jobs.part import PartHealth, Parts


@dataclass(frozen=True, slots=True)
class Health:
    """The health of one process, from its parts and from how their tasks fare."""

    parts: Parts
    seconds: Callable[[], float] = time.monotonic
    """Measures the turns of tasks: a clock that no operator can set."""

    def find_hanging(self) -> dict[str, str]:
        """The tasks whose turn does not end, each with a sentence. No failure is counted for them."""
        return self.parts.find_hanging(self.seconds())

    def read_parts(self) -> Sequence[PartHealth]:
        """What each part reports now."""
        return [part.health() for part in self.parts.every]

    def report(self) -> tuple[bool, dict[str, object]]:
        """Whether this process does its work, and the facts as plain values.

        `failing` asks for this process to be taken out of service. What other processes show as well is `degraded` and
        leaves it healthy: a load balancer would otherwise take all of them out of service.
        """
        found = self.read_parts()
        states, hanging = self.parts.states(), self.find_hanging()
        lacks = {subject: text for one in found for subject, text in one.lacks.items()}
        waits = {subject: text for one in found for subject, text in one.waits.items()}
        is_failing = bool(hanging) or any(state.in_a_row for state in states.values())
        is_failing = is_failing or any(one.is_failing for one in found)
        is_degraded = bool(lacks) or any(one.is_degraded for one in found)
        facts: dict[str, object] = {
            "status": "failing" if is_failing else "degraded" if is_degraded else "well",
            "work": {
                name: {"runs": state.runs, "failures": state.failures, "last_error": state.last_error}
                for name, state in states.items()
            },
        }
        for one in found:
            facts.update(one.facts)
        optional = {"hangs": hanging, "lacks": lacks, "waits": waits}
        facts.update({name: value for name, value in optional.items() if value})
        return not is_failing, facts


def health_route(health: Health) -> Route:
    """GET /health: 200 while the process does its work, else 503, JSON in both cases."""

    async def report(_request: Request) -> Response:
        is_well, facts = health.report()
        body = json.dumps(facts, sort_keys=True).encode("ascii")
        status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(status, b"application/json", body, ((b"cache-control", b"no-store"),))

    return Route(re.compile(r"/health\Z"), report)
