"""Follows the sequence of device changes; what a change means for a connection is decided in fleet.

A verdict on a connection rests on the state and the unit of its device. Both change in the inventory, often from
another process, and an open connection must be judged again as soon as after a revocation. The follower holds no
states: it says which devices changed, and the subscriber reads the device again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import ClassVar

from vagus.events.follower import Follower
from vagus.records.device_changes import PAGE, DeviceChange, find_change, read_changes
from vagus.records.engine.commit_facts import CommitFacts
from vagus.records.engine.database import Connection, Database


class DeviceFollower(Follower[DeviceChange]):
    """Which devices changed, from now on. The revocation follower says whether the database can be read at all."""

    name: ClassVar[str] = "sequence of device changes"

    def __init__(self, database: Database) -> None:
        """Begin at the end of the sequence. Raises Unavailable(DATABASE_UNAVAILABLE)."""
        self._skipped = 0  # by how many rows `position` is ahead of the database, after a database was set back
        # Owner: one thread reads at a time, because `_set_back` moves the position backwards.
        self._reading = threading.Lock()
        super().__init__(database)

    @property
    def position(self) -> int:
        """How far this is: a verdict with a lower position may be out of date. It grows, whatever the database does."""
        return self._position + self._skipped

    def catch_up(self) -> int:
        """As `Follower.catch_up`, but a database that was set back is read again, reported once, and then followed."""
        with self._reading:
            return super().catch_up()

    def _find(self, connection: Connection, position: int) -> tuple[int, DeviceChange | None]:
        return find_change(connection, position)

    def _read(self, connection: Connection, after: int) -> Sequence[DeviceChange]:
        return read_changes(connection, after)

    def _written(self, facts: CommitFacts) -> tuple[Sequence[DeviceChange], int]:
        return (), facts.device_sequence

    def _set_back(self, connection: Connection, position: int, end: int) -> None:
        """Every verdict that rests on a lost change is out of date, and numbers that were passed have other devices.

        So the position grows by one over the old one, and subscribers hear the last page of changes once more.
        """
        with self._turn:
            self._skipped += position + 1 - end
            self._position = max(0, min(position, end) - PAGE)
        self._read_until(connection, self._position, end)
        with self._turn:
            self._newest = self._find(connection, end)[1]
