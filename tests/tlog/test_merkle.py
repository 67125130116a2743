"""The laws of the tree: every proof verifies, no changed one does; and answers that others computed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import IntegrityFailure, Malformed
from vagus.reasons import Reason
from vagus.tlog import merkle

LEAVES = [merkle.leaf_hash(f"entry {number}".encode()) for number in range(300)]
TREE = merkle.MemoryTree.of(LEAVES)
ROOTS = [TREE.root(size) for size in range(len(LEAVES) + 1)]

# The eight inputs and roots of certificate-transparency's reference test (merkle/merkle_tree_test.cc and, in Go,
# transparency-dev/merkle testonly/constants.go); they are quoted in many implementations.
REFERENCE_INPUTS = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
REFERENCE_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def recursive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH as RFC 6962 2.1 writes it, independent of everything under test."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + recursive_root(leaves[:k]) + recursive_root(leaves[k:])).digest()


def sizes(least: int = 1) -> st.SearchStrategy[int]:
    return st.integers(least, len(LEAVES))


def mutations(draw: st.DrawFn, proof: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The proof with one thing wrong: a bit, a node missing, one too many, two exchanged."""
    kind = draw(st.sampled_from(["flip", "drop", "insert", "swap"] if proof else ["insert"]))
    nodes = list(proof)
    at = draw(st.integers(0, max(0, len(nodes) - 1)))
    if kind == "flip":
        bit = draw(st.integers(0, 255))
        nodes[at] = (int.from_bytes(nodes[at], "big") ^ (1 << bit)).to_bytes(32, "big")
    elif kind == "drop":
        del nodes[at]
    elif kind == "insert":
        nodes.insert(draw(st.integers(0, len(nodes))), draw(st.binary(min_size=32, max_size=32)))
    else:
        nodes.reverse()
    return tuple(nodes)


def test_the_empty_tree_is_the_hash_of_nothing() -> None:
    assert merkle.Frontier().root == merkle.EMPTY_ROOT == hashlib.sha256(b"").digest() == merkle.tree_root(0, TREE.read)


def test_roots_are_those_of_the_certificate_transparency_reference() -> None:
    frontier = merkle.Frontier()
    for entry, root in zip(REFERENCE_INPUTS, REFERENCE_ROOTS, strict=True):
        frontier = frontier.append(merkle.leaf_hash(bytes.fromhex(entry)))
        assert frontier.root.hex() == root


def test_the_audit_path_of_the_sixth_leaf_is_that_of_the_reference() -> None:
    tree = merkle.MemoryTree.of(merkle.leaf_hash(bytes.fromhex(entry)) for entry in REFERENCE_INPUTS)
    assert [node.hex() for node in merkle.inclusion_proof(5, 8, tree.read)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        REFERENCE_ROOTS[3],
    ]


def test_a_leaf_cannot_pose_as_a_node() -> None:
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)


@pytest.mark.parametrize("size", range(131))
def test_frontier_and_memory_tree_agree_with_the_definition(size: int) -> None:
    expected = recursive_root(LEAVES[:size])
    assert merkle.Frontier().extend(LEAVES[:size]).root == expected
    assert ROOTS[size] == expected


@given(sizes(0), sizes(0))
@settings(max_examples=60)
def test_a_frontier_grows_the_same_in_one_step_and_in_two(first: int, second: int) -> None:
    low, high = sorted((first, second))
    whole = merkle.Frontier().extend(LEAVES[:high])
    assert merkle.Frontier().extend(LEAVES[:low]).extend(LEAVES[low:high]) == whole
    assert merkle.Frontier.decode(high, whole.encode()) == whole


@pytest.mark.parametrize(("size", "length"), [(1, 0), (1, 64), (2, 33), (3, 32), (0, 32)])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, length: int) -> None:
    assert reason_of(merkle.Frontier.decode, size, b"x" * length, error=IntegrityFailure) is Reason.LOG_TAMPERED


