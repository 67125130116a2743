"""Devices are noted as they come and stored once a minute; neither strangers nor an outage do harm."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.simulator.stock import Stock, stock
from vagus.endpoints.gateway.decisions import ConnectionDecision, Outcome
from vagus.errors import Unavailable
from vagus.fleet.admission import Admitted, PeerCredential
from vagus.reasons import Reason
from vagus.records.device_contacts import Contact, find_contacts
from vagus.records.devices import DeviceRow
from vagus.server import device_contacts
from vagus.server.device_contacts import DeviceContacts


@pytest.fixture
def inventory() -> Iterator[Stock]:
    with stock() as made:
        yield made


@pytest.fixture
def contacts(inventory: Stock) -> DeviceContacts:
    return DeviceContacts(inventory.clock, inventory.writer)


def admitted(device: DeviceRow | None) -> Admitted:
    return Admitted(credential=PeerCredential.LDEVID, function=None, device=device)


def refused(name: str | None, outcome: Outcome = Outcome.REFUSED, **more: str) -> ConnectionDecision:
    return ConnectionDecision("control", "192.0.2.1", outcome, Reason.REVOKED, "", device=name, **more)  # type: ignore[arg-type]


def stored(inventory: Stock, *devices: DeviceRow) -> list[Contact | None]:
    with inventory.database.reading() as connection:
        found = find_contacts(connection, [one.id for one in devices])
    return [found.get(one.id.text) for one in devices]


def at(inventory: Stock) -> int:
    return int(inventory.clock.now().timestamp())


def test_the_last_admission_and_the_last_refusal_are_stored_with_the_next_turn(
    inventory: Stock, contacts: DeviceContacts
) -> None:
    pump, other, third = (inventory.add(f"SN-{number}") for number in range(3))
    contacts.note_seen("telemetry", admitted(pump))
    inventory.clock.advance(seconds=5)
    contacts.note_seen("control", admitted(pump))
    contacts.note_decision(refused(f"{pump.id}.icu.h1.example"))
    contacts.note_decision(refused(f"{other.id}.icu.h1.example", Outcome.CLOSED))
    assert stored(inventory, pump, other) == [None, None]
    contacts.flush()
    now = at(inventory)
    assert stored(inventory, pump, other, third) == [
        Contact((now, "control"), (now, "control", "REVOKED")),
        Contact(None, (now, "control", "REVOKED")),
        None,
    ]


def test_no_stranger_leaves_a_trace(inventory: Stock, contacts: DeviceContacts) -> None:
    """10,000 connections with made-up certificates, each naming a device: neither memory nor table grows."""
    pump = inventory.add()
    for _ in range(10_000):
        contacts.note_decision(refused(None, claimed_device=f"{pump.id}.icu.h1.example"))
    contacts.note_decision(refused(f"{pump.id}.icu.h1.example", Outcome.FAILED))
    contacts.note_seen("status", admitted(None))
    assert contacts._noted == {}
    contacts.flush()
    assert stored(inventory, pump) == [None]


def away(_act: object) -> Future[None]:
    """A writer whose database is away."""
    answer: Future[None] = Future()
    answer.set_exception(Unavailable(Reason.DATABASE_UNAVAILABLE, "away"))
    return answer


def test_an_outage_loses_no_contact_and_delays_no_note(
    inventory: Stock, contacts: DeviceContacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    pumps = [inventory.add(f"SN-{number}") for number in range(5)]
    monkeypatch.setattr(device_contacts, "_AT_ONCE", 2)
    first = at(inventory)
    with monkeypatch.context() as patch:
        patch.setattr(inventory.writer, "submit", away)
        for pump in pumps:
            contacts.note_seen("telemetry", admitted(pump))
        for _ in range(3):
            with pytest.raises(Unavailable):
                contacts.flush()
            inventory.clock.advance(minutes=1)
            contacts.note_seen("control", admitted(pumps[0]))
    contacts.flush()
    newest = Contact(seen=(at(inventory), "control"))
    assert stored(inventory, *pumps) == [newest, *[Contact(seen=(first, "telemetry"))] * 4]


def test_an_outage_bounds_what_is_noted(
    inventory: Stock, contacts: DeviceContacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_contacts, "_MOST", 2)
    pumps = [inventory.add(f"SN-{number}") for number in range(3)]
    for pump in pumps:
        contacts.note_seen("telemetry", admitted(pump))
    inventory.clock.advance(seconds=1)
    contacts.note_seen("telemetry", admitted(pumps[0]))
    contacts.flush()
    now = at(inventory)
    assert stored(inventory, *pumps) == [
        Contact(seen=(now, "telemetry")),
        Contact(seen=(now - 1, "telemetry")),
        None,
    ]


def test_the_end_stores_the_last_ones_and_an_outage_then_stops_no_other_end(
    inventory: Stock, contacts: DeviceContacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    pump = inventory.add()
    contacts.note_seen("telemetry", admitted(pump))
    contacts.part().close()
    assert stored(inventory, pump) == [Contact(seen=(at(inventory), "telemetry"))]
    contacts.note_seen("control", admitted(pump))
    monkeypatch.setattr(inventory.writer, "submit", away)
    contacts.part().close()
