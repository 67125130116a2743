"""Moves an installation to another database, SQLite or PostgreSQL; the old one stays in use until all is proven.

1. Note the move in the ledger, and close every connection of this process.
2. Take the old database for this process alone, and copy every table in one transaction of the new one.
3. Prove the copy as `audit verify` does: entries, rows, and what was published of the ledger.
4. Name the new database in `vagus.toml`, in one step. The old one is left as it is.

A crash before step 4 leaves the old one in use. After a crash in step 3 the new one holds a copy: create it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.durable_files import replace_durably
from vagus.errors import IntegrityFailure, Malformed, VagusError
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.operations.roles import Act, check_may
from vagus.reasons import Reason
from vagus.records.engine.database import open_database
from vagus.records.engine.moving import copy_tables, count_rows, drop_tables, exclusive_source, name_of
from vagus.records.log import load_head
from vagus.settings import FILE_NAME, encode_with_database, load_settings
from vagus.wiring import Installation

if TYPE_CHECKING:
    from vagus.operations.actor import Actor
    from vagus.records.engine.database import Database
    from vagus.settings import Settings

Progress = Callable[[int, int], None]
"""Given how many rows were copied since the last call, and how many there are in all."""


@dataclass(frozen=True, slots=True)
class Move:
    """A move that is done: from where, to where, rows, entries of the ledger, and the published ones among them."""

    old: str
    new: str
    rows: int
    log_size: int
    published: int | None


def move_database(installation: Installation, actor: Actor, url: str, progress: Progress) -> Move:
    """Move the installation to the empty database at `url`; `installation` is closed after that.

    Raises Misconfigured(BAD_SETTINGS, SCHEMA_MISMATCH, DURABILITY_WEAK), Conflict(DATABASE_IN_USE, ALREADY_EXISTS),
    Unavailable(DATABASE_UNAVAILABLE), IntegrityFailure as `audit verify`; then the old database stays in use.
    """
    check_may(actor, Act.MOVE_DATABASE)
    settings = installation.settings
    raw, changed = encode_with_database(settings, url)
    if changed.database_url == settings.database_url:
        msg = "this is the database that the installation uses already; name another"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    installation.database.check_schema()
    with _opened_target(changed) as target:
        # 1. Record that it begins; the copy has the entry too.
        installation.set_backs.check_settled()
        entry = OperatorAct("database-moved", actor.id)
        installation.writer.submit(lambda batch: append(batch, entry)).result()
        now = int(installation.clock.now().timestamp())
        installation.close()
        source = open_database(settings.database_url)
        try:
            # 2. Copy.
            with exclusive_source(source, now) as connection:
                rows, head = count_rows(connection), load_head(connection)
                copy_tables(connection, target, lambda some: progress(some, rows))
                try:
                    # 3. Prove, while no process can change the old one.
                    published = _prove(changed, installation, actor)
                    with target.reading() as copied:
                        if load_head(copied) != head:
                            msg = "the head of the copied log is not that of the old one; the old database stays in use"
                            raise IntegrityFailure(Reason.LOG_TAMPERED, msg)
                    # 4. Switch.
                    replace_durably(settings.folder / FILE_NAME, raw)
                except BaseException:
                    if load_settings(settings.folder).database_url == settings.database_url:
                        with suppress(VagusError):
                            drop_tables(target)
                    raise
            return Move(name_of(source), name_of(target), rows, head.size, published)
        finally:
            source.close()


@contextmanager
def _opened_target(changed: Settings) -> Iterator[Database]:
    """The new database; a SQLite file that was made for a move which failed is removed."""
    file = changed.database_file
    is_new_file = file is not None and not file.exists()
    target = open_database(changed.database_url)
    try:
        target.check_durability()
        yield target
    except BaseException:
        target.close()
        if is_new_file and file is not None and load_settings(changed.folder).database_url != changed.database_url:
            for suffix in ("", "-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
        raise
    target.close()


def _prove(changed: Settings, old: Installation, actor: Actor) -> int | None:
    """How many published entries the copy agrees with. Raises as `audit verify`."""
    with Installation(changed, old.sources) as moved:
        return moved.operations.audit.verify(actor)[1]
