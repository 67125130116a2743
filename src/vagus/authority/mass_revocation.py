"""Runs revocation plans: many certificates counted, approved, revoked in stages, paused, stopped; publishes no CRL.

    proposed -> running -> paused -> running ... -> done
    stopped: from any of these, by an operator or a stop condition

- A *stage* ends at a number of certificates and in `paused`, so that an operator looks before the next one.
- A *step* is one transaction: up to `STEP` certificates, together with the plan's place after them (`position`, a leaf
  index). A process that is killed anywhere goes on from that place.
- A plan never reaches certificates issued after it was proposed (`newest_leaf`), unless it locks their device out or
  holds it. It never releases holds made after it (`newest_step`).
- A plan that names devices first does those without a certificate (`named_devices`), and locks their lot for devices
  that are added later.

The search for a step's certificates is long, so it runs outside the writer (`_Remaining`). The step then checks the few
that it found once more in its own transaction: another process may have changed them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING

from vagus.authority import named_devices, revocation
from vagus.authority.lot_locks import end_lot_locks, lock_lot
from vagus.authority.named_devices import NO_INVENTORY, STATES_BEFORE, InventoryActs
from vagus.authority.revocation_forecast import Forecast, count_approvals, make_forecast
from vagus.errors import Conflict, Malformed, NotAuthorised, PolicyRefusal
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import certificates as certificate_rows
from vagus.records.revocation import plans as rows
from vagus.records.revocation import revocations as revocation_rows
from vagus.records.revocation import selections
from vagus.records.revocation.device_lots import lot_of
from vagus.records.revocation.plans import RevocationPlanRow
from vagus.records.revocation.selections import Selection
from vagus.x509.crls.building import RevocationReason

if TYPE_CHECKING:
    from vagus.clock import Clock
    from vagus.policy.values import PolicyPack
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Batch, Writer

DEFAULT_STAGES = (1, 10, 50)
"""Percent of the certificates after each stage but the last, which does the rest."""
STEP = 200
"""Certificates in one transaction: about 0.1 s in which no other act is written."""
_PAGE = 1_000
"""Certificates whose state is read at once, if the first ones of a step need no change any more."""
PAUSED_BY_OPERATOR = "paused-by-operator"
"""The mark of a plan that an operator paused. A plan that paused after a stage has no mark."""
_STATES = {
    rows.PROPOSED: (rows.RUNNING, rows.STOPPED),
    rows.PAUSED: (rows.RUNNING, rows.PAUSED, rows.STOPPED),
    rows.RUNNING: (rows.RUNNING, rows.PAUSED, rows.STOPPED, rows.DONE),
}


def _states_before(act: str, reason: int) -> tuple[str, ...]:
    """The states of certificates that an act changes. A compromise also changes what is revoked for a lesser reason."""
    is_compromise = act == revocation_rows.REVOKE and RevocationReason(reason).is_compromise
    return (*STATES_BEFORE[act], selections.REVOKED_FOR_LESS) if is_compromise else STATES_BEFORE[act]


StopCondition = Callable[[RevocationPlanRow], str | None]
"""Why the plan must stop now, as a word such as `lists-behind`, or None. Checked before each stage, after each step."""


@dataclass(eq=False, repr=False)
class MassRevocation:
    """The acts on plans. `by` names the operator; each operator approves once."""

    pack: PolicyPack
    database: Database
    writer: Writer
    clock: Clock
    _: KW_ONLY
    inventory: InventoryActs = NO_INVENTORY
    """What becomes of devices whose plan names them."""

    def forecast(
        self, selection: Selection, act: str, reason: RevocationReason, *, names_devices: bool = False
    ) -> Forecast:
        """The counts; nothing is written. Raises PolicyRefusal(POLICY_VIOLATION) for a selection of everything.

        With `names_devices` also of devices without a certificate. A compromise also counts what is revoked for another
        reason: its keys may be certified until they are blocked.
        """
        _check_selection(selection)
        at, states = int(self.clock.now().timestamp()), _states_before(act, reason)
        with self.database.reading() as connection:
            without = None
            if names_devices:
                without = named_devices.count_without(connection, selection, act, self.inventory, at=at)
            return make_forecast(connection, self.pack, selection, act, states=states, at=at, without=without)

    def count_left(self, row: RevocationPlanRow) -> int:
        """How many certificates of a plan's selection its act has not reached, whenever they were issued.

        For a plan that is done: those issued since it was proposed, and those changed back since.
        """
        at = int(self.clock.now().timestamp())
        with self.database.reading() as connection:
            return selections.count_without_self_issued(
                connection,
                row.selection,
                alive_at=at,
                states=_states_before(row.act, row.reason),
                is_of_authorities=row.act != revocation_rows.HOLD,
            )

    def count_devices_left(self, row: RevocationPlanRow) -> int:
        """As `count_left`: the devices that a plan names and that may still enrol; for a release, that are on hold."""
        if not row.names_devices:
            return 0
        with self.database.reading() as connection:
            return named_devices.count_open(connection, row, self.inventory, at=int(self.clock.now().timestamp()))

    def propose(
        self,
        selection: Selection,
        act: str,
        reason: RevocationReason,
        *,
        by: str,
        stages: tuple[int, ...] = DEFAULT_STAGES,
        names_devices: bool = False,
    ) -> RevocationPlanRow:
        """Store a plan with its counts; the proposer thereby approves it. `stages` are growing percents.

        With `names_devices` its devices, with a certificate or without, are locked out, held or released too.
        Raises PolicyRefusal(POLICY_VIOLATION) for a selection of everything, an odd reason or odd stages, and
        Conflict(NOT_FOUND) when there is nothing to do.
        """
        with self.database.reading() as connection:
            counted_until = selections.newest_leaf(connection)
            newest_step = revocation_rows.newest_sequence(connection)
        forecast = self.forecast(selection, act, reason, names_devices=names_devices)
        _check_reason(act, reason)
        if list(stages) != sorted(set(stages)) or not all(0 < one < 100 for one in stages):
            msg = f"revocation stages {stages} are not growing percents between 1 and 99; write them as in 1,10,50"
            raise PolicyRefusal(Reason.POLICY_VIOLATION, msg)
        total = forecast.certificates
        if total == 0 and not forecast.devices_without_certificate:
            raise Conflict(Reason.NOT_FOUND, "the revocation plan selects no live certificate; check the selection")
        ends = {min(total, max(1, total * one // 100)) for one in stages} | {total}

        def write(batch: Batch) -> RevocationPlanRow:
            # Certificates issued since the count are in the plan too, and may raise its number of approvals.
            states = _states_before(act, reason)
            late = selections.list_late_profiles(
                batch.connection, selection, alive_at=batch.at, after=counted_until, states=states
            )
            row = RevocationPlanRow(
                id=0,
                selection=selection,
                act=act,
                reason=int(reason),
                counts=forecast.counts,
                stages=tuple(sorted(ends)),
                approvals_needed=max(forecast.approvals_needed, *(count_approvals(self.pack, one) for one in late), 1),
                approvals=(by,),
                state=rows.PROPOSED,
                made_by=by,
                made_at=batch.at,
                newest_leaf=selections.newest_leaf(batch.connection),
                newest_step=newest_step,
                position=-1,
                done=0,
                stage=0,
                stopped_because=None,
                locks_out=names_devices and act == revocation_rows.REVOKE,
            )
            made = replace(row, id=rows.insert_plan(batch.connection, row))
            _log(batch, "mass-revocation-proposed", made, by)
            return made

        return self.writer.submit(write).result()

    def approve(self, plan_id: int, *, by: str) -> RevocationPlanRow:
        """One more approval. Raises Malformed(NOT_FOUND), Conflict(DEVICE_STATE: ended, ALREADY_EXISTS: its own)."""

        def write(batch: Batch) -> RevocationPlanRow:
            row = _find(batch.connection, plan_id)
            _check_not_ended(row)
            if by in row.approvals:
                msg = f"{by} approved revocation plan {plan_id} already; each approval needs another person"
                raise Conflict(Reason.ALREADY_EXISTS, msg, plan=plan_id)
            return _store(batch, replace(row, approvals=(*row.approvals, by)), "mass-revocation-approved", by)

        return self.writer.submit(write).result()

    def run(
        self,
        plan_id: int,
        *,
        by: str,
        stop: StopCondition = lambda _: None,
        advance: Callable[[RevocationPlanRow], None] = lambda _: None,
        seen: RevocationPlanRow | None = None,
    ) -> RevocationPlanRow:
        """Run the next stage, or the rest of an interrupted one; gives the plan as it is then.

        `seen` is the plan as the caller saw it; left out: as it is now. If `stop` gives a word during a stage, the plan
        ends; before a stage, the stage only does not begin. Raises NotAuthorised(APPROVAL_MISSING),
        Malformed(NOT_FOUND), Conflict(DEVICE_STATE: done, stopped or not as seen, STATUS_STALE: `stop` says so).
        """
        seen = seen or self._read(plan_id)
        self._check_may_begin(seen, stop)
        row = self.writer.submit(lambda batch: _begin(batch, seen, by)).result()
        while row.state == rows.RUNNING and row.names_devices and row.device_position != rows.EVERY_DEVICE:
            row = self._submit_devices(row, by)
            advance(row)
        remaining = _Remaining(self.database, self.clock, row)
        while row.state == rows.RUNNING:
            before, row = row, self._submit_step(plan_id, by, remaining.choose(row))
            # no progress: another process ran or paused the plan, or no certificate was left
            if row.done == before.done:
                continue
            advance(row)
            why = stop(row) if row.state == rows.RUNNING else None
            if why is not None:
                row = self.stop(plan_id, by=by, because=why)
        return row

    def pause(self, plan_id: int, *, by: str) -> RevocationPlanRow:
        """Pause a running plan after its present step; from any process.

        A plan that has paused after a stage gets the mark, so that a stage handed over to a job does not begin.
        """
        return self.writer.submit(lambda batch: _move(batch, plan_id, rows.PAUSED, by, PAUSED_BY_OPERATOR)).result()

    def stop(self, plan_id: int, *, by: str, because: str | None = None) -> RevocationPlanRow:
        """End a plan for good. What it did is not undone."""
        return self.writer.submit(lambda batch: _move(batch, plan_id, rows.STOPPED, by, because)).result()

    def _submit_step(self, plan_id: int, by: str, chosen: _Candidates) -> RevocationPlanRow:
        return self.writer.submit(lambda batch: _step(batch, plan_id, by, chosen, self.inventory)).result()

    def _submit_devices(self, row: RevocationPlanRow, by: str) -> RevocationPlanRow:
        at = int(self.clock.now().timestamp())
        with self.database.reading() as connection:
            chosen = named_devices.choose_devices(connection, row, self.inventory, at=at, most=STEP)

        def write(batch: Batch) -> RevocationPlanRow:
            now = _find(batch.connection, row.id)
            if now.state != rows.RUNNING or now.device_position != row.device_position:
                return now  # paused, or another process has done them
            are_last = len(chosen) < STEP
            return named_devices.step_devices(batch, now, chosen, by, self.inventory, are_last=are_last)

        return self.writer.submit(write).result()

    def _read(self, plan_id: int) -> RevocationPlanRow:
        with self.database.reading() as connection:
            return _find(connection, plan_id)

    def _check_may_begin(self, row: RevocationPlanRow, stop: StopCondition) -> None:
        why = stop(row) if row.state in _STATES else None
        if why is not None:
            msg = (
                f"revocation plan {row.id} is {row.state} with {row.done} certificates done, because of {why}: "
                "a revocation waits too long for a published CRL. Check that `vagus serve` publishes CRLs, "
                f"then run `vagus revoke run {row.id}`, with --ignore-late-lists if it cannot wait"
            )
            raise Conflict(Reason.STATUS_STALE, msg, plan=row.id, why=why)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The leaf indices for a step, as read outside the writer: they may have changed since.

    They are all that the act can reach from the plan's place up to the last of them. `are_last`: none follow.
    """

    leaves: tuple[int, ...]
    are_last: bool


