"""Decides whether the database was set back before the published log and CRLs, and marks it; closes no gap.

A database server's own tools can bring an older state back and leave no mark. An entry written there would take the
place of a published one: a fork of the log. So the database is marked, and no process appends before the gap is closed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.errors import Conflict, IntegrityFailure, VagusError
from vagus.ledger.publish import holds_more
from vagus.reasons import Reason
from vagus.records.installation import load_installation, mark_set_back
from vagus.tlog.checkpoint import NoteKey
from vagus.tlog.tiles import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vagus.records.engine.database import Database
    from vagus.records.engine.writer import Writer


@dataclass(frozen=True, slots=True)
class SetBacks:
    """Compares the database with what was published of its log. `writer` and `verifier` (a vkey) are asked when needed.

    `own_log` is the installation's folder of the published log.
    """

    database: Database
    writer: Callable[[], Writer]
    own_log: Path
    verifier: Callable[[], str]

    def is_behind(self, published: Path) -> bool:
        """Whether the published log has what the database's has not. Raises IntegrityFailure(CHECKPOINT_INVALID)."""
        if not (published / CHECKPOINT).exists():
            return False
        with self.database.reading() as connection:
            origin = load_installation(connection).origin
        key = NoteKey(origin, NoteKey.decode(self.verifier()).public_key)
        return holds_more(published, key, self.database)

    def mark(self) -> None:
        """Let no process append anything to this database before the gap is closed."""
        # this process noticed that committed entries are missing, and appends nothing while that is so
        with suppress(IntegrityFailure):
            _mark(self.writer())

    def mark_at_start(self, writer: Writer) -> None:
        """Mark a database that our own folder shows to be set back, before `writer` does anything else."""
        try:
            is_behind = self.is_behind(self.own_log)
        except VagusError as error:
            if error.reason is Reason.DATABASE_UNAVAILABLE:
                raise
            is_behind = False  # a log that another installation published there shows nothing about this database
        if is_behind:
            _mark(writer)

    def check_settled(self) -> None:
        """Raises Conflict(RESTORE_UNSETTLED) while the gap after a restore is open: then nothing is issued.

        Also where a database server's own tools brought an older state back, and the published log shows it.
        """
        # Opening the writer compares the log with what was published, and marks a database that was set back.
        self.writer()
        with self.database.reading() as connection:
            restored_at = load_installation(connection).restored_at
        if restored_at is not None:
            msg = "the database was set back and lacks what was issued since; first close the gap: vagus restore-gap"
            raise Conflict(Reason.RESTORE_UNSETTLED, msg)


def _mark(writer: Writer) -> None:
    writer.submit(lambda batch: mark_set_back(batch.connection, batch.at)).result()
