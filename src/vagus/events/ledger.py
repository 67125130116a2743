"""Follows the tail of the ledger, from the end or from where a consumer stopped before a restart.

A consumer that must miss no entry (a SIEM feed, a webhook) stores its position with `save_cursor` once it has
delivered. After a crash it gets some entries again, and none is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from vagus.events.follower import Follower
from vagus.records.engine.commit_facts import CommitFacts
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch
from vagus.records.log import iterate_leaves, load_head
from vagus.records.verifier_memory import find_remembered, remember

_PAGE = 2_000


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """An entry of the ledger as its canonical JSON. `sequence` is its leaf index plus one."""

    sequence: int
    entry: bytes


class LedgerFollower(Follower[LedgerRow]):
    """The entries that are committed from now on, or after `position`."""

    name: ClassVar[str] = "ledger"

    def _find(self, connection: Connection, position: int) -> tuple[int, LedgerRow | None]:
        end = load_head(connection).size
        return end, _read_rows(connection, position - 1, position)[0] if 0 < position <= end else None

    def _read(self, connection: Connection, after: int) -> Sequence[LedgerRow]:
        return _read_rows(connection, after, min(after + _PAGE, load_head(connection).size))

    def _written(self, facts: CommitFacts) -> tuple[Sequence[LedgerRow], int]:
        first = facts.size - len(facts.entries) + 1
        return [LedgerRow(number, entry) for number, entry in enumerate(facts.entries, first)], facts.size


def load_cursor(connection: Connection, consumer: str) -> int:
    """The position that `consumer` saved last; 0 before the first time."""
    found = find_remembered(connection, f"cursor:{consumer}")
    return 0 if found is None else found.number


def save_cursor(batch: Batch, consumer: str, position: int) -> None:
    """Save that `consumer` has delivered everything up to `position`; a cursor never goes back.

    Raises Malformed(BAD_ARGUMENT) for a name above 113 characters.
    """
    remember(batch.connection, f"cursor:{consumer}", position, batch.at)


def _read_rows(connection: Connection, start: int, end: int) -> list[LedgerRow]:
    """The leaves of [start, end). Raises IntegrityFailure(LOG_TAMPERED) where one is missing."""
    return [LedgerRow(leaf.index + 1, leaf.entry) for leaf in iterate_leaves(connection, start, end)]
