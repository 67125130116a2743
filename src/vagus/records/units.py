"""Issuing compartments and the titles in their subjects: rows in and out, no rules."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, select

from vagus.identifiers import UnitName
from vagus.records.engine.database import Connection
from vagus.records.engine.row_forms import UNIT, RowForm
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import units

_BY_NAME = Statement(select(units).where(units.c.name == bindparam("unit")))


@dataclass(frozen=True, slots=True)
class UnitRow:
    """A compartment: `organisation` becomes O, `title` becomes OU of what it issues."""

    name: UnitName
    organisation: str
    title: str


UNIT_ROW = RowForm(UnitRow, name=UNIT)


def put_unit(connection: Connection, unit: UnitRow) -> None:
    """Insert `unit`, or give a known one its new titles."""
    titles = {"organisation": unit.organisation, "title": unit.title}
    changed = connection.execute(units.update().where(units.c.name == str(unit.name)).values(titles))
    if changed.rowcount == 0:
        connection.execute(units.insert().values(name=str(unit.name), hospital=unit.name.hospital, **titles))


def find_unit(connection: Connection, name: UnitName) -> UnitRow | None:
    """The compartment of this name."""
    return UNIT_ROW.read_optional(_BY_NAME.find(connection, unit=str(name)))


def list_units(connection: Connection) -> tuple[UnitRow, ...]:
    """Every compartment, by name."""
    return UNIT_ROW.list(connection, select(units).order_by(units.c.name))
