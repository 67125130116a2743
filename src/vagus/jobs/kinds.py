"""The kinds of durable jobs that a serving process knows, each as what the runner calls; runs none by itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vagus.authority.crls.overdue import overdue_crls
from vagus.authority.mass_revocation import PAUSED_BY_OPERATOR, check_as_seen
from vagus.errors import Malformed
from vagus.fleet import transfers
from vagus.jobs.part import Part
from vagus.jobs.periodic import Task
from vagus.jobs.runner import LastAct, Lease, WorkAct, WorkRunner, nothing_more
from vagus.reasons import Reason
from vagus.records.revocation.plans import DONE, PAUSED, PROPOSED, RUNNING, find_plan, update_plan
from vagus.records.work import add_work

if TYPE_CHECKING:
    from vagus.records.engine.database import Connection
    from vagus.records.revocation.plans import RevocationPlanRow
    from vagus.records.work import Job
    from vagus.wiring import Installation

_LOG = logging.getLogger(__name__)

REVOCATION_STAGE = "revocation-stage"
"""One stage of a mass revocation, handed over to whatever process serves."""
_REGARDLESS = ":regardless"


def work_kinds(installation: Installation) -> Mapping[str, WorkAct]:
    """Every kind, by its name in the table."""
    return {transfers.KIND: _supersede, REVOCATION_STAGE: partial(_run_stage, installation)}


def work_part(installation: Installation) -> Part:
    """Runs the durable jobs of every kind, under a name that no other process has; on a thread of its own."""
    node = f"serve-{installation.entropy(8).hex()}"
    kinds = work_kinds(installation)
    runner = WorkRunner(installation.database, installation.writer, installation.clock, node, kinds)
    return Part("work", [Task("work", 1.0, runner.run_next, None, runs_first=False)], stop=runner.stop)


def hand_over_stage(connection: Connection, row: RevocationPlanRow, *, by: str, ignores_late_lists: bool) -> int:
    """Have the next stage of a plan run by a serving process; gives the job. Twice is once.

    The stage is named, so that a job that is repeated after a crash never begins the stage behind it. What an operator
    paused goes on: handing it over says so, for the pause that `row` shows. Raises Conflict(DEVICE_STATE) where the
    plan does not stand as `row` any more.
    """
    now = find_plan(connection, row.id) or row
    check_as_seen(now, row)
    if now.state == PAUSED and now.stopped_because == PAUSED_BY_OPERATOR:
        update_plan(connection, replace(now, stopped_because=None))
    payload = json.dumps({"by": by, "ignores_late_lists": ignores_late_lists}, sort_keys=True)
    key = f"{row.id}:{row.stage}{_REGARDLESS if ignores_late_lists else ''}"  # counts beside a job that waits for lists
    return add_work(connection, REVOCATION_STAGE, key, payload)


def _supersede(job: Job, _lease: Lease) -> LastAct:
    return partial(transfers.supersede, job)


def _run_stage(installation: Installation, job: Job, lease: Lease) -> LastAct:
    plan, stage = _key(job)
    said = json.loads(job.payload)
    with installation.database.reading() as connection:
        row = find_plan(connection, plan)
    if row is None or row.stage != stage or row.state not in {PROPOSED, RUNNING, PAUSED}:
        return nothing_more  # done by a runner that died before it could say so, or ended by an operator
    # The mark tells, not the attempts: where a runner died before it began, the plan is paused behind the stage before.
    if row.state == PAUSED and row.stopped_because == PAUSED_BY_OPERATOR:
        return nothing_more  # going on is the operator's to say
    behind = overdue_crls(installation.database, installation.clock, installation.pack.crl.publish_within)

    def stop(row: RevocationPlanRow) -> str | None:
        return None if said["ignores_late_lists"] else behind(row)

    row = installation.mass_revocation.run(plan, by=said["by"], stop=stop, advance=lambda _: lease.check(), seen=row)
    left = installation.mass_revocation.count_left(row) if row.state == DONE else 0
    if left:
        _LOG.warning("plan %d is done and leaves %d certificates of its selection: propose it again", plan, left)
    return nothing_more


def _key(job: Job) -> tuple[int, int]:
    plan, _, stage = job.key.removesuffix(_REGARDLESS).partition(":")
    if not (plan.isdecimal() and stage.isdecimal()):
        raise Malformed(Reason.BAD_ARGUMENT, f"job {job.id} names no plan and stage: {job.key}")
    return int(plan), int(stage)
