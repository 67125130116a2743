"""The kinds of durable jobs that a serving process runs, each as a function that the runner calls."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from vagus.authority.crls.overdue import overdue_crls
from vagus.authority.mass_revocation import PAUSED_BY_OPERATOR
from vagus.authority.stage_jobs import REVOCATION_STAGE, StageJob
from vagus.fleet import transfers
from vagus.jobs.part import Part
from vagus.jobs.periodic import Task
from vagus.jobs.runner import LastAct, Lease, WorkAct, WorkRunner, no_last_act
from vagus.records.revocation.plans import DONE, PAUSED, PROPOSED, RUNNING, find_plan

if TYPE_CHECKING:
    from vagus.records.revocation.plans import RevocationPlanRow
    from vagus.records.work import Job
    from vagus.wiring import Installation

_LOG = logging.getLogger(__name__)


def work_kinds(installation: Installation) -> Mapping[str, WorkAct]:
    """Every kind, by its name in the table."""
    return {transfers.KIND: _supersede, REVOCATION_STAGE: partial(_run_stage, installation)}


def work_part(installation: Installation) -> Part:
    """Runs the durable jobs of every kind, under a name that no other process has; on a thread of its own."""
    node = f"serve-{installation.entropy(8).hex()}"
    kinds = work_kinds(installation)
    runner = WorkRunner(installation.database, installation.writer, installation.clock, node, kinds)
    return Part("work", [Task("work", 1.0, runner.run_next, None, runs_first=False)], stop=runner.stop)


def _supersede(job: Job, _lease: Lease) -> LastAct:
    return partial(transfers.supersede, job)


def _run_stage(installation: Installation, job: Job, lease: Lease) -> LastAct:
    wanted = StageJob.of(job)
    with installation.database.reading() as connection:
        row = find_plan(connection, wanted.plan)
    if row is None or row.stage != wanted.stage or row.state not in {PROPOSED, RUNNING, PAUSED}:
        # The stage is done: by a runner that died before it could record that, or an operator ended the plan.
        return no_last_act
    # The reason for the pause decides, not the number of attempts. If a runner died before it began the stage, the plan
    # is
    # plan is still paused after the stage before, and this job must run it.
    if row.state == PAUSED and row.stopped_because == PAUSED_BY_OPERATOR:
        return no_last_act  # only an operator may let this plan continue
    overdue = overdue_crls(installation.database, installation.clock, installation.pack.crl.publish_within)

    def stop(row: RevocationPlanRow) -> str | None:
        return None if wanted.ignores_late_lists else overdue(row)

    row = installation.mass_revocation.run(
        wanted.plan, by=wanted.by, stop=stop, advance=lambda _: lease.check(), seen=row
    )
    if row.state == DONE:
        left = installation.mass_revocation.count_left(row), installation.mass_revocation.count_devices_left(row)
        if any(left):
            msg = "plan %d is done and leaves %d certificates and %d devices of its selection: propose it again"
            _LOG.warning(msg, wanted.plan, *left)
    return no_last_act
