"""An empty database with one hospital, two units and two models, for the tests of the inventory's rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from vagus.identifiers import DeviceId, UnitName
from vagus.records.devices import DeviceRow
from vagus.records.engine.database import Database, open_database
from vagus.records.models import MakerAnchorRow, ModelRow, put_maker_anchor, put_model
from vagus.records.units import UnitRow, put_unit
from vagus.testing import SeededEntropy

ICU = UnitName("h1", "icu")
ER = UnitName("h1", "er")
ANCHOR = hashlib.sha256(b"anchor").digest()


@contextmanager
def stocked_database() -> Iterator[Database]:
    """Units h1/icu, h1/er and h10/icu; models pump (vouched for by ANCHOR) and monitor (by nobody)."""
    database = open_database("sqlite://")
    database.create()
    with database.writing() as connection:
        for name in (ICU, ER, UnitName("h10", "icu")):
            put_unit(connection, UnitRow(name, f"Hospital {name.hospital}", name.unit.upper()))
        put_maker_anchor(connection, MakerAnchorRow(ANCHOR, "Acme", b"\x30\x00", 5))
        put_model(connection, ModelRow("pump", "Acme", "infusion-pump", "bedside", ANCHOR))
        put_model(connection, ModelRow("monitor", "Other", "monitor", "bedside"))
    try:
        yield database
    finally:
        database.close()


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