class _Remaining:
    """The certificates that a plan may still reach, read outside the writer.

    The first search takes as long as the selection is large and is done once: it finds every certificate that may ever
    be in reach, since nothing enters a plan later. Before each step only the states of the next ones are read.
    """

    def __init__(self, database: Database, clock: Clock, row: RevocationPlanRow) -> None:
        self._database = database
        self._clock = clock
        with database.reading() as connection:
            self._leaves = selections.list_leaves(
                connection,
                row.selection,
                alive_at=self._now(),
                after=row.position,
                until=row.newest_leaf,
                states=_states_before(row.act, row.reason),
            )

    def choose(self, row: RevocationPlanRow) -> _Candidates:
        """The candidates for the next step of the plan `row`."""
        most, at, found = _step_size(row), bisect_right(self._leaves, row.position), list[int]()
        page_size = most
        with self._database.reading() as connection:
            while len(found) < most and at < len(self._leaves):
                page = self._leaves[at : at + page_size]
                at, page_size = at + len(page), _PAGE
                states = _states_before(row.act, row.reason)
                now = selections.list_among(connection, row.selection, page, alive_at=self._now(), states=states)
                found += [one.leaf_index for one in now]
        return _Candidates(tuple(found[:most]), are_last=at == len(self._leaves) and len(found) <= most)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def check_as_seen(row: RevocationPlanRow, seen: RevocationPlanRow) -> None:
    """Raises Conflict(DEVICE_STATE) if a plan has another state, stage or mark than the caller saw."""
    if (row.state, row.stage, row.stopped_because) != (seen.state, seen.stage, seen.stopped_because):
        msg = (
            f"revocation plan {row.id} was {_describe(seen)} when it was read and is {_describe(row)} now, "
            "changed by another process; no certificate was revoked by this call: see `vagus revoke show "
            f"{row.id}`, then run the command again"
        )
        raise Conflict(Reason.DEVICE_STATE, msg, plan=row.id, state=row.state)


