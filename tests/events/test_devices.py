"""Following the sequence of device changes: at once in process, by polling elsewhere, never over a gap."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from tests.simulator.refusals import refuses
from tests.simulator.waiting import wait_until
from vagus.errors import IntegrityFailure, Unavailable
from vagus.events.devices import DeviceFollower
from vagus.identifiers import DeviceId
from vagus.reasons import Reason
from vagus.records.device_changes import DeviceChange, note_device_change, read_changes
from vagus.records.engine.database import Connection, Database, open_database
from vagus.records.engine.tables import device_changes, log_head
from vagus.records.engine.writer import Writer
from vagus.testing import FrozenClock

PUMP, HUB = DeviceId("a" * 26), DeviceId("b" * 25 + "a")


def change(writer: Writer, device_id: DeviceId = PUMP) -> int:
    return writer.submit(lambda batch: note_device_change(batch, device_id)).result(10)


def test_subscribers_hear_a_change_of_this_process_before_its_future_resolves(
    writer: Writer, database: Database
) -> None:
    assert change(writer) == 1
    follower, heard = DeviceFollower(database), list[DeviceChange]()
    assert follower.position == 1, "earlier changes do not count"
    follower.subscribe(heard.extend)
    follower.follow(writer)
    assert [change(writer, HUB), change(writer)] == [2, 3]
    assert [(one.sequence, one.device_id) for one in heard] == [(2, str(HUB)), (3, str(PUMP))]
    assert follower.position == 3
    writer.submit(lambda batch: batch.append(b"something else")).result(10)
    assert len(heard) == 2


def test_another_process_knows_within_half_a_second(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite3'}"
    here, there = open_database(url), open_database(url)
    here.create()
    with Writer(here, FrozenClock()) as writer:
        follower, heard = DeviceFollower(there), list[DeviceChange]()
        follower.subscribe(heard.extend)
        follower.start(poll_seconds=60)  # more than what is allowed
        change(writer)
        wait_until(lambda: bool(heard))
        follower.close()
    there.close()
    here.close()


def test_a_gap_and_a_step_back_are_reported(writer: Writer, database: Database) -> None:
    follower = DeviceFollower(database)
    change(writer)
    follower.catch_up()
    for end, reason in ((5, Reason.LOG_TAMPERED), (0, Reason.LOG_TRUNCATED)):
        with database.writing() as connection:
            connection.execute(update(log_head).values(device_sequence=end))
        with refuses(reason, IntegrityFailure):
            follower.catch_up()


def test_after_a_database_lost_changes_the_follower_reports_it_and_goes_on_from_there(
    writer: Writer, database: Database
) -> None:
    follower, heard = DeviceFollower(database), list[int]()
    follower.subscribe(lambda changes: heard.extend(one.sequence for one in changes))
    for _ in range(2):
        change(writer)
    follower.catch_up()
    with database.writing() as connection:
        connection.execute(device_changes.delete().where(device_changes.c.sequence == 2))
        connection.execute(update(log_head).values(device_sequence=1))
    with refuses(Reason.LOG_TRUNCATED, IntegrityFailure):
        follower.catch_up()
    assert follower.position == 3, "another position: every verdict with the old one is out of date"
    change(writer)
    assert follower.catch_up() == 4
    assert heard == [1, 2, 1, 2]


def test_changes_that_took_the_numbers_of_lost_ones_are_reported(writer: Writer, database: Database) -> None:
    follower, heard = DeviceFollower(database), list[tuple[int, str]]()
    follower.subscribe(lambda changes: heard.extend((one.sequence, one.device_id) for one in changes))
    change(writer)
    change(writer)
    before = follower.catch_up()
    heard.clear()
    with database.writing() as connection:  # the second was lost in a failover, and the hub is quarantined after it
        connection.execute(update(device_changes).where(device_changes.c.sequence == 2).values(device_id=str(HUB)))
    with pytest.raises(IntegrityFailure):
        follower.catch_up()
    assert (2, str(HUB)) in heard
    assert follower.position > before
    change(writer)
    follower.catch_up()
    assert heard[-1] == (3, str(PUMP))


def test_changes_that_were_read_before_an_outage_are_reported(
    writer: Writer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their numbers are passed: no later reading would bring them."""
    follower, heard = DeviceFollower(database), list[int]()
    follower.subscribe(lambda changes: heard.extend(one.sequence for one in changes))
    for _ in range(3):
        change(writer)
    pages: list[int] = []

    def page(connection: Connection, after: int) -> list[DeviceChange]:
        pages.append(after)
        if len(pages) == 2:
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, "away")
        return read_changes(connection, after, 2)

    monkeypatch.setattr("vagus.events.devices.read_changes", page)
    with pytest.raises(Unavailable):
        follower.catch_up()
    assert heard == [1, 2]
    assert follower.catch_up() == 3
    assert heard == [1, 2, 3]
