"""A mass revocation's row keeps everything that its run needs."""

from __future__ import annotations

from dataclasses import replace

from vagus.records.engine.database import Connection
from vagus.records.revocation import plans as rows
from vagus.records.revocation.plans import RevocationPlanRow
from vagus.records.revocation.selections import Selection

PLAN = RevocationPlanRow(
    id=0,
    selection=Selection(authority_ids=(1, 2), spki_sha256=b"k" * 32),
    act="revoke",
    reason=2,
    counts={"certificates": 7},
    stages=(1, 7),
    approvals_needed=2,
    approvals=("operator:alice",),
    state=rows.PROPOSED,
    made_by="operator:alice",
    made_at=100,
    newest_leaf=99,
    newest_step=7,
    position=-1,
    done=0,
    stage=0,
    stopped_because=None,
)


def test_a_plan_comes_back_as_it_was_written(connection: Connection) -> None:
    made = replace(PLAN, id=rows.insert_plan(connection, PLAN))
    assert rows.find_plan(connection, made.id) == made
    moved = replace(made, state=rows.STOPPED, done=3, position=40, stopped_because="lists-behind")
    rows.update_plan(connection, moved)
    assert rows.find_plan(connection, made.id) == moved
    other = replace(PLAN, id=rows.insert_plan(connection, PLAN))
    assert rows.list_plans(connection) == (moved, other)
    assert rows.find_plan(connection, 99) is None
