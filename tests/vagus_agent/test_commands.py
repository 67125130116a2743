from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.simulator.est_server import Hierarchy, Server, problem
from tests.simulator.refusals import reason_of
from tests.vagus_agent.conftest import write_papers
from vagus.errors import Conflict, NotAuthorised, VagusError
from vagus.reasons import Reason
from vagus.testing import FrozenClock, SeededEntropy
from vagus_agent.commands import Options, run_command
from vagus_agent.outcomes import Exit, Result, exit_code


class Life:
    """A device's `run` with a clock that its sleeping moves."""

    def __init__(self, folder: Path, hierarchy: Hierarchy, server: Server, clock: FrozenClock) -> None:
        write_papers(folder, hierarchy)
        self.folder, self.server, self.clock = folder, server, clock
        self.slept: list[float] = []

    def run(self, **changes: object) -> Iterator[Result]:
        facts: dict[str, object] = {
            "command": "run",
            "state": self.folder / "state",
            "server": str(self.server.route()),
            "relay": str(self.server.route()),
            "anchors": self.folder / "anchors.pem",
            "idevid_cert": self.folder / "idevid.pem",
            "idevid_key": self.folder / "idevid-key.pem",
            "patience": 5.0,
            **changes,
        }
        options = Options(**facts)  # type: ignore[arg-type]
        return run_command(options, self.clock, SeededEntropy(5), (), self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.server.behaviour.now = self.clock.advance(seconds=seconds)


@pytest.fixture
def life(tmp_path: Path, hierarchy: Hierarchy, server: Server, clock: FrozenClock) -> Life:
    return Life(tmp_path, hierarchy, server, clock)


def test_a_year_on_the_ward_renews_once_inside_the_window(life: Life) -> None:
    month = timedelta(days=30).total_seconds()
    results = list(life.run(count=12, interval=month))
    certificates = [result for result in results if "generation" in result]
    assert [result["generation"] for result in certificates] == [1, 2]
    assert len([result for result in results if "batch" in result]) == 12
    assert len(life.slept) == 11


def test_failures_wait_longer_each_time_and_end(life: Life) -> None:
    life.server.behaviour.refuse["/telemetry"] = problem(503, Reason.OVERLOADED)
    assert reason_of(list, life.run(attempts=5)) is Reason.OVERLOADED
    assert len(life.slept) == 4
    assert all(2 ** (n - 1) <= wait <= 2**n for n, wait in enumerate(life.slept))


def test_a_server_that_names_its_time_is_not_asked_earlier(life: Life) -> None:
    life.server.behaviour.refuse["simpleenroll"] = (202, b"")
    life.server.behaviour.retry_after = 500
    with pytest.raises(VagusError):
        list(life.run(attempts=3))
    assert life.slept == [500.0, 500.0]


def test_what_waiting_does_not_heal_ends_at_once(life: Life) -> None:
    with pytest.raises(Conflict) as error:
        list(life.run(idevid_cert=None, idevid_key=None))
    assert exit_code(error.value) is Exit.ACTION_NEEDED
    assert life.slept == []


def test_a_refusal_in_mid_stream_is_reported_with_its_reason(life: Life) -> None:
    steps = life.run(count=5, attempts=2)
    assert next(steps)["generation"] == 1
    assert next(steps)["batch"] == 1
    life.server.behaviour.refuse["/telemetry"] = problem(403, Reason.REVOKED)
    assert next(steps)["reason"] == "REVOKED"
    with pytest.raises(NotAuthorised) as error:
        next(steps)
    assert exit_code(error.value) is Exit.REFUSED
