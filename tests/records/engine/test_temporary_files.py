"""Where no temporary folder can be written, SQLite keeps in memory what it would write there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vagus.ledger.spilling_sorter import SpillingSorter
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.temporary_files import has_temporary_folder

FILE, MEMORY = 0, 2  # the values of PRAGMA temp_store; 0: as compiled, which is a file


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose root file system is only read."""
    monkeypatch.setattr(os, "access", lambda *_: False)


def temp_stores(database: Database) -> set[int]:
    found = set()
    with database.reading() as reading, database.open_writer() as writing, database.single_statement() as single:
        for connection in (reading, writing, single):
            found.add(connection.exec_driver_sql("PRAGMA temp_store").scalar_one())
    database.close()
    return found


def test_a_folder_that_is_named_and_writable_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_temporary_folder()
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, _: path == str(tmp_path))
    assert has_temporary_folder()
    tmp_path.rmdir()
    assert not has_temporary_folder()


def test_every_connection_sorts_in_a_file_as_before(tmp_path: Path) -> None:
    assert temp_stores(open_database(f"sqlite:///{tmp_path}/one.sqlite3")) == {FILE}


@pytest.mark.usefixtures("nowhere")
def test_every_connection_sorts_in_memory_without_a_folder(tmp_path: Path) -> None:
    assert temp_stores(open_database(f"sqlite:///{tmp_path}/one.sqlite3")) == {MEMORY}


@pytest.mark.usefixtures("nowhere")
def test_the_sorter_of_an_audit_works_in_memory_without_a_folder() -> None:
    sorter = SpillingSorter()
    for place in range(5_000):
        sorter.add(bytes([place % 3]), -place, f"line {place}")
    groups = dict(sorter.groups())
    sorter.close()
    assert [len(lines) for lines in groups.values()] == [1667, 1667, 1666]
    assert groups[b"\0"][0] == (-4998, "line 4998")