def _describe(row: RevocationPlanRow) -> str:
    mark = "" if row.stopped_because is None else f" ({row.stopped_because})"
    return f"{row.state}{mark} at stage {row.stage + 1} of {len(row.stages)}"


def _check_not_ended(row: RevocationPlanRow) -> None:
    if row.state not in _STATES:
        msg = f"revocation plan {row.id} is {row.state} for good; propose a new plan for the certificates that it left"
        raise Conflict(Reason.DEVICE_STATE, msg, plan=row.id, state=row.state)


def _begin(batch: Batch, seen: RevocationPlanRow, by: str) -> RevocationPlanRow:
    row = _find(batch.connection, seen.id)
    _check_not_ended(row)
    check_as_seen(row, seen)
    if len(row.approvals) < row.approvals_needed:
        msg = f"revocation plan {row.id} has {len(row.approvals)} of {row.approvals_needed} approvals; another must"
        raise NotAuthorised(Reason.APPROVAL_MISSING, msg, plan=row.id)
    lot = lot_of(batch.connection, row.selection) if row.state == rows.PROPOSED and row.names_devices else None
    if lot is not None and row.act == revocation_rows.RELEASE:
        end_lot_locks(batch, lot, is_hold=True, by=by)
    elif lot is not None:
        lock_lot(batch, lot, is_hold=row.act == revocation_rows.HOLD, by=by)
    return _move(batch, row.id, rows.RUNNING, by)


