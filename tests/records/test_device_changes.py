"""Following the sequence of device changes: at once in process, by polling elsewhere, never over a gap."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from vagus.errors import IntegrityFailure, Malformed, Unavailable
from vagus.identifiers import DeviceId
from vagus.reasons import Reason
from vagus.records.device_changes import DeviceChange, DeviceFollower, note_device_change, read_changes
from vagus.records.engine.database import Connection, Database, open_database
from vagus.records.engine.tables import device_changes, log_head
from vagus.records.engine.writer import Batch, Writer
from vagus.testing import FrozenClock

PUMP, HUB = DeviceId("a" * 26), DeviceId("b" * 25 + "a")


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    with Writer(database, FrozenClock()) as made:
        yield made


def change(writer: Writer, device_id: DeviceId = PUMP) -> int:
    return writer.submit(lambda batch: note_device_change(batch, device_id)).result(10)


def test_in_process_it_tells_before_the_future_resolves(writer: Writer, database: Database) -> None:
    assert change(writer) == 1
    follower, told = DeviceFollower(database), list[DeviceChange]()
    assert follower.position == 1, "what was before is of no interest"
    follower.subscribe(told.extend)
    follower.follow(writer)
    assert [change(writer, HUB), change(writer)] == [2, 3]
    assert [(one.sequence, one.device_id) for one in told] == [(2, str(HUB)), (3, str(PUMP))]
    assert follower.position == 3
    writer.submit(lambda batch: batch.append(b"something else")).result(10)
    assert len(told) == 2


def test_a_change_that_was_undone_never_was(writer: Writer, database: Database) -> None:
    def fail(batch: Batch) -> None:
        note_device_change(batch, PUMP)
        raise Malformed(Reason.BAD_ARGUMENT, "not this one")

    with pytest.raises(Malformed):
        writer.submit(fail).result(10)
    assert change(writer) == 1
    with database.reading() as connection:
        assert [one.sequence for one in read_changes(connection, 0)] == [1]


def test_another_process_knows_within_half_a_second(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite3'}"
    here, there = open_database(url), open_database(url)
    here.create()
    with Writer(here, FrozenClock()) as writer:
        follower, told = DeviceFollower(there), list[DeviceChange]()
        follower.subscribe(told.extend)
        follower.start(poll_seconds=60)  # more than what is allowed
        change(writer)
        until = time.monotonic() + 10
        while not told:
            assert time.monotonic() < until
            time.sleep(0.02)
        follower.close()
    there.close()
    here.close()


def test_a_gap_and_a_step_back_are_told(writer: Writer, database: Database) -> None:
    follower = DeviceFollower(database)
    change(writer)
    follower.catch_up()
    for end, reason in ((5, Reason.LOG_TAMPERED), (0, Reason.LOG_TRUNCATED)):
        with database.writing() as connection:
            connection.execute(update(log_head).values(device_sequence=end))
        with pytest.raises(IntegrityFailure) as caught:
            follower.catch_up()
        assert caught.value.reason is reason


def test_behind_a_database_that_lost_changes_it_says_so_and_goes_on_from_there(
    writer: Writer, database: Database
) -> None:
    follower, told = DeviceFollower(database), list[int]()
    follower.subscribe(lambda changes: told.extend(one.sequence for one in changes))
    for _ in range(2):
        change(writer)
    follower.catch_up()
    with database.writing() as connection:
        connection.execute(device_changes.delete().where(device_changes.c.sequence == 2))
        connection.execute(update(log_head).values(device_sequence=1))
    with pytest.raises(IntegrityFailure) as caught:
        follower.catch_up()
    assert caught.value.reason is Reason.LOG_TRUNCATED
    assert follower.position == 3, "another place: no verdict that was reached at the old one holds"
    change(writer)
    assert follower.catch_up() == 4
    assert told == [1, 2, 1, 2]


def test_what_a_database_that_lost_changes_gave_anew_in_their_places_is_told(
    writer: Writer, database: Database
) -> None:
    follower, told = DeviceFollower(database), list[tuple[int, str]]()
    follower.subscribe(lambda changes: told.extend((one.sequence, one.device_id) for one in changes))
    change(writer)
    change(writer)
    before = follower.catch_up()
    told.clear()
    with database.writing() as connection:  # the second was lost in a failover, and the hub is quarantined behind it
        connection.execute(update(device_changes).where(device_changes.c.sequence == 2).values(device_id=str(HUB)))
    with pytest.raises(IntegrityFailure):
        follower.catch_up()
    assert (2, str(HUB)) in told
    assert follower.position > before
    change(writer)
    follower.catch_up()
    assert told[-1] == (3, str(PUMP))


def test_polling_lives_through_a_fault_of_its_own(writer: Writer, database: Database) -> None:
    follower, told = DeviceFollower(database), list[int]()

    def stumble(changes: Sequence[DeviceChange]) -> None:
        told.extend(one.sequence for one in changes)
        raise ZeroDivisionError

    follower.subscribe(stumble)
    follower.start(poll_seconds=0.01)
    until = time.monotonic() + 10
    for number in (1, 2):
        change(writer)
        while number not in told and time.monotonic() < until:
            time.sleep(0.01)
    follower.close()
    assert told == [1, 2]


def test_what_was_read_before_an_outage_is_told(
    writer: Writer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is passed by then: nobody would hear of it any more."""
    follower, told = DeviceFollower(database), list[int]()
    follower.subscribe(lambda changes: told.extend(one.sequence for one in changes))
    for _ in range(3):
        change(writer)
    pages: list[int] = []

    def page(connection: Connection, after: int) -> list[DeviceChange]:
        pages.append(after)
        if len(pages) == 2:
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, "away")
        return read_changes(connection, after, 2)

    monkeypatch.setattr("vagus.records.device_changes.read_changes", page)
    with pytest.raises(Unavailable):
        follower.catch_up()
    assert told == [1, 2]
    assert follower.catch_up() == 3
    assert told == [1, 2, 3]
