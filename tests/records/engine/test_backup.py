"""Copies: consistent while writing goes on, refused when damaged, never over something."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.simulator.databases import created_database
from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Conflict, IntegrityFailure, Misconfigured
from vagus.reasons import Reason
from vagus.records.engine.backup import check_copy, copy_database, restore_database
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.writer import Writer
from vagus.records.log import iterate_leaves, load_head
from vagus.testing import FrozenClock
from vagus.tlog.merkle import Frontier, leaf_hash


def fill(database: Database, count: int) -> None:
    with Writer(database, FrozenClock()) as writer:
        futures = [writer.submit(lambda batch: batch.append(b"an entry")) for _ in range(count)]
        for future in futures:
            future.result(10)


def check_log(path: Path) -> int:
    database = open_database(f"sqlite:///{path}")
    database.check_schema()
    with database.reading() as connection:
        frontier = Frontier().extend(leaf_hash(leaf.entry) for leaf in iterate_leaves(connection))
        head = load_head(connection)
    database.close()
    assert (head.size, head.root) == (frontier.size, frontier.root)
    return head.size


def test_a_copy_taken_while_acts_commit_is_one_instant(file_database: Database, tmp_path: Path) -> None:
    fill(file_database, 50)
    ended = threading.Event()
    writer = Writer(file_database, FrozenClock())

    def write() -> None:
        while not ended.is_set():
            writer.submit(lambda batch: batch.append(b"more" * 100)).result(10)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        sizes = [copy_database(file_database, tmp_path / f"copy-{number}") for number in range(5)]
    finally:
        ended.set()
        thread.join()
        writer.close()
    assert sizes == sorted(sizes)
    assert sizes[0] >= 50
    for number, size in enumerate(sizes):
        copy = tmp_path / f"copy-{number}"
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert check_log(copy) == size
    assert not list(tmp_path.glob("*.partial*"))


def test_a_restored_database_goes_on(file_database: Database, tmp_path: Path) -> None:
    fill(file_database, 7)
    copy_database(file_database, tmp_path / "copy")
    target = tmp_path / "restored.sqlite3"
    target.with_name(target.name + "-wal").write_bytes(b"of a database that is gone")
    assert restore_database(tmp_path / "copy", target) == 7
    restored = open_database(f"sqlite:///{target}")
    fill(restored, 3)
    restored.check_durability()
    restored.close()
    assert check_log(target) == 10


def test_a_database_in_memory_can_be_copied_too(tmp_path: Path) -> None:
    with created_database() as database:
        fill(database, 3)
        assert copy_database(database, tmp_path / "copy") == 3


def test_nothing_is_overwritten(file_database: Database, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"precious")
    for act in (lambda: copy_database(file_database, there), lambda: restore_database(there, there)):
        assert reason_of(act, error=Conflict) is Reason.ALREADY_EXISTS
    assert there.read_bytes() == b"precious"


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage", "empty", "leaf", "reference"])
def test_a_damaged_copy_is_refused_and_leaves_nothing(file_database: Database, tmp_path: Path, damage: str) -> None:
    fill(file_database, 200)
    copy = tmp_path / "copy"
    copy_database(file_database, copy)
    contents = bytearray(copy.read_bytes())
    if damage == "truncate":
        copy.write_bytes(contents[: len(contents) // 2])
    elif damage == "flip":
        contents[4096:8192] = bytes(4096)
        copy.write_bytes(contents)
    elif damage in {"garbage", "empty"}:
        copy.write_bytes(b"not a database" * 1000 if damage == "garbage" else b"")
    else:
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute(
                "DELETE FROM log_leaves WHERE leaf_index = 100"
                if damage == "leaf"
                else "INSERT INTO certificate_bytes (leaf_index, tbs_der) VALUES (5, x'00')"
            )
            connection.commit()
    target = tmp_path / "restored"
    with refuses(Reason.BACKUP_DAMAGED, IntegrityFailure):
        restore_database(copy, target)
    assert not target.exists()
    assert not list(tmp_path.glob("*.partial*"))


def test_a_sound_copy_gives_its_size(file_database: Database, tmp_path: Path) -> None:
    fill(file_database, 4)
    copy_database(file_database, tmp_path / "copy")
    assert check_copy(tmp_path / "copy") == 4


def test_postgresql_is_sent_to_its_own_tools(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    with pytest.raises(Misconfigured, match="pg_dump"):
        copy_database(open_database(f"postgresql+psycopg://vagus@/vagus?host={tmp_path}"), tmp_path / "copy")
