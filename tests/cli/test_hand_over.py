"""A stage of a mass revocation handed over to whoever serves: that stage, once, whatever dies; nothing behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.simulator.jobs import run_due
from tests.simulator.orders import order_for
from tests.simulator.presence import present
from tests.simulator.queries import count_open
from tests.simulator.refusals import reason_of
from tests.simulator.running import denied, done, findings, run
from vagus.authority import mass_revocation
from vagus.authority.stage_jobs import REVOCATION_STAGE, hand_over_stage
from vagus.errors import Conflict
from vagus.fleet.revocation_targets import RevocationTarget, select_target
from vagus.jobs.kinds import work_kinds
from vagus.jobs.runner import WorkRunner
from vagus.reasons import Reason
from vagus.records.devices import DeviceFilter, list_devices
from vagus.records.engine.tables import revocation_plans, revocations, work
from vagus.records.revocation.plans import DONE, PAUSED, PROPOSED, RevocationPlanRow, find_plan
from vagus.records.revocation.revocations import REVOKE, newest_sequence
from vagus.records.work import Job, WorkQueue, add_work, list_given_up
from vagus.wiring import Installation
from vagus.x509.crls.building import RevocationReason

BY = "operator:first"


@pytest.fixture
def installation(hospital: Path) -> Iterator[Installation]:
    """Three pumps with a certificate each, open in this process as a serving one would be."""
    with Installation.open(hospital, passphrase_sources=["env:TEST_PASSPHRASE"]) as opened:
        issuer = opened.open_issuers(["h1/icu"])["h1/icu"]
        with opened.database.reading() as connection:
            devices = list_devices(connection, DeviceFilter())
        for device in devices:
            order = order_for(device.id, f"test-{device.id}", profile=device.profile)
            opened.issuance.issue_now(order, issuer)
        opened.writer.submit(lambda _: None).result()
        yield opened


@pytest.fixture
def row(installation: Installation) -> RevocationPlanRow:
    """A plan in two stages for the three pumps."""
    with installation.database.reading() as connection:
        selection = select_target(connection, RevocationTarget(units=("h1/icu",)))
    return installation.mass_revocation.propose(selection, REVOKE, RevocationReason.SUPERSEDED, by=BY, stages=(34,))


def plan(installation: Installation, plan_id: int) -> RevocationPlanRow:
    with installation.database.reading() as connection:
        return present(find_plan(connection, plan_id))


def revoked(installation: Installation) -> int:
    with installation.database.reading() as connection:
        return newest_sequence(connection)


def serve(installation: Installation) -> int:
    kinds = work_kinds(installation)
    return run_due(WorkRunner(installation.database, installation.writer, installation.clock, "serve-1", kinds))


def hand_over(installation: Installation, plan_id: int) -> int:
    command = ("revoke", "run", str(plan_id), "--hand-over", "--ignore-late-lists", "--json")
    return int(done(installation.settings.folder, *command).facts["job"])


def outcome(installation: Installation, plan_id: int) -> tuple[int, str]:
    """How many certificates are revoked, and the plan's state."""
    return revoked(installation), plan(installation, plan_id).state


def take_stage(installation: Installation) -> Job:
    """The stage's job, taken by a runner that is about to die."""
    (job,) = WorkQueue(installation.writer, "dying").take([REVOCATION_STAGE]).result()
    return job


def count_stage_jobs(installation: Installation) -> int:
    with installation.database.reading() as connection:
        return count_open(connection, REVOCATION_STAGE)


def test_handing_over_says_who_runs_the_stage(installation: Installation, row: RevocationPlanRow) -> None:
    out = done(installation.settings.folder, "revoke", "run", str(row.id), "--hand-over").out
    assert "Handed over: a process of `vagus serve` (not one of `--role status`) runs this stage as job 1" in out
    assert f"`vagus revoke show {row.id}`" in out


def test_each_stage_is_handed_over_by_itself(installation: Installation, row: RevocationPlanRow) -> None:
    assert hand_over(installation, row.id) == hand_over(installation, row.id), "twice is once"
    assert revoked(installation) == 0
    assert serve(installation) == 1
    assert (*outcome(installation, row.id), plan(installation, row.id).stage) == (1, PAUSED, 1)
    assert serve(installation) == 0, "the next stage is for somebody to say"
    hand_over(installation, row.id)
    serve(installation)
    assert outcome(installation, row.id) == (3, DONE)
    denied(installation.settings.folder, 3, "DEVICE_STATE", "revoke", "run", str(row.id), "--hand-over")


def test_no_stage_follows_one_whose_runner_died_after_it(installation: Installation, row: RevocationPlanRow) -> None:
    hand_over(installation, row.id)
    job = take_stage(installation)
    installation.mass_revocation.run(row.id, by=BY)
    WorkQueue(installation.writer, "dying").give_back(job).result()
    assert serve(installation) == 1
    assert outcome(installation, row.id) == (1, PAUSED)


def test_a_paused_stage_stays_paused_when_its_job_returns(installation: Installation, row: RevocationPlanRow) -> None:
    hand_over(installation, row.id)
    job = take_stage(installation)
    installation.writer.submit(lambda batch: mass_revocation._begin(batch, row, BY)).result()
    installation.mass_revocation.pause(row.id, by=BY)
    WorkQueue(installation.writer, "dying").give_back(job).result()
    assert serve(installation) == 1
    assert outcome(installation, row.id) == (0, PAUSED)


def test_a_stage_whose_runner_died_is_begun_by_the_next(installation: Installation, row: RevocationPlanRow) -> None:
    installation.mass_revocation.run(row.id, by=BY)
    hand_over(installation, row.id)
    WorkQueue(installation.writer, "dying").give_back(take_stage(installation)).result()
    assert serve(installation) == 1
    assert outcome(installation, row.id) == (3, DONE)


