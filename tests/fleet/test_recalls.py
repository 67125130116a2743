"""A plan that names devices locks them out with a certificate or without, also those that enrol or arrive meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest

from tests.simulator.enrolment import Site, request, wish
from tests.simulator.orders import new_key
from tests.simulator.refusals import reason_of
from tests.simulator.stock import ER
from vagus.authority import mass_revocation
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.lot_locks import end_lot_locks
from vagus.authority.mass_revocation import MassRevocation
from vagus.errors import Conflict
from vagus.fleet.devices import ACTS_OF_PLANS, NewDevice, load_device
from vagus.fleet.enrolment.enrol import EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import read_evidence
from vagus.fleet.lifecycle import DeviceState
from vagus.reasons import Reason
from vagus.records.certificates import find_by_leaf
from vagus.records.devices import DeviceRow
from vagus.records.revocation.device_lots import DeviceLot
from vagus.records.revocation.plans import RevocationPlanRow
from vagus.records.revocation.revocations import HOLD, RELEASE, REVOKE
from vagus.records.revocation.selections import Selection
from vagus.x509.crls.building import RevocationReason

ALICE = "operator:alice"
_LOTS = count(1)
_REASONS = {
    REVOKE: RevocationReason.KEY_COMPROMISE,
    HOLD: RevocationReason.CERTIFICATE_HOLD,
    RELEASE: RevocationReason.REMOVE_FROM_CRL,
}
Watch = Callable[[RevocationPlanRow], None]


class Lot:
    """Six devices, the first two with a certificate, and one whose serial lies just beyond them."""

    def __init__(self, hospital: Site) -> None:
        self.hospital, self.prefix = hospital, f"LOT{next(_LOTS)}"
        *self.devices, self.beyond = [hospital.stock.add(self.serial(number)) for number in range(1, 8)]
        self.tokens = {one.id: hospital.token(one) for one in (*self.devices, self.beyond)}
        self.issued = [self.enrol(one) for one in self.devices[:2]]
        self.names = Selection(model="pump", first_serial=self.serial(1), last_serial=self.serial(6))
        built = hospital.stock
        self.plans = MassRevocation(built.pack, built.database, built.writer, built.clock, inventory=ACTS_OF_PLANS)

    def serial(self, number: int) -> str:
        return f"{self.prefix}-{number}"

    def enrol(self, device: DeviceRow) -> IssuedCertificate:
        """By the token that was made at the beginning."""
        issued = self.hospital.enrolment.enrol(wish(self.tokens[device.id]), self.hospital.stock.clock.now())
        self.hospital.stock.settle()
        return issued

    def renew(self, device: DeviceRow, issued: IssuedCertificate) -> IssuedCertificate:
        evidence = read_evidence(self.hospital.admit_device(issued), None, None)
        csr = request(new_key(), subject=issued.der, dns_names=(self.hospital.name(device),))
        wanted = EnrolmentRequest(csr=csr, kind=Kind.RENEW, evidence=evidence, protocol="est")
        renewed = self.hospital.enrolment.enrol(wanted, self.hospital.stock.clock.now())
        self.hospital.stock.settle()
        return renewed

    def propose(self, act: str = REVOKE, names: Selection | None = None, **more: Any) -> RevocationPlanRow:
        how = {"stages": (), "names_devices": True, "reason": _REASONS[act], **more}
        return self.plans.propose(names or self.names, act, by=ALICE, **how)

    def run(self, plan: RevocationPlanRow, advance: Watch = lambda _: None) -> RevocationPlanRow:
        return self.plans.run(plan.id, by=ALICE, advance=advance)

    def now(self, device: DeviceRow) -> DeviceRow:
        with self.hospital.stock.database.reading() as connection:
            return load_device(connection, device.id)

    def states(self) -> list[str]:
        return [self.now(one).state for one in self.devices]

    def refusals(self) -> set[Reason]:
        """Of each device, by its maker's certificate and by its token."""
        found = {reason_of(self.hospital.admit_born, one) for one in self.devices}
        return found | {reason_of(self.enrol, one) for one in self.devices}

    def certificate(self, issued: IssuedCertificate) -> str:
        return self.hospital.stock.find(find_by_leaf, issued.leaf_index).state


@pytest.fixture
def lot(hospital: Site) -> Iterator[Lot]:
    yield Lot(hospital)
    end = partial(end_lot_locks, lot=DeviceLot(), is_hold=False, by=ALICE)
    hospital.stock.writer.submit(end).result(10)


