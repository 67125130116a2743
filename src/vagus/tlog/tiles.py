"""The log as static files: paths and contents of hash tiles and entry bundles (C2SP tlog-tiles); reads no file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.tlog.merkle import HASH_BYTES, SubtreeReader, node_hash

WIDTH = 256
"""Hashes in a full tile, entries in a full bundle."""

HEIGHT = 8
"""Levels of the tree that one level of tiles spans."""

MAX_LEVEL = 63
MAX_ENTRY_BYTES = 65_535
ENTRIES = "entries"
CHECKPOINT = "checkpoint"

_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?\Z"
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Where a tile lies: `level` None for entry bundles; `width` below 256 for the partial tile at the right edge."""

    level: int | None
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if self.index < 0 or not 1 <= self.width <= WIDTH or not 0 <= (self.level or 0) <= MAX_LEVEL:
            msg = f"no hash tile has level {self.level}, index {self.index}, width {self.width} (C2SP tlog-tiles)"
            raise Malformed(Reason.BAD_ARGUMENT, msg)

    @classmethod
    def parse(cls, path: str) -> Tile:
        """The tile that `path` names, spelt exactly as `path` spells it. Raises Malformed(NON_CANONICAL)."""
        match = _PATH.match(path)
        if match is not None:
            level = None if match["level"] == ENTRIES else int(match["level"])
            index = int(match["index"].replace("x", "").replace("/", ""))
            width = int(match["width"] or WIDTH)
            is_partial = match["width"] is not None
            if (level or 0) <= MAX_LEVEL and width <= WIDTH and is_partial == (width < WIDTH):
                tile = cls(level, index, width)
                if tile.path == path:  # this refuses x000/ in front of a path, which would give one tile two names
                    return tile
        raise Malformed(Reason.NON_CANONICAL, "this path names no tile: tile/<level>/<x123/…/456>[.p/<width>]")

    @property
    def path(self) -> str:
        """Its name below the log's prefix: three digits a folder, all but the last with an x in front."""
        digits = f"{self.index % 1000:03d}"
        rest = self.index // 1000
        while rest:
            digits = f"x{rest % 1000:03d}/{digits}"
            rest //= 1000
        level = ENTRIES if self.level is None else str(self.level)
        return f"tile/{level}/{digits}" + ("" if self.width == WIDTH else f".p/{self.width}")


def tiles_of(size: int) -> Iterator[Tile]:
    """The rightmost tile of each level, and the rightmost entry bundle, in the tree of `size` leaves.

    All tiles to their left are full. A level whose last tile is full names that one.
    """
    level, count = 0, size
    while count:
        index, width = divmod(count - 1, WIDTH)
        if level == 0:
            yield Tile(None, index, width + 1)
        yield Tile(level, index, width + 1)
        level, count = level + 1, count // WIDTH


def encode_tile(hashes: Sequence[bytes]) -> bytes:
    """The contents of a hash tile."""
    return b"".join(hashes)


