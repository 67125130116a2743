"""Audit by an operator: verifies the ledger against published files and checkpoints, and reads its entries."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, get_args

from vagus.errors import Malformed, Unavailable
from vagus.ledger.entries import Entry, decode_entry
from vagus.ledger.publish import load_published
from vagus.ledger.verify import LogReport, verify_log, verify_published
from vagus.operations.acts import Acts
from vagus.operations.roles import Act, check_may
from vagus.reasons import Reason
from vagus.records.installation import load_installation
from vagus.records.log import iterate_leaves, load_head
from vagus.tlog.checkpoint import Checkpoint, NoteKey, verify_checkpoint
from vagus.tlog.tiles import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vagus.operations.actor import Actor
    from vagus.records.engine.database import Connection

_PART = 5000
"""Leaves that are read at once on the way back from the ledger's end."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One entry as people read it: `at` in seconds since 1970 UTC, `facts` by name without what is empty."""

    leaf: int
    at: int
    kind: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """Entries in their order, and how many the ledger has in all."""

    size: int
    entries: tuple[LedgerEntry, ...]


class Audit(Acts):
    """What an operator may do with the ledger."""

    def verify(
        self, actor: Actor, *, published: Path | None = None, key: str | None = None, against: Checkpoint | None = None
    ) -> tuple[LogReport, int | None]:
        """Check every entry in the database, or in the folder `published`, with the report of the log.

        The second value is the size of what was published and compared with the database, None where nothing was.
        `key` is a vkey in place of the installation's own, `against` a checkpoint that was kept elsewhere. Raises
        IntegrityFailure(LOG_TAMPERED, LOG_TRUNCATED, CHECKPOINT_INVALID), Malformed(BAD_ENCODING).
        """
        check_may(actor, Act.READ_LEDGER)
        public_key = self._key(key).public_key
        if published is not None:
            return verify_log(published, public_key=public_key, against=against), None
        # Compare the database with the published log first: only this comparison finds the first leaf that differs.
        database, log, compared = self.components.database, self.components.settings.log, None
        if (log / CHECKPOINT).exists():
            compared = verify_published(database, log, public_key=public_key).size
        source = log if compared is not None and self._is_restored() else database
        return verify_log(source, public_key=public_key, against=against), compared

    def verify_note(self, actor: Actor, note: bytes, *, key: str | None = None) -> Checkpoint:
        """A checkpoint that was kept elsewhere, from its signed note. Raises as `verify_checkpoint`."""
        check_may(actor, Act.READ_LEDGER)
        return verify_checkpoint(note, self._key(key))

    def read_entries(
        self, actor: Actor, *, start: int | None = None, limit: int = 50, kind: str | None = None
    ) -> LedgerPage:
        """At most `limit` entries (of one kind) from leaf `start` on; the newest ones if that is left out.

        Raises Malformed(BAD_ARGUMENT) for an unknown kind, which must not look like a ledger without such entries.
        """
        check_may(actor, Act.READ_LEDGER)
        kinds = sorted(form.kind for form in get_args(Entry))
        if kind is not None and kind not in kinds:
            msg = f"ledger entry kind {kind!r} does not exist; choose one of {', '.join(kinds)}"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=kind)
        with self.components.database.reading() as connection:
            size = load_head(connection).size
            if start is None:
                return LedgerPage(size, tuple(_newest(connection, size, limit, kind)))
            return LedgerPage(size, tuple(islice(_entries(connection, start, size, kind), limit)))

    def read_checkpoint(self, actor: Actor) -> tuple[Checkpoint, Path]:
        """The checkpoint that is published now, verified, and its file. Raises Unavailable(CHECKPOINT_INVALID)."""
        check_may(actor, Act.READ_LEDGER)
        found = load_published(self.components.settings.log, self._key(None))
        if found is None:
            msg = "no checkpoint is published yet; start `vagus serve`, which publishes the ledger"
            raise Unavailable(Reason.CHECKPOINT_INVALID, msg)
        return found, self.components.settings.log / CHECKPOINT

    def _key(self, vkey: str | None) -> NoteKey:
        return NoteKey.decode((vkey or self.components.log_verifier).strip())

    def _is_restored(self) -> bool:
        """Whether lost entries came back whose certificates wait for an operator's decision: the tables lack them."""
        with self.components.database.reading() as connection:
            return load_installation(connection).restored_at is not None


def _newest(connection: Connection, size: int, limit: int, kind: str | None) -> list[LedgerEntry]:
    """The last entries of a kind, read from the end so that a long ledger is not read whole."""
    found: list[LedgerEntry] = []
    part, end = limit if kind is None else max(limit, _PART), size
    while end > 0 and len(found) < limit:
        begin = max(0, end - part)
        found = [*_entries(connection, begin, end, kind), *found]
        end = begin
    return found[-limit:]


def _entries(connection: Connection, first: int, end: int, kind: str | None) -> Iterator[LedgerEntry]:
    for leaf in iterate_leaves(connection, first, end) if first < end else ():
        logged = decode_entry(leaf.entry)
        if kind is None or logged.entry.kind == kind:
            facts = {field.name: getattr(logged.entry, field.name) for field in fields(logged.entry)}
            known = {name: value for name, value in facts.items() if value is not None}
            yield LedgerEntry(leaf.index, logged.at, logged.entry.kind, known)