@pytest.fixture
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mass_revocation, "STEP", 2)


LOCKED = ["quarantined"] * 2 + ["recalled"] * 4


def test_a_recalled_lot_enrols_no_more_with_a_certificate_or_without(hospital: Site, lot: Lot) -> None:
    forecast = lot.plans.forecast(lot.names, REVOKE, _REASONS[REVOKE], names_devices=True)
    assert (forecast.certificates, forecast.devices, forecast.devices_without_certificate) == (2, 2, 4)
    plan = lot.propose()
    assert lot.states() == ["commissioned"] * 2 + ["received"] * 4, "a proposal changes nothing"
    done = lot.run(plan)
    assert (done.state, done.done, done.devices_done) == ("done", 2, 4)
    assert lot.states() == LOCKED
    assert lot.refusals() == {Reason.DEVICE_STATE, Reason.TOKEN_REUSED, Reason.TOKEN_EXPIRED}
    assert {reason_of(hospital.token, one) for one in lot.devices} == {Reason.DEVICE_STATE}
    assert lot.plans.count_devices_left(done) == 0
    lot.enrol(lot.beyond)
    hospital.stock.add(lot.serial(8))


def test_a_lot_of_which_no_device_has_enrolled_is_recalled_too(hospital: Site, lot: Lot) -> None:
    names = Selection(model="pump", first_serial=lot.serial(3), last_serial=lot.serial(6))
    done = lot.run(lot.propose(names=names, stages=(1, 50)))
    assert (done.state, done.done, done.devices_done) == ("done", 0, 4)
    assert lot.states() == ["commissioned"] * 2 + ["recalled"] * 4
    with pytest.raises(Conflict):
        lot.propose(names=names)
    assert hospital.stock.entries()[-1].kind == "operator-act"


def test_a_device_of_the_lot_that_is_delivered_later_comes_in_recalled(hospital: Site, lot: Lot) -> None:
    names = Selection(model="pump", first_serial=lot.serial(1), last_serial=lot.serial(9))
    lot.run(lot.propose(names=names))
    assert [hospital.stock.add(lot.serial(number)).state for number in (8, 9)] == ["recalled"] * 2
    other = NewDevice(unit=ER, model="pump", maker_serial=lot.serial(10))
    assert hospital.stock.inventory.add(other, by=ALICE).result(10).state == "received"


@pytest.mark.parametrize(
    "more", [{"names_devices": False}, {"reason": RevocationReason.SUPERSEDED, "names_devices": False}]
)
def test_a_plan_about_certificates_alone_leaves_devices_free(lot: Lot, more: dict[str, Any]) -> None:
    done = lot.run(lot.propose(**more))
    assert (done.done, done.devices_done) == (2, 0)
    assert lot.states() == ["commissioned"] * 2 + ["received"] * 4
    lot.enrol(lot.devices[3])


@pytest.mark.usefixtures("_small_steps")
def test_what_enrols_or_renews_while_the_plan_waits_or_runs_ends_with_it(lot: Lot) -> None:
    plan = lot.propose()
    late = [lot.renew(lot.devices[0], lot.issued[0]), lot.enrol(lot.devices[2])]

    def enrol_another(_: RevocationPlanRow) -> None:
        free = [one for one in lot.devices[2:] if lot.now(one).state == "received"]
        if free:
            late.append(lot.enrol(free[0]))

    done = lot.run(plan, enrol_another)
    assert len(late) > 2, "one has enrolled between two steps"
    assert {lot.certificate(one) for one in (*lot.issued, *late)} == {"revoked"}
    assert not {"received", "commissioned"} & {*lot.states()}
    assert done.devices_done == 4
    assert lot.refusals() <= {Reason.DEVICE_STATE, Reason.TOKEN_REUSED, Reason.TOKEN_EXPIRED}


@pytest.mark.usefixtures("_small_steps")
def test_a_plan_that_is_killed_goes_on_where_it_was(lot: Lot) -> None:
    plan = lot.propose()

    def kill(row: RevocationPlanRow) -> None:
        assert row.devices_done == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lot.run(plan, kill)
    assert sorted(lot.states()).count("recalled") == 2
    assert lot.certificate(lot.issued[0]) == "issued", "devices without a certificate come first"
    done = lot.run(plan)
    assert (done.state, done.done, done.devices_done) == ("done", 2, 4)
    assert lot.states() == LOCKED


