"""Describes one stage of a mass revocation as a durable job, so that any serving process may run it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vagus.authority.mass_revocation import PAUSED_BY_OPERATOR, check_as_seen
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.records.revocation.plans import PAUSED, RevocationPlanRow, find_plan, update_plan
from vagus.records.work import Job, add_work

if TYPE_CHECKING:
    from vagus.records.engine.database import Connection

REVOCATION_STAGE: Final = "revocation-stage"
"""The kind of these jobs."""
_REGARDLESS: Final = ":regardless"


@dataclass(frozen=True, slots=True)
class StageJob:
    """What a job asks for: a stage of a plan, for which operator, and whether it goes on although CRLs are overdue."""

    plan: int
    stage: int
    by: str
    ignores_late_lists: bool

    @classmethod
    def of(cls, job: Job) -> StageJob:
        """What `job` asks for. Raises Malformed(BAD_ARGUMENT) for a key that names no plan and stage."""
        plan, _, stage = job.key.removesuffix(_REGARDLESS).partition(":")
        if not (plan.isdecimal() and stage.isdecimal()):
            msg = f"durable job {job.id} has key {job.key}, which names no revocation plan and stage"
            raise Malformed(Reason.BAD_ARGUMENT, msg)
        payload = json.loads(job.payload)
        return cls(int(plan), int(stage), payload["by"], payload["ignores_late_lists"])


def hand_over_stage(connection: Connection, row: RevocationPlanRow, *, by: str, ignores_late_lists: bool) -> int:
    """Have the next stage of a plan run by a serving process; gives the job. Twice is once.

    The job names its stage, so that a job that is repeated after a crash never begins the next stage. What an operator
    paused goes on: handing it over says so, for the pause that `row` shows. Raises Conflict(DEVICE_STATE) where the
    plan is no longer as `row` shows it.
    """
    now = find_plan(connection, row.id) or row
    check_as_seen(now, row)
    if now.state == PAUSED and now.stopped_because == PAUSED_BY_OPERATOR:
        update_plan(connection, replace(now, stopped_because=None))
    payload = json.dumps({"by": by, "ignores_late_lists": ignores_late_lists}, sort_keys=True)
    # The flag makes a key of its own, so that this job can exist beside one that waits for CRLs.
    key = f"{row.id}:{row.stage}{_REGARDLESS if ignores_late_lists else ''}"
    return add_work(connection, REVOCATION_STAGE, key, payload)
