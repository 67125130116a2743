"""Mass revocations as rows, with how far each has come: in and out; `authority` decides who may run one."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Row, insert, select, update

from vagus.records.engine.database import Connection
from vagus.records.engine.tables import revocation_plans
from vagus.records.revocation.selections import Selection

PROPOSED = "proposed"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"
DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationPlanRow:
    """A mass revocation. `stages` has how many certificates in all are done after each; `position` is a leaf."""

    id: int
    selection: Selection
    act: str
    reason: int
    counts: dict[str, int]
    stages: tuple[int, ...]
    approvals_needed: int
    approvals: tuple[str, ...]
    state: str
    made_by: str
    made_at: int
    newest_leaf: int
    newest_step: int
    position: int
    done: int
    stage: int
    stopped_because: str | None
    locks_out: bool = False
    """Whether the devices of what is revoked enrol no more, until an operator says so."""


def insert_plan(connection: Connection, row: RevocationPlanRow) -> int:
    """Store a plan; gives its id (that of `row` is not read)."""
    inserted = connection.execute(insert(revocation_plans).values(**_values(row)))
    return int((inserted.inserted_primary_key or (0,))[0])


def update_plan(connection: Connection, row: RevocationPlanRow) -> None:
    """Store the state of a plan."""
    connection.execute(update(revocation_plans).where(revocation_plans.c.id == row.id).values(**_values(row)))


def find_plan(connection: Connection, plan_id: int) -> RevocationPlanRow | None:
    """The plan of this id."""
    found = connection.execute(select(revocation_plans).where(revocation_plans.c.id == plan_id)).one_or_none()
    return None if found is None else _row(found)


def list_plans(connection: Connection, *, states: tuple[str, ...] | None = None) -> tuple[RevocationPlanRow, ...]:
    """Every plan (in one of `states`), the oldest first."""
    query = select(revocation_plans).order_by(revocation_plans.c.id)
    if states is not None:
        query = query.where(revocation_plans.c.state.in_(states))
    return tuple(_row(found) for found in connection.execute(query))


def _values(row: RevocationPlanRow) -> dict[str, object]:
    return {
        "selection": row.selection.encode(),
        "act": row.act,
        "reason": row.reason,
        "locks_out": row.locks_out,
        "counts": json.dumps(row.counts, sort_keys=True),
        "stages": json.dumps(row.stages),
        "approvals_needed": row.approvals_needed,
        "approvals": json.dumps(row.approvals),
        "state": row.state,
        "made_by": row.made_by,
        "made_at": row.made_at,
        "newest_leaf": row.newest_leaf,
        "newest_step": row.newest_step,
        "position": row.position,
        "done": row.done,
        "stage": row.stage,
        "stopped_because": row.stopped_because,
    }


def _row(found: Row[tuple[object, ...]]) -> RevocationPlanRow:
    return RevocationPlanRow(
        id=found.id,
        selection=Selection.decode(found.selection),
        act=found.act,
        reason=found.reason,
        counts=json.loads(found.counts),
        stages=tuple(json.loads(found.stages)),
        approvals_needed=found.approvals_needed,
        approvals=tuple(json.loads(found.approvals)),
        state=found.state,
        made_by=found.made_by,
        made_at=found.made_at,
        newest_leaf=found.newest_leaf,
        newest_step=found.newest_step,
        position=found.position,
        done=found.done,
        stage=found.stage,
        stopped_because=found.stopped_because,
        locks_out=bool(found.locks_out),
    )
