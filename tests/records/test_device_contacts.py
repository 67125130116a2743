"""When devices were last admitted and refused: whatever the order of updates, the later time stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.stock import device, put_units_and_models, stocked_database
from vagus.records.device_contacts import Contact, find_contacts, save_contacts
from vagus.records.devices import insert_devices
from vagus.records.engine.database import Connection, Database

PUMPS = [device(number) for number in range(4)]
IDS = [pump.id for pump in PUMPS]


@pytest.fixture
def stocked(database: Database) -> Iterator[Connection]:
    """A database of each kind with four pumps."""
    with database.writing() as connection:
        put_units_and_models(connection)
        insert_devices(connection, PUMPS)
        yield connection


def test_a_contact_comes_back_and_its_halves_stand_for_themselves(stocked: Connection) -> None:
    seen, refused = Contact(seen=(10, "telemetry")), Contact(refused=(20, "control", "REVOKED"))
    save_contacts(stocked, {IDS[0].text: seen, IDS[1].text: refused, IDS[2].text: seen.merged(refused)})
    both = Contact((10, "telemetry"), (20, "control", "REVOKED"))
    assert find_contacts(stocked, IDS) == {IDS[0].text: seen, IDS[1].text: refused, IDS[2].text: both}
    save_contacts(stocked, {IDS[0].text: refused})
    assert find_contacts(stocked, IDS[:1]) == {IDS[0].text: both}
    assert find_contacts(stocked, []) == {}


def test_a_later_time_stays_and_an_earlier_one_changes_nothing(stocked: Connection) -> None:
    save_contacts(stocked, {IDS[0].text: Contact((10, "telemetry"), (20, "control", "REVOKED"))})
    save_contacts(stocked, {IDS[0].text: Contact((9, "lines"), (30, "lines", "ON_HOLD"))})
    newest = Contact((10, "telemetry"), (30, "lines", "ON_HOLD"))
    assert find_contacts(stocked, IDS) == {IDS[0].text: newest}


def test_what_the_inventory_does_not_have_is_not_stored(stocked: Connection) -> None:
    """So a certificate that names any device cannot fill the table."""
    made_up = [device(number).id for number in range(100, 150)]
    save_contacts(stocked, {one.text: Contact(seen=(10, "telemetry")) for one in (*made_up, IDS[3])})
    assert list(find_contacts(stocked, [*made_up, *IDS])) == [IDS[3].text]


moments = st.integers(1, 5)
listeners = st.sampled_from(["control", "telemetry"])
contacts = st.builds(
    Contact,
    st.none() | st.tuples(moments, listeners),
    st.none() | st.tuples(moments, listeners, st.sampled_from(["ON_HOLD", "REVOKED"])),
)


@given(st.lists(contacts, min_size=1, max_size=6))
@settings(max_examples=40)
def test_the_order_of_updates_makes_no_difference(updates: list[Contact]) -> None:
    """Several processes update the same device, each in its own minute."""
    newest = Contact(
        max((one.seen for one in updates if one.seen), default=None),
        max((one.refused for one in updates if one.refused), default=None),
    )
    with stocked_database() as database, database.writing() as connection:
        insert_devices(connection, PUMPS)
        for order, pump in ((updates, IDS[0]), (updates[::-1], IDS[1])):
            for one in order:
                save_contacts(connection, {pump.text: one})
            assert find_contacts(connection, [pump]) == {pump.text: newest}
