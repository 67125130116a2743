"""Merkle-tree hashes, the frontier of a growing log, and its proofs (RFC 6962 section 2.1); stores nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from vagus.errors import IntegrityFailure, Malformed
from vagus.reasons import Reason

HASH_BYTES = 32

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree without leaves: the hash of nothing (RFC 6962 2.1)."""

SubtreeReader: TypeAlias = Callable[[int, int], bytes]
"""Returns, for (level, index), the hash of the complete subtree over leaves [index << level, (index + 1) << level)."""

_sha256 = hashlib.sha256


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry: SHA-256(0x00 || entry). The prefix keeps a leaf from posing as a node (RFC 6962 2.1)."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(0x01 || left || right) (RFC 6962 2.1)."""
    return _sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that is needed to grow a tree: its size and the roots of its complete subtrees, the largest first.

    There is one hash for each one bit of `size`: a tree of 13 = 8 + 4 + 1 leaves is three complete subtrees. A new leaf
    is carried like a one in binary addition. While the lowest bit is set, the last subtree is as large as what is
    carried, and both become one of twice the size. So a frontier has at most log2(size) + 1 hashes, and appending costs
    one node hash a leaf on average. The root folds the subtrees from the smallest to the largest, which is the order of
    RFC 6962 2.1: its split at the largest power of two below the size takes off the largest complete subtree.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            msg = f"a Merkle frontier of {len(self.hashes)} hashes does not fit a tree of {self.size} leaves"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, size=self.size)

    @classmethod
    def decode(cls, size: int, concatenated: bytes) -> Frontier:
        """The frontier stored beside `size`. Raises IntegrityFailure(LOG_TAMPERED) when the two do not fit."""
        if len(concatenated) != size.bit_count() * HASH_BYTES:
            msg = f"a Merkle frontier of {len(concatenated)} bytes does not fit a tree of {size} leaves"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, size=size)
        return cls(size, tuple(concatenated[at : at + HASH_BYTES] for at in range(0, len(concatenated), HASH_BYTES)))

    def encode(self) -> bytes:
        """The hashes one after the other, the largest subtree first."""
        return b"".join(self.hashes)

    def append(self, leaf: bytes) -> Frontier:
        """The frontier with the one leaf more whose hash is `leaf`."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier after the leaves with these hashes."""
        size, hashes = self.size, list(self.hashes)
        for leaf in leaves:
            carried, bits = leaf, size
            # each trailing one bit of the size is a complete subtree as large as the carried one: merge them
            while bits & 1:
                carried = node_hash(hashes.pop(), carried)
                bits >>= 1
            hashes.append(carried)
            size += 1
        return Frontier(size, tuple(hashes))

    @property
    def root(self) -> bytes:
        """The tree head over all leaves."""
        if not self.hashes:
            return EMPTY_ROOT
        *rest, root = self.hashes
        for larger in reversed(rest):
            root = node_hash(larger, root)
        return root


@dataclass(slots=True)
class MemoryTree:
    """Every complete subtree of a log held in memory: 64 bytes a leaf. For tests, verifiers and small logs."""

    levels: list[list[bytes]] = field(default_factory=lambda: [[]])

    @classmethod
    def of(cls, leaves: Iterable[bytes]) -> MemoryTree:
        """The tree over the leaves with these hashes."""
        tree = cls()
        for leaf in leaves:
            tree.append(leaf)
        return tree

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self.levels[0])

    def append(self, leaf: bytes) -> None:
        """Add the leaf with this hash."""
        carried, level = leaf, 0
        while True:
            if level == len(self.levels):
                self.levels.append([])
            row = self.levels[level]
            row.append(carried)
            if len(row) & 1:
                return
            carried, level = node_hash(row[-2], row[-1]), level + 1

    def read(self, level: int, index: int) -> bytes:
        """A SubtreeReader."""
        return self.levels[level][index]

    def root(self, size: int | None = None) -> bytes:
        """The tree head over the first `size` leaves, all by default."""
        return tree_root(self.size if size is None else size, self.read)


def tree_root(size: int, read: SubtreeReader) -> bytes:
    """The tree head over the first `size` leaves (RFC 6962 2.1)."""
    return range_root(0, size, read) if size else EMPTY_ROOT


def range_root(start: int, end: int, read: SubtreeReader) -> bytes:
    """MTH(D[start:end]) for a range that the recursion of RFC 6962 2.1 visits."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return read(level, start >> level)
    split = _split(count)
    return node_hash(range_root(start, start + split, read), range_root(start + split, end, read))


def inclusion_proof(index: int, size: int, read: SubtreeReader) -> tuple[bytes, ...]:
    """The audit path of leaf `index` in the tree of `size` leaves, lowest sibling first (RFC 6962 2.1.1).

    Raises Malformed(BAD_ARGUMENT) unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise Malformed(Reason.BAD_ARGUMENT, f"leaf {index} is not in a tree of {size} leaves", index=index, size=size)
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_root(middle, end, read))
            end = middle
        else:
            path.append(range_root(start, middle, read))
            start = middle
    return tuple(reversed(path))


