"""Keeps a process's OCSP desk supplied: answers signed ahead page by page, responders as on record; answers nothing."""

from __future__ import annotations

from dataclasses import dataclass

from vagus.authority.answers import OcspDesk
from vagus.authority.responders import open_responders
from vagus.clock import Clock
from vagus.keystore.software import SoftwareKeystore
from vagus.records.database import Database


@dataclass(frozen=True, slots=True)
class DeskSupply:
    """Two tasks around one desk; `keystore` is that of the responders."""

    desk: OcspDesk
    database: Database
    keystore: SoftwareKeystore
    clock: Clock

    def presign(self) -> float | None:
        """One page of the sweep. Its next turn is at once while there is more: other tasks go in between."""
        return 0.0 if self.desk.presign_slice(self.clock.now()) else None

    def take_over(self) -> None:
        """Answer with the responders on record, whoever renewed them: this process, or another that has their CA's key.

        Raises what keystores raise; the desk then goes on with those it has.
        """
        with self.database.reading() as connection:
            if not self.desk.is_current(connection):
                self.desk.take_over(open_responders(connection, self.keystore))
