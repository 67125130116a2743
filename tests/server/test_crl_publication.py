"""CRLs as a part of a serving process: a wrong clock and files that cannot be written are reported once."""

from __future__ import annotations

import logging

import pytest

from vagus.authority.clock_bound import ClockBound
from vagus.errors import Conflict, Unavailable
from vagus.reasons import Reason
from vagus.records.engine.database import open_database
from vagus.server.crl_publication import check_clock, write_files
from vagus.testing import FrozenClock


def test_a_clock_that_dates_no_crl_is_logged_once_and_reported_until_it_is_right(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A virtual machine that was paused for two hours: its clock is right, and no CRL comes before a restart."""
    clock, waits = FrozenClock(), {"listener old": "waits too"}
    database = open_database("sqlite://")
    bound = ClockBound(database, clock, lambda: 0.0)
    check_clock(waits, bound.check_only)
    assert waits == {"listener old": "waits too"}
    clock.advance(hours=2)
    with caplog.at_level(logging.ERROR):
        check_clock(waits, bound.check_only)
        check_clock(waits, bound.check_only)
    assert "restart this process if the clock is right now" in waits["dates"]
    assert [record.getMessage() for record in caplog.records] == [waits["dates"]]
    clock.advance(hours=-2)
    check_clock(waits, bound.check_only)
    assert waits == {"listener old": "waits too"}
    database.close()


def test_a_database_that_is_away_is_not_taken_for_a_clock_that_is_wrong() -> None:
    def check() -> None:
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "the database is away; wait")

    waits: dict[str, str] = {}
    with pytest.raises(Unavailable):
        check_clock(waits, check)
    assert waits == {}


def test_files_that_cannot_be_written_are_logged_once_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    lacks: dict[str, str] = {}
    failure: list[Exception] = [PermissionError(13, "Permission denied", "/lists/.lock")] * 16

    def write() -> None:
        if failure:
            raise ExceptionGroup("files", failure)

    assert write_files(lacks, write, is_needed=False) == write_files(lacks, write, is_needed=False) == 10.0
    assert lacks["files"].startswith("/lists/.lock: Permission denied; ")
    assert len(caplog.records) == 1
    failure[:] = [OSError(28, "No space left on device", "/lists/crl")]
    write_files(lacks, write, is_needed=False)
    assert len(caplog.records) == 2
    with pytest.raises(ExceptionGroup):
        write_files(lacks, write, is_needed=True)
    failure[:] = [Conflict(Reason.RESTORE_UNSETTLED, "the table was set back")]
    with pytest.raises(ExceptionGroup):
        write_files(lacks, write, is_needed=False)
    failure.clear()
    assert write_files(lacks, write, is_needed=False) is None
    assert lacks == {}
