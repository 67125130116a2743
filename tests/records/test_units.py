"""Compartments: put twice, there once."""

from __future__ import annotations

from tests.simulator.stock import ICU, stocked_database
from vagus.identifiers import UnitName
from vagus.records.units import UnitRow, find_unit, list_units, put_unit


def test_a_unit_put_again_takes_its_new_titles() -> None:
    renamed = UnitRow(ICU, "St Mary", "Intensive Care")
    with stocked_database() as database:
        with database.writing() as connection:
            put_unit(connection, renamed)
        with database.reading() as connection:
            assert find_unit(connection, ICU) == renamed
            assert [str(unit.name) for unit in list_units(connection)] == ["h1/er", "h1/icu", "h10/icu"]
            assert find_unit(connection, UnitName("h1", "lab")) is None