def test_a_paused_stage_waits_until_it_is_handed_over_anew(installation: Installation, row: RevocationPlanRow) -> None:
    installation.mass_revocation.run(row.id, by=BY)
    hand_over(installation, row.id)
    installation.mass_revocation.pause(row.id, by=BY)
    assert serve(installation) == 1
    assert outcome(installation, row.id) == (1, PAUSED)
    installation.mass_revocation.pause(row.id, by=BY)
    hand_over(installation, row.id)
    assert serve(installation) == 1
    assert outcome(installation, row.id) == (3, DONE)


def test_handing_over_anew_counts_while_a_paused_job_waits(installation: Installation, row: RevocationPlanRow) -> None:
    installation.mass_revocation.run(row.id, by=BY)
    job = hand_over(installation, row.id)
    taken = take_stage(installation)
    installation.mass_revocation.pause(row.id, by=BY)
    WorkQueue(installation.writer, "dying").give_back(taken).result()
    assert hand_over(installation, row.id) == job
    assert serve(installation) == 1
    assert outcome(installation, row.id) == (3, DONE)


def test_a_pause_before_a_job_begins_holds_the_stage(
    installation: Installation, row: RevocationPlanRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.mass_revocation.run(row.id, by=BY)
    hand_over(installation, row.id)
    acts, begin = installation.mass_revocation, installation.mass_revocation.run

    def run_late(plan_id: int, **said: Any) -> RevocationPlanRow:
        if plan(installation, plan_id).stopped_because is None:
            acts.pause(plan_id, by="operator:second")
        return begin(plan_id, **said)

    monkeypatch.setattr(acts, "run", run_late)
    assert serve(installation) == 1
    assert (revoked(installation), plan(installation, row.id).stopped_because) == (1, "paused-by-operator")
    with installation.database.reading() as connection:
        waiting = connection.execute(select(work.c.last_error).where(work.c.done_at.is_(None))).scalars().all()
    (error,) = waiting
    assert error.startswith("DEVICE_STATE: revocation plan 1 was paused at stage 2 of 2 when it was read")


def test_an_unseen_pause_is_not_taken_back_by_handing_over(installation: Installation, row: RevocationPlanRow) -> None:
    seen = installation.mass_revocation.run(row.id, by=BY)
    installation.mass_revocation.pause(row.id, by="operator:second")
    late = installation.writer.submit(
        lambda batch: hand_over_stage(batch.connection, seen, by=BY, ignores_late_lists=True)
    )
    assert reason_of(late.result, error=Conflict) is Reason.DEVICE_STATE
    assert plan(installation, row.id).stopped_because == "paused-by-operator"
    assert count_stage_jobs(installation) == 0


def test_a_stage_without_its_approvals_is_not_handed_over(installation: Installation, row: RevocationPlanRow) -> None:
    two_persons = update(revocation_plans).values(approvals_needed=2)
    installation.writer.submit(lambda batch: batch.connection.execute(two_persons)).result()
    refused = run(installation.settings.folder, "revoke", "run", str(row.id), "--hand-over")
    assert (refused.code, "approvals are missing: 1" in refused.err) == (3, True)
    assert serve(installation) == 0
    assert plan(installation, row.id).state == PROPOSED


def test_late_lists_stop_a_handed_over_stage_too(installation: Installation, row: RevocationPlanRow) -> None:
    done(installation.settings.folder, "revoke", "run", str(row.id), "--hand-over")
    serve(installation)
    assert plan(installation, row.id).state == PAUSED, "one certificate was all of this stage, revoked a moment ago"


def test_a_later_stage_waits_with_its_job_for_late_crls(installation: Installation, row: RevocationPlanRow) -> None:
    installation.mass_revocation.run(row.id, by=BY)
    done(installation.settings.folder, "revoke", "run", str(row.id), "--hand-over")
    an_hour_ago = update(revocations).values(revoked_at=int(installation.clock.now().timestamp()) - 3600)
    installation.writer.submit(lambda batch: batch.connection.execute(an_hour_ago)).result()
    assert serve(installation) == 1
    assert outcome(installation, row.id) == (1, PAUSED)
    assert count_stage_jobs(installation) == 1
    hand_over(installation, row.id)
    serve(installation)
    assert outcome(installation, row.id) == (3, DONE), "regardless counts beside the job that waits"


def test_the_doctor_reports_what_was_given_up_and_what_nobody_takes(installation: Installation) -> None:
    folder, now = installation.settings.folder, int(installation.clock.now().timestamp())
    installation.writer.submit(
        lambda batch: add_work(batch.connection, REVOCATION_STAGE, "no plan", run_after=now - 7200)
    ).result()
    (late,) = findings(folder, "work", fails=False)
    assert (late["state"], "1 jobs have waited" in late["finding"]) == ("warning", True)
    queue = WorkQueue(installation.writer, "serve-1", max_attempts=1)
    (job,) = queue.take([REVOCATION_STAGE]).result()
    queue.fail(job, "BAD_ARGUMENT: names no plan").result()
    (gone,) = findings(folder, "work", fails=False)
    assert ("given up" in gone["finding"], "names no plan" in gone["finding"]) == (True, True)


def test_a_job_that_names_no_plan_is_an_error_beside_it(installation: Installation) -> None:
    payload = json.dumps({"by": BY, "ignores_late_lists": True})
    installation.writer.submit(lambda batch: add_work(batch.connection, REVOCATION_STAGE, "junk", payload)).result()
    assert serve(installation) == 1
    with installation.database.reading() as connection:
        assert count_open(connection) == 1
        assert list_given_up(connection, since=0) == ()
