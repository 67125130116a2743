"""The installation's row: written once, its salt never shown."""

from __future__ import annotations

import threading
import time

import pytest

from tests.simulator.refusals import refuses
from vagus.errors import Conflict, Malformed, Misconfigured
from vagus.reasons import Reason
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.writer import Batch, Writer
from vagus.records.installation import (
    InstallationRow,
    find_installation,
    insert_installation,
    load_installation,
    load_salt,
    set_origin,
    set_policy,
    set_restored,
    set_settled,
)
from vagus.testing import FrozenClock

MINE = InstallationRow("log.example.org/vagus", 1_800_000_000, b"s" * 32, group_domain="h.example")


def test_it_comes_back_and_changes_only_where_it_may(database: Database) -> None:
    with database.writing() as connection:
        insert_installation(connection, MINE)
        assert load_installation(connection) == MINE
        set_restored(connection, 5, size=7, backup_sha256=b"b" * 32)
        set_policy(connection, b"p" * 32)
    with database.reading() as connection:
        found = load_installation(connection)
        assert (found.restored_at, found.policy_sha256) == (5, b"p" * 32)
        assert (found.restored_size, found.restored_from) == (7, b"b" * 32)
        assert load_salt(connection) == load_salt(connection) == MINE.salt
    with database.writing() as connection:
        set_settled(connection)
        set_origin(connection, "log.example.org/second")
        with pytest.raises(Malformed):
            set_origin(connection, "two words")
    with database.reading() as connection:
        found = load_installation(connection)
        assert (found.restored_at, found.restored_size, found.restored_from) == (None, None, None)
        assert (found.origin, found.salt) == ("log.example.org/second", MINE.salt)


def test_a_database_belongs_to_one_installation(connection: Connection) -> None:
    insert_installation(connection, MINE)
    with refuses(Reason.ALREADY_EXISTS, Conflict):
        insert_installation(connection, MINE)


def test_a_database_without_one_says_what_to_do(database: Database) -> None:
    with database.reading() as connection:
        assert find_installation(connection) is None
        with refuses(Reason.SCHEMA_MISMATCH, Misconfigured) as caught:
            load_salt(connection)
    assert "vagus init" in caught.value.message


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nfeed"])
def test_an_origin_that_no_checkpoint_can_carry_is_refused(database: Database, origin: str) -> None:
    with database.writing() as connection, refuses(Reason.BAD_ARGUMENT, Malformed):
        insert_installation(connection, InstallationRow(origin, 0, b"s" * 32))


def test_a_short_salt_is_refused(database: Database) -> None:
    with database.writing() as connection, pytest.raises(Malformed):
        insert_installation(connection, InstallationRow("a", 0, b"s"))


def test_the_salt_is_not_shown() -> None:
    assert "salt" not in repr(MINE)
    assert "ssss" not in repr(MINE)


def test_a_batch_that_waits_for_the_head_while_a_restore_is_marked_appends_nothing(database: Database) -> None:
    if database.is_memory:
        pytest.skip("it has one connection: nobody waits for another's transaction")
    begun, may_go = threading.Event(), threading.Event()

    def mark(batch: Batch) -> None:
        batch.append(b"the last one")
        set_restored(batch.connection, batch.at, size=1, backup_sha256=bytes(32))
        begun.set()
        may_go.wait(10)

    with Writer(database, FrozenClock()) as restoring, Writer(database, FrozenClock()) as serving:
        restoring.submit(lambda batch: insert_installation(batch.connection, MINE)).result()
        assert serving.submit(lambda batch: batch.append(b"a")).result() == 0
        marked = restoring.submit(mark)
        assert begun.wait(10)
        late = serving.submit(lambda batch: batch.append(b"b"))
        time.sleep(0.3)  # it has sent its statement and waits
        may_go.set()
        marked.result()
        with refuses(Reason.RESTORE_UNSETTLED, Conflict):
            late.result()
