"""Devices as the inventory last had them, for as long as the database is out of sight; lets nobody in by itself.

A certificate's status is known in memory for as long as the policy of its function allows (design section 6.3). What
the inventory says of its device must be known for as long, or a database that is away ends every alarm at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from vagus.errors import Unavailable
from vagus.reasons import Reason
from vagus.records.devices import DeviceRow, glance_at_device

if TYPE_CHECKING:
    from vagus.events.devices import DeviceFollower
    from vagus.identifiers import DeviceId
    from vagus.records.device_changes import DeviceChange
    from vagus.records.engine.database import Database

MOST: Final = 50_000  # some 50 MB


class RememberedDevices:
    """Asks the inventory, and remembers what it said. Safe to ask from several threads.

    A device of which `follower` hears a change is forgotten at once: what is remembered is never older than what this
    process knows. `is_away` says that the database is out of sight; then whoever is remembered is not asked about, for
    a database that hangs would keep everybody waiting. How long it may be so, the source of the certificate's status
    decides, which is asked first.
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

        Raises Unavailable(DATABASE_UNAVAILABLE) where the database does not answer and nothing is remembered.
        """
        known = self._rows.get(device_id.text)
        if known is not None and self._is_away():
            return known
        position = self._follower.position
        try:
            row = glance_at_device(self._database, device_id)
        except Unavailable as error:
            known = self._rows.get(device_id.text)  # asked anew: a change may have been told meanwhile
            if error.reason is not Reason.DATABASE_UNAVAILABLE or known is None:
                raise
            return known
        if row is not None:
            self._keep(row, position)
        return row

    def _keep(self, row: DeviceRow, position: int) -> None:
        with self._turn:
            if self._follower.position != position:
                return  # a change that was told since may be of this device
            self._rows.pop(row.id.text, None)
            self._rows[row.id.text] = row
            if len(self._rows) > self._most:
                del self._rows[next(iter(self._rows))]

    def _forget(self, changes: Sequence[DeviceChange]) -> None:
        with self._turn:
            for change in changes:
                self._rows.pop(change.device_id, None)
