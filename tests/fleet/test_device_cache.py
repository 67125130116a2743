"""While the database cannot be read, devices go on for as long as their certificates' status may, and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import pytest

from tests.simulator.enrolment import ENROLMENT, Site, new_site, peer
from tests.simulator.installation import GROUP, pack
from tests.simulator.presence import present
from tests.simulator.refusals import reason_of
from tests.simulator.stock import BY
from vagus.authority.issuance import IssuedCertificate
from vagus.errors import Unavailable
from vagus.events.devices import DeviceFollower
from vagus.fleet.admission import Admission, Admitted, ListenerRules
from vagus.fleet.device_cache import DeviceCache
from vagus.fleet.lifecycle import DeviceState
from vagus.policy.values import Function
from vagus.reasons import Reason
from vagus.records.devices import DeviceRow
from vagus.records.engine.database import Connection, Database

TELEMETRY = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP)
BOUND = timedelta(hours=24)  # of the installation's own source of status


class ListenerState:
    """An admission that remembers, and two devices that it may know."""

    def __init__(self, hospital: Site, *, most: int = 10) -> None:
        self.hospital = hospital
        self.is_away = False
        self.follower = DeviceFollower(hospital.stock.database)
        self.follower.follow(hospital.stock.writer)
        self.devices = DeviceCache(hospital.stock.database, self.follower, lambda: self.is_away, most=most)
        parts = (hospital.stock.database, pack(), hospital.stock.clock, hospital.validators)
        self.admission = Admission(*parts, find_device=self.devices.find)

    def enrolled(self, serial: str) -> tuple[DeviceRow, IssuedCertificate]:
        device = self.hospital.stock.add(serial, state=DeviceState.COMMISSIONED)
        return device, self.hospital.enrol(device)

    def admit(self, issued: IssuedCertificate, rules: ListenerRules = TELEMETRY) -> Admitted:
        return self.admission.admit(peer(issued.der, issued.issuer.certificate_der, self.hospital.h1.der), rules)

    def refused(self, issued: IssuedCertificate, rules: ListenerRules = TELEMETRY) -> Reason:
        return reason_of(self.admit, issued, rules)


@contextmanager
def away(database: Database) -> Iterator[list[str]]:
    """The database cannot be read. Gives the methods that were tried."""
    asked: list[str] = []

    def refuse(**_: object) -> AbstractContextManager[Connection]:
        asked.append("asked")
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "away")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("reading", "bounded_reading", "single_statement"):
            patch.setattr(database, name, refuse)
        yield asked


@pytest.fixture
def gateway() -> Iterator[ListenerState]:
    with new_site() as hospital:
        yield ListenerState(hospital)


def test_a_device_that_was_here_goes_on_until_its_status_is_too_old(gateway: ListenerState) -> None:
    database, clock = gateway.hospital.stock.database, gateway.hospital.stock.clock
    device, issued = gateway.enrolled("SN-1")
    _, stranger = gateway.enrolled("SN-2")
    before = gateway.admit(issued)
    with away(database):
        assert gateway.admit(issued) == before
        assert gateway.refused(stranger) is Reason.DATABASE_UNAVAILABLE, "of whom nothing is known"
        clock.advance(hours=24)
        assert present(gateway.admit(issued).device).id == device.id
        clock.advance(seconds=1)
        assert gateway.refused(issued) is Reason.SEQUENCE_LOST
    gateway.hospital.follower.catch_up()
    assert gateway.admit(stranger).device is not None


def test_who_enrols_is_asked_about_in_the_inventory_itself(gateway: ListenerState) -> None:
    _, issued = gateway.enrolled("SN-1")
    gateway.admit(issued)
    gateway.admit(issued, ENROLMENT)
    with away(gateway.hospital.stock.database):
        assert gateway.refused(issued, ENROLMENT) is Reason.DATABASE_UNAVAILABLE


def test_a_device_that_changed_is_forgotten_at_once(gateway: ListenerState) -> None:
    stock = gateway.hospital.stock
    device, issued = gateway.enrolled("SN-1")
    gateway.admit(issued)
    stock.inventory.change_state(device.id, DeviceState.QUARANTINED, by=BY).result(10)
    with away(stock.database):
        assert gateway.refused(issued) is Reason.DATABASE_UNAVAILABLE
    assert gateway.refused(issued) is Reason.DEVICE_STATE
    with away(stock.database):
        assert gateway.refused(issued) is Reason.DEVICE_STATE, "what it became is remembered too"


def test_a_device_that_changed_meanwhile_is_unknown(gateway: ListenerState, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = gateway.hospital.stock
    device, issued = gateway.enrolled("SN-1")
    gateway.admit(issued)  # its certificate is not looked up again
    single = stock.database.single_statement

    @contextmanager
    def slow() -> Iterator[Connection]:
        with single() as connection:
            yield connection
        stock.inventory.change_state(device.id, DeviceState.QUARANTINED, by=BY).result(10)

    with monkeypatch.context() as patch:
        patch.setattr(stock.database, "single_statement", slow)
        gateway.admit(issued)  # as it was read, just before
    with away(stock.database):
        assert gateway.refused(issued) is Reason.DATABASE_UNAVAILABLE


def test_a_known_device_does_not_wait_for_a_database_that_hangs(gateway: ListenerState) -> None:
    _, issued = gateway.enrolled("SN-1")
    _, stranger = gateway.enrolled("SN-2")
    gateway.admit(issued)
    with away(gateway.hospital.stock.database) as asked:
        gateway.is_away = True
        gateway.admit(issued)
        assert asked == []
        gateway.refused(stranger)
        assert asked == ["asked"]


def test_what_is_remembered_has_a_bound() -> None:
    with new_site() as hospital:
        gateway = ListenerState(hospital, most=2)
        first, second, third = (gateway.enrolled(f"SN-{number}")[1] for number in range(3))
        for issued in (first, second, first, third):
            gateway.admit(issued)
        with away(hospital.stock.database):
            assert gateway.refused(second) is Reason.DATABASE_UNAVAILABLE, "who was here longest ago"
            gateway.admit(first)
            gateway.admit(third)


def test_a_device_over_the_bound_removes_the_oldest(gateway: ListenerState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vagus.fleet.database_status._MOST_REMEMBERED", 4)  # two of authorities
    first, second, third = (gateway.enrolled(f"SN-{number}")[1] for number in range(3))
    for issued in (first, second, third):
        gateway.admit(issued)
    with away(gateway.hospital.stock.database):
        assert gateway.refused(first) is Reason.DATABASE_UNAVAILABLE, "who came first"
        gateway.admit(second)
        gateway.admit(third)
