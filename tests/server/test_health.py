"""What a process says of itself while its revocation sequence is out of sight."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import cast

import pytest

from vagus.authority.clock_bound import ClockBound
from vagus.errors import Conflict, Unavailable
from vagus.events.revocations import RevocationFollower
from vagus.jobs.periodic import Jobs, Task
from vagus.reasons import Reason
from vagus.records.engine.database import open_database
from vagus.records.installation import InstallationRow, insert_installation
from vagus.server.health import Health, note_clock, note_files
from vagus.server.metrics import encode_metrics
from vagus.testing import FrozenClock

DAY = timedelta(days=1)


def test_it_says_which_functions_go_on_by_grace_alone_and_for_how_long() -> None:
    clock = FrozenClock()
    database = open_database("sqlite://")
    database.create()
    with database.writing() as connection:
        insert_installation(connection, InstallationRow("log.test", 0, bytes(32)))
    follower = RevocationFollower(database, clock)
    graces = {"telemetry": (7 * DAY, DAY), "imaging": (7 * DAY, DAY / 3), "control": (DAY, timedelta())}
    health = Health(clock, follower, (), timedelta(seconds=2), dict, graces=graces)
    assert "on_grace" not in health.report()[1]
    clock.advance(hours=7 * 24 + 6)
    is_well, facts = health.report()
    assert not is_well
    assert facts["on_grace"] == {"telemetry": {"seconds_left": 18 * 3600}, "imaging": {"seconds_left": 2 * 3600}}
    clock.advance(hours=6)
    assert health.report()[1]["on_grace"] == {"telemetry": {"seconds_left": 12 * 3600}}
    follower.catch_up()
    assert "on_grace" not in health.report()[1]
    database.close()


def test_work_that_does_not_come_back_is_a_failure_whatever_the_clock_says() -> None:
    """The thread that signs lists hangs in a disk: no failure is counted, and no list is signed."""
    clock = FrozenClock()
    database = open_database("sqlite://")
    database.create()
    with database.writing() as connection:
        insert_installation(connection, InstallationRow("log.test", 0, bytes(32)))
    follower = RevocationFollower(database, clock)
    begun, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go_on.wait(10)

    jobs = Jobs([Task("lists", 3600, hang)])
    jobs.start()
    assert begun.wait(10)
    later = [0.0]
    health = Health(clock, follower, (jobs,), timedelta(seconds=2), dict, seconds=lambda: time.monotonic() + later[0])
    clock.advance(hours=5)  # somebody set it
    follower.catch_up()
    is_well, facts = health.report()
    assert (is_well, facts["status"], "hangs" in facts) == (True, "well", False)
    assert b"vagus_task_hangs{" not in encode_metrics(health)
    later[0] = 60.0
    is_well, facts = health.report()
    assert (is_well, facts["status"]) == (False, "failing")
    assert "longer than 60 s" in cast("dict[str, str]", facts["hangs"])["lists"]
    assert b'vagus_task_hangs{task="lists"} 1.0' in encode_metrics(health)
    go_on.set()
    jobs.stop()
    assert health.report()[0]
    database.close()


def test_a_clock_that_dates_no_list_is_told_once_in_the_log_and_until_it_is_right(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A virtual machine that was paused for two hours: its clock is right, and no list comes before a restart."""
    clock, waits = FrozenClock(), {"listener old": "waits too"}
    database = open_database("sqlite://")
    bound = ClockBound(database, clock, lambda: 0.0)
    note_clock(waits, bound.check_only)
    assert waits == {"listener old": "waits too"}
    clock.advance(hours=2)
    with caplog.at_level(logging.ERROR):
        note_clock(waits, bound.check_only)
        note_clock(waits, bound.check_only)
    assert "restart this process if it is right now" in waits["dates"]
    assert [record.getMessage() for record in caplog.records] == [waits["dates"]]
    clock.advance(hours=-2)
    note_clock(waits, bound.check_only)
    assert waits == {"listener old": "waits too"}
    database.close()


def test_a_database_that_is_away_is_not_taken_for_a_clock_that_is_wrong() -> None:
    def check() -> None:
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "the database is away; wait")

    waits: dict[str, str] = {}
    with pytest.raises(Unavailable):
        note_clock(waits, check)
    assert waits == {}


def test_files_that_cannot_be_written_are_told_once_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    lacks: dict[str, str] = {}
    failure: list[Exception] = [PermissionError(13, "Permission denied", "/lists/.lock")] * 16

    def write() -> None:
        if failure:
            raise ExceptionGroup("files", failure)

    assert note_files(lacks, write, is_needed=False) == note_files(lacks, write, is_needed=False) == 10.0
    assert lacks["files"].startswith("/lists/.lock: Permission denied; ")
    assert len(caplog.records) == 1
    failure[:] = [OSError(28, "No space left on device", "/lists/crl")]
    note_files(lacks, write, is_needed=False)
    assert len(caplog.records) == 2
    with pytest.raises(ExceptionGroup):
        note_files(lacks, write, is_needed=True)
    failure[:] = [Conflict(Reason.RESTORE_UNSETTLED, "the table was set back")]
    with pytest.raises(ExceptionGroup):
        note_files(lacks, write, is_needed=False)
    failure.clear()
    assert note_files(lacks, write, is_needed=False) is None
    assert lacks == {}