def test_a_frontier_of_too_few_hashes_is_refused() -> None:
    assert reason_of(merkle.Frontier, 3, (LEAVES[0],), error=IntegrityFailure) is Reason.LOG_TAMPERED


@given(st.data())
@settings(max_examples=150)
def test_every_inclusion_proof_verifies_and_no_changed_one_does(data: st.DataObject) -> None:
    size = data.draw(sizes())
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(index, size, TREE.read)
    merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])
    changed = data.draw(st.composite(mutations)(proof))
    if changed != proof:
        with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
            merkle.verify_inclusion(LEAVES[index], index, size, changed, ROOTS[size])


@given(st.data())
@settings(max_examples=100)
def test_an_inclusion_proof_holds_only_for_its_leaf_index_and_root(data: st.DataObject) -> None:
    size = data.draw(sizes(2))
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(-1, size).filter(lambda number: number != index))
    proof = merkle.inclusion_proof(index, size, TREE.read)
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        merkle.verify_inclusion(LEAVES[index], other, size, proof, ROOTS[size])
    with pytest.raises(IntegrityFailure):
        merkle.verify_inclusion(LEAVES[(index + 1) % size], index, size, proof, ROOTS[size])
    with pytest.raises(IntegrityFailure):
        merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size - 1])


@given(st.data())
@settings(max_examples=150)
def test_every_consistency_proof_verifies_and_no_changed_one_does(data: st.DataObject) -> None:
    size = data.draw(sizes())
    old_size = data.draw(st.integers(1, size))
    proof = merkle.consistency_proof(old_size, size, TREE.read)
    merkle.verify_consistency(old_size, ROOTS[old_size], size, ROOTS[size], proof)
    changed = data.draw(st.composite(mutations)(proof))
    if changed != proof:
        with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
            merkle.verify_consistency(old_size, ROOTS[old_size], size, ROOTS[size], changed)


@given(st.data())
@settings(max_examples=100)
def test_a_rewritten_history_has_no_consistency_proof(data: st.DataObject) -> None:
    size = data.draw(sizes(2))
    old_size = data.draw(st.integers(1, size))
    rewritten = list(LEAVES[:size])
    rewritten[data.draw(st.integers(0, old_size - 1))] = merkle.leaf_hash(b"something else")
    forged = merkle.MemoryTree.of(rewritten)
    proof = merkle.consistency_proof(old_size, size, forged.read)
    with pytest.raises(IntegrityFailure):
        merkle.verify_consistency(old_size, ROOTS[old_size], size, forged.root(), proof)


def test_every_tree_continues_the_empty_one_without_a_proof() -> None:
    merkle.verify_consistency(0, merkle.EMPTY_ROOT, 7, ROOTS[7], ())
    for old_root, proof in [(ROOTS[1], ()), (merkle.EMPTY_ROOT, (ROOTS[1],))]:
        with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
            merkle.verify_consistency(0, old_root, 7, ROOTS[7], proof)


def test_a_shorter_log_continues_nothing() -> None:
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        merkle.verify_consistency(8, ROOTS[8], 7, ROOTS[7], (ROOTS[7],))


def test_equal_sizes_need_equal_roots() -> None:
    merkle.verify_consistency(5, ROOTS[5], 5, ROOTS[5], ())
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        merkle.verify_consistency(5, ROOTS[4], 5, ROOTS[5], ())


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
def test_no_proof_is_made_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    assert reason_of(merkle.inclusion_proof, index, size, TREE.read, error=Malformed) is Reason.BAD_ARGUMENT


@pytest.mark.parametrize(("old_size", "size"), [(0, 3), (4, 3)])
def test_no_consistency_proof_is_made_from_nothing_or_backwards(old_size: int, size: int) -> None:
    assert reason_of(merkle.consistency_proof, old_size, size, TREE.read, error=Malformed) is Reason.BAD_ARGUMENT
