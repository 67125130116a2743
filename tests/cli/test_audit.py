"""The ledger checked from the command line: in the database, as published, and one against the other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.simulator.issuing import issue, publish
from tests.simulator.running import denied, done
from vagus.ledger.entries import LoggedEntry, decode_entry, encode_entry
from vagus.tlog.merkle import Frontier, leaf_hash


def rewrite(folder: Path, index: int) -> None:
    """Change one entry and everything in the database that follows from it: the log agrees with itself again."""
    with closing(sqlite3.connect(folder / "vagus.sqlite3")) as database:
        entries = [bytes(row[0]) for row in database.execute("SELECT entry FROM log_leaves ORDER BY leaf_index")]
        old: LoggedEntry = decode_entry(entries[index])
        entries[index] = encode_entry(old.entry, at=old.at + 60, salt=bytes(32))
        frontier = Frontier().extend(leaf_hash(entry) for entry in entries)
        database.execute(
            "UPDATE log_leaves SET entry = ?, leaf_hash = ? WHERE leaf_index = ?",
            (entries[index], leaf_hash(entries[index]), index),
        )
        database.execute("UPDATE log_head SET root = ?, frontier = ?", (frontier.root, frontier.encode()))
        database.commit()


def test_a_sound_log_is_compared_with_what_was_published(hospital: Path) -> None:
    assert done(hospital, "audit", "verify", "--json").facts["published"] is None
    issue(hospital, 1)
    size = int(publish(hospital).checkpoint.read_text().splitlines()[1])
    issue(hospital, 2)
    found = done(hospital, "audit", "verify", "--json").facts
    assert (found["verdict"], found["published"]) == ("sound", size)
    assert found["size"] > size


@pytest.mark.parametrize("is_against", [True, False])
def test_a_history_that_was_rewritten_is_reported_with_its_first_leaf(hospital: Path, *, is_against: bool) -> None:
    issue(hospital, 1)
    kept = publish(hospital)
    rewrite(hospital, 7)
    against = ("--against", str(kept.checkpoint)) if is_against else ()
    assert "leaf 7 " in denied(hospital, 5, "LOG_TAMPERED", "audit", "verify", *against).err


def test_a_database_that_was_cut_back_is_reported(hospital: Path) -> None:
    issue(hospital, 1)
    publish(hospital)
    with closing(sqlite3.connect(hospital / "vagus.sqlite3")) as database:
        entries = [bytes(row[0]) for row in database.execute("SELECT entry FROM log_leaves ORDER BY leaf_index")][:5]
        frontier = Frontier().extend(leaf_hash(entry) for entry in entries)
        database.execute("DELETE FROM log_leaves WHERE leaf_index >= 5")
        database.execute("UPDATE log_head SET size = 5, root = ?, frontier = ?", (frontier.root, frontier.encode()))
        database.commit()
    denied(hospital, 5, "LOG_TRUNCATED", "audit", "verify")


def test_a_published_tile_that_was_changed_is_reported(hospital: Path) -> None:
    issue(hospital, 1)
    publish(hospital)
    tile = next((hospital / "log" / "tile" / "0").rglob("*.p/*"))
    contents = bytearray(tile.read_bytes())
    contents[3 * 32] ^= 1
    tile.write_bytes(contents)
    assert "leaf 3 " in denied(hospital, 5, "LOG_TAMPERED", "audit", "verify").err


def leaves(folder: Path, *more: str) -> list[int]:
    return [row["leaf"] for row in done(folder, "audit", "show", "--json", *more).facts]


def test_the_newest_entries_are_shown_also_of_one_kind(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vagus.operations.audit._PART", 3)
    size = done(hospital, "audit", "verify", "--json").facts["size"]
    assert leaves(hospital, "--limit", "2") == [size - 2, size - 1]
    every = leaves(hospital, "--kind", "device-added", "--from", "0", "--limit", "1000")
    assert len(every) == 3
    assert leaves(hospital, "--kind", "device-added", "--limit", "2") == every[-2:]
    assert leaves(hospital, "--kind", "device-added") == every
    assert leaves(hospital, "--kind", "device-added", "--from", "0", "--limit", "1") == every[:1]
    assert leaves(hospital, "--from", "3", "--limit", "2") == [3, 4]


def test_behind_the_end_of_the_ledger_its_size_is_reported(hospital: Path) -> None:
    size = done(hospital, "audit", "verify", "--json").facts["size"]
    assert leaves(hospital, "--from", str(size)) == []
    assert f"The ledger has {size:,} entries" in done(hospital, "audit", "show", "--from", str(size)).out
