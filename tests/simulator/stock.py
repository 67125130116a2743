"""The inventory of an installation in memory: two units, two models and their devices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.simulator.databases import created_database
from tests.simulator.installation import Installation
from vagus.fleet.devices import Inventory, NewDevice
from vagus.fleet.tokens import TokenIssuer
from vagus.identifiers import DeviceId, UnitName
from vagus.records.devices import DeviceRow, set_device_place
from vagus.records.engine.database import Connection, Database
from vagus.records.models import MakerAnchorRow, ModelRow, put_maker_anchor, put_model
from vagus.records.units import UnitRow, put_unit
from vagus.testing import SeededEntropy

BY = "operator:jane"
OVERLAP = timedelta(days=1)
ICU = UnitName("h1", "icu")
ER = UnitName("h1", "er")
ANCHOR = hashlib.sha256(b"anchor").digest()


class Stock(Installation):
    """An installation with an inventory: what changes it, and the rows of `put_units_and_models`."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.inventory = Inventory(self.writer, self.entropy, overlap=OVERLAP)
        self.tokens = TokenIssuer(self.writer, self.entropy)
        with self.database.writing() as connection:
            put_units_and_models(connection)

    def add(self, serial: str = "SN-1", **more: object) -> DeviceRow:
        """A pump of the ICU."""
        new = NewDevice(unit=ICU, model="pump", maker_serial=serial, **more)  # type: ignore[arg-type]
        return self.inventory.add(new, by=BY).result(10)

    def place(self, device_id: DeviceId, place: str) -> None:
        """Record where a device is, as a plan does."""
        self.writer.submit(lambda batch: set_device_place(batch.connection, device_id, place, at=batch.at)).result(10)


def put_units_and_models(connection: Connection) -> None:
    """Units h1/icu, h1/er and h10/icu; models pump (vouched for by ANCHOR) and monitor (by no anchor)."""
    for name in (ICU, ER, UnitName("h10", "icu")):
        put_unit(connection, UnitRow(name, f"Hospital {name.hospital}", name.unit.upper()))
    put_maker_anchor(connection, MakerAnchorRow(ANCHOR, "Acme", b"\x30\x00", 5))
    put_model(connection, ModelRow("pump", "Acme", "infusion-pump", "bedside", ANCHOR))
    put_model(connection, ModelRow("monitor", "Other", "monitor", "bedside"))


@contextmanager
def stocked_database() -> Iterator[Database]:
    """A database with those rows and nothing else."""
    with created_database() as database:
        with database.writing() as connection:
            put_units_and_models(connection)
        yield database


def stock() -> AbstractContextManager[Stock]:
    """A fresh inventory, in memory alone."""
    return Stock.new(Path("no-folder"))


def device(number: int, *, unit: UnitName = ICU, model: str = "pump", state: str = "received") -> DeviceRow:
    """The device of that number; the same number gives the same id and maker serial."""
    return DeviceRow(
        id=DeviceId.draw(SeededEntropy(number)),
        unit=unit,
        model=model,
        profile="bedside",
        maker_serial=f"SN-{number}",
        state=state,
        added_at=100,
        changed_at=100,
    )
