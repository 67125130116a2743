"""A day after a transfer the old compartment's certificates end, once, and only where the device still belongs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.simulator.enrolment import Site, new_site
from tests.simulator.jobs import run_due
from tests.simulator.queries import count_open
from tests.simulator.refusals import reason_of
from tests.simulator.stock import BY, ER, ICU
from vagus.fleet.transfers import KIND, supersede
from vagus.identifiers import UnitName
from vagus.jobs.runner import WorkRunner
from vagus.ledger.entries import Revocation
from vagus.reasons import Reason
from vagus.records.units import UnitRow, put_unit


@pytest.fixture
def hospital() -> Iterator[Site]:
    with new_site() as built:
        yield built


def _work(hospital: Site) -> int:
    with hospital.stock.database.reading() as connection:
        return count_open(connection, KIND)


def _run_due(hospital: Site, node: str = "node-1") -> int:
    """What a serving process does; how many certificates were revoked by it."""
    stock = hospital.stock
    before = sum(isinstance(entry, Revocation) for entry in stock.entries())
    kinds = {KIND: lambda job, _lease: partial(supersede, job)}
    run_due(WorkRunner(stock.database, stock.writer, stock.clock, node, kinds))
    return sum(isinstance(entry, Revocation) for entry in stock.entries()) - before


def test_the_old_certificate_lives_a_day_and_is_then_superseded(hospital: Site) -> None:
    device = hospital.stock.add("SN-1", host_names=("gw.h1.group.example",))
    old, server = hospital.enrol(device), hospital.enrol(device, label="server")
    hospital.stock.inventory.transfer(device.id, ER, by=BY).result(10)
    new = hospital.enrol(device)
    assert _run_due(hospital) == 0
    hospital.stock.clock.advance(hours=24)
    assert _run_due(hospital) == 1
    assert (_run_due(hospital), _work(hospital)) == (0, 0)
    hospital.follower.catch_up()
    assert reason_of(hospital.admit_device, old) is Reason.REVOKED
    assert hospital.admit_device(new).unit == "h1/er"
    assert hospital.follower.find(server.issuer.authority_id, server.serial) is None, "a host name is of no compartment"
    assert [entry.reason for entry in hospital.stock.entries() if isinstance(entry, Revocation)] == [4]


def test_in_another_hospital_the_old_ones_host_names_end_too(hospital: Site) -> None:
    device = hospital.stock.add("SN-1", host_names=("gw.h1.group.example",))
    old, server = hospital.enrol(device), hospital.enrol(device, label="server")
    with hospital.stock.database.writing() as connection:
        put_unit(connection, UnitRow(UnitName("h2", "icu"), "Hospital h2", "Intensive Care"))
    hospital.stock.inventory.transfer(device.id, UnitName("h2", "icu"), by=BY).result(10)
    hospital.stock.clock.advance(hours=24)
    assert _run_due(hospital) == 2
    hospital.follower.catch_up()
    for one in (old, server):
        assert hospital.follower.find(one.issuer.authority_id, one.serial) is not None


def test_each_transfer_ends_certificates_a_day_after_itself(hospital: Site) -> None:
    device = hospital.stock.add("SN-1")
    first = hospital.enrol(device)
    hospital.stock.inventory.transfer(device.id, ER, by=BY).result(10)
    hospital.stock.clock.advance(hours=12)
    hospital.stock.inventory.transfer(device.id, ICU, by=BY).result(10)
    hospital.stock.clock.advance(hours=24)
    assert (_run_due(hospital), _work(hospital)) == (0, 0)
    hospital.follower.catch_up()
    assert hospital.admit_device(first).unit == "h1/icu"


def test_a_device_that_went_back_and_forth_has_a_day_from_the_last_time(hospital: Site) -> None:
    device = hospital.stock.add("SN-1")
    old = hospital.enrol(device)
    for unit in (ER, ICU, ER):
        hospital.stock.inventory.transfer(device.id, unit, by=BY).result(10)
        hospital.stock.clock.advance(hours=8)
    assert (_run_due(hospital), _work(hospital)) == (0, 2)
    hospital.follower.catch_up()
    assert hospital.admit_device(old).unit == "h1/er"
    hospital.stock.clock.advance(hours=15)
    assert (_run_due(hospital), _work(hospital)) == (0, 1)
    hospital.stock.clock.advance(hours=1)
    assert (_run_due(hospital), _work(hospital)) == (1, 0)


def test_two_processes_supersede_once(hospital: Site) -> None:
    device = hospital.stock.add("SN-1")
    hospital.enrol(device)
    hospital.stock.inventory.transfer(device.id, ER, by=BY).result(10)
    hospital.stock.clock.advance(hours=24)
    assert sum(_run_due(hospital, f"node-{number}") for number in range(2)) == 1
