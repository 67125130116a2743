"""A mass revocation shows its counts first, waits for its approvals, goes in stages and survives being killed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.authority.fleets import ALICE, BOB, Fleet
from tests.simulator.installation import Installation
from tests.simulator.orders import new_public_key
from tests.simulator.queries import count_revoked
from tests.simulator.refusals import refuses
from vagus.authority import mass_revocation
from vagus.authority.crls.overdue import overdue_crls
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.mass_revocation import DEFAULT_STAGES, MassRevocation
from vagus.authority.revocation_forecast import Forecast
from vagus.errors import Conflict, Malformed, NotAuthorised, PolicyRefusal
from vagus.identifiers import DeviceId
from vagus.ledger.entries import OperatorAct
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.records.revocation import plans as plan_rows
from vagus.records.revocation import revocations as revocation_rows
from vagus.records.revocation.plans import RevocationPlanRow
from vagus.records.revocation.revocations import HOLD, RELEASE, REVOKE
from vagus.records.revocation.selections import Selection
from vagus.x509.crls.building import RevocationReason

COMPROMISE = RevocationReason.CA_COMPROMISE


@pytest.fixture
def fleet(built: Installation) -> Fleet:
    """Twenty certificates, and one of another unit."""
    found = Fleet(built, 20, COMPROMISE)
    built.issue(unit="er")
    built.settle()
    return found


@pytest.fixture
def _steps_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mass_revocation, "STEP", 3)


def test_the_counts_come_first_and_write_nothing(built: Installation, fleet: Fleet) -> None:
    built.publisher.publish_all(built.icu)
    forecast = fleet.plans().forecast(fleet.unit, REVOKE, COMPROMISE)
    assert (forecast.certificates, forecast.devices, forecast.ocsp_answers) == (20, 20, 20)
    assert forecast.list_octets == 20 * 53
    assert 20 * 53 < forecast.largest_list_octets < 20 * 53 + 800
    assert forecast.approvals_needed == 1
    assert set(fleet.states()) == {rows.ISSUED}
    assert built.read(plan_rows.list_plans) == ()


def test_a_device_with_several_certificates_counts_once(built: Installation) -> None:
    device = str(DeviceId.draw(built.entropy))
    for unit, profile in (("icu", "bedside"), ("icu", "life-support"), ("er", "bedside")):
        built.issue(unit=unit, device=device, profile=profile)
    both = Selection(authority_ids=tuple(built.units[name].authority_id for name in built.units))
    forecast = Fleet(built, 0, COMPROMISE).plans().forecast(both, REVOKE, COMPROMISE)
    assert (forecast.certificates, forecast.devices) == (3, 1)


def test_stages_run_one_by_one_until_all_is_done(built: Installation, fleet: Fleet) -> None:
    plan = fleet.propose(stages=(10, 50))
    assert plan.stages == (2, 10, 20)
    told = []
    for done, state in ((2, "paused"), (10, "paused"), (20, "done")):
        row = fleet.run(plan, advance=lambda one: told.append(one.done))
        assert (row.done, row.state) == (done, state)
        assert fleet.states().count(rows.REVOKED) == done
    assert told == [2, 10, 20]
    with refuses(Reason.DEVICE_STATE, Conflict):
        fleet.run(plan)
    built.publisher.publish_due(built.icu)
    assert built.read(count_revoked, built.icu.authority_id) == 20
    assert built.read(count_revoked, built.er.authority_id) == 0


def test_policy_asks_for_a_second_person(built: Installation, fleet: Fleet) -> None:
    built.issue(profile="life-support")
    plan = fleet.propose(stages=DEFAULT_STAGES)
    assert plan.approvals_needed == 2
    with refuses(Reason.APPROVAL_MISSING, NotAuthorised):
        fleet.run(plan)
    with refuses(Reason.ALREADY_EXISTS, Conflict):
        fleet.plans().approve(plan.id, by=ALICE)
    assert fleet.plans().approve(plan.id, by=BOB).approvals == (ALICE, BOB)
    assert fleet.run(plan).state == "paused"


def test_a_plan_that_has_ended_is_approved_no_more_and_one_that_has_not_begun_is_not_paused(fleet: Fleet) -> None:
    done, stopped, waiting = (fleet.propose() for _ in range(3))
    assert fleet.run(done).state == plan_rows.DONE
    fleet.plans().stop(stopped.id, by=ALICE)
    for ended, state in ((done, "done"), (stopped, "stopped")):
        for act in (fleet.plans().approve, fleet.plans().run, fleet.plans().pause, fleet.plans().stop):
            words = f"is {state} for good; propose a new plan for the certificates that it left"
            with refuses(Reason.DEVICE_STATE, Conflict, match=words):
                act(ended.id, by=BOB)
    with refuses(Reason.DEVICE_STATE, Conflict, match="has not begun, so it cannot pause; end it with"):
        fleet.plans().pause(waiting.id, by=BOB)
    assert [one.approvals for one in fleet.built.read(plan_rows.list_plans)] == [(ALICE,)] * 3


@pytest.mark.usefixtures("_steps_of_three")
def test_an_interrupted_stage_goes_on_where_it_stood(built: Installation, fleet: Fleet) -> None:
    class Killed(BaseException): ...

    plan = fleet.propose(stages=(50,))

    def kill(_: RevocationPlanRow) -> None:
        raise Killed

    with pytest.raises(Killed):
        fleet.run(plan, advance=kill)
    cut = built.find(plan_rows.find_plan, plan.id)
    assert (cut.state, cut.done) == ("running", 3)
    assert fleet.run(plan).done == 10
    assert fleet.run(plan).done == 20
    events = built.read(revocation_rows.list_events, built.icu.authority_id, after=0)
    assert [event.sequence for event in events] == list(range(1, 21)), "each certificate once"


@pytest.mark.usefixtures("_steps_of_three")
def test_a_stop_condition_ends_a_plan_and_says_why(built: Installation, fleet: Fleet) -> None:
    plan = fleet.propose(stages=(50,))
    row = fleet.run(plan, stop=lambda one: "enough" if one.done >= 6 else None)
    assert (row.state, row.done, row.stopped_because) == ("stopped", 6, "enough")
    with pytest.raises(Conflict):
        fleet.run(plan)


def test_a_stage_of_one_step_does_not_begin_against_a_stop_condition_and_may_begin_later(fleet: Fleet) -> None:
    plan = fleet.propose(stages=(50,))
    asked: list[int] = []

    def stop(row: RevocationPlanRow) -> str | None:
        asked.append(row.done)
        return "lists-behind" if row.done else None

    assert fleet.run(plan, stop=stop).done == 10
    with refuses(Reason.STATUS_STALE, Conflict) as refusal:
        fleet.run(plan, stop=stop)
    assert f"`vagus revoke run {plan.id}`, with --ignore-late-lists" in refusal.value.message, "not the plan again"
    assert asked == [0, 10]
    waiting = fleet.built.find(plan_rows.find_plan, plan.id)
    assert (waiting.state, waiting.done) == ("paused", 10), "nothing is lost: the approvals still count"
    assert fleet.run(plan).state == "done"


def test_overdue_crls_are_a_reason_to_stop(built: Installation, fleet: Fleet) -> None:
    stop = overdue_crls(built.database, built.clock, timedelta(seconds=60))
    built.publisher.publish_all(built.icu)
    plan = fleet.propose(stages=DEFAULT_STAGES)
    row = fleet.run(plan, stop=stop)
    assert stop(row) is None
    built.advance(seconds=61)
    assert stop(row) == "lists-behind"
    built.publisher.publish_due(built.icu)
    assert stop(row) is None


def test_revocations_dated_by_a_clock_that_ran_ahead_can_be_overdue_too(built: Installation, fleet: Fleet) -> None:
    stop = overdue_crls(built.database, built.clock, timedelta(seconds=60))
    built.publisher.publish_all(built.icu)
    plan = fleet.propose(stages=DEFAULT_STAGES)
    built.advance(minutes=4)
    row = fleet.run(plan)
    built.advance(minutes=-4)
    assert stop(row) is None, "two servers' clocks may differ by as much"
    built.advance(minutes=-2)
    assert stop(row) == "lists-behind", "when it was revoked is not known"


def test_only_crls_that_are_signed_here_and_that_a_plan_touches_can_be_overdue(fleet: Fleet) -> None:
    built, er = fleet.built, fleet.built.er
    for issuer in (built.icu, er):
        built.publisher.publish_all(issuer)
    emergency = built.find(rows.find_by_request, "authority:h1/er#1")
    first = built.find(rows.find_by_leaf, fleet[0].leaf_index)
    in_er = built.find(rows.find_by_leaf, fleet[-1].leaf_index + 1)
    assert in_er.authority_id == er.authority_id
    one_pump = fleet.propose(selection=Selection(owners=(first.owner,)))
    both_units = fleet.propose(selection=Selection(profile="bedside"))

    def asked(plan: RevocationPlanRow) -> str | None:
        return overdue_crls(built.database, built.clock, timedelta(seconds=60))(plan)

    built.revocations.revoke(er.authority_id, in_er.serial, COMPROMISE, by=ALICE).result()
    built.advance(seconds=61)
    assert (asked(one_pump), asked(both_units)) == (None, "lists-behind"), "one plan touches the other unit"
    built.revocations.revoke(emergency.authority_id, emergency.serial, COMPROMISE, by=ALICE).result()
    built.advance(seconds=61)
    assert asked(one_pump) is None, "the offline authority above waits for its ceremony"
    assert asked(both_units) is None, "a revoked authority signs no CRL that could be overdue"
    named = fleet.propose(selection=Selection(authority_ids=(emergency.authority_id,)))
    assert asked(named) is None


@pytest.mark.usefixtures("_steps_of_three")
def test_another_process_may_pause_a_run(built: Installation, fleet: Fleet) -> None:
    plan = fleet.propose(stages=(50,))

    def pause(row: RevocationPlanRow) -> None:
        if row.done == 6:
            fleet.plans().pause(plan.id, by=BOB)

    row = fleet.run(plan, advance=pause)
    assert (row.state, row.done) == ("paused", 6)
    assert fleet.run(plan).done == 10


def test_a_unit_can_be_held_and_released_as_a_whole(built: Installation, fleet: Fleet) -> None:
    built.revoke(fleet[0], COMPROMISE, by=ALICE)
    hold = fleet.propose(HOLD)
    assert fleet.run(hold).state == "done"
    assert fleet.states() == [rows.REVOKED, *[rows.HELD] * 19]
    release = fleet.propose(RELEASE)
    assert release.counts["list_octets"] == 0
    assert fleet.run(release).state == "done"
    assert fleet.states() == [rows.REVOKED, *[rows.ISSUED] * 19]


def test_what_was_issued_after_the_proposal_is_left_alone(built: Installation, fleet: Fleet) -> None:
    plan = fleet.propose()
    later = built.issue()
    assert fleet.run(plan).done == 20
    assert fleet.states(later) == [rows.ISSUED]
    assert fleet.plans().count_left(plan) == 1, "but it is counted"
    again = fleet.propose()
    assert fleet.run(again).done == 1
    assert fleet.plans().count_left(again) == 0


def test_what_no_act_can_reach_is_not_counted_as_left(built: Installation, fleet: Fleet) -> None:
    root = built.find(rows.find_by_request, "authority:root#1")
    below = Selection(authority_ids=(root.authority_id,))
    before = fleet.plans().forecast(below, REVOKE, COMPROMISE).certificates
    plan = fleet.propose(selection=below)
    assert fleet.plans().count_left(plan) == before - 1, "a root is in no CRL of its own"
    hold = fleet.propose(HOLD, below)
    assert fleet.plans().count_left(hold) == 0, "authorities are not held"


def test_what_was_issued_between_the_count_and_the_proposal_is_no_survivor(built: Installation, fleet: Fleet) -> None:
    late: list[IssuedCertificate] = []

    class SlowToWrite(MassRevocation):
        def forecast(
            self, selection: Selection, act: str, reason: RevocationReason, *, names_devices: bool = False
        ) -> Forecast:
            counted = super().forecast(selection, act, reason, names_devices=names_devices)
            late.extend(built.issue(profile=profile) for profile in ("bedside", "life-support"))
            return counted

    slow = SlowToWrite(built.pack, built.database, built.writer, built.clock)
    plan = slow.propose(fleet.unit, REVOKE, COMPROMISE, by=ALICE, stages=(50,))
    assert plan.counts["certificates"] == 20
    assert plan.approvals_needed == 2, "one of the late ones needs a second person"
    slow.approve(plan.id, by=BOB)
    assert [slow.run(plan.id, by=ALICE).done for _ in plan.stages] == [10, 22]
    assert set(fleet.states(*fleet, *late)) == {rows.REVOKED}


@pytest.mark.usefixtures("_steps_of_three")
def test_one_that_was_released_meanwhile_takes_no_others_place_in_a_hold(built: Installation, fleet: Fleet) -> None:
    built.hold(fleet[0], by=ALICE)
    plan = fleet.propose(HOLD)
    built.release(fleet[0], by=ALICE)
    row = fleet.run(plan)
    assert (row.state, row.done, plan.counts["certificates"]) == ("done", 20, 19)
    assert set(fleet.states()) == {rows.HELD}


def test_a_hold_asks_for_the_approvals_of_what_is_on_hold_too_for_it_may_be_released_meanwhile(fleet: Fleet) -> None:
    critical = fleet.built.issue(profile="life-support")
    fleet.built.hold(critical, by=ALICE)
    plan = fleet.propose(HOLD)
    assert (plan.counts["certificates"], plan.approvals_needed) == (20, 2)
    fleet.built.release(critical, by=ALICE)
    with pytest.raises(NotAuthorised):
        fleet.run(plan)
    assert fleet.states(critical) == [rows.ISSUED]
    fleet.plans().approve(plan.id, by=BOB)
    assert fleet.run(plan).done == 21
    assert set(fleet.states(*fleet, critical)) == {rows.HELD}


def test_certificates_for_one_key_in_one_step_are_revoked_once_each(built: Installation) -> None:
    key = new_public_key()
    first = built.issue(public_key=key)
    fleet = Fleet(built, 0, COMPROMISE)
    row = built.find(rows.find_by_leaf, first.leaf_index)
    several = [first, *(built.issue(public_key=key, device=row.device_id) for _ in range(3))]
    plan = fleet.propose()
    assert (plan.counts["certificates"], fleet.run(plan).state) == (4, "done")
    assert set(fleet.states(*several)) == {rows.REVOKED}
    assert sorted(fleet.serials_of(REVOKE)) == sorted(one.serial for one in several)


def test_devices_keys_profiles_and_times_can_be_named(built: Installation, fleet: Fleet) -> None:
    first = built.find(rows.find_by_leaf, fleet[0].leaf_index)
    built.advance(days=1)
    built.issue(profile="imaging")
    since = int((built.clock.now() - timedelta(hours=2)).timestamp())
    for selection, count in (
        (Selection(owners=(first.owner,)), 1),
        (Selection(spki_sha256=first.spki_sha256), 1),
        (Selection(profile="imaging"), 1),
        (Selection(issued_from=since), 1),
        (Selection(profile="bedside", issued_until=since), 21),
    ):
        assert Selection.decode(selection.encode()) == selection
        assert fleet.plans().forecast(selection, REVOKE, COMPROMISE).certificates == count


def test_what_makes_no_plan_is_refused(built: Installation, fleet: Fleet) -> None:
    unit = fleet.unit
    cases: list[tuple[Selection, str, RevocationReason, tuple[int, ...], Reason]] = [
        (Selection(), REVOKE, COMPROMISE, (), Reason.POLICY_VIOLATION),
        (unit, HOLD, COMPROMISE, (), Reason.POLICY_VIOLATION),
        (unit, REVOKE, RevocationReason.CERTIFICATE_HOLD, (), Reason.POLICY_VIOLATION),
        (unit, RELEASE, RevocationReason.CERTIFICATE_HOLD, (), Reason.POLICY_VIOLATION),
        (unit, REVOKE, COMPROMISE, (50, 10), Reason.POLICY_VIOLATION),
        (unit, REVOKE, COMPROMISE, (0,), Reason.POLICY_VIOLATION),
        (Selection(profile="idevid"), REVOKE, COMPROMISE, (), Reason.NOT_FOUND),
    ]
    for selection, act, reason, stages, expected in cases:
        with refuses(expected, (PolicyRefusal, Conflict)):
            fleet.plans().propose(selection, act, reason, by=ALICE, stages=stages)
    with refuses(Reason.NOT_FOUND, Malformed):
        fleet.plans().run(99, by=ALICE)


def test_each_act_on_a_plan_is_in_the_ledger_without_names_of_people(built: Installation, fleet: Fleet) -> None:
    plan = fleet.propose(stages=(50,))
    fleet.run(plan)
    fleet.plans().stop(plan.id, by=BOB, because="second-thoughts")
    acts = [entry for entry in built.entries(OperatorAct) if entry.act.startswith("mass-")]
    assert [entry.act for entry in acts] == [
        "mass-revocation-proposed",
        "mass-revocation-running",
        "mass-revocation-stage-done",
        "mass-revocation-stopped",
    ]
    assert all(entry.by.startswith("sha256:") for entry in acts)
