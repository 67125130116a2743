"""Publication: tiles before the checkpoint, over any crash, never two histories."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.test_verify import replace_leaf, rewrite_head
from tests.simulator.log import ORIGIN, CheckpointKey, LogFixture
from tests.simulator.refusals import refuses
from vagus import durable_files
from vagus.errors import IntegrityFailure, Malformed, Unavailable
from vagus.keystore.signing import Purpose
from vagus.ledger.publish import LogPublisher, holds_more, load_published, load_tile
from vagus.ledger.verify import verify_log, verify_published
from vagus.reasons import Reason
from vagus.records.engine.tables import installation, log_head, log_leaves
from vagus.records.engine.writer import Writer
from vagus.records.log import iterate_leaves, load_head
from vagus.tlog.checkpoint import Checkpoint, NoteKey, verify_checkpoint
from vagus.tlog.merkle import Frontier
from vagus.tlog.tiles import Tile, decode_bundle


def tree(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_folder(log: LogFixture) -> Checkpoint:
    report = verify_log(log.folder, public_key=log.key.public_key)
    published = verify_published(log.database, log.folder, public_key=log.key.public_key)
    assert (published.size, published.root) == (report.size, report.root)
    return published


def test_the_checkpoint_is_the_databases_head(log: LogFixture) -> None:
    log.note(3)
    published = log.publisher().publish()
    with log.database.reading() as connection:
        head = load_head(connection)
    assert published == Checkpoint(ORIGIN, head.size, head.root) == check_folder(log)
    note = (log.folder / "checkpoint").read_bytes()
    assert verify_checkpoint(note, log.publisher().key) == published


def test_an_empty_log_is_published_too(log: LogFixture) -> None:
    assert log.publisher().publish().size == 0
    assert check_folder(log).size == 0
    log.note(1)
    assert log.publisher().publish().size == 1


@given(st.lists(st.integers(1, 3) | st.integers(200, 300), min_size=2, max_size=3))
@settings(max_examples=5, deadline=None)
def test_growing_in_steps_gives_the_files_of_one_step_and_the_partial_ones_between(steps: list[int]) -> None:
    with tempfile.TemporaryDirectory() as scratch, closing(LogFixture.make(Path(scratch))) as log:
        publisher = log.publisher()
        for step in steps:
            log.note(step)
            publisher.publish()
            check_folder(log)
        grown = tree(log.folder)
        at_once = LogPublisher(log.database, Path(scratch) / "again", log.key)
        at_once.publish()
        again = tree(Path(scratch) / "again")
        assert again.items() <= grown.items()
        assert all(".p/" in name for name in grown.keys() - again.keys())  # of checkpoints in between


def test_files_lie_where_the_specification_puts_them(log: LogFixture) -> None:
    log.note(258)
    log.publisher().publish()
    tiles = {f"tile/{level}" for level in ("0/000", "0/001.p/2", "1/000.p/1", "entries/000", "entries/001.p/2")}
    assert set(tree(log.folder)) == {"checkpoint", *tiles}
    with log.database.reading() as connection:
        entries = tuple(leaf.entry for leaf in iterate_leaves(connection, 256))
    assert decode_bundle((log.folder / "tile/entries/001.p/2").read_bytes(), 2) == entries


def test_partial_tiles_go_when_their_full_tile_is_there(log: LogFixture) -> None:
    publisher = log.publisher()
    log.note(10)
    publisher.publish()
    assert "tile/0/000.p/10" in tree(log.folder)
    log.note(246)
    publisher.publish()
    names = set(tree(log.folder))
    assert names == {"checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/000"}
    assert load_tile(log.folder, Tile(0, 0, 10)) == (log.folder / "tile/0/000").read_bytes()[:320]


def test_nothing_is_written_when_nothing_is_new(log: LogFixture) -> None:
    log.note(2)
    publisher = log.publisher()
    first = publisher.publish()
    before = (log.folder / "checkpoint").stat().st_mtime_ns
    assert publisher.publish() == first
    assert (log.folder / "checkpoint").stat().st_mtime_ns == before


def test_a_crash_at_any_write_leaves_the_old_checkpoint_whole_and_the_next_run_goes_on(
    log: LogFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException): ...

    log.note(250)
    log.publisher().publish()
    original = durable_files._write_scratch
    published = check_folder(log).size
    writes = 0
    for crash_at in range(1, 8):
        log.note(256)
        count = 0

        def write(scratch: Path, contents: bytes, mode: int) -> None:
            nonlocal count, writes
            count += 1
            writes = max(writes, count)
            if count == crash_at:  # noqa: B023
                scratch.write_bytes(contents[: len(contents) // 2])
                raise Crash
            original(scratch, contents, mode)

        monkeypatch.setattr(durable_files, "_write_scratch", write)
        try:
            log.publisher().publish()
        except Crash:
            assert verify_log(log.folder, public_key=log.key.public_key).size == published
        monkeypatch.setattr(durable_files, "_write_scratch", original)
        published = log.publisher().publish().size
        assert check_folder(log).size == published == 250 + 256 * crash_at
    assert writes == 6


def test_a_database_that_lost_leaves_is_never_signed(log: LogFixture) -> None:
    log.note(5)
    log.publisher().publish()
    log.note(3)
    with log.database.writing() as connection:
        frontier = Frontier().extend(leaf.leaf_hash for leaf in list(iterate_leaves(connection, 0, 4)))
        connection.execute(log_leaves.delete().where(log_leaves.c.leaf_index >= 4))
        connection.execute(log_head.update().values(size=4, frontier=frontier.encode(), root=frontier.root))
    with refuses(Reason.LOG_TRUNCATED, IntegrityFailure):
        log.publisher().publish()
    assert load_published(log.folder, log.publisher().key) is not None


@pytest.mark.parametrize("more", [0, 3])
def test_another_history_of_the_same_length_is_never_signed(log: LogFixture, more: int) -> None:
    log.note(5)
    log.publisher().publish()
    with log.database.writing() as connection:
        for number in range(5):
            replace_leaf(connection, number, b"forged %d" % number)
        rewrite_head(connection)
    with closing(Writer(log.database, log.clock)) as another:  # as after a restart: the one that runs would notice
        for _ in range(more):
            another.submit(lambda batch: batch.append(b"more")).result()
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        log.publisher().publish()


@pytest.mark.parametrize("name", ["tile/0/000.p/5", "checkpoint"])
def test_published_files_that_were_changed_are_not_built_upon(log: LogFixture, name: str) -> None:
    log.note(5)
    log.publisher().publish()
    contents = bytearray((log.folder / name).read_bytes())
    contents[25] ^= 1
    (log.folder / name).write_bytes(contents)
    log.note(1)
    with pytest.raises((IntegrityFailure, Malformed)):
        log.publisher().publish()


def test_a_checkpoint_of_another_key_is_not_continued(log: LogFixture) -> None:
    log.note(5)
    log.publisher().publish()
    stranger = LogPublisher(log.database, log.folder, CheckpointKey(2))
    with refuses(Reason.CHECKPOINT_INVALID, IntegrityFailure):
        stranger.publish()


def test_a_folder_that_cannot_be_written_is_unavailable(log: LogFixture) -> None:
    log.note(1)
    publisher = log.publisher()
    (log.folder / "tile").write_bytes(b"in the way")
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable):
        publisher.publish()


def test_a_folder_that_another_process_hangs_in_is_not_waited_for_long(
    log: LogFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vagus.ledger.publish._LOCK_SECONDS", 0.05)
    log.note(1)
    publisher = log.publisher()
    held = os.open(log.folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable, match="has locked log folder .*; end it"):
        publisher.publish()
    assert not (log.folder / "checkpoint").exists()
    os.close(held)
    assert publisher.publish().size == 1


def test_the_key_is_asked_for_a_checkpoint_and_nothing_else(log: LogFixture) -> None:
    log.note(1)
    log.key.purposes = frozenset({Purpose.DATA})
    with pytest.raises(Exception, match="signs checkpoints"):
        log.publisher().publish()


def test_the_name_of_the_key_is_the_origin(log: LogFixture) -> None:
    with log.database.writing() as connection:
        connection.execute(installation.update().values(origin="renamed.example/log"))
    assert log.publisher().key == NoteKey("renamed.example/log", log.key.public_key)


@pytest.mark.parametrize("size", [7, 256, 300])
def test_a_published_log_holds_more_where_the_database_was_set_back_also_once_it_was_written_on(
    tmp_path: Path, size: int
) -> None:
    """Also where the last bundle is a full one."""
    with closing(LogFixture.make(tmp_path / "a")) as lost, closing(LogFixture.make(tmp_path / "b")) as back:
        lost.note(size - 4)
        back.note(size - 4)
        key = lost.publisher().key
        lost.publisher().publish()
        assert not holds_more(lost.folder, key, back.database)
        lost.issue()  # and their authority
        lost.note(2)
        assert lost.publisher().publish().size == size
        assert not holds_more(lost.folder, key, lost.database)
        assert holds_more(lost.folder, key, back.database)
        with back.database.reading() as connection:
            missing = size - load_head(connection).size
        for count in (missing, 1):  # as many leaves as were published, and more
            back.issue(count)
            assert holds_more(lost.folder, key, back.database)
        lost.note(300)
        assert not holds_more(lost.folder, key, lost.database)
        last = Tile(0, (size - 1) // 256, (size - 1) % 256 + 1)
        (lost.folder / last.path).write_bytes(bytes(32 * last.width))
        assert not holds_more(lost.folder, key, back.database), "a broken file tells nothing"
        assert not holds_more(tmp_path / "none", key, back.database)