def _step_size(row: RevocationPlanRow) -> int:
    """How many certificates the next step takes at most.

    The last stage goes to the end of the selection, not to a count: otherwise a certificate that was issued between the
    count and the proposal, or released since, would stay good.
    """
    return STEP if _is_in_last_stage(row) else max(0, min(STEP, row.stages[row.stage] - row.done))


def _is_in_last_stage(row: RevocationPlanRow) -> bool:
    return row.stage + 1 == len(row.stages)


def _step(batch: Batch, plan_id: int, by: str, chosen: _Candidates, inventory: InventoryActs) -> RevocationPlanRow:
    """One transaction: the act on the candidates that still need it, and the plan's place after them."""
    # The candidates were read outside the writer, without a lock. So read the plan and the candidates again in this
    # transaction: another process may have run a step, or an operator paused the plan.
    row = _find(batch.connection, plan_id)
    if row.state != rows.RUNNING:
        return row
    size = _step_size(row)
    # another process has done or passed the other certificates
    ahead = [leaf for leaf in chosen.leaves if leaf > row.position]
    states = _states_before(row.act, row.reason)
    fit = selections.list_among(batch.connection, row.selection, ahead, alive_at=batch.at, states=states)
    found = fit[:size]
    names, done = dict[int, str](), row.done
    for one in found:
        reference = names.get(one.authority_id) or _reference(batch.connection, one.authority_id)
        names[one.authority_id] = reference
        is_alive = not (row.locks_out and row.selection.authority_ids) or _lives(batch, one)
        is_done = _apply(batch, row, one, reference, by)
        done += is_done
        if is_done and is_alive and one.device_id is not None:
            named_devices.reach_device(batch, row, one, by, inventory)
    # Move the position past every candidate that was checked, also past those that needed no act. If the step was cut
    # at its size, move it only past the last certificate done. A crash after the commit continues there, so no
    # certificate is done twice and none is left out.
    passed = ahead if len(found) == len(fit) else [one.leaf_index for one in found]
    row = replace(row, done=done, position=max(passed, default=row.position))
    # no certificate is left: the plan is done, even with fewer than were counted
    if len(found) < size and chosen.are_last:
        return _store(batch, replace(row, state=rows.DONE), "mass-revocation-done", by)
    if _is_in_last_stage(row) or done < row.stages[row.stage]:
        rows.update_plan(batch.connection, row)
        return row
    return _store(batch, replace(row, state=rows.PAUSED, stage=row.stage + 1), "mass-revocation-stage-done", by)


