"""The writer: numbers without gaps, one act's error its own, answers only after the commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from tests.simulator.presence import present
from tests.simulator.refusals import refuses
from vagus.errors import Conflict, IntegrityFailure, LimitExceeded, Malformed, Misconfigured, Unavailable
from vagus.reasons import Reason
from vagus.records.engine.commit_facts import CommitFacts
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.tables import log_head, log_leaves, tokens, verifier_memory
from vagus.records.engine.writer import Batch, Writer
from vagus.records.installation import InstallationRow, insert_installation, set_settled
from vagus.records.log import iterate_leaves, load_head
from vagus.testing import FrozenClock
from vagus.tlog.merkle import Frontier, leaf_hash


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    with Writer(database, FrozenClock()) as made:
        yield made


def append(entry: bytes) -> Callable[[Batch], int]:
    return lambda batch: batch.append(entry)


def remember(name: str) -> Callable[[Batch], int]:
    """An act with a row and an entry."""

    def act(batch: Batch) -> int:
        batch.connection.execute(insert(verifier_memory).values(name=name, number=0, octets=bytes(20), at=batch.at))
        return batch.append(name.encode())

    return act


def names(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(verifier_memory.c.name).order_by(verifier_memory.c.name)).scalars())


def check_log(database: Database) -> list[bytes]:
    """Every leaf hashes right, in order, and leads to the stored head; gives the entries."""
    with database.reading() as connection:
        leaves = list(iterate_leaves(connection))
        head = load_head(connection)
    assert [leaf.leaf_hash for leaf in leaves] == [leaf_hash(leaf.entry) for leaf in leaves]
    frontier = Frontier().extend(leaf.leaf_hash for leaf in leaves)
    assert (head.size, head.frontier, head.root) == (len(leaves), frontier.encode(), frontier.root)
    return [leaf.entry for leaf in leaves]


Log = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def take_log(database: Database) -> Log:
    with database.reading() as connection:
        head, leaves = (connection.execute(select(table)).mappings().all() for table in (log_head, log_leaves))
    return [dict(row) for row in head], [dict(row) for row in leaves]


def put_log(database: Database, log: Log) -> None:
    with database.writing() as connection:
        for table, rows in zip((log_head, log_leaves), log, strict=True):
            connection.execute(table.delete())
            connection.execute(table.insert(), rows)


class ListenerState:
    """Holds the writer inside an act until it is opened, so that the acts after it share a batch."""

    def __init__(self, writer: Writer) -> None:
        self._entered, self._opened = threading.Event(), threading.Event()
        self.future = writer.submit(self._wait)
        assert self._entered.wait(10)

    def _wait(self, _: Batch) -> None:
        self._entered.set()
        assert self._opened.wait(10)

    def open(self) -> None:
        self._opened.set()
        self.future.result(10)


def test_an_act_gives_its_result_after_its_rows_are_there(writer: Writer, database: Database) -> None:
    assert writer.submit(remember("a")).result(10) == 0
    assert names(database) == ["a"]
    assert check_log(database) == [b"a"]


def test_the_batch_knows_the_time(writer: Writer) -> None:
    assert writer.submit(lambda batch: batch.at).result(10) == int(FrozenClock().now().timestamp())


def test_leaves_are_numbered_without_a_gap_from_many_threads(writer: Writer, database: Database) -> None:
    indexes: list[int] = []

    def client(number: int) -> None:
        indexes.extend(writer.submit(remember(f"{number:02d}-{turn:02d}")).result(30) for turn in range(10))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(indexes) == list(range(120))
    assert sorted(check_log(database)) == sorted(name.encode() for name in names(database))


def test_an_act_that_fails_takes_nothing_with_it(writer: Writer, database: Database) -> None:
    class Refusal(Exception):
        pass

    def refuse(batch: Batch) -> None:
        remember("gone")(batch)
        batch.next_revocation()
        raise Refusal

    gate = ListenerState(writer)
    before, refused, behind = (writer.submit(act) for act in (remember("a"), refuse, remember("b")))
    number: Future[int] = writer.submit(Batch.next_revocation)
    gate.open()
    assert (before.result(10), behind.result(10), number.result(10)) == (0, 1, 1)
    with pytest.raises(Refusal):
        refused.result(10)
    assert names(database) == ["a", "b"]
    assert check_log(database) == [b"a", b"b"]


def test_a_broken_constraint_is_a_conflict_of_its_own_act(writer: Writer, database: Database) -> None:
    gate = ListenerState(writer)
    futures = [writer.submit(remember(name)) for name in ("a", "a", "b")]
    gate.open()
    assert (futures[0].result(10), futures[2].result(10)) == (0, 1)
    with refuses(Reason.ALREADY_EXISTS, Conflict):
        futures[1].result(10)
    assert check_log(database) == [b"a", b"b"]


def test_a_row_that_refers_to_nothing_is_a_conflict(writer: Writer) -> None:
    token = insert(tokens).values(token_sha256=bytes(32), device_id="a" * 26, made_at=0, expires_at=1)
    with refuses(Reason.ALREADY_EXISTS, Conflict):
        writer.submit(lambda batch: batch.connection.execute(token)).result(10)


def test_a_missing_value_is_a_defect_and_no_conflict(writer: Writer, database: Database) -> None:
    def forget_the_value(batch: Batch) -> None:
        batch.append(b"x")
        batch.connection.execute(insert(verifier_memory).values(name="a", octets=bytes(20), at=batch.at))

    with pytest.raises(IntegrityError):
        writer.submit(forget_the_value).result(10)
    assert writer.submit(remember("a")).result(10) == 0
    assert check_log(database) == [b"a"]


def test_a_broken_check_is_a_defect_and_no_conflict(writer: Writer) -> None:
    writer.submit(
        lambda batch: batch.connection.execute(text("CREATE TABLE checked (number INTEGER CHECK (number > 0))"))
    ).result(10)
    with pytest.raises(IntegrityError):
        writer.submit(lambda batch: batch.connection.execute(text("INSERT INTO checked VALUES (0)"))).result(10)
    writer.submit(lambda batch: batch.connection.execute(text("DROP TABLE checked"))).result(10)


def test_while_a_restore_is_unsettled_only_its_settlement_appends(writer: Writer, database: Database) -> None:
    mine = InstallationRow("log.test", 0, bytes(32), restored_at=5, restored_size=0)
    writer.submit(lambda batch: insert_installation(batch.connection, mine)).result(10)

    def settle(batch: Batch) -> int:
        batch.begin_settling()
        return batch.append(b"settled")

    gate = ListenerState(writer)
    before, settled, behind = writer.submit(append(b"a")), writer.submit(settle), writer.submit(append(b"b"))
    gate.open()
    assert settled.result(10) == 0
    for refused in (before, behind):
        with refuses(Reason.RESTORE_UNSETTLED, Conflict):
            refused.result(10)
    writer.submit(lambda batch: set_settled(batch.connection)).result(10)
    assert writer.submit(append(b"c")).result(10) == 1
    assert check_log(database) == [b"settled", b"c"]


def test_acts_see_what_the_acts_before_them_wrote(writer: Writer) -> None:
    def count(batch: Batch) -> int:
        return len(batch.connection.execute(select(verifier_memory.c.name)).all())

    gate = ListenerState(writer)
    writer.submit(remember("a"))
    counted = writer.submit(count)
    gate.open()
    assert counted.result(10) == 1


def test_device_changes_have_a_sequence_of_their_own(writer: Writer, database: Database) -> None:
    assert [writer.submit(Batch.next_device_change).result(10) for _ in range(3)] == [1, 2, 3]

    def fail(batch: Batch) -> None:
        batch.next_device_change()
        raise Malformed(Reason.BAD_ARGUMENT, "not this one")

    with pytest.raises(Malformed):
        writer.submit(fail).result(10)
    told: list[CommitFacts] = []
    writer.on_commit(told.append)
    assert writer.submit(Batch.next_device_change).result(10) == 4
    assert [facts.device_sequence for facts in told] == [4]
    assert writer.submit(Batch.next_revocation).result(10) == 1


def test_revocations_are_numbered_without_a_gap_and_stored(writer: Writer, database: Database) -> None:
    assert [writer.submit(Batch.next_revocation).result(10) for _ in range(3)] == [1, 2, 3]
    with database.reading() as connection:
        assert load_head(connection).revocation_sequence == 3


def test_another_writer_goes_on_where_the_first_ended(database: Database) -> None:
    for expected in range(3):
        with Writer(database, FrozenClock()) as writer:
            assert writer.submit(append(b"x")).result(10) == expected
    assert check_log(database) == [b"x"] * 3


def test_a_cancelled_act_is_not_run(writer: Writer, database: Database) -> None:
    gate = ListenerState(writer)
    cancelled, kept = writer.submit(remember("a")), writer.submit(remember("b"))
    assert cancelled.cancel()
    gate.open()
    assert kept.result(10) == 0
    with pytest.raises(CancelledError):
        cancelled.result(10)
    assert names(database) == ["b"]


def test_close_commits_what_waits_and_refuses_the_rest(database: Database) -> None:
    writer = Writer(database, FrozenClock())
    gate = ListenerState(writer)
    waiting = [writer.submit(remember(f"{number}")) for number in range(5)]
    gate.open()
    writer.close()
    assert [future.result(0) for future in waiting] == list(range(5))
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable):
        writer.submit(append(b"late"))
    writer.close()


def test_a_queue_that_is_full_refuses(database: Database) -> None:
    with Writer(database, FrozenClock(), max_queued=2) as writer:
        gate = ListenerState(writer)
        writer.submit(append(b"a"))
        writer.submit(append(b"b"))
        with refuses(Reason.OVERLOADED, LimitExceeded):
            writer.submit(append(b"c"))
        gate.open()


def test_a_batch_is_bounded(database: Database) -> None:
    sizes: list[int] = []
    with Writer(database, FrozenClock(), max_batch=4) as writer:
        writer.on_commit(lambda facts: sizes.append(facts.acts))
        gate = ListenerState(writer)
        waiting = [writer.submit(append(b"x")) for _ in range(10)]
        gate.open()
        assert [future.result(10) for future in waiting] == list(range(10))
    assert sizes == [1, 4, 4, 2]


def test_a_patient_act_shares_the_batch_of_the_next_one(database: Database) -> None:
    with Writer(database, FrozenClock(), patience_seconds=3_600) as writer:
        told: list[CommitFacts] = []
        writer.on_commit(told.append)
        for number in range(3):
            patient = writer.submit(append(b"patient %d" % number), is_patient=True)
            assert writer.submit(append(b"urgent %d" % number)).result(10) == 2 * number + 1
            assert patient.result(0) == 2 * number
        assert [facts.acts for facts in told] == [2, 2, 2]


@pytest.mark.parametrize("patience", [0, 0.001])
def test_a_patient_act_comes_to_the_disk_by_itself(database: Database, patience: float) -> None:
    with Writer(database, FrozenClock(), patience_seconds=patience) as writer:
        for number in range(5):
            assert writer.submit(append(b"patient"), is_patient=True).result(10) == number
    assert len(check_log(database)) == 5


def test_hurry_commits_in_one_batch_what_was_patient(database: Database) -> None:
    with Writer(database, FrozenClock(), patience_seconds=3_600) as writer:
        told: list[CommitFacts] = []
        writer.on_commit(told.append)
        writer.hurry()  # for nothing
        patient = [writer.submit(append(b"%d" % number), is_patient=True) for number in range(3)]
        assert not any(future.done() for future in patient)
        writer.hurry()
        assert [future.result(10) for future in patient] == [0, 1, 2]
        assert [facts.acts for facts in told] == [3]


def test_close_commits_what_was_patient_as_well(database: Database) -> None:
    writer = Writer(database, FrozenClock(), patience_seconds=3_600)
    patient = writer.submit(append(b"patient"), is_patient=True)
    writer.close()
    assert patient.result(0) == 0
    assert check_log(database) == [b"patient"]


def test_followers_see_a_commit_before_the_submitter(writer: Writer) -> None:
    told: list[CommitFacts] = []
    seen: list[int] = []
    writer.on_commit(told.append)
    future = writer.submit(lambda batch: (batch.append(b"x"), batch.next_revocation()))
    future.add_done_callback(lambda _: seen.append(len(told)))
    future.result(10)
    assert told == [CommitFacts(size=1, revocation_sequence=1, acts=1, entries=(b"x",))]
    assert seen in ([1], [])  # the callback may still be on its way, but never sooner


def test_a_follower_that_fails_does_not_stop_the_writer(writer: Writer, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: CommitFacts) -> None:
        raise ValueError

    writer.on_commit(fail)
    assert writer.submit(append(b"a")).result(10) == 0
    assert writer.submit(append(b"b")).result(10) == 1
    assert "a follower of commits failed" in caplog.text


def test_an_entry_larger_than_a_bundle_holds_is_refused(writer: Writer) -> None:
    assert writer.submit(append(b"x" * 65_535)).result(10) == 0
    with refuses(Reason.TOO_LARGE, Malformed):
        writer.submit(append(b"x" * 65_536)).result(10)


def test_kill_points_lie_on_both_sides_of_the_commit(database: Database) -> None:
    passed: list[tuple[str, bool]] = []
    future: Future[int] | None = None
    writer = Writer(
        database, FrozenClock(), kill_points=lambda point: passed.append((point, bool(future and future.done())))
    )
    gate = ListenerState(writer)
    future = writer.submit(append(b"x"))
    gate.open()
    writer.close()
    assert passed[-2:] == [("before-commit", False), ("after-commit", False)]


def test_a_transaction_that_was_lost_reaches_every_future_and_the_next_batch_goes_on(database: Database) -> None:
    def end_transaction(point: str) -> None:
        if point == "before-commit" and armed:
            armed.clear()
            driver: Any = present(writer._connection).connection.driver_connection
            driver.rollback()

    armed: list[bool] = []
    writer = Writer(database, FrozenClock(), kill_points=end_transaction)
    gate = ListenerState(writer)
    futures = [writer.submit(remember(name)) for name in ("a", "b")]
    armed.append(True)
    gate._opened.set()
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable):
        gate.future.result(10)
    assert [future.result(10) for future in futures] == [0, 1]
    writer.close()
    assert check_log(database) == [b"a", b"b"]


@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "between others", "last"])
def test_an_act_that_survives_a_failed_statement_spoils_nothing(writer: Writer, database: Database, place: int) -> None:
    """PostgreSQL refuses all further statements of such an act, SQLite lets it go on; neighbours are safe on both."""

    def swallow(batch: Batch) -> int:
        with suppress(IntegrityError):
            remember("there")(batch)
        return batch.append(b"swallowed")

    writer.submit(remember("there")).result(10)
    gate = ListenerState(writer)
    acts = [remember("a"), remember("b")]
    acts.insert(place, swallow)
    futures = [writer.submit(act) for act in acts]
    gate.open()
    with suppress(SQLAlchemyError):
        futures.pop(place).result(10)
    for future in futures:
        future.result(10)
    assert names(database) == ["a", "b", "there"]
    assert [entry for entry in check_log(database) if entry != b"swallowed"] == [b"there", b"a", b"b"]


def test_a_log_that_lost_what_was_committed_here_is_not_appended_to(writer: Writer, database: Database) -> None:
    """As after a failover to a standby that lacked the last commits, whose places others may have taken since."""
    for name in (b"a", b"b"):
        writer.submit(append(name)).result(10)
    kept = take_log(database)
    writer.submit(append(b"c")).result(10)
    for others in ([], [b"x"], [b"x", b"y"]):
        put_log(database, kept)
        with Writer(database, FrozenClock()) as elsewhere:
            for entry in others:
                elsewhere.submit(append(entry)).result(10)
        with refuses(Reason.LOG_TRUNCATED, IntegrityFailure):
            writer.submit(append(b"d")).result(10)
        assert check_log(database) == [b"a", b"b", *others]


def test_a_log_that_others_made_longer_is_appended_to(writer: Writer, database: Database) -> None:
    writer.submit(append(b"a")).result(10)
    with Writer(database, FrozenClock()) as elsewhere:
        elsewhere.submit(append(b"b")).result(10)
    for number in range(2):
        assert writer.submit(append(b"c")).result(10) == 2 + number
    assert check_log(database) == [b"a", b"b", b"c", b"c"]


@pytest.mark.parametrize("count", [0, 1, 8, 9, 100])
def test_every_leaf_of_an_act_is_written_whatever_their_number(writer: Writer, database: Database, count: int) -> None:
    entries = [b"entry %d" % number for number in range(count)]
    assert writer.submit(lambda batch: [batch.append(entry) for entry in entries]).result(10) == [*range(count)]
    assert check_log(database) == entries


def test_a_database_that_another_process_keeps_locked_is_unavailable(file_database: Database) -> None:
    import sqlite3

    other = sqlite3.connect(file_database.path or "", isolation_level=None)
    with Writer(file_database, FrozenClock()) as writer:
        writer.submit(lambda batch: batch.connection.exec_driver_sql("PRAGMA busy_timeout = 50")).result(10)
        other.execute("BEGIN IMMEDIATE")
        with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable):
            writer.submit(append(b"a")).result(10)
        other.execute("ROLLBACK")
        assert writer.submit(append(b"b")).result(10) == 0
    other.close()


def test_a_head_that_contradicts_itself_stops_every_act(writer: Writer, database: Database) -> None:
    writer.submit(append(b"a")).result(10)
    with database.writing() as connection:
        connection.execute(update(log_head).values(root=bytes(32)))
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        writer.submit(append(b"b")).result(10)


def test_a_database_without_a_head_is_refused(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(log_head.delete())
    with Writer(database, FrozenClock()) as writer, refuses(Reason.SCHEMA_MISMATCH, Misconfigured):
        writer.submit(append(b"a")).result(10)


def test_a_missing_leaf_is_found_while_reading(writer: Writer, database: Database) -> None:
    for number in range(5):
        writer.submit(append(b"%d" % number)).result(10)
    with database.writing() as connection:
        connection.execute(log_leaves.delete().where(log_leaves.c.leaf_index == 3))
    with database.reading() as connection:
        for end in (None, 5):
            with pytest.raises(IntegrityFailure) as caught:
                list(iterate_leaves(connection, 1, end))
            assert caught.value.facts["index"] == 3
        assert [leaf.index for leaf in iterate_leaves(connection, 1, 3)] == [1, 2]


def test_two_writers_on_one_database_share_its_numbers(database_url: str, database: Database) -> None:
    if database.is_memory:
        pytest.skip("a database in memory belongs to one process")
    second = open_database(database_url)
    with Writer(database, FrozenClock()) as one, Writer(second, FrozenClock()) as two:
        futures = [(one, two)[number % 2].submit(remember(f"{number:03d}")) for number in range(200)]
        indexes = [future.result(30) for future in futures]
    second.close()
    assert sorted(indexes) == list(range(200))
    entries = check_log(database)
    assert [entries[index] for index in indexes] == [b"%03d" % number for number in range(200)]
