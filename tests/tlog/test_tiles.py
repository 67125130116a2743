"""Tiles: the numbers of the C2SP text, and that tiles lead to the same roots and proofs as the leaves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.tlog import merkle, tiles
from vagus.tlog.tiles import Tile, TileEdge

SIZE = 66_000  # two levels of full tiles and the beginning of a third
LEAVES = [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(SIZE)]
TREE = merkle.MemoryTree.of(LEAVES)


def publish(size: int, start: TileEdge | None = None) -> tuple[dict[str, bytes], TileEdge]:
    edge = start or TileEdge()
    files: dict[str, bytes] = {}
    for leaf in LEAVES[edge.size : size]:
        files.update((tile.path, contents) for tile, contents in edge.append(leaf))
    files.update((tile.path, contents) for tile, contents in edge.partial_tiles())
    return files, edge


FILES, EDGE = publish(SIZE)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(1, 1234067), "tile/1/x001/x234/067"),  # the example of the specification
        (Tile(0, 273, 112), "tile/0/273.p/112"),
        (Tile(None, 999), "tile/entries/999"),
        (Tile(None, 1000, 1), "tile/entries/x001/000.p/1"),
        (Tile(63, 5), "tile/63/005"),
    ],
)
def test_paths_are_those_of_the_specification(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/001",
        "tile/0/x1/000",
        "tile/0/001/002",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/data/000",
        "tile/0/000/",
        "tile/0/000\n",
        "../tile/0/000",
        "",
    ],
)
def test_a_second_spelling_of_a_tile_is_no_tile(path: str) -> None:
    assert reason_of(Tile.parse, path, error=Malformed) is Reason.NON_CANONICAL


@given(st.integers(0, 63) | st.none(), st.integers(0, 10**10), st.integers(1, 256))
@settings(max_examples=100)
def test_every_path_parses_back(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize("arguments", [(0, -1, 1), (0, 0, 0), (0, 0, 257), (64, 0, 1)])
def test_an_impossible_tile_is_refused(arguments: tuple[int, int, int]) -> None:
    assert reason_of(Tile, *arguments, error=Malformed) is Reason.BAD_ARGUMENT


def test_a_tree_of_seventy_thousand_has_the_tiles_that_the_specification_counts() -> None:
    partial = [Tile(None, 273, 112), Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles.tiles_of(70_000)) == partial
    assert list(tiles.tiles_of(256)) == [Tile(None, 0), Tile(0, 0), Tile(1, 0, 1)]
    assert not list(tiles.tiles_of(0))


def test_the_files_of_a_tree_are_exactly_those() -> None:
    names = set(FILES)
    assert {f"tile/0/{index:03d}" for index in range(257)} <= names
    assert {"tile/0/257.p/208", "tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1"} <= names
    assert len(names) == 257 + 4


@given(st.data())
@settings(max_examples=40)
def test_tiles_give_the_roots_and_proofs_of_the_tree(data: st.DataObject) -> None:
    read = tiles.tile_reader(SIZE, lambda tile: FILES[tile.path])
    assert EDGE.root == TREE.root()
    index = data.draw(st.integers(0, SIZE - 1))
    merkle.verify_inclusion(LEAVES[index], index, SIZE, merkle.inclusion_proof(index, SIZE, read), TREE.root())
    old_size = data.draw(st.integers(1, SIZE))
    proof = merkle.consistency_proof(old_size, SIZE, read)
    assert proof == merkle.consistency_proof(old_size, SIZE, TREE.read)
    merkle.verify_consistency(old_size, TREE.root(old_size), SIZE, TREE.root(), proof)
    assert merkle.tree_root(old_size, read) == TREE.root(old_size)


@given(st.integers(1, 1_100), st.integers(0, 1_100))
@settings(max_examples=40)
def test_an_edge_loaded_from_its_tiles_grows_like_the_original(first: int, more: int) -> None:
    files, edge = publish(first)
    assert edge.root == TREE.root(first)
    again = TileEdge.load(first, lambda tile: files[tile.path])
    assert again.root == edge.root
    grown, again = publish(first + more, again)
    whole, _ = publish(first + more)
    assert again.root == TREE.root(first + more)
    assert {**files, **grown}.items() >= whole.items()


def test_an_incomplete_subtree_is_not_read() -> None:
    read = tiles.tile_reader(300, lambda tile: FILES[f"tile/{tile.level}/{tile.index:03d}"][: tile.width * 32])
    assert read(5, 8) == TREE.read(5, 8)  # leaves 256 to 287
    for level, index in [(6, 4), (0, 300), (8, 1)]:
        assert reason_of(read, level, index, error=Malformed) is Reason.BAD_ARGUMENT


def test_a_tree_without_leaves_has_no_tiles_and_no_tile_root() -> None:
    assert not list(TileEdge().partial_tiles())
    with pytest.raises(Malformed):
        _ = TileEdge().root


@given(st.lists(st.binary(max_size=40), max_size=20))
@settings(max_examples=60)
def test_bundles_come_back(entries: list[bytes]) -> None:
    assert tiles.decode_bundle(tiles.encode_bundle(entries), len(entries)) == tuple(entries)


@pytest.mark.parametrize("contents", [b"\x00", b"\x00\x01", b"\x00\x02a", b"\x00\x01ab"])
def test_a_bundle_that_ends_inside_an_entry_is_refused(contents: bytes) -> None:
    assert reason_of(tiles.decode_bundle, contents, 1, error=Malformed) is Reason.BAD_ENCODING


def test_a_bundle_holds_as_many_entries_as_its_name_says() -> None:
    assert reason_of(tiles.decode_bundle, tiles.encode_bundle([b"a", b"b"]), 1, error=Malformed) is Reason.BAD_ENCODING


def test_an_entry_larger_than_two_bytes_of_length_is_refused() -> None:
    assert len(tiles.encode_bundle([b"a" * 65_535])) == 65_537
    assert reason_of(tiles.encode_bundle, [b"a" * 65_536], error=Malformed) is Reason.TOO_LARGE


def test_a_tile_of_another_width_is_refused() -> None:
    assert tiles.decode_tile(tiles.encode_tile(LEAVES[:3]), 3) == tuple(LEAVES[:3])
    assert reason_of(tiles.decode_tile, tiles.encode_tile(LEAVES[:3]), 4, error=Malformed) is Reason.BAD_ENCODING