def consistency_proof(old_size: int, size: int, read: SubtreeReader) -> tuple[bytes, ...]:
    """The proof that the tree of `old_size` leaves is a prefix of the tree of `size` leaves (RFC 6962 2.1.2).

    Empty when the sizes are equal. Raises Malformed(BAD_ARGUMENT) unless 0 < old_size <= size.
    """
    if not 0 < old_size <= size:
        msg = f"no consistency proof leads from a tree of {old_size} leaves to one of {size}; the older needs a leaf"
        raise Malformed(Reason.BAD_ARGUMENT, msg, old_size=old_size, size=size)
    path: list[bytes] = []
    start, end, is_whole = 0, size, True  # is_whole: the old tree begins at `start`, and both sides know its root
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(range_root(middle, end, read))
            end = middle
        else:
            path.append(range_root(start, middle, read))
            start, is_whole = middle, False
    if not is_whole:
        path.append(range_root(start, end, read))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with hash `leaf` is number `index` under `root` (RFC 9162 2.1.3.2).

    The bits of `number` say at each level whether our node is a right child. On the right edge of an incomplete tree
    (number == last, and even) a node has no sibling at its level: it moves up unchanged, which skips the zero bits.
    The leaf and node hashes have different prefixes, so no other leaf, index or size leads to the same root. A proof
    longer than the tree is high (at most 64 levels) is refused.

    Raises IntegrityFailure(LOG_TAMPERED).
    """
    # 1. Require the leaf's index to lie within the tree.
    if not 0 <= index < size:
        raise _broken(f"leaf {index} is not in a tree of {size} leaves", index=index, size=size)
    # 2. Start at the leaf, with the index of the leaf and that of the last leaf (RFC 9162 2.1.3.2).
    number, last, computed = index, size - 1, leaf
    # 3. Climb one level for each hash of the inclusion proof.
    for sibling in proof:
        if last == 0:
            raise _broken(f"the inclusion proof of leaf {index} is longer than its tree is high", index=index)
        if number & 1 or number == last:
            computed = node_hash(sibling, computed)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        number, last = number >> 1, last >> 1
    # 4. Require the climb to end at the root, and the root to be the known one.
    if last != 0 or computed != root:
        raise _broken(f"leaf {index} is not under the root of the tree of {size} leaves", index=index, size=size)


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree under `root` continues the one under `old_root` (RFC 9162 2.1.4.2).

    The climb starts at the last complete subtree of the old tree, which both trees share. A sibling on the left belongs
    to both trees and enters both hashes; one on the right exists in the new tree only. So the same nodes give both
    roots, and if both are right, the old leaves are the first leaves of the new tree.

    Raises IntegrityFailure(LOG_TAMPERED).
    """
    not_continued = f"the log of {size} leaves does not continue the one of {old_size}"
    # 1. An empty tree is the beginning of every tree, and an equal tree only of itself; neither needs a proof.
    if old_size in {0, size}:
        if proof or old_root != (EMPTY_ROOT if old_size == 0 else root):
            raise _broken(not_continued, old_size=old_size, size=size)
        return
    # 2. A complete old tree is its own first node, so the consistency proof leaves that node out.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path or not 0 < old_size < size:
        raise _broken(not_continued, old_size=old_size, size=size)
    # 3. Skip the levels at which the old tree has a complete right edge.
    number, last = old_size - 1, size - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    # 4. Climb with each node of the proof, and compute the roots of the old and the new tree from the same nodes.
    old_computed = computed = path[0]
    for node in path[1:]:
        if last == 0:
            raise _broken("the consistency proof is longer than the tree is high", old_size=old_size, size=size)
        if number & 1 or number == last:
            old_computed, computed = node_hash(node, old_computed), node_hash(node, computed)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            computed = node_hash(computed, node)
        number, last = number >> 1, last >> 1
    # 5. Require both climbs to end at the known roots.
    if last != 0 or (old_computed, computed) != (old_root, root):
        raise _broken(not_continued, old_size=old_size, size=size)


def _split(count: int) -> int:
    """The largest power of two smaller than `count` (k in RFC 6962 2.1)."""
    return 1 << ((count - 1).bit_length() - 1)


def _broken(message: str, **facts: int) -> IntegrityFailure:
    return IntegrityFailure(Reason.LOG_TAMPERED, message, **facts)
