"""Checks that the log still contains what this writer committed; appends nothing.

A failover can lose the last commits, and other tools can set a database back while processes run. The log is then
shorter, or it has other leaves in the places of ours. Appending would give a place out a second time. That is a fork of
the log, and every device that holds an earlier checkpoint would report it.

So a writer remembers the head that it committed last, and the hash of its last leaf. If it finds that same head again,
nothing has happened. If the head is another one, other processes have appended, or the log was set back. The log is
sound if it is not shorter and the remembered leaf is still in its place: a leaf that was replaced has another hash. The
check is one lookup by primary key, and only in batches that follow another process's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection, bindparam, select

from vagus.errors import IntegrityFailure
from vagus.reasons import Reason
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import log_leaves

_LEAF = Statement(select(log_leaves.c.leaf_hash).where(log_leaves.c.leaf_index == bindparam("leaf")))


@dataclass(frozen=True, slots=True)
class _Known:
    """A head (size and root) that contains the last leaf that was committed here."""

    head: tuple[int, bytes]
    leaf_index: int
    leaf_hash: bytes


class LogContinuity:
    """What one writer knows of the log for certain. Belongs to the writing thread."""

    def __init__(self) -> None:
        self._known: _Known | None = None

    def note(self, size: int, root: bytes, last_leaf_hash: bytes) -> None:
        """The head that this writer has just committed, and the hash of its last leaf."""
        self._known = _Known((size, root), size - 1, last_leaf_hash)

    def check(self, connection: Connection, size: int, root: bytes) -> None:
        """Check that the locked head contains what was committed here; others may have appended since.

        Raises IntegrityFailure(LOG_TRUNCATED).
        """
        known = self._known
        if known is None or (size, root) == known.head:
            return
        found = _LEAF.find(connection, leaf=known.leaf_index)
        if size < known.head[0] or found is None or bytes(found.leaf_hash) != known.leaf_hash:
            msg = (
                f"the log in the database has {size} leaves, and leaf {known.leaf_index} is not the one that "
                "was committed here: the database was replaced by an older one; stop every server and close "
                "the gap with `vagus restore-gap`"
            )
            raise IntegrityFailure(Reason.LOG_TRUNCATED, msg, size=size, known=known.head[0])
        self._known = replace(known, head=(size, root))
