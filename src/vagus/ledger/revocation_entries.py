"""The ledger's entry of one step of the revocation sequence: who revoked or held a certificate; verifies nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.ledger.entries import Hold, Release, Revocation, decode_entry
from vagus.records.log import iterate_leaves, load_head

if TYPE_CHECKING:
    from vagus.records.engine.database import Connection

RevocationEntry = Revocation | Hold | Release
_MOST = 50_000
"""Leaves that are read at most: more than a stage of a mass revocation writes in the seconds that are searched."""
_SLACK = 5
"""Seconds by which the clocks of several processes may differ: their batches need not rise in time."""


def find_revocation_entry(connection: Connection, sequence: int, at: int) -> tuple[int, RevocationEntry] | None:
    """The leaf index and entry of step `sequence`, made at `at`; None where the ledger has none about that time.

    Entries carry the times of their batches. These rise but for small differences between clocks, so bisection finds
    where to begin. After a clock was set back by more than `_SLACK`, an entry near that place may not be found.
    """
    size = load_head(connection).size
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        (leaf,) = iterate_leaves(connection, middle, middle + 1)
        if decode_entry(leaf.entry).at < at - _SLACK:
            low = middle + 1
        else:
            high = middle
    for leaf in iterate_leaves(connection, low, min(size, low + _MOST)) if low < size else ():
        if b'"sequence":%d' % sequence not in leaf.entry:
            continue
        entry = decode_entry(leaf.entry).entry
        if isinstance(entry, RevocationEntry) and entry.sequence == sequence:
            return leaf.index, entry
    return None