def decode_tile(contents: bytes, width: int) -> tuple[bytes, ...]:
    """The hashes of a tile that must have `width` of them. Raises Malformed(BAD_ENCODING)."""
    if len(contents) != width * HASH_BYTES:
        msg = f"a hash tile of {len(contents)} bytes does not hold {width} hashes of {HASH_BYTES} bytes"
        raise Malformed(Reason.BAD_ENCODING, msg, size=len(contents), width=width)
    return tuple(contents[at : at + HASH_BYTES] for at in range(0, len(contents), HASH_BYTES))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries, each after its length in two bytes. Raises Malformed(TOO_LARGE) for one above 65,535 bytes."""
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            msg = f"a log entry of {len(entry)} bytes exceeds the {MAX_ENTRY_BYTES} bytes of an entry bundle"
            raise Malformed(Reason.TOO_LARGE, msg, size=len(entry), limit=MAX_ENTRY_BYTES)
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(contents: bytes, width: int) -> tuple[bytes, ...]:
    """The entries of a bundle that must have `width` of them. Raises Malformed(BAD_ENCODING)."""
    entries, at = [], 0
    while at < len(contents):
        end = at + 2 + int.from_bytes(contents[at : at + 2], "big")
        if end > len(contents) or at + 2 > len(contents):
            raise Malformed(Reason.BAD_ENCODING, "an entry bundle ends inside a log entry", size=len(contents))
        entries.append(contents[at + 2 : end])
        at = end
    if len(entries) != width:
        msg = f"an entry bundle holds {len(entries)} log entries, not {width}"
        raise Malformed(Reason.BAD_ENCODING, msg, width=width)
    return tuple(entries)


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes, such as a full tile."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def tile_reader(size: int, load: Callable[[Tile], bytes]) -> SubtreeReader:
    """Reads subtrees of the tree of `size` leaves out of its tiles, for proofs; `load` returns a tile's contents.

    Raises Malformed(BAD_ENCODING) for a tile of a wrong length. Tiles prove nothing by themselves: first
    compare the root that they lead to with a verified checkpoint.
    """

    def read(level: int, index: int) -> bytes:
        tile_level, inner = divmod(level, HEIGHT)
        start = index << inner  # index of the first hash, counted in hashes of this tile's level
        tile_index, offset = divmod(start, WIDTH)
        count = size >> (HEIGHT * tile_level)
        width = min(WIDTH, count - tile_index * WIDTH)
        if offset + (1 << inner) > width:
            msg = f"subtree {index} of tile level {level} is not complete in a tree of {size} leaves"
            raise Malformed(Reason.BAD_ARGUMENT, msg, level=level, index=index)
        hashes = decode_tile(load(Tile(tile_level, tile_index, width)), width)
        return subtree_root(hashes[offset : offset + (1 << inner)])

    return read


class TileEdge:
    """The right edge of the tile tree: what is needed to grow it and to know its root.

    Level n holds the hashes of subtrees of 256**n leaves, and only those that are not yet part of a full tile: at most
    255 a level, so a log of 2**40 leaves needs under 1,300 hashes. A full tile never changes again. Appending touches
    level n only once in 256**n leaves, so it costs about one node hash a leaf, as a plain frontier does.
    """

    def __init__(self, size: int = 0, edge: Sequence[Sequence[bytes]] = ()) -> None:
        """An edge of `size` leaves: for each level the hashes of its unfinished tile (none where it is full)."""
        self.size = size
        self._levels = [list(hashes) for hashes in edge]

    @classmethod
    def load(cls, size: int, load: Callable[[Tile], bytes]) -> TileEdge:
        """The edge of a published tree of `size` leaves. Raises Malformed(BAD_ENCODING)."""
        hash_tiles = [tile for tile in tiles_of(size) if tile.level is not None]
        edge = [() if tile.width == WIDTH else decode_tile(load(tile), tile.width) for tile in hash_tiles]
        return cls(size, edge)

    def append(self, leaf: bytes) -> Iterator[tuple[Tile, bytes]]:
        """Add the leaf with this hash; gives each tile that it fills, the lowest level first."""
        self.size += 1
        carried, level = leaf, 0
        while True:
            if level == len(self._levels):
                self._levels.append([])
            row = self._levels[level]
            row.append(carried)
            if len(row) < WIDTH:
                return
            yield Tile(level, (self.size >> (HEIGHT * (level + 1))) - 1), encode_tile(row)
            carried, level = subtree_root(row), level + 1
            row.clear()

    def partial_tiles(self) -> Iterator[tuple[Tile, bytes]]:
        """Each unfinished tile with its contents."""
        for level, row in enumerate(self._levels):
            if row:
                yield Tile(level, self.size >> (HEIGHT * (level + 1)), len(row)), encode_tile(row)

    @property
    def root(self) -> bytes:
        """The tree head over all leaves; Malformed(BAD_ARGUMENT) for a tree without leaves."""
        subtrees: list[bytes] = []  # roots of complete subtrees, the largest first, as in a frontier
        for row in reversed(self._levels):
            at = 0
            for bit in reversed(range(HEIGHT)):
                if len(row) >> bit & 1:
                    subtrees.append(subtree_root(row[at : at + (1 << bit)]))
                    at += 1 << bit
        if not subtrees:
            raise Malformed(Reason.BAD_ARGUMENT, "a log tree without leaves has no tiles")
        return reduce(lambda right, left: node_hash(left, right), reversed(subtrees))
