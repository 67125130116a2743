"""The inventory's rows come back as they went in, are found by what people know, and page by key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from tests.records.query_plans import plans
from tests.simulator.presence import present
from tests.simulator.queries import count_devices_by_state
from tests.simulator.stock import ANCHOR, ER, ICU, device, stocked_database
from vagus.identifiers import DeviceId, UnitName
from vagus.records import devices
from vagus.records.devices import DeviceFilter
from vagus.records.engine.database import Database
from vagus.records.models import ModelRow, put_model
from vagus.testing import SeededEntropy


@pytest.fixture
def database() -> Iterator[Database]:
    with stocked_database() as stocked:
        yield stocked


def test_a_device_comes_back_as_it_went_in(database: Database) -> None:
    row = replace(device(1), udi="(01)00844588003288", place="bay 4", host_names=("gw.h1.test", "10.0.0.4"))
    with database.writing() as connection:
        devices.insert_devices(connection, [row])
    with database.reading() as connection:
        assert devices.find_device(connection, row.id) == row
        assert devices.find_device_by_serial(connection, "pump", "SN-1") == row
        assert devices.find_device(connection, DeviceId.draw(SeededEntropy(9))) is None
        assert devices.find_device_by_serial(connection, "monitor", "SN-1") is None


def test_the_same_model_and_serial_is_one_device(database: Database) -> None:
    with database.writing() as connection:
        devices.insert_devices(connection, [device(1)])
    with pytest.raises(IntegrityError), database.writing() as connection:
        devices.insert_devices(connection, [replace(device(1), id=DeviceId.draw(SeededEntropy(2)))])


def test_an_anchor_finds_only_devices_of_its_models(database: Database) -> None:
    with database.writing() as connection:
        devices.insert_devices(connection, [device(1)])
        devices.insert_devices(connection, [replace(device(2, model="monitor"), maker_serial="SN-1")])
    with database.reading() as connection:
        assert devices.list_devices_under_anchor(connection, ANCHOR, "SN-1") == (device(1),)
        assert devices.list_devices_under_anchor(connection, b"other", "SN-1") == ()
        assert devices.list_devices_under_anchor(connection, ANCHOR, "SN-2") == ()


FILTERS = [
    DeviceFilter(),
    DeviceFilter(unit=ICU),
    DeviceFilter(hospital="h1"),
    DeviceFilter(state="received"),
    DeviceFilter(model="pump"),
    DeviceFilter(category="monitor"),
    DeviceFilter(category="infusion-pump", state="received", hospital="h1"),
    DeviceFilter(profile="bedside", unit=ICU, state="received"),
    DeviceFilter(model="monitor", category="infusion-pump"),
    DeviceFilter(category="none"),
]


@pytest.mark.parametrize("narrow", FILTERS, ids=str)
def test_pages_in_the_order_of_people_follow_each_other_without_gap_or_repeat(
    database: Database, narrow: DeviceFilter
) -> None:
    rows = [
        device(number, unit=(ICU, ER, UnitName("h10", "icu"))[number % 3], model=("pump", "monitor")[number % 2])
        for number in range(25)
    ]
    with database.writing() as connection:
        devices.insert_devices(connection, rows)
    category = {"pump": "infusion-pump", "monitor": "monitor"}
    expected = sorted(
        devices.place_of(row)
        for row in rows
        if narrow.unit in (None, row.unit)
        and narrow.hospital in (None, row.unit.hospital)
        and narrow.model in (None, row.model)
        and narrow.category in (None, category[row.model])
    )
    seen: list[devices.Place] = []
    with database.reading() as connection:
        while page := devices.list_devices(connection, narrow, after=seen[-1] if seen else None, limit=4):
            seen.extend(devices.place_of(row) for row in page)
    assert seen == expected


def test_pages_of_a_category_of_many_models_are_those_of_one_with_few(database: Database) -> None:
    with database.writing() as connection:
        for number in range(20):
            put_model(connection, ModelRow(f"bed {number}", "Acme", "bed" if number < 12 else "cot", "bedside"))
            devices.insert_devices(connection, [device(number, model=f"bed {number}")])
        for category, models in (("bed", range(12)), ("cot", range(12, 20))):
            seen: list[devices.Place] = []
            narrow = DeviceFilter(category=category, hospital="h1")
            while page := devices.list_devices(connection, narrow, after=seen[-1] if seen else None, limit=3):
                seen.extend(devices.place_of(row) for row in page)
            assert seen == sorted(devices.place_of(device(one, model=f"bed {one}")) for one in models)


@pytest.mark.parametrize("narrow", FILTERS, ids=str)
def test_a_page_is_read_in_the_order_of_an_index(database: Database, narrow: DeviceFilter) -> None:
    after = devices.Place(str(narrow.unit or ER), narrow.model or "pump", "SN-1")
    with database.reading() as connection:
        for start in (None, after):
            steps = plans(connection, lambda start=start: devices.list_devices(connection, narrow, after=start))  # type: ignore[misc]
            assert "SCAN devices\n" not in f"{steps}\n", "every row, in no order"
            assert narrow.category is not None or "TEMP B-TREE" not in steps


def test_filters_narrow_and_do_not_mix_hospitals_of_like_names(database: Database) -> None:
    elsewhere = replace(device(3, state="in_service"), unit=UnitName("h10", "icu"))
    with database.writing() as connection:
        for row in (device(1), device(2, unit=ER, model="monitor"), elsewhere):
            devices.insert_devices(connection, [row])

    def found(narrow: DeviceFilter) -> set[str]:
        return {row.maker_serial for row in devices.list_devices(connection, narrow)}

    with database.reading() as connection:
        assert found(DeviceFilter(hospital="h1")) == {"SN-1", "SN-2"}
        assert found(DeviceFilter(unit=ICU)) == {"SN-1"}
        assert found(DeviceFilter(state="in_service")) == {"SN-3"}
        assert found(DeviceFilter(model="monitor", profile="bedside")) == {"SN-2"}
        assert count_devices_by_state(connection, "h10") == {"in_service": 1}
        assert count_devices_by_state(connection) == {"received": 2, "in_service": 1}


def test_a_state_changes_only_from_where_it_was_believed_to_be(database: Database) -> None:
    with database.writing() as connection:
        devices.insert_devices(connection, [device(1)])
        assert devices.set_device_state(connection, device(1).id, before="received", after="commissioned", at=7)
        assert not devices.set_device_state(connection, device(1).id, before="received", after="recalled", at=8)
        row = present(devices.find_device(connection, device(1).id))
    assert (row.state, row.changed_at) == ("commissioned", 7)


def test_unit_and_place_change(database: Database) -> None:
    with database.writing() as connection:
        devices.insert_devices(connection, [device(1)])
        devices.set_device_unit(connection, device(1).id, ER, at=7)
        devices.set_device_place(connection, device(1).id, "bay 2", at=8)
        row = present(devices.find_device(connection, device(1).id))
    assert (row.unit, row.place, row.changed_at) == (ER, "bay 2", 8)
