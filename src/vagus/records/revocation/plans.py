"""Rows of mass revocations (revocation plans), with their state, approvals and progress; `authority` runs them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial

from sqlalchemy import insert, select, update

from vagus.records.engine.database import Connection
from vagus.records.engine.row_forms import ITEMS, Codec, RowForm
from vagus.records.engine.tables import revocation_plans
from vagus.records.revocation.revocations import REVOKE
from vagus.records.revocation.selections import Selection
from vagus.x509.crls.building import RevocationReason

PROPOSED = "proposed"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"
DONE = "done"
EVERY_DEVICE = "~"
"""Sorts after every device id."""
DEVICES_WITHOUT = "devices_without_certificate"
"""The name in `counts` of the devices that are named and have no certificate of the plan."""


LOCKING_REASONS = frozenset(
    {RevocationReason.KEY_COMPROMISE, RevocationReason.CESSATION_OF_OPERATION, RevocationReason.PRIVILEGE_WITHDRAWN}
)
"""Reasons after which the same device is not expected to come back with another certificate by itself."""


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
    device_position: str | None = None
    """The id of the last device without a certificate that was done, `EVERY_DEVICE` after all of them."""
    devices_done: int = 0
    """How many devices without a certificate the plan has locked out, put on hold or released."""

    @property
    def names_devices(self) -> bool:
        """Whether the approvers saw, and the plan does, devices without a certificate too."""
        return DEVICES_WITHOUT in self.counts


_FORM = RowForm(
    RevocationPlanRow,
    selection=Codec(Selection.decode, Selection.encode),
    counts=Codec(json.loads, partial(json.dumps, sort_keys=True)),
    stages=ITEMS,
    approvals=ITEMS,
)


def insert_plan(connection: Connection, row: RevocationPlanRow) -> int:
    """Store a plan; gives its id (that of `row` is not read)."""
    values = {name: value for name, value in _FORM.values(row).items() if name != "id"}
    inserted = connection.execute(insert(revocation_plans).values(**values))
    return int((inserted.inserted_primary_key or (0,))[0])


def update_plan(connection: Connection, row: RevocationPlanRow) -> None:
    """Store the state of a plan."""
    connection.execute(update(revocation_plans).where(revocation_plans.c.id == row.id).values(**_FORM.values(row)))


def find_plan(connection: Connection, plan_id: int) -> RevocationPlanRow | None:
    """The plan of this id."""
    return _FORM.find(connection, select(revocation_plans).where(revocation_plans.c.id == plan_id))


def list_recalls(connection: Connection) -> dict[int, tuple[tuple[str, str], ...]]:
    """The ranges of owners of each plan that recalls them, by the plan's number; a stopped plan recalls nothing more.

    From its proposal on: a plan reaches no certificate that was issued after it.
    """
    own = revocation_plans.c
    states = (PROPOSED, RUNNING, PAUSED, DONE)
    found = _FORM.list(connection, select(revocation_plans).where(own.act == REVOKE, own.state.in_(states)))
    return {one.id: one.selection.owner_ranges for one in found if one.reason in LOCKING_REASONS}


def list_plans(connection: Connection) -> tuple[RevocationPlanRow, ...]:
    """Every plan, the oldest first."""
    return _FORM.list(connection, select(revocation_plans).order_by(revocation_plans.c.id))
