"""Checks a whole log, in the database or as published files, against itself and an older checkpoint; repairs nothing.

A log that agrees with itself proves nothing about leaves cut off its end: only a checkpoint from another place does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from vagus.errors import IntegrityFailure, Malformed
from vagus.ledger.cross_check import CrossCheck
from vagus.ledger.entries import LoggedEntry, decode_entry
from vagus.ledger.publish import load_published, load_tile
from vagus.reasons import Reason
from vagus.records.engine.database import Database
from vagus.records.installation import load_installation
from vagus.records.log import LogHead, iterate_leaves, load_head
from vagus.tlog.checkpoint import Checkpoint, NoteKey, decode_checkpoint
from vagus.tlog.merkle import HASH_BYTES, Frontier, leaf_hash
from vagus.tlog.tiles import CHECKPOINT, WIDTH, Tile, TileEdge, decode_bundle, tiles_of


@dataclass(frozen=True, slots=True)
class LogReport:
    """What was checked and held."""

    origin: str
    size: int
    root: bytes
    certificates: int
    """Certificate rows, each with its issuance entry and the other way round; 0 for a published folder."""
    revocations: int
    """Steps of the revocation sequence, each with its entry; 0 for a published folder."""
    against: int | None
    """The size of the older checkpoint that the log continues; None when there was none to compare with."""

    @property
    def caveat(self) -> str | None:
        """What this report cannot say."""
        if self.against is not None:
            return None
        return "no earlier checkpoint was given: that leaves were cut off the end cannot be excluded"


def verify_log(source: Database | Path, *, public_key: bytes, against: Checkpoint | None = None) -> LogReport:
    """Check every leaf of the log in a database or in a published folder.

    `public_key` is the log's Ed25519 key (32 bytes). `against` is a checkpoint from elsewhere, which the caller has
    verified (`vagus.tlog.checkpoint.verify_checkpoint`).

    Raises IntegrityFailure(LOG_TRUNCATED) when the log ends before `against`, IntegrityFailure(LOG_TAMPERED) with
    the first index known to differ, IntegrityFailure(CHECKPOINT_INVALID).
    """
    if isinstance(source, Path):
        return _verify_folder(source, public_key, against)
    return _verify_database(source, against)


def verify_published(database: Database, folder: Path, *, public_key: bytes) -> Checkpoint:
    """Check that the published files are the beginning of the database's log, leaf by leaf.

    Raises IntegrityFailure(LOG_TRUNCATED) when the database has fewer leaves than were published,
    IntegrityFailure(LOG_TAMPERED) with the first leaf that differs, IntegrityFailure(CHECKPOINT_INVALID).
    """
    with database.reading(patience=None) as connection:
        key = NoteKey(load_installation(connection).origin, public_key)
        published = _require(load_published(folder, key), folder)
        head = load_head(connection)
        _check_length(head.size, published)
        leaves = iterate_leaves(connection, 0, published.size)
        for leaf, hashed in zip(leaves, _published_hashes(folder, published.size), strict=True):
            if leaf_hash(leaf.entry) != hashed:
                msg = f"leaf {leaf.index} differs between the database and the published log"
                raise IntegrityFailure(Reason.LOG_TAMPERED, msg, index=leaf.index)
    return published


def _verify_database(database: Database, against: Checkpoint | None) -> LogReport:
    with database.reading(patience=None) as connection, ExitStack() as stack:
        # 1. The log in the database is the log that the older checkpoint names.
        origin = load_installation(connection).origin
        head = load_head(connection)
        _check_origin(origin, against)
        # 2. The log is at least as long as the older checkpoint says.
        _check_length(head.size, against)
        # 3. Check each leaf in turn: its index, its hash, its encoding, and the table rows that belong to it.
        frontier = Frontier()
        check = stack.enter_context(closing(CrossCheck(connection)))
        for leaf in iterate_leaves(connection):
            if leaf_hash(leaf.entry) != leaf.leaf_hash:
                raise _tampered(leaf.index, "its stored hash is not the hash of its entry")
            logged = _decode(leaf.index, leaf.entry)
            check.take(leaf.index, logged)
            frontier = frontier.append(leaf.leaf_hash)
            _check_prefix(frontier, against)
        # 4. The stored log head follows from these leaves.
        _check_head(frontier, head)
        # 5. Every table row has its log entry, and says what the log says.
        check.finish(head.revocation_sequence)
    return LogReport(origin, head.size, head.root, check.certificates, check.revocations, _size(against))


def _verify_folder(folder: Path, public_key: bytes, against: Checkpoint | None) -> LogReport:
    # 1. Read the folder's own checkpoint, under the origin that it gives itself; the verifier key decides whether it
    # counts.
    published = _require(_load_by_own_name(folder, public_key), folder)
    _check_origin(published.origin, against)
    # 2. The published log is at least as long as the older checkpoint says.
    _check_length(published.size, against)
    # 3. Entries hash to the level-0 tiles, and these hash to all tiles above.
    edge, frontier = TileEdge(), Frontier()
    hashes = _published_hashes(folder, published.size)
    for index, (entry, stored) in enumerate(zip(published_entries(folder, published.size), hashes, strict=True)):
        if leaf_hash(entry) != stored:
            raise _tampered(index, "its entry does not hash to its place in the level-0 tile")
        _decode(index, entry)
        frontier = frontier.append(stored)
        _check_prefix(frontier, against)
        for tile, contents in edge.append(stored):
            _check_tile(folder, tile, contents)
    for tile, contents in edge.partial_tiles():
        _check_tile(folder, tile, contents)
    # 4. The root in the checkpoint is the root of these tiles.
    if frontier.root != published.root:
        msg = f"the published tiles of {published.size} leaves do not lead to the root in their checkpoint"
        raise IntegrityFailure(Reason.LOG_TAMPERED, msg, size=published.size)
    return LogReport(published.origin, published.size, published.root, 0, 0, _size(against))


def _load_by_own_name(folder: Path, public_key: bytes) -> Checkpoint | None:
    try:
        name = decode_checkpoint((folder / CHECKPOINT).read_bytes()).origin
    except FileNotFoundError:
        return None
    return load_published(folder, NoteKey(name, public_key))


def _published_hashes(folder: Path, size: int) -> Iterator[bytes]:
    for tile in _row(0, size):
        contents = load_tile(folder, tile)
        if len(contents) != tile.width * HASH_BYTES:
            raise _tampered(tile.index * WIDTH, f"{tile.path} has {len(contents)} bytes")
        yield from (contents[at : at + HASH_BYTES] for at in range(0, len(contents), HASH_BYTES))


def published_entries(folder: Path, size: int) -> Iterator[bytes]:
    """The entries of the first `size` leaves in a published folder. Raises IntegrityFailure(LOG_TAMPERED)."""
    for tile in _row(None, size):
        try:
            yield from decode_bundle(load_tile(folder, tile), tile.width)
        except Malformed as error:
            raise _tampered(tile.index * WIDTH, f"{tile.path}: {error}") from error


def _row(level: int | None, size: int) -> Iterator[Tile]:
    """Every tile of the lowest level, the last perhaps partial."""
    if size:
        (last,) = (tile for tile in tiles_of(size) if tile.level == level)
        yield from (Tile(level, index) for index in range(last.index))
        yield last


def _check_tile(folder: Path, tile: Tile, contents: bytes) -> None:
    stored = load_tile(folder, tile)
    if stored != contents:
        span = WIDTH ** (tile.level or 0)
        pairs = range(0, min(len(stored), len(contents)), HASH_BYTES)
        first = next((at for at in pairs if stored[at : at + HASH_BYTES] != contents[at : at + HASH_BYTES]), 0)
        raise _tampered((tile.index * WIDTH + first // HASH_BYTES) * span, f"{tile.path} is not the hash of its leaves")


def _check_origin(origin: str, against: Checkpoint | None) -> None:
    if against is not None and against.origin != origin:
        msg = f"the checkpoint is of log {against.origin!r}, this is {origin!r}; compare with one of this log"
        raise IntegrityFailure(Reason.CHECKPOINT_INVALID, msg, origin=against.origin)


def _check_length(size: int, against: Checkpoint | None) -> None:
    if against is not None and size < against.size:
        msg = f"the log ends at {size} leaves, a checkpoint of {against.size} was signed: leaf {size} is the first lost"
        raise IntegrityFailure(Reason.LOG_TRUNCATED, msg, index=size, size=size, checkpoint=against.size)


def _check_prefix(frontier: Frontier, against: Checkpoint | None) -> None:
    if against is not None and frontier.size == against.size and frontier.root != against.root:
        msg = f"the first {against.size} leaves are not the checkpoint's: history was rewritten; see the published log"
        raise IntegrityFailure(Reason.LOG_TAMPERED, msg, size=against.size)


def _check_head(frontier: Frontier, head: LogHead) -> None:
    if frontier.size < head.size:
        msg = f"the head counts {head.size} leaves, {frontier.size} are there: leaf {frontier.size} is the first lost"
        raise IntegrityFailure(Reason.LOG_TRUNCATED, msg, index=frontier.size, size=frontier.size)
    if frontier.size > head.size:
        raise _tampered(head.size, f"the head counts only {head.size} leaves")
    if frontier.encode() != head.frontier or frontier.root != head.root:
        msg = f"the stored root is not that of the {head.size} leaves: a leaf or the head was changed"
        raise IntegrityFailure(Reason.LOG_TAMPERED, msg, size=head.size)


def _decode(index: int, entry: bytes) -> LoggedEntry:
    try:
        return decode_entry(entry)
    except Malformed as error:
        raise _tampered(index, str(error)) from error


def _require(published: Checkpoint | None, folder: Path) -> Checkpoint:
    if published is None:
        msg = f"folder {folder} holds no checkpoint, so no log was published in it"
        raise IntegrityFailure(Reason.CHECKPOINT_INVALID, msg, path=str(folder))
    return published


def _size(against: Checkpoint | None) -> int | None:
    return None if against is None else against.size


def _tampered(index: int, what: str) -> IntegrityFailure:
    return IntegrityFailure(Reason.LOG_TAMPERED, f"leaf {index} of the log was changed: {what}", index=index)
