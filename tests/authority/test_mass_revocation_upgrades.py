"""A plan for a compromise also reaches what was revoked for less, so that no lost key is certified again."""

from __future__ import annotations

import pytest

from tests.authority.fleets import ALICE, Fleet
from tests.authority.test_mass_revocation_races import fleet, installation
from tests.simulator.orders import new_public_key
from vagus.authority.named_devices import InventoryActs
from vagus.errors import Conflict
from vagus.records import certificates as rows
from vagus.records.engine.writer import Batch
from vagus.records.keys import find_key
from vagus.records.revocation.plans import DONE, RevocationPlanRow
from vagus.records.revocation.revocations import HOLD, REVOKE, find_revocation
from vagus.records.revocation.selections import Selection
from vagus.x509.crls.building import RevocationReason

__all__ = ["fleet", "installation"]

LESS = RevocationReason.SUPERSEDED
COMPROMISE = RevocationReason.KEY_COMPROMISE


def plan_for(fleet: Fleet, reason: RevocationReason) -> RevocationPlanRow:
    return fleet.plans().propose(fleet.unit, REVOKE, reason, by=ALICE, stages=())


def reasons(fleet: Fleet) -> list[int]:
    found = [fleet.built.read(find_revocation, one.leaf_index) for one in fleet]
    return [-1 if row is None else row.reason for row in found]


def lock_out(fleet: Fleet, selection: Selection) -> tuple[RevocationPlanRow, list[str]]:
    """Run a plan for a compromise that locks devices out; its row afterwards, and the devices."""
    locked: list[str] = []

    def note(_batch: Batch, device: str, _by: str) -> None:
        locked.append(device)

    plans = fleet.plans(inventory=InventoryActs(lock_out=note))
    plan = plans.propose(selection, REVOKE, COMPROMISE, by=ALICE, stages=(), names_devices=True)
    return plans.run(plan.id, by=ALICE), locked


def test_what_is_revoked_for_less_is_counted_and_upgraded_once(fleet: Fleet) -> None:
    for one in fleet[1:6]:
        fleet.built.revoke(one, LESS, by=ALICE)
    fleet.built.hold(fleet[7], by=ALICE)
    fleet.built.revoke(fleet[9], RevocationReason.CA_COMPROMISE, by=ALICE)
    for selection in (fleet.unit, Selection(leaves=tuple(one.leaf_index for one in fleet))):
        forecast = fleet.plans().forecast(selection, REVOKE, COMPROMISE)
        assert (forecast.certificates, forecast.devices) == (9, 9)
        assert fleet.plans().forecast(selection, REVOKE, LESS).certificates == 4
    plan = plan_for(fleet, COMPROMISE)
    assert fleet.plans().count_left(plan) == 9
    row = fleet.run(plan)
    assert (row.state, row.done, fleet.plans().count_left(row)) == (DONE, 9, 0)
    assert reasons(fleet) == [COMPROMISE] * 9 + [RevocationReason.CA_COMPROMISE]
    keys = [fleet.built.find(rows.find_by_leaf, one.leaf_index).spki_sha256 for one in fleet]
    assert [fleet.built.find(find_key, one).is_blocked for one in keys] == [True] * 10
    with pytest.raises(Conflict):
        plan_for(fleet, COMPROMISE)


def test_a_plan_for_less_leaves_what_is_revoked_as_it_is(fleet: Fleet) -> None:
    for one in fleet[1:6]:
        fleet.built.revoke(one, RevocationReason.AFFILIATION_CHANGED, by=ALICE)
    row = fleet.run(plan_for(fleet, LESS))
    assert (row.state, row.done) == (DONE, 5)
    assert reasons(fleet).count(RevocationReason.AFFILIATION_CHANGED) == 5


def test_of_a_units_devices_only_those_whose_certificates_live_are_locked_out_for_others_may_have_left_it(
    fleet: Fleet,
) -> None:
    key = new_public_key()
    old = fleet.built.issue(public_key=key)
    gone, back = (fleet.built.find(rows.find_by_leaf, one.leaf_index).device_id for one in (fleet[0], old))
    between = [fleet.built.issue() for _ in range(4)]
    new = fleet.built.issue(public_key=key, device=back)
    fleet.built.settle()
    for one in (fleet[0], old):
        fleet.built.revoke(one, LESS, by=ALICE)
    plan, locked = lock_out(fleet, fleet.unit)
    assert plan.state == DONE
    assert set(fleet.states(*fleet, old, *between, new)) == {rows.REVOKED}
    assert gone not in locked
    assert back in locked
    assert len(set(locked)) == len(fleet) - 1 + len(between) + 1


def test_a_device_that_is_named_is_locked_out_whatever_lives_of_it(fleet: Fleet) -> None:
    fleet.built.revoke(fleet[0], LESS, by=ALICE)
    row = fleet.built.find(rows.find_by_leaf, fleet[0].leaf_index)
    plan, locked = lock_out(fleet, Selection(owners=(row.owner,)))
    assert plan.done == 1
    assert locked == [row.device_id]


def test_a_hold_leaves_alone_what_is_revoked(fleet: Fleet) -> None:
    fleet.built.revoke(fleet[0], LESS, by=ALICE)
    row = fleet.run(fleet.propose(HOLD))
    assert (row.state, row.done) == (DONE, 9)
