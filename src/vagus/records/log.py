"""Reads the log's head and leaves; only the writer's batch adds to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, select

from vagus.errors import IntegrityFailure, Misconfigured
from vagus.reasons import Reason
from vagus.records.engine.tables import log_head, log_leaves

_CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class LogHead:
    """The stored head: size, the frontier's hashes one after the other, root, end of the revocation sequence."""

    size: int
    frontier: bytes
    root: bytes
    revocation_sequence: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A stored leaf. Whether `leaf_hash` is the hash of `entry` is for the verifier to find out."""

    index: int
    entry: bytes
    leaf_hash: bytes


def load_head(connection: Connection) -> LogHead:
    """The head of the log. Raises Misconfigured(SCHEMA_MISMATCH) in a database without one."""
    table = log_head.c
    row = connection.execute(
        select(table.size, table.frontier, table.root, table.revocation_sequence).where(table.id == 1)
    ).one_or_none()
    if row is None:
        raise Misconfigured(Reason.SCHEMA_MISMATCH, "the database has no log head; run: vagus init")
    return LogHead(*row)


def iterate_leaves(connection: Connection, start: int = 0, end: int | None = None) -> Iterator[Leaf]:
    """The leaves of [start, end) in order, all from `start` on by default.

    Raises IntegrityFailure(LOG_TAMPERED) at the first index that is missing before `end` or in front of a later one.
    """
    table, at = log_leaves.c, start
    while end is None or at < end:
        top = at + _CHUNK if end is None else min(end, at + _CHUNK)
        rows = connection.execute(
            select(table.leaf_index, table.entry, table.leaf_hash)
            .where(table.leaf_index >= at)
            .order_by(table.leaf_index)
            .limit(top - at)
        ).all()
        for index, entry, leaf_hash in rows:
            if index != at:
                raise _missing(at)
            yield Leaf(index, entry, leaf_hash)
            at += 1
        if at < top:
            if end is not None:
                raise _missing(at)
            return


def _missing(index: int) -> IntegrityFailure:
    msg = f"leaf {index} of the log is missing from the database; run: vagus audit verify"
    return IntegrityFailure(Reason.LOG_TAMPERED, msg, index=index)