@pytest.mark.usefixtures("_small_steps")
def test_an_operator_pauses_between_two_steps_and_another_process_goes_on(lot: Lot) -> None:
    plan = lot.propose()
    paused = lot.run(plan, lambda row: None if row.devices_done != 2 else _ignore(lot.plans.pause(row.id, by=ALICE)))
    assert (paused.state, paused.devices_done, paused.done) == ("paused", 2, 0)
    freed = next(one for one in lot.devices if lot.now(one).state == "recalled")
    lot.hospital.stock.inventory.change_state(freed.id, DeviceState.RECEIVED, by=ALICE).result(10)
    done = lot.run(plan)
    assert (done.state, done.devices_done) == ("done", 4)
    assert lot.now(freed).state == "received", "what an operator let in again meanwhile is not locked out twice"
    assert lot.plans.count_devices_left(done) == 1


def _ignore(_: object) -> None:
    return None


def test_a_hold_of_a_lot_keeps_every_device_from_enrolling_until_the_release(hospital: Site, lot: Lot) -> None:
    held = lot.run(lot.propose(HOLD))
    assert (held.done, held.devices_done) == (2, 4)
    assert lot.states() == ["commissioned"] * 2 + ["received"] * 4, "a hold moves no device"
    arrived = hospital.stock.inventory.add(
        NewDevice(unit=ER, model="pump", maker_serial=lot.serial(3) + "x"), by=ALICE
    ).result(10)
    assert arrived.held_at is None
    assert {reason_of(lot.enrol, one) for one in lot.devices[2:]} == {Reason.ON_HOLD}
    assert all(lot.now(one).held_at for one in lot.devices)
    lot.enrol(lot.beyond)
    released = lot.run(lot.propose(RELEASE))
    assert (released.done, released.devices_done) == (2, 4)
    assert [lot.certificate(one) for one in lot.issued] == ["issued"] * 2
    assert not any(lot.now(one).held_at for one in lot.devices)
    lot.enrol(lot.devices[4])
    assert lot.plans.count_devices_left(released) == 0


def test_a_device_that_arrives_during_the_hold_is_released_with_the_lot(hospital: Site, lot: Lot) -> None:
    names = Selection(model="pump", first_serial=lot.serial(1), last_serial=lot.serial(9))
    lot.run(lot.propose(HOLD, names))
    arrived = hospital.stock.add(lot.serial(9))
    assert (arrived.state, arrived.held_at is None) == ("received", False)
    done = lot.run(lot.propose(RELEASE, names))
    assert (lot.now(arrived).held_at, done.devices_done) == (None, 6)
    assert hospital.stock.add(lot.serial(8)).held_at is None, "the lot is on hold no more"


def test_a_release_leaves_a_hold_that_began_after_it_was_proposed(hospital: Site, lot: Lot) -> None:
    lot.run(lot.propose(HOLD))
    plan = lot.propose(RELEASE)
    hospital.stock.clock.advance(seconds=1)
    last = lot.devices[5]
    hospital.stock.inventory.release(last.id, by=ALICE).result(10)
    hospital.stock.inventory.hold(last.id, by=ALICE).result(10)
    done = lot.run(plan)
    assert lot.now(last).held_at is not None
    assert lot.plans.count_devices_left(done) == 1


def test_a_unit_is_locked_out_with_its_devices_that_never_enrolled_and_no_other_unit(hospital: Site, lot: Lot) -> None:
    new = NewDevice(unit=ER, model="pump", maker_serial=lot.serial(9))
    other = hospital.stock.inventory.add(new, by=ALICE).result(10)
    moved = lot.devices[5]
    hospital.stock.inventory.transfer(moved.id, ER, by=ALICE).result(10)
    icu = Selection(authority_ids=(hospital.stock.icu.authority_id,), of_devices=True, model="pump")
    done = lot.run(lot.propose(names=icu))
    assert lot.states() == ["quarantined"] * 2 + ["recalled"] * 3 + ["received"]
    assert lot.now(other).state == "received"
    assert done.devices_done >= 3


def test_a_revocation_ends_the_hold_that_it_replaces(hospital: Site, lot: Lot) -> None:
    lot.run(lot.propose(HOLD))
    lot.run(lot.propose(reason=RevocationReason.SUPERSEDED, names_devices=False))
    first, last = lot.now(lot.devices[0]), lot.now(lot.devices[5])
    assert (first.held_at, last.held_at is None) == (None, False), "what never enrolled is still on hold"
    hospital.enrol(first)
    lot.run(lot.propose())
    assert lot.states() == LOCKED
    assert not any(lot.now(one).held_at for one in lot.devices)
