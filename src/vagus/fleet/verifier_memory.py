"""Keeps a verifier's memory of the newest CRLs and its clock floor in the database, by `records.verifier_memory`.

`trust` reads it and decides; nothing is decided here.
"""

from __future__ import annotations

from datetime import UTC, datetime

from vagus.records import verifier_memory as rows
from vagus.records.engine.database import Database
from vagus.records.engine.writer import Writer
from vagus.records.publications import find_newest_update
from vagus.trust.anchors import ClockFloor
from vagus.trust.crl_memory import CrlMark, VolatileCrlMemory


class DurableCrlMemory:
    """Marks of foreign CRLs in the table `verifier_memory`: an older CRL stays refused after a restart."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def find(self, name: str) -> CrlMark | None:
        """The mark under `name`."""
        return _find(self._database, name)

    def remember(self, name: str, mark: CrlMark) -> None:
        """Store `mark` under `name`; durable when it returns. Number and date only grow, each by itself."""
        self._writer.submit(lambda batch: rows.remember(batch.connection, name, mark.number, mark.at)).result()


class ReadOnlyCrlMemory(VolatileCrlMemory):
    """The marks in the table, without writing to it: for the doctor, who changes nothing."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    def find(self, name: str) -> CrlMark | None:
        """The mark under `name`."""
        return super().find(name) or _find(self._database, name)


def _find(database: Database, name: str) -> CrlMark | None:
    with database.reading() as connection:
        found = rows.find_remembered(connection, name)
    return None if found is None else CrlMark(found.number, found.at)


def set_floor(floor: ClockFloor, database: Database) -> None:
    """Set the earliest plausible time to the newest CRL that this installation signed: that time has passed.

    It goes down again after an operator had the dates forgotten of CRLs that were signed with a wrong clock.
    """
    with database.reading() as connection:
        newest = find_newest_update(connection)
    if newest is not None:
        floor.set_own_moment(datetime.fromtimestamp(newest, UTC))
