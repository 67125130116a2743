"""A cache of the inventory's devices for the time in which the database cannot be read; admits no device.

A certificate's status is known in memory for as long as the policy of its function allows. What the inventory says of
its device must be known for as long, or an outage of the database ends every alarm at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from vagus.errors import Unavailable
from vagus.reasons import Reason
from vagus.records.devices import DeviceRow, query_device

if TYPE_CHECKING:
    from vagus.events.devices import DeviceFollower
    from vagus.identifiers import DeviceId
    from vagus.records.device_changes import DeviceChange
    from vagus.records.engine.database import Database

MOST: Final = 50_000  # this many cached devices take some 50 MB


class DeviceCache:
    """Reads devices from the inventory and caches them. Safe to use from several threads.

    A device that `follower` reports as changed leaves the cache at once: no cached device is older than what this
    process knows. `is_away` says that the database cannot be read. Then a cached device is not read again, because a
    database that hangs would delay every connection. The source of the certificate's status, which is asked first,
    decides how long this may last.

    `_rows` is changed under `_turn` alone, by readers (`_store`) and by the follower's threads (`_forget`). A reader
    notes the follower's position before it reads. If the position moved meanwhile, the row may be out of date, and is
    not cached.
    """

    def __init__(
        self, database: Database, follower: DeviceFollower, is_away: Callable[[], bool], *, most: int = MOST
    ) -> None:
        self._database = database
        self._follower = follower
        self._is_away = is_away
        self._most = most
        self._turn = threading.Lock()
        self._rows: dict[str, DeviceRow] = {}
        follower.subscribe(self._forget)

    def find(self, device_id: DeviceId) -> DeviceRow | None:
        """The device; None where it is not in the inventory.

        Raises Unavailable(DATABASE_UNAVAILABLE) where the database cannot be read and the device is not cached.
        """
        known = self._rows.get(device_id.text)
        if known is not None and self._is_away():
            return known
        position = self._follower.position
        try:
            row = query_device(self._database, device_id)
        except Unavailable as error:
            # read again: a change of the device may have removed its row meanwhile
            known = self._rows.get(device_id.text)
            if error.reason is not Reason.DATABASE_UNAVAILABLE or known is None:
                raise
            return known
        if row is not None:
            self._store(row, position)
        return row

    def _store(self, row: DeviceRow, position: int) -> None:
        with self._turn:
            if self._follower.position != position:
                return  # a device changed after this row was read, perhaps this one: do not cache it
            self._rows.pop(row.id.text, None)
            self._rows[row.id.text] = row
            if len(self._rows) > self._most:
                del self._rows[next(iter(self._rows))]

    def _forget(self, changes: Sequence[DeviceChange]) -> None:
        with self._turn:
            for change in changes:
                self._rows.pop(change.device_id, None)
