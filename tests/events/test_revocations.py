"""Following the revocation sequence: at once in process, by polling elsewhere, never over a gap."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from tests.simulator.refusals import refuses
from tests.simulator.waiting import wait_until
from vagus.errors import IntegrityFailure
from vagus.events.revocations import RevocationFollower, RevokedEntry, _pack, _unpack
from vagus.reasons import Reason
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.records.engine.database import Database
from vagus.records.engine.tables import log_head, revocation_events
from vagus.records.engine.writer import Batch, Writer
from vagus.records.revocation.revocations import HOLD, RELEASE, REVOKE, insert_event
from vagus.testing import FrozenClock


def step(writer: Writer, serial: int, act: str = REVOKE, *, is_noted: bool = False) -> int:
    """Write one step; `is_noted`: the commit itself brings the event to followers."""

    def write(batch: Batch) -> int:
        event = RevocationEvent(batch.next_revocation(), 1, serial, act, 4, batch.at)
        insert_event(batch.connection, event)
        if is_noted:
            batch.note_step(event)
        return event.sequence

    return writer.submit(write).result(10)


def following(writer: Writer, database: Database, clock: FrozenClock | None = None) -> RevocationFollower:
    """A follower that hears of each commit of the writer."""
    follower = RevocationFollower(database, clock or FrozenClock())
    follower.follow(writer)
    return follower


def test_a_revocation_of_this_process_is_found_before_its_future_resolves(writer: Writer, database: Database) -> None:
    follower = following(writer, database)
    assert follower.find(1, 7) is None
    sequence = step(writer, 7)
    found = follower.find(1, 7)
    assert found is not None
    assert (found.sequence, found.is_hold, found.reason) == (sequence, False, 4)
    assert follower.position == sequence
    assert follower.find(2, 7) is None  # a serial means nothing without its issuer


@given(
    sequence=st.integers(1, 2**63 - 1),
    serial=st.integers(1, 2**160 - 1),
    act=st.sampled_from((REVOKE, HOLD)),
    reason=st.integers(0, 10),
    at=st.integers(0, 2**40),
)
def test_an_entry_packed_into_one_number_comes_back(sequence: int, serial: int, act: str, reason: int, at: int) -> None:
    packed = _pack(RevocationEvent(sequence, 3, serial, act, reason, at))
    assert _unpack(3, serial, packed) == RevokedEntry(3, serial, act == HOLD, reason, at, sequence)


def test_a_hold_is_released_and_a_revocation_stays(writer: Writer, database: Database) -> None:
    follower, found = following(writer, database), []
    for act in (HOLD, RELEASE, HOLD, REVOKE):
        step(writer, 7, act)
        entry = follower.find(1, 7)
        found.append(None if entry is None else entry.is_hold)
    assert found == [True, None, True, False]


def test_a_follower_that_starts_late_loads_everything(writer: Writer, database: Database) -> None:
    serials = [(1 << 158) + number for number in range(30)]
    for serial in serials:
        step(writer, serial)
    follower = RevocationFollower(database, FrozenClock())
    assert follower.position == 30
    assert all(follower.find(1, serial) for serial in serials)


def test_it_polls_what_another_process_wrote(writer: Writer, database: Database, elsewhere: Database) -> None:
    follower = RevocationFollower(elsewhere, FrozenClock())
    came = threading.Event()
    follower.subscribe(lambda _: came.set())
    follower.start(poll_seconds=0.02)
    step(writer, 9)
    assert came.wait(5)
    assert follower.find(1, 9) is not None
    follower.close()


def test_subscribers_get_each_event_once_and_in_order(writer: Writer, database: Database) -> None:
    follower, heard = following(writer, database), list[int]()
    follower.subscribe(lambda events: heard.extend(event.sequence for event in events))
    for serial in range(1, 6):
        step(writer, serial)
        follower.catch_up()
    assert heard == [1, 2, 3, 4, 5]


def test_it_is_lost_when_it_has_not_been_current_for_longer_than_its_bound(writer: Writer, database: Database) -> None:
    clock, bound = FrozenClock(), timedelta(seconds=30)
    follower = RevocationFollower(database, clock)
    assert not follower.is_lost(clock.now(), bound)
    assert not follower.is_lost(clock.advance(seconds=30), bound)
    assert follower.is_lost(clock.advance(seconds=1), bound)
    follower.catch_up()
    assert not follower.is_lost(clock.now(), bound)
    assert follower.current_at == clock.now()


def test_a_commit_without_revocations_keeps_it_current(writer: Writer, database: Database) -> None:
    clock = FrozenClock()
    follower = following(writer, database, clock)
    clock.advance(seconds=60)
    writer.submit(lambda batch: batch.append(b"x")).result(10)
    assert not follower.is_lost(clock.now(), timedelta(seconds=1))


def test_a_gap_is_never_passed_over(writer: Writer, database: Database) -> None:
    for serial in (1, 2, 3):
        step(writer, serial)
    with database.writing() as connection:
        connection.execute(revocation_events.delete().where(revocation_events.c.sequence == 2))
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        RevocationFollower(database, FrozenClock())


def test_a_sequence_that_went_back_is_an_older_database(writer: Writer, database: Database) -> None:
    step(writer, 1)
    follower = RevocationFollower(database, FrozenClock())
    with database.writing() as connection:
        connection.execute(update(log_head).values(revocation_sequence=0))
    with refuses(Reason.LOG_TRUNCATED, IntegrityFailure):
        follower.catch_up()
    assert follower.find(1, 1) is not None


def test_a_database_that_lost_steps_and_went_on_is_never_followed_again(writer: Writer, database: Database) -> None:
    """As after a failover to a standby that lacked the last commit: the same numbers, other revocations."""
    step(writer, 1)
    follower, clock = RevocationFollower(database, FrozenClock()), FrozenClock()
    bound = timedelta(seconds=2)
    with database.writing() as connection:
        connection.execute(revocation_events.delete())
        connection.execute(update(log_head).values(revocation_sequence=0))
    for serial in (2, 3):  # the second time it has more than was read
        with database.writing() as connection:
            end = connection.execute(select(log_head.c.revocation_sequence)).scalar_one()
            insert_event(connection, RevocationEvent(end + 1, 1, serial, REVOKE, 1, 0))
            connection.execute(update(log_head).values(revocation_sequence=end + 1))
        with refuses(Reason.LOG_TRUNCATED, IntegrityFailure):
            follower.catch_up()
        assert follower.is_lost(clock.now(), bound)
    assert RevocationFollower(database, clock).position == 2, "a restart reads what there is"


def test_a_clock_that_was_set_back_makes_no_old_state_current(database: Database) -> None:
    clock = FrozenClock()
    follower, bound = RevocationFollower(database, clock), timedelta(seconds=2)
    clock.advance(seconds=-1)
    assert not follower.is_lost(clock.now(), bound), "corrections as large as the bound are tolerated"
    clock.advance(seconds=-7200)
    assert follower.is_lost(clock.now(), bound)
    follower.catch_up()
    assert not follower.is_lost(clock.now(), bound)


def test_what_others_committed_in_between_is_read_before_what_this_process_wrote(
    writer: Writer, database: Database, elsewhere: Database
) -> None:
    follower, seen = following(writer, database), list[int]()
    follower.subscribe(lambda events: seen.extend(event.serial for event in events))
    with Writer(elsewhere, FrozenClock()) as other:
        for serial, by in enumerate((writer, other, writer, writer), 1):
            step(by, serial, is_noted=True)
    assert seen == [1, 2, 3, 4]
    assert follower.position == 4


def test_polling_goes_on_after_an_outage(writer: Writer, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    follower = RevocationFollower(database, FrozenClock())
    with database.writing() as connection:
        connection.execute(update(log_head).values(revocation_sequence=1))  # promised, not there
    follower.start(poll_seconds=0.01)
    wait_until(lambda: "cannot be followed" in caplog.text)
    with database.writing() as connection:
        insert_event(connection, RevocationEvent(1, 1, 5, REVOKE, 4, 0))
    wait_until(lambda: follower.find(1, 5) is not None)
    follower.close()
