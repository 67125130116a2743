"""A plan for a compromise also reaches what was revoked for less, so that no lost key is certified again."""

from __future__ import annotations

import pytest

from tests.authority.test_mass_revocation_races import Fleet, acts, fleet, installation, postgres, propose, states
from tests.simulator.installation import Installation
from tests.simulator.orders import new_public_key
from vagus.authority.mass_revocation import MassRevocation
from vagus.errors import Conflict
from vagus.records import certificates as rows
from vagus.records.engine.writer import Batch
from vagus.records.keys import find_key
from vagus.records.revocation.plans import DONE, RevocationPlanRow
from vagus.records.revocation.revocations import HOLD, REVOKE, find_revocation
from vagus.records.revocation.selections import Selection
from vagus.x509.crls.building import RevocationReason

__all__ = ["fleet", "installation", "postgres"]

ALICE = "operator:alice"
LESS = RevocationReason.SUPERSEDED
COMPROMISE = RevocationReason.KEY_COMPROMISE


def unit_of(installation: Installation) -> Selection:
    return Selection(authority_ids=(installation.icu.authority_id,))


def plan_for(installation: Installation, reason: RevocationReason) -> RevocationPlanRow:
    return acts(installation).propose(unit_of(installation), REVOKE, reason, by=ALICE, stages=())


def reasons(installation: Installation, fleet: Fleet) -> list[int]:
    with installation.database.reading() as connection:
        found = [find_revocation(connection, one.leaf_index) for one in fleet]
    return [-1 if row is None else row.reason for row in found]


def test_what_is_revoked_for_less_is_counted_and_upgraded_once(installation: Installation, fleet: Fleet) -> None:
    for one in fleet[1:6]:
        installation.revoke(one, LESS, by=ALICE)
    installation.hold(fleet[7], by=ALICE)
    installation.revoke(fleet[9], RevocationReason.CA_COMPROMISE, by=ALICE)
    for selection in (unit_of(installation), Selection(leaves=tuple(one.leaf_index for one in fleet))):
        forecast = acts(installation).forecast(selection, REVOKE, COMPROMISE)
        assert (forecast.certificates, forecast.devices) == (9, 9)
        assert acts(installation).forecast(selection, REVOKE, LESS).certificates == 4
    plan = plan_for(installation, COMPROMISE)
    assert acts(installation).count_left(plan) == 9
    row = acts(installation).run(plan.id, by=ALICE)
    assert (row.state, row.done, acts(installation).count_left(row)) == (DONE, 9, 0)
    assert reasons(installation, fleet) == [COMPROMISE] * 9 + [RevocationReason.CA_COMPROMISE]
    with installation.database.reading() as connection:
        keys = [rows.find_by_leaf(connection, one.leaf_index) for one in fleet]
        found = [find_key(connection, one.spki_sha256) for one in keys if one is not None]
    assert len(found) == 10
    assert all(key is not None and key.is_blocked for key in found)
    with pytest.raises(Conflict):
        plan_for(installation, COMPROMISE)


def test_a_plan_for_less_leaves_what_is_revoked_as_it_is(installation: Installation, fleet: Fleet) -> None:
    for one in fleet[1:6]:
        installation.revoke(one, RevocationReason.AFFILIATION_CHANGED, by=ALICE)
    row = acts(installation).run(plan_for(installation, LESS).id, by=ALICE)
    assert (row.state, row.done) == (DONE, 5)
    assert reasons(installation, fleet).count(RevocationReason.AFFILIATION_CHANGED) == 5


def test_of_a_units_devices_only_those_whose_certificates_live_are_locked_out_for_others_may_have_left_it(
    installation: Installation, fleet: Fleet
) -> None:
    key = new_public_key()
    old = installation.issue(public_key=key)
    with installation.database.reading() as connection:
        before = [rows.find_by_leaf(connection, one.leaf_index) for one in (fleet[0], old)]
    gone, back = [row.device_id for row in before if row is not None]
    between = [installation.issue() for _ in range(4)]
    new = installation.issue(public_key=key, device=back)
    installation.settle()
    for one in (fleet[0], old):
        installation.revoke(one, LESS, by=ALICE)
    locked: list[str] = []

    def lock_out(_batch: Batch, device: str, _by: str) -> None:
        locked.append(device)

    plans = MassRevocation(
        installation.pack, installation.database, installation.writer, installation.clock, lock_out=lock_out
    )
    plan = plans.propose(unit_of(installation), REVOKE, COMPROMISE, by=ALICE, stages=(), locks_out=True)
    assert plans.run(plan.id, by=ALICE).state == DONE
    assert set(states(installation, [*fleet, old, *between, new])) == {rows.REVOKED}
    assert gone not in locked
    assert back in locked
    assert len(set(locked)) == len(fleet) - 1 + len(between) + 1


def test_a_device_that_is_named_is_locked_out_whatever_lives_of_it(installation: Installation, fleet: Fleet) -> None:
    installation.revoke(fleet[0], LESS, by=ALICE)
    row = installation.find(rows.find_by_leaf, fleet[0].leaf_index)
    locked: list[str] = []

    def lock_out(_batch: Batch, device: str, _by: str) -> None:
        locked.append(device)

    plans = MassRevocation(
        installation.pack, installation.database, installation.writer, installation.clock, lock_out=lock_out
    )
    named = Selection(owners=(row.owner,))
    plan = plans.propose(named, REVOKE, COMPROMISE, by=ALICE, stages=(), locks_out=True)
    assert plans.run(plan.id, by=ALICE).done == 1
    assert locked == [row.device_id]


def test_a_hold_leaves_alone_what_is_revoked(installation: Installation, fleet: Fleet) -> None:
    installation.revoke(fleet[0], LESS, by=ALICE)
    row = acts(installation).run(propose(installation, HOLD).id, by=ALICE)
    assert (row.state, row.done) == (DONE, 9)
