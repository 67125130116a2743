"""A database in memory with a writer, two units and two models, for tests of what changes the inventory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from tests.simulator.devices import ER, ICU, stocked_database
from vagus.fleet.devices import Inventory, NewDevice
from vagus.fleet.tokens import TokenIssuer
from vagus.identifiers import DeviceId
from vagus.ledger.entries import Entry, decode_entry
from vagus.records.devices import DeviceRow, set_device_place
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.writer import Writer
from vagus.records.installation import InstallationRow, insert_installation
from vagus.testing import FrozenClock, SeededEntropy

__all__ = ["BY", "ER", "ICU", "OVERLAP", "Stock", "stock"]

BY = "operator:jane"
OVERLAP = timedelta(days=1)


@dataclass
class Stock:
    """Everything that an inventory needs, standing."""

    database: Database
    writer: Writer
    clock: FrozenClock
    inventory: Inventory
    tokens: TokenIssuer

    def add(self, serial: str = "SN-1", **more: object) -> DeviceRow:
        """A pump of the ICU."""
        new = NewDevice(unit=ICU, model="pump", maker_serial=serial, **more)  # type: ignore[arg-type]
        return self.inventory.add(new, by=BY).result(10)

    def place(self, device_id: DeviceId, place: str) -> None:
        """Record where a device is, as a plan does."""
        self.writer.submit(lambda batch: set_device_place(batch.connection, device_id, place, at=batch.at)).result(10)

    def settle(self) -> None:
        """Wait until everything that was submitted is written."""
        self.writer.submit(lambda _: None).result(10)

    def entries(self) -> list[Entry]:
        """The ledger, decoded."""
        with self.database.reading() as connection:
            return ledger_entries(connection)


def ledger_entries(connection: Connection) -> list[Entry]:
    """The ledger, decoded."""
    leaves = connection.exec_driver_sql("SELECT entry FROM log_leaves ORDER BY leaf_index")
    return [decode_entry(row[0]).entry for row in leaves]


@contextmanager
def stock() -> Iterator[Stock]:
    """A fresh one."""
    clock = FrozenClock()
    with stocked_database() as database:
        with database.writing() as connection:
            insert_installation(connection, InstallationRow("log.test/h", 0, b"s" * 32, group_domain="group.test"))
        with Writer(database, clock) as writer:
            entropy = SeededEntropy(7)
            inventory = Inventory(writer, entropy, overlap=OVERLAP)
            yield Stock(database, writer, clock, inventory, TokenIssuer(writer, entropy))
