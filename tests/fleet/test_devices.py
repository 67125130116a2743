"""Every change of the inventory is one act with its ledger entry, and an impossible one changes nothing."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from tests.simulator.queries import list_tokens_of
from tests.simulator.refusals import refuses
from tests.simulator.stock import BY, ER, ICU, OVERLAP, Stock
from vagus.authority.lot_locks import end_lot_locks, lock_lot
from vagus.errors import Conflict, Malformed, NotAuthorised, VagusError
from vagus.events.devices import DeviceFollower
from vagus.fleet.devices import Inventory, NewDevice, load_device, owner_of
from vagus.fleet.lifecycle import DeviceState
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.entries import DeviceAdded, DeviceStateChanged, OperatorAct
from vagus.reasons import Reason
from vagus.records.revocation.device_lots import DeviceLot, list_lot_locks
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


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("gate.h1.test.", "another spelling of gate.h1.test"),
        ("Gate.h1.test", "another spelling of gate.h1.test"),
        ("gerät.test", "another spelling of xn--gert-noa.test"),
        ("[2001:db8::1]", "another spelling of 2001:db8::1"),
        ("https://gate.h1.test", "without scheme, port and path"),
        ("*.h1.test", "neither a host name nor an address"),
    ],
)
def test_a_host_name_is_spelt_as_certificates_do(site: Stock, name: str, remedy: str) -> None:
    with refuses(Reason.BAD_ARGUMENT, Malformed, match=remedy):
        site.add("SN-1", host_names=(name,))
    names = ("gate.h1.test", "xn--gert-noa.test", "2001:db8::1")
    assert site.add("SN-1", host_names=names).host_names == names


def _lock(site: Stock, *, is_hold: bool = False, **lot: Any) -> None:
    site.writer.submit(lambda batch: lock_lot(batch, DeviceLot(**lot), is_hold=is_hold, by=BY)).result(10)


def test_a_device_of_a_recalled_lot_comes_in_recalled_and_its_neighbours_do_not(site: Stock) -> None:
    _lock(site, model="pump", first_serial="SN-10", last_serial="SN-19")
    added = [site.add(serial) for serial in ("SN-09", "SN-10", "SN-19", "SN-20", "SN-1", "SN-100")]
    assert [one.state for one in added] == ["received", "recalled", "recalled", "received", "received", "received"]
    other = site.inventory.add(NewDevice(unit=ICU, model="monitor", maker_serial="SN-10"), by=BY).result(10)
    assert other.state == "received"
    with site.database.reading() as connection:
        assert load_device(connection, added[1].id) == added[1]
    entries = [one.state for one in site.entries() if isinstance(one, DeviceAdded)]
    assert entries == [one.state for one in (*added, other)], "the ledger says so too"


def test_a_lot_of_one_unit_is_locked_in_that_unit_alone(site: Stock) -> None:
    _lock(site, model="pump", units=("h1/er",))
    added = [NewDevice(unit=unit, model="pump", maker_serial=str(unit)) for unit in (ICU, ER)]
    assert [site.inventory.add(one, by=BY).result(10).state for one in added] == ["received", "recalled"]


def test_a_device_of_a_held_lot_comes_in_on_hold_until_the_lot_is_released(site: Stock) -> None:
    _lock(site, is_hold=True, model="pump", first_serial="SN-10", last_serial="SN-19")
    held = site.add("SN-15")
    assert (held.state, held.held_at) == ("received", held.added_at)
    assert site.add("SN-20").held_at is None
    narrower = DeviceLot(model="pump", first_serial="SN-11", last_serial="SN-19")
    lots = ((narrower, True), (DeviceLot(units=("h1/icu",)), True), (DeviceLot(model="pump"), False))
    for number, (lot, is_held) in enumerate(lots):
        act = partial(end_lot_locks, lot=lot, is_hold=True, by=BY)
        site.writer.submit(act).result(10)
        assert (site.add(f"SN-1{number}").held_at is not None) is is_held, lot


def test_a_recall_takes_the_place_of_the_hold_on_its_lot(site: Stock) -> None:
    _lock(site, is_hold=True, model="pump", first_serial="SN-10", last_serial="SN-19")
    _lock(site, model="pump")
    _lock(site, model="pump", first_serial="SN-10", last_serial="SN-19")
    added = site.add("SN-15")
    assert (added.state, added.held_at) == ("recalled", None)
    with site.database.reading() as connection:
        assert [one.lot for one in list_lot_locks(connection)] == [DeviceLot(model="pump")]


def test_what_is_on_its_way_here_is_locked_out_too(site: Stock) -> None:
    coming = site.add("SN-1", state=DeviceState.SHIPPED)
    site.inventory.lock_out(coming.id, RevocationReason.KEY_COMPROMISE, by=BY).result(10)
    with site.database.reading() as connection:
        assert load_device(connection, coming.id).state == "recalled"
