"""Following the ledger's tail, and going on from a saved position."""

from __future__ import annotations

from tests.events.conftest import add
from tests.simulator.refusals import refuses
from vagus.errors import IntegrityFailure
from vagus.events.ledger import LedgerFollower, LedgerRow, load_cursor, save_cursor
from vagus.reasons import Reason
from vagus.records.engine.database import Database
from vagus.records.engine.tables import log_leaves
from vagus.records.engine.writer import Writer
from vagus.testing import FrozenClock


def test_entries_of_this_process_come_with_their_commit(writer: Writer, database: Database) -> None:
    add(writer, b"before")
    follower, heard = LedgerFollower(database), list[LedgerRow]()
    follower.subscribe(heard.extend)
    follower.follow(writer)
    add(writer, b"one", b"two")
    assert heard == [LedgerRow(2, b"one"), LedgerRow(3, b"two")]
    assert follower.position == 3


def test_entries_of_another_process_come_before_those_of_this_one(
    writer: Writer, database: Database, elsewhere: Database
) -> None:
    follower, heard = LedgerFollower(database), list[bytes]()
    follower.subscribe(lambda rows: heard.extend(row.entry for row in rows))
    follower.follow(writer)
    with Writer(elsewhere, FrozenClock()) as other:
        add(other, b"theirs")
        add(writer, b"ours")
    assert heard == [b"theirs", b"ours"]


def test_a_consumer_goes_on_after_a_restart_where_it_stopped(writer: Writer, database: Database) -> None:
    add(writer, b"one", b"two")
    with database.reading() as connection:
        assert load_cursor(connection, "siem") == 0
    writer.submit(lambda batch: save_cursor(batch, "siem", 1)).result(10)
    with database.reading() as connection:
        follower, heard = LedgerFollower(database, load_cursor(connection, "siem")), list[bytes]()
    follower.subscribe(lambda rows: heard.extend(row.entry for row in rows))
    assert follower.catch_up() == 2
    assert heard == [b"two"]


def test_a_cursor_never_goes_back_and_belongs_to_one_consumer(writer: Writer, database: Database) -> None:
    writer.submit(lambda batch: save_cursor(batch, "siem", 7)).result(10)
    writer.submit(lambda batch: save_cursor(batch, "siem", 3)).result(10)
    with database.reading() as connection:
        assert (load_cursor(connection, "siem"), load_cursor(connection, "webhook")) == (7, 0)


def test_a_ledger_that_ends_before_the_cursor_is_another_one(writer: Writer, database: Database) -> None:
    add(writer, b"one")
    with refuses(Reason.LOG_TRUNCATED, IntegrityFailure):
        LedgerFollower(database, 2)


def test_a_missing_entry_is_never_passed_over(writer: Writer, database: Database) -> None:
    follower = LedgerFollower(database)
    add(writer, b"one", b"two", b"three")
    with database.writing() as connection:
        connection.execute(log_leaves.delete().where(log_leaves.c.leaf_index == 1))
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        follower.catch_up()
    assert follower.position == 0
