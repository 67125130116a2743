"""What a serving verifier must not forget over a restart: the newest lists it saw, and a moment that has passed.

It judges nothing: `trust` does, and asks here.
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
    """Marks of foreign lists in the table `verifier_memory`: an older list stays refused after a restart."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def find(self, name: str) -> CrlMark | None:
        """The mark under `name`."""
        return _find(self._database, name)

    def remember(self, name: str, mark: CrlMark) -> None:
        """Keep `mark` under `name`; durable when it returns. Number and date only grow, each by itself."""
        self._writer.submit(lambda batch: rows.remember(batch.connection, name, mark.number, mark.at)).result()


class ReadOnlyCrlMemory(VolatileCrlMemory):
    """What is remembered in the table, without writing to it: for whoever only looks."""

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
    """Let the floor stand at the newest list that this installation signed: that moment has passed (experiments B15).

    It goes down again where an operator had the dates of lists forgotten that a wrong clock had signed.
    """
    with database.reading() as connection:
        newest = find_newest_update(connection)
    if newest is not None:
        floor.set_own_moment(datetime.fromtimestamp(newest, UTC))
