"""What a process reports of itself: the worst of its parts, and a sequence that is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import cast

import pytest

from tests.endpoints.calls import call
from tests.jobs.turns import LongTurn
from tests.simulator.installation import memory_database
from vagus.events.revocations import RevocationFollower
from vagus.jobs.part import Part, PartHealth, Parts
from vagus.jobs.periodic import Task
from vagus.server.health import Health
from vagus.server.metrics import encode_metrics, operator_pages
from vagus.server.revocation_sequence import SequenceHealth
from vagus.testing import FrozenClock

DAY = timedelta(days=1)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def follower(clock: FrozenClock) -> Iterator[RevocationFollower]:
    with memory_database() as database:
        yield RevocationFollower(database, clock)


def test_health_names_the_functions_that_go_on_by_grace_alone_and_for_how_long(
    clock: FrozenClock, follower: RevocationFollower
) -> None:
    graces = {"telemetry": (7 * DAY, DAY), "imaging": (7 * DAY, DAY / 3), "control": (DAY, timedelta())}
    health = Health(Parts([SequenceHealth(clock, follower, timedelta(seconds=2), graces).part()]))
    assert "on_grace" not in health.report()[1]
    clock.advance(hours=7 * 24 + 6)
    is_well, facts = health.report()
    assert not is_well
    assert facts["on_grace"] == {"telemetry": {"seconds_left": 18 * 3600}, "imaging": {"seconds_left": 2 * 3600}}
    clock.advance(hours=6)
    assert health.report()[1]["on_grace"] == {"telemetry": {"seconds_left": 12 * 3600}}
    follower.catch_up()
    assert "on_grace" not in health.report()[1]


def test_a_turn_that_does_not_end_is_a_failure_whatever_the_clock_says(
    clock: FrozenClock, follower: RevocationFollower
) -> None:
    """The thread that signs CRLs hangs in a disk: no failure is counted, and no CRL is signed."""
    hang = LongTurn()
    sequence = SequenceHealth(clock, follower, timedelta(seconds=2)).part()
    parts = Parts([sequence, Part("crls", [Task("lists", 3600, hang)])])
    parts.start()
    hang.wait_begun()
    later = [0.0]
    health = Health(parts, seconds=lambda: time.monotonic() + later[0])
    clock.advance(hours=5)  # an operator set it
    follower.catch_up()
    is_well, facts = health.report()
    assert (is_well, facts["status"], "hangs" in facts) == (True, "well", False)
    assert b"vagus_task_hangs{" not in encode_metrics(health)
    later[0] = 60.0
    is_well, facts = health.report()
    assert (is_well, facts["status"]) == (False, "failing")
    assert "longer than 60 s" in cast("dict[str, str]", facts["hangs"])["lists"]
    assert b'vagus_task_hangs{task="lists"} 1.0' in encode_metrics(health)
    hang.end()
    parts.stop()
    assert health.report()[0]


@pytest.mark.parametrize(
    ("found", "status", "code"),
    [
        (PartHealth({"answers": {"turned_away": 7}}), "well", 200),
        (PartHealth(waits={"plan": "send SIGHUP"}), "well", 200),
        (PartHealth(is_degraded=True), "degraded", 200),
        (PartHealth(lacks={"files": "give the folder to the user that serves"}), "degraded", 200),
        (PartHealth(is_failing=True, is_degraded=True), "failing", 503),
    ],
)
def test_the_worst_part_decides_whether_a_process_is_well_degraded_or_failing(
    found: PartHealth, status: str, code: int
) -> None:
    health = Health(Parts([Part("first"), Part("second", health=lambda: found), Part("third")]))
    response = call(operator_pages(health), "GET", "/health")
    facts = json.loads(response.body)
    assert (facts.pop("status"), response.status) == (status, code)
    assert facts.pop("work") == {}
    optional = {name: dict(notes) for name, notes in (("lacks", found.lacks), ("waits", found.waits)) if notes}
    assert facts == {**found.facts, **optional}
    for subject in found.lacks:
        assert f'vagus_lacks{{what="{subject}"}} 1.0'.encode() in encode_metrics(health)
