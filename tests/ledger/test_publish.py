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


def check_folder(world: LogFixture) -> Checkpoint:
    report = verify_log(world.folder, public_key=world.key.public_key)
    published = verify_published(world.database, world.folder, public_key=world.key.public_key)
    assert (published.size, published.root) == (report.size, report.root)
    return published


def test_the_checkpoint_is_the_databases_head(world: LogFixture) -> None:
    world.note(3)
    published = world.publisher().publish()
    with world.database.reading() as connection:
        head = load_head(connection)
    assert published == Checkpoint(ORIGIN, head.size, head.root) == check_folder(world)
    note = (world.folder / "checkpoint").read_bytes()
    assert verify_checkpoint(note, world.publisher().key) == published


def test_an_empty_log_is_published_too(world: LogFixture) -> None:
    assert world.publisher().publish().size == 0
    assert check_folder(world).size == 0
    world.note(1)
    assert world.publisher().publish().size == 1


@given(st.lists(st.integers(1, 3) | st.integers(200, 300), min_size=2, max_size=3))
@settings(max_examples=5, deadline=None)
def test_growing_in_steps_gives_the_files_of_one_step_and_the_partial_ones_between(steps: list[int]) -> None:
    with tempfile.TemporaryDirectory() as scratch, closing(LogFixture.make(Path(scratch))) as world:
        publisher = world.publisher()
        for step in steps:
            world.note(step)
            publisher.publish()
            check_folder(world)
        grown = tree(world.folder)
        at_once = LogPublisher(world.database, Path(scratch) / "again", world.key)
        at_once.publish()
        again = tree(Path(scratch) / "again")
        assert again.items() <= grown.items()
        assert all(".p/" in name for name in grown.keys() - again.keys())  # of checkpoints in between


def test_files_lie_where_the_specification_puts_them(world: LogFixture) -> None:
    world.note(258)
    world.publisher().publish()
    tiles = {f"tile/{level}" for level in ("0/000", "0/001.p/2", "1/000.p/1", "entries/000", "entries/001.p/2")}
    assert set(tree(world.folder)) == {"checkpoint", *tiles}
    with world.database.reading() as connection:
        entries = tuple(leaf.entry for leaf in iterate_leaves(connection, 256))
    assert decode_bundle((world.folder / "tile/entries/001.p/2").read_bytes(), 2) == entries


def test_partial_tiles_go_when_their_full_tile_is_there(world: LogFixture) -> None:
    publisher = world.publisher()
    world.note(10)
    publisher.publish()
    assert "tile/0/000.p/10" in tree(world.folder)
    world.note(246)
    publisher.publish()
    names = set(tree(world.folder))
    assert names == {"checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/000"}
    assert load_tile(world.folder, Tile(0, 0, 10)) == (world.folder / "tile/0/000").read_bytes()[:320]


def test_nothing_is_written_when_nothing_is_new(world: LogFixture) -> None:
    world.note(2)
    publisher = world.publisher()
    first = publisher.publish()
    before = (world.folder / "checkpoint").stat().st_mtime_ns
    assert publisher.publish() == first
    assert (world.folder / "checkpoint").stat().st_mtime_ns == before


def test_a_crash_at_any_write_leaves_the_old_checkpoint_whole_and_the_next_run_goes_on(
    world: LogFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException): ...

    world.note(250)
    world.publisher().publish()
    original = durable_files._write_scratch
    published = check_folder(world).size
    writes = 0
    for crash_at in range(1, 8):
        world.note(256)
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
            world.publisher().publish()
        except Crash:
            assert verify_log(world.folder, public_key=world.key.public_key).size == published
        monkeypatch.setattr(durable_files, "_write_scratch", original)
        published = world.publisher().publish().size
        assert check_folder(world).size == published == 250 + 256 * crash_at
    assert writes == 6


def test_a_database_that_lost_leaves_is_never_signed(world: LogFixture) -> None:
    world.note(5)
    world.publisher().publish()
    world.note(3)
    with world.database.writing() as connection:
        frontier = Frontier().extend(leaf.leaf_hash for leaf in list(iterate_leaves(connection, 0, 4)))
        connection.execute(log_leaves.delete().where(log_leaves.c.leaf_index >= 4))
        connection.execute(log_head.update().values(size=4, frontier=frontier.encode(), root=frontier.root))
    with refuses(Reason.LOG_TRUNCATED, IntegrityFailure):
        world.publisher().publish()
    assert load_published(world.folder, world.publisher().key) is not None


@pytest.mark.parametrize("more", [0, 3])
def test_another_history_of_the_same_length_is_never_signed(world: LogFixture, more: int) -> None:
    world.note(5)
    world.publisher().publish()
    with world.database.writing() as connection:
        for number in range(5):
            replace_leaf(connection, number, b"forged %d" % number)
        rewrite_head(connection)
    with closing(Writer(world.database, world.clock)) as another:  # as after a restart: the one that runs would notice
        for _ in range(more):
            another.submit(lambda batch: batch.append(b"more")).result()
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        world.publisher().publish()


@pytest.mark.parametrize("name", ["tile/0/000.p/5", "checkpoint"])
def test_published_files_that_were_changed_are_not_built_upon(world: LogFixture, name: str) -> None:
    world.note(5)
    world.publisher().publish()
    contents = bytearray((world.folder / name).read_bytes())
    contents[25] ^= 1
    (world.folder / name).write_bytes(contents)
    world.note(1)
    with pytest.raises((IntegrityFailure, Malformed)):
        world.publisher().publish()


def test_a_checkpoint_of_another_key_is_not_continued(world: LogFixture) -> None:
    world.note(5)
    world.publisher().publish()
    stranger = LogPublisher(world.database, world.folder, CheckpointKey(2))
    with refuses(Reason.CHECKPOINT_INVALID, IntegrityFailure):
        stranger.publish()


def test_a_folder_that_cannot_be_written_is_unavailable(world: LogFixture) -> None:
    world.note(1)
    publisher = world.publisher()
    (world.folder / "tile").write_bytes(b"in the way")
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable):
        publisher.publish()


def test_a_folder_that_another_process_hangs_in_is_not_waited_for_long(
    world: LogFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vagus.ledger.publish._LOCK_SECONDS", 0.05)
    world.note(1)
    publisher = world.publisher()
    held = os.open(world.folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable, match="has locked log folder .*; end it"):
        publisher.publish()
    assert not (world.folder / "checkpoint").exists()
    os.close(held)
    assert publisher.publish().size == 1


def test_the_key_is_asked_for_a_checkpoint_and_nothing_else(world: LogFixture) -> None:
    world.note(1)
    world.key.purposes = frozenset({Purpose.DATA})
    with pytest.raises(Exception, match="signs checkpoints"):
        world.publisher().publish()


def test_the_name_of_the_key_is_the_origin(world: LogFixture) -> None:
    with world.database.writing() as connection:
        connection.execute(installation.update().values(origin="renamed.example/log"))
    assert world.publisher().key == NoteKey("renamed.example/log", world.key.public_key)


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
