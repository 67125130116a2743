"""While the database is out of sight devices go on for as long as their certificates' status may, and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import pytest

from tests.simulator.enrolment import ENROLMENT, GROUP, House, house, pack, peer, request
from tests.simulator.stock import BY
from vagus.authority.issuance import IssuedCertificate
from vagus.errors import Unavailable, VagusError
from vagus.events.devices import DeviceFollower
from vagus.fleet.admission import Admission, Admitted, ListenerRules
from vagus.fleet.device_cache import DeviceCache
from vagus.fleet.enrolment.enrol import EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import OneTimeToken
from vagus.fleet.lifecycle import DeviceState
from vagus.policy.values import Function
from vagus.reasons import Reason
from vagus.records.devices import DeviceRow
from vagus.records.engine.database import Connection, Database

TELEMETRY = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP)
BOUND = timedelta(hours=24)  # of the house's own source of status


class ListenerState:
    """An admission that remembers, and two devices that it may know."""

    def __init__(self, standing: House, *, most: int = 10) -> None:
        self.standing = standing
        self.is_away = False
        self.follower = DeviceFollower(standing.stock.database)
        self.follower.follow(standing.stock.writer)
        self.devices = DeviceCache(standing.stock.database, self.follower, lambda: self.is_away, most=most)
        parts = (standing.stock.database, pack(), standing.stock.clock, standing.admission._validator)
        self.admission = Admission(*parts, find_device=self.devices.find)

    def enrolled(self, serial: str) -> tuple[DeviceRow, IssuedCertificate]:
        device = self.standing.stock.add(serial, state=DeviceState.COMMISSIONED)
        wish = EnrolmentRequest(
            csr=request(), kind=Kind.ENROL, protocol="est", evidence=OneTimeToken(self.standing.token(device))
        )
        issued = self.standing.enrolment.enrol(wish, self.standing.stock.clock.now())
        self.standing.stock.writer.submit(lambda _: None).result(10)  # the row of the signature is written
        return device, issued

    def admit(self, issued: IssuedCertificate, rules: ListenerRules = TELEMETRY) -> Admitted:
        return self.admission.admit(peer(issued.der, issued.issuer.certificate_der, self.standing.h1.der), rules)

    def refused(self, issued: IssuedCertificate, rules: ListenerRules = TELEMETRY) -> Reason:
        with pytest.raises(VagusError) as caught:
            self.admit(issued, rules)
        return caught.value.reason


@contextmanager
def away(database: Database) -> Iterator[list[str]]:
    """The database does not answer; which roads were tried."""
    asked: list[str] = []

    def refuse(**_: object) -> AbstractContextManager[Connection]:
        asked.append("asked")
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "away")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("reading", "bounded_reading", "single_statement"):
            patch.setattr(database, name, refuse)
        yield asked


@pytest.fixture
def gate() -> Iterator[ListenerState]:
    with house() as standing:
        yield ListenerState(standing)


def test_a_device_that_was_here_goes_on_until_its_status_is_too_old(gate: ListenerState) -> None:
    database, clock = gate.standing.stock.database, gate.standing.stock.clock
    device, issued = gate.enrolled("SN-1")
    _, stranger = gate.enrolled("SN-2")
    before = gate.admit(issued)
    with away(database):
        assert gate.admit(issued) == before
        assert gate.refused(stranger) is Reason.DATABASE_UNAVAILABLE, "of whom nothing is known"
        clock.advance(hours=24)
        admitted = gate.admit(issued).device
        assert admitted is not None
        assert admitted.id == device.id
        clock.advance(seconds=1)
        assert gate.refused(issued) is Reason.SEQUENCE_LOST
    gate.standing.follower.catch_up()
    assert gate.admit(stranger).device is not None


def test_who_enrols_is_asked_about_in_the_inventory_itself(gate: ListenerState) -> None:
    _, issued = gate.enrolled("SN-1")
    gate.admit(issued)
    gate.admit(issued, ENROLMENT)
    with away(gate.standing.stock.database):
        assert gate.refused(issued, ENROLMENT) is Reason.DATABASE_UNAVAILABLE


def test_a_device_that_changed_is_forgotten_at_once(gate: ListenerState) -> None:
    stock = gate.standing.stock
    device, issued = gate.enrolled("SN-1")
    gate.admit(issued)
    stock.inventory.change_state(device.id, DeviceState.QUARANTINED, by=BY).result(10)
    with away(stock.database):
        assert gate.refused(issued) is Reason.DATABASE_UNAVAILABLE
    assert gate.refused(issued) is Reason.DEVICE_STATE
    with away(stock.database):
        assert gate.refused(issued) is Reason.DEVICE_STATE, "what it became is remembered too"


def test_nothing_is_remembered_that_changed_while_it_was_read(
    gate: ListenerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = gate.standing.stock
    device, issued = gate.enrolled("SN-1")
    gate.admit(issued)  # its certificate is not looked up again
    single = stock.database.single_statement

    @contextmanager
    def slow() -> Iterator[Connection]:
        with single() as connection:
            yield connection
        stock.inventory.change_state(device.id, DeviceState.QUARANTINED, by=BY).result(10)

    with monkeypatch.context() as patch:
        patch.setattr(stock.database, "single_statement", slow)
        gate.admit(issued)  # as it was read, just before
    with away(stock.database):
        assert gate.refused(issued) is Reason.DATABASE_UNAVAILABLE


def test_a_database_that_is_out_of_sight_keeps_nobody_waiting_who_is_known(gate: ListenerState) -> None:
    _, issued = gate.enrolled("SN-1")
    _, stranger = gate.enrolled("SN-2")
    gate.admit(issued)
    with away(gate.standing.stock.database) as asked:
        gate.is_away = True
        gate.admit(issued)
        assert asked == []
        gate.refused(stranger)
        assert asked == ["asked"]


def test_what_is_remembered_has_a_bound() -> None:
    with house() as standing:
        gate = ListenerState(standing, most=2)
        first, second, third = (gate.enrolled(f"SN-{number}")[1] for number in range(3))
        for issued in (first, second, first, third):
            gate.admit(issued)
        with away(standing.stock.database):
            assert gate.refused(second) is Reason.DATABASE_UNAVAILABLE, "who was here longest ago"
            gate.admit(first)
            gate.admit(third)


def test_one_certificate_more_than_are_remembered_makes_nobody_else_a_stranger(
    gate: ListenerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vagus.fleet.database_status._MOST_REMEMBERED", 4)  # two of authorities
    first, second, third = (gate.enrolled(f"SN-{number}")[1] for number in range(3))
    for issued in (first, second, third):
        gate.admit(issued)
    with away(gate.standing.stock.database):
        assert gate.refused(first) is Reason.DATABASE_UNAVAILABLE, "who came first"
        gate.admit(second)
        gate.admit(third)
