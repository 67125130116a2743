"""Every change of the inventory is one act with its ledger entry, and an impossible one changes nothing."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from tests.simulator.queries import list_tokens_of
from tests.simulator.refusals import refuses
from tests.simulator.stock import BY, ER, ICU, OVERLAP, Stock
from vagus.errors import Conflict, NotAuthorised, VagusError
from vagus.events.devices import DeviceFollower
from vagus.fleet.devices import Inventory, NewDevice, load_device, owner_of
from vagus.fleet.lifecycle import DeviceState
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.entries import DeviceAdded, DeviceStateChanged, OperatorAct
from vagus.reasons import Reason
from vagus.testing import SeededEntropy
from vagus.x509.crls.building import RevocationReason


def _reason(future: Future[Any]) -> Reason:
    error = future.exception(10)
    assert isinstance(error, VagusError), error
    return error.reason


def _inventory(site: Stock, **more: Any) -> Inventory:
    return Inventory(site.writer, SeededEntropy(1), overlap=OVERLAP, **more)


def test_a_device_takes_its_profile_from_its_model_and_leaves_an_entry(site: Stock) -> None:
    added = site.add()
    now = int(site.clock.now().timestamp())
    assert (added.profile, added.state, added.added_at) == ("bedside", "received", now)
    entry = site.entries()[-1]
    assert isinstance(entry, DeviceAdded)
    assert (entry.unit, entry.profile, entry.state) == ("h1/icu", "bedside", "received")
    assert str(added.id) not in entry.device, "the ledger names no device in the clear"


def test_a_serial_number_is_added_once_for_each_model(site: Stock) -> None:
    new = NewDevice(unit=ICU, model="pump", maker_serial="A")
    site.inventory.add(new, by=BY).result(10)
    assert isinstance(site.inventory.add(new, by=BY).exception(10), Conflict)
    assert len(site.entries()) == 1


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (NewDevice(unit=ICU, model="toaster", maker_serial="1"), Reason.BAD_ARGUMENT),
        (NewDevice(unit=UnitName("h9", "icu"), model="pump", maker_serial="1"), Reason.BAD_ARGUMENT),
        (NewDevice(unit=ICU, model="pump", maker_serial=""), Reason.BAD_ARGUMENT),
        (NewDevice(unit=ICU, model="pump", maker_serial="x" * 81), Reason.BAD_ARGUMENT),
        (NewDevice(unit=ICU, model="pump", maker_serial="a\nb"), Reason.BAD_ARGUMENT),
        (NewDevice(unit=ICU, model="pump", maker_serial="2", place="x" * 121), Reason.BAD_ARGUMENT),
        (NewDevice(unit=ER, model="pump", maker_serial="SN-1"), Reason.ALREADY_EXISTS),
    ],
)
def test_what_cannot_be_added_is_refused(site: Stock, new: NewDevice, reason: Reason) -> None:
    site.add()
    assert _reason(site.inventory.add(new, by=BY)) is reason
    assert len(site.entries()) == 1


def test_a_state_moves_by_the_table_and_leaves_an_entry(site: Stock) -> None:
    device = site.add()
    assert site.inventory.change_state(device.id, DeviceState.COMMISSIONED, by=BY).result(10).state == "commissioned"
    entry = site.entries()[-1]
    assert isinstance(entry, DeviceStateChanged)
    assert (entry.before, entry.state) == ("received", "commissioned")
    assert _reason(site.inventory.change_state(device.id, DeviceState.SHIPPED, by=BY)) is Reason.DEVICE_STATE


def test_an_unknown_device_moves_nowhere(site: Stock) -> None:
    unknown = DeviceId.draw(SeededEntropy(1))
    assert _reason(site.inventory.change_state(unknown, DeviceState.RECALLED, by=BY)) is Reason.NOT_IN_INVENTORY
    assert _reason(site.inventory.transfer(unknown, ER, by=BY)) is Reason.NOT_IN_INVENTORY
    with site.database.reading() as connection, pytest.raises(NotAuthorised):
        load_device(connection, unknown)


def test_the_end_of_a_life_ends_tokens_and_certificates_in_the_same_act(site: Stock) -> None:
    device = site.add()
    site.tokens.make(device.id, by=BY).result(10)
    ended: list[DeviceId] = []
    inventory = _inventory(site, at_end=lambda _, device_id, __: ended.append(device_id))
    inventory.change_state(device.id, DeviceState.DECOMMISSIONED, by=BY).result(10)
    assert ended == [device.id]
    with site.database.reading() as connection:
        (token,) = list_tokens_of(connection, device.id)
    assert token.expires_at == int(site.clock.now().timestamp())


def test_when_certificates_cannot_be_ended_the_device_lives_on(site: Stock) -> None:
    device = site.add()

    def fail(*_: object) -> None:
        raise Conflict(Reason.AUTHORITY_UNKNOWN, "no")

    ending = _inventory(site, at_end=fail).change_state(device.id, DeviceState.DECOMMISSIONED, by=BY)
    assert _reason(ending) is Reason.AUTHORITY_UNKNOWN
    with site.database.reading() as connection:
        assert load_device(connection, device.id).state == "received"


def test_a_transfer_changes_the_compartment_and_leaves_an_entry(site: Stock) -> None:
    device = site.add()
    assert site.inventory.transfer(device.id, ER, by=BY).result(10).unit == ER
    entry = site.entries()[-1]
    assert isinstance(entry, OperatorAct)
    assert entry.act == "device-transfer"
    assert site.inventory.transfer(device.id, ER, by=BY).result(10).unit == ER
    assert len(site.entries()) == 2, "nothing changed, so nothing is written"
    assert _reason(site.inventory.transfer(device.id, UnitName("h9", "er"), by=BY)) is Reason.BAD_ARGUMENT


def test_the_ended_are_not_transferred(site: Stock) -> None:
    device = site.add()
    site.inventory.change_state(device.id, DeviceState.DECOMMISSIONED, by=BY).result(10)
    assert _reason(site.inventory.transfer(device.id, ER, by=BY)) is Reason.DEVICE_STATE


def test_owners_are_named_alike_everywhere() -> None:
    device_id = DeviceId.draw(SeededEntropy(1))
    assert owner_of(device_id) == f"device:{device_id}"


def test_only_changes_that_may_end_a_connection_move_the_sequence(site: Stock) -> None:
    follower, changed = DeviceFollower(site.database), list[str]()
    follower.subscribe(lambda changes: changed.extend(one.device_id for one in changes))
    follower.follow(site.writer)
    pump, hub = site.add("SN-1"), site.add("SN-2")
    site.place(pump.id, "room 4")
    assert changed == []
    site.inventory.change_state(pump.id, DeviceState.COMMISSIONED, by=BY).result(10)
    site.inventory.transfer(hub.id, ER, by=BY).result(10)
    site.inventory.transfer(hub.id, ER, by=BY).result(10)  # it is there already
    site.inventory.lock_out(pump.id, RevocationReason.KEY_COMPROMISE, by=BY).result(10)
    assert _reason(site.inventory.change_state(pump.id, DeviceState.DISPOSED, by=BY)) is Reason.DEVICE_STATE
    site.inventory.change_state(pump.id, DeviceState.DECOMMISSIONED, by=BY).result(10)
    assert changed == [str(each) for each in (pump.id, hub.id, pump.id, pump.id)]


def test_a_host_name_belongs_to_one_living_device_and_never_to_a_listener(site: Stock) -> None:
    first = site.add("SN-1", host_names=("gate.h1.test", "192.0.2.7"))
    for name in ("gate.h1.test", "192.0.2.7"):
        new = NewDevice(unit=ICU, model="pump", maker_serial="SN-2", host_names=("other.h1.test", name))
        assert _reason(site.inventory.add(new, by=BY)) is Reason.ALREADY_EXISTS
    site.inventory.change_state(first.id, DeviceState.DECOMMISSIONED, by=BY).result(10)
    assert site.add("SN-2", host_names=("gate.h1.test",)).host_names == ("gate.h1.test",)
    inventory = _inventory(site, listener_names=lambda: frozenset({"enrol.h1.test"}))
    new = NewDevice(unit=ICU, model="pump", maker_serial="SN-3", host_names=("enrol.h1.test",))
    with refuses(Reason.ALREADY_EXISTS, Conflict, match="belongs to a listener here"):
        inventory.add(new, by=BY)