def _lives(batch: Batch, one: certificate_rows.CertificateRow) -> bool:
    """Whether it, or another certificate for its key, is alive and not revoked.

    Only then is its device locked out: a revoked certificate of a unit may be of a device that has left the unit.
    """
    if one.state != certificate_rows.REVOKED:
        return True
    others = certificate_rows.list_of_key(batch.connection, one.spki_sha256)
    return any(other.not_after > batch.at and other.state != certificate_rows.REVOKED for other in others)


def _apply(batch: Batch, row: RevocationPlanRow, one: certificate_rows.CertificateRow, reference: str, by: str) -> bool:
    """Whether it was done; a hold that began after the proposal is not released, for no one approved that."""
    if row.act == revocation_rows.RELEASE:
        return revocation.release_row(batch, one, by=by, held_until=row.newest_step) is not None
    if one.owner == f"authority:{reference}":  # a root's self-signed certificate is in no CRL of that root
        return True
    if row.act == revocation_rows.REVOKE:
        revocation.revoke_row(batch, one, RevocationReason(row.reason), by=by)
    elif not one.owner.startswith("authority:"):
        revocation.hold_row(batch, one, by=by)
    return True


def _move(batch: Batch, plan_id: int, state: str, by: str, because: str | None = None) -> RevocationPlanRow:
    row = _find(batch.connection, plan_id)
    _check_not_ended(row)
    if state not in _STATES[row.state]:
        msg = f"revocation plan {plan_id} has not begun, so it cannot pause; end it with `vagus revoke stop {plan_id}`"
        raise Conflict(Reason.DEVICE_STATE, msg, plan=plan_id, state=row.state)
    moved = replace(row, state=state, stopped_because=because)
    return _store(batch, moved, f"mass-revocation-{state}", by)


def _store(batch: Batch, row: RevocationPlanRow, act: str, by: str) -> RevocationPlanRow:
    rows.update_plan(batch.connection, row)
    _log(batch, act, row, by)
    return row


def _log(batch: Batch, act: str, row: RevocationPlanRow, by: str) -> None:
    summary = f"{row.id}:{row.act}:{row.reason}:{row.done}:{row.locks_out}:{row.selection.encode()}"
    detail = hashlib.sha256(summary.encode()).digest()
    append(batch, OperatorAct(act, by, subject=f"job:revocation-plan-{row.id}", detail_sha256=detail))


def _find(connection: Connection, plan_id: int) -> RevocationPlanRow:
    row = rows.find_plan(connection, plan_id)
    if row is None:
        msg = f"revocation plan {plan_id} does not exist; see `vagus revoke list`"
        raise Malformed(Reason.NOT_FOUND, msg, plan=plan_id)
    return row


def _reference(connection: Connection, authority_id: int) -> str:
    found = authority_rows.find_by_id(connection, authority_id)
    return f"unknown#{authority_id}" if found is None else found.reference


def _check_selection(selection: Selection) -> None:
    if selection.is_empty:
        msg = "the revocation plan selects every certificate; name a unit, devices, a profile, a key or a time"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg)


def _check_reason(act: str, reason: RevocationReason) -> None:
    own = {
        revocation_rows.HOLD: RevocationReason.CERTIFICATE_HOLD,
        revocation_rows.RELEASE: RevocationReason.REMOVE_FROM_CRL,
    }
    if (act in own) is not (reason in own.values()) or own.get(act, reason) is not reason:
        msg = f"revocation reason {reason.spelling} is not for {act}: holds have certificateHold, others removeFromCRL"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg)
