"""Writes the log as static files that any web server can serve and anyone can check; the database stays the log.

The files are those of C2SP tlog-tiles: `tile/<level>/<index>` with 256 hashes each, `tile/entries/<index>` with 256
entries each (a bundle), and `checkpoint`, which is signed. The last tile of a level may be partial (`.p/<width>`).

A checkpoint is a promise that all its tiles can be fetched. Therefore the order of writing:

1. Tiles and bundles, each under a temporary name, synced, then renamed.
2. The folders that got names, synced, the deepest first: no name is on the disk before what it names.
3. The checkpoint, replaced in one step and synced.
4. Partial tiles that only the old checkpoint needed are removed.

A crash before step 3 leaves the old checkpoint with all its tiles, and new tiles that no checkpoint names yet. The next
run writes them again with the same bytes. A crash in step 4 leaves files that no client fetches. No step overwrites a
tile with other bytes: a tile's contents follow from the leaves, which never change.

What is never signed: a head that is shorter than the published one, or one to which the old and new tiles do not lead.
The root is computed from the published tiles plus the new leaves, so a database whose history differs from the
published one cannot pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from vagus.durable_files import GROUP_FILE, FolderLocked, lock_folder, replace_durably, replace_file, sync_folder
from vagus.errors import IntegrityFailure, Malformed, Unavailable
from vagus.keystore.signing import Purpose, SigningKey
from vagus.reasons import Reason
from vagus.records.engine.database import Database
from vagus.records.installation import load_installation
from vagus.records.log import Leaf, iterate_leaves, load_head
from vagus.tlog.checkpoint import Checkpoint, NoteKey, encode_note, verify_checkpoint
from vagus.tlog.merkle import EMPTY_ROOT, leaf_hash
from vagus.tlog.tiles import (
    CHECKPOINT,
    WIDTH,
    Tile,
    TileEdge,
    decode_bundle,
    decode_tile,
    encode_bundle,
    tiles_of,
)

_FOLDER_MODE = 0o750
_LOCK_SECONDS = 2.0
"""A process that publishes for longer has much to write, or hangs. This is reported; the next run tries again."""


class LogPublisher:
    """Publishes one log into one folder; a lock file keeps two publishers apart, also across processes."""

    def __init__(self, database: Database, folder: Path, checkpoint_key: SigningKey) -> None:
        """Raises Malformed(UNSUPPORTED_ALGORITHM) unless the key is Ed25519, Misconfigured(SCHEMA_MISMATCH)."""
        self._database = database
        self._folder = folder
        self._signing_key = checkpoint_key
        with database.reading() as connection:
            origin = load_installation(connection).origin
        self.key = NoteKey.of_spki(origin, checkpoint_key.spki_der)
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)

    def publish(self) -> Checkpoint:
        """Bring the folder up to the database's log and sign its head; gives the checkpoint that is published now.

        Nothing is written when nothing is new. Raises IntegrityFailure(LOG_TRUNCATED) when the published checkpoint
        is ahead of the database, IntegrityFailure(LOG_TAMPERED) when it is of another history,
        IntegrityFailure(CHECKPOINT_INVALID), Unavailable(DATABASE_UNAVAILABLE) when the folder cannot be written or
        another process has been in it for seconds: nothing that contradicts an earlier checkpoint is ever signed (C2SP
        tlog-checkpoint, Signatures).
        """
        try:
            with lock_folder(self._folder / ".lock", seconds=_LOCK_SECONDS, mode=GROUP_FILE):
                return self._publish()
        except FolderLocked:
            msg = f"another process has locked log folder {self._folder} for {_LOCK_SECONDS:.0f} s; end it if it hangs"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg, path=str(self._folder)) from None
        except OSError as error:
            msg = f"the log cannot be published in {self._folder}: {error.strerror}; check its disk and owner"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg, path=str(self._folder)) from error

    def _publish(self) -> Checkpoint:
        # 1. Read the published checkpoint and the tiles at the log's right edge, which must lead to the checkpoint's
        # root.
        old = load_published(self._folder, self.key)
        edge = self._load_edge(old)
        with self._database.reading() as connection:
            # 2. Read the log head in the database. A log that is shorter than the published one must not be signed.
            head = load_head(connection)
            if old is not None and head.size < old.size:
                msg = f"the database's log lost leaves: it has {head.size}, the published checkpoint {old.size}"
                msg = f"{msg}; recover them from the published folder first"
                raise IntegrityFailure(Reason.LOG_TRUNCATED, msg, size=head.size, published=old.size)
            if old is not None and old.size == head.size and old.root == head.root:
                return old
            # 3. Write the new leaves into hash tiles and entry bundles.
            files = _Files(self._folder)
            files.fill(edge, iterate_leaves(connection, edge.size - edge.size % WIDTH, head.size))
        # 4. Check that old and new tiles together lead to the root in the database.
        root = edge.root if head.size else EMPTY_ROOT
        if root != head.root:
            msg = f"the tiles of {head.size} leaves do not lead to the root in the database; run: vagus audit verify"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, size=head.size)
        files.sync()
        # 5. Replace the checkpoint last and as a whole: its readers find all tiles that it needs.
        new = Checkpoint(self.key.name, head.size, head.root)
        signature = self._signing_key.sign(Purpose.CHECKPOINT, new.encode().encode())
        replace_durably(self._folder / CHECKPOINT, encode_note(new, self.key, signature), GROUP_FILE)
        # 6. Remove partial tiles of the old checkpoint once their full tile exists (C2SP tlog-tiles, Partial Tiles).
        if old is not None:
            _drop_partials(self._folder, old.size, head.size)
        return new

    def _load_edge(self, old: Checkpoint | None) -> TileEdge:
        if old is None or old.size == 0:
            return TileEdge()
        edge = TileEdge.load(old.size, partial(load_tile, self._folder))
        if edge.root != old.root:
            msg = f"the published tiles do not lead to the root in their checkpoint of {old.size} leaves"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, size=old.size)
        return edge


def load_published(folder: Path, key: NoteKey) -> Checkpoint | None:
    """The checkpoint in `folder`, verified; None when nothing was published yet.

    Raises IntegrityFailure(CHECKPOINT_INVALID), Malformed(BAD_ENCODING).
    """
    try:
        note = (folder / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        return None
    return verify_checkpoint(note, key)


def holds_more(folder: Path, key: NoteKey, database: Database) -> bool:
    """Whether the log published in `folder` has leaves that the database has not: after its end, or other leaves.

    A database that was set back and then written to may soon be as long as the published log, so where it is longer
    its leaf in the last published place is compared too. Raises as `load_published`.
    """
    # Read the checkpoint before the database: the database only grows, so a shorter log in it was set back.
    published = load_published(folder, key)
    if published is None:
        return False
    with database.reading() as connection:
        head = load_head(connection)
        if head.size <= published.size:
            return (head.size, head.root) != (published.size, published.root)
        last = published.size - 1
        entry = _find_entry(folder, last)
        return entry is not None and any(leaf.entry != entry for leaf in iterate_leaves(connection, last, last + 1))


def _find_entry(folder: Path, leaf_index: int) -> bytes | None:
    """The last entry of a published log; None unless bundle and tile agree on it: a broken file proves nothing."""
    index, place = divmod(leaf_index, WIDTH)
    width = place + 1
    try:
        (*_, entry) = decode_bundle(load_tile(folder, Tile(None, index, width)), width)
        (*_, hashed) = decode_tile(load_tile(folder, Tile(0, index, width)), width)
    except (IntegrityFailure, Malformed):
        return None
    return entry if leaf_hash(entry) == hashed else None


def load_tile(folder: Path, tile: Tile) -> bytes:
    """The contents of a published tile: where a partial one is gone, the same width of the full one.

    Raises IntegrityFailure(LOG_TAMPERED) when neither is there.
    """
    try:
        return (folder / tile.path).read_bytes()
    except FileNotFoundError:
        pass
    try:
        if tile.level is not None:
            return (folder / Tile(tile.level, tile.index).path).read_bytes()[: tile.width * 32]
    except FileNotFoundError:
        pass
    msg = f"the published log lacks tile {tile.path}"
    raise IntegrityFailure(Reason.LOG_TAMPERED, msg, path=tile.path)


class _Files:
    """Writes tiles, remembering the folders whose entries must reach the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._touched: set[Path] = set()

    def write(self, tile: Tile, contents: bytes) -> None:
        path = self._folder / tile.path
        if not path.parent.is_dir():
            path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._touched.update(parent for parent in path.parent.parents if parent.is_relative_to(self._folder))
        self._touched.add(path.parent)
        replace_file(path, contents, GROUP_FILE)

    def fill(self, edge: TileEdge, leaves: Iterator[Leaf]) -> None:
        """Write what `leaves` add to `edge`; they begin where the unfinished bundle does."""
        bundle: list[bytes] = []
        end = 0
        for leaf in leaves:
            bundle.append(leaf.entry)
            end = leaf.index + 1
            if end > edge.size:
                for tile, contents in edge.append(leaf_hash(leaf.entry)):
                    self.write(tile, contents)
            if len(bundle) == WIDTH:
                self.write(Tile(None, leaf.index // WIDTH), encode_bundle(bundle))
                bundle.clear()
        for tile, contents in edge.partial_tiles():
            self.write(tile, contents)
        if bundle:
            self.write(Tile(None, end // WIDTH, len(bundle)), encode_bundle(bundle))

    def sync(self) -> None:
        # sync the deepest folders first: a name must not be durable before the folder that it names
        for folder in sorted(self._touched, reverse=True):
            sync_folder(folder)


def _drop_partials(folder: Path, old_size: int, size: int) -> None:
    """Remove the partial tiles of the old checkpoint where the full tile exists now. Losing this to a crash is fine."""
    for tile in tiles_of(old_size):
        full_end = (tile.index + 1) * WIDTH ** ((tile.level or 0) + 1)
        if tile.width < WIDTH and full_end <= size:
            partials = (folder / tile.path).parent
            with suppress(OSError):
                for partial in partials.iterdir():
                    partial.unlink()
                partials.rmdir()
