"""Many certificates revoked, held or released by plan: counted, approved, run in stages; publishes no list.

    proposed -> running -> paused -> running ... -> done
    stopped: from any of these, by an operator or a stop condition

Each step of a run is one transaction with its place in the plan: killed anywhere, it goes on where it stood. A stage
ends in `paused`, so that somebody looks before the next. Certificates issued and holds made after the proposal are not
touched. What a step may reach is searched for outside the writer's turn, in which its own few are looked at again.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from vagus.authority import revocation
from vagus.errors import Conflict, NotAuthorised, PolicyRefusal
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import certificates as certificate_rows
from vagus.records import publications
from vagus.records.revocation import plans as rows
from vagus.records.revocation import revocations as revocation_rows
from vagus.records.revocation import selections
from vagus.records.revocation.plans import RevocationPlanRow
from vagus.records.revocation.selections import Selection, SelectionCount
from vagus.x509.crls.building import RevocationReason

if TYPE_CHECKING:
    from vagus.clock import Clock
    from vagus.policy.values import PolicyPack
    from vagus.records.certificates import CertificateRow
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Batch, Writer

DEFAULT_STAGES = (1, 10, 50)
"""Percent of the certificates after each stage but the last, which does the rest."""
STEP = 200
"""Certificates in one transaction: about 0.1 s during which nobody else writes."""
_LOOKED_AT = 1_000
"""Certificates that are looked at together where a step's first are in no state for it."""
PAUSED_BY_OPERATOR = "paused-by-operator"
"""Beside a plan that an operator paused; one that paused behind a stage bears no mark."""
_ENTRY_OCTETS = 53
_NO_COUNTS = {"approvals_needed", "offline"}
_STATES = {
    rows.PROPOSED: (rows.RUNNING, rows.STOPPED),
    rows.PAUSED: (rows.RUNNING, rows.PAUSED, rows.STOPPED),
    rows.RUNNING: (rows.RUNNING, rows.PAUSED, rows.STOPPED, rows.DONE),
}
_BEFORE = {
    revocation_rows.REVOKE: ("intended", "issued", "held"),
    revocation_rows.HOLD: ("intended", "issued"),
    revocation_rows.RELEASE: ("held",),
}


def _before(act: str, reason: int) -> tuple[str, ...]:
    """In which states an act finds what it changes: a compromise says more than what was revoked before said."""
    is_compromise = act == revocation_rows.REVOKE and RevocationReason(reason).is_compromise
    return (*_BEFORE[act], selections.REVOKED_FOR_LESS) if is_compromise else _BEFORE[act]


LockOut = Callable[["Batch", str, str], None]
"""Keeps a device (by id; and by whom) from enrolling anew, in the transaction that revokes its certificate."""


def _lock_nobody(_batch: Batch, _device_id: str, _by: str) -> None:
    return


StopCondition = Callable[[RevocationPlanRow], str | None]
"""Why the plan must stop now, or None: asked before each stage and after each step. A word such as `lists-behind`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a plan would do, shown before anybody approves it.

    `list_octets` is by how much all shards together grow, `largest_list_octets` the largest of them after it, and
    `ocsp_answers` how many kept answers die and are signed again when asked for. `offline` are the issuers that sign
    no list before a ceremony, and never OCSP answers.
    """

    certificates: int
    devices: int
    list_octets: int
    largest_list_octets: int
    ocsp_answers: int
    approvals_needed: int
    offline: tuple[str, ...] = ()


class MassRevocation:
    """The acts around plans. `by` names who acts; an operator approves once."""

    def __init__(
        self,
        pack: PolicyPack,
        database: Database,
        writer: Writer,
        clock: Clock,
        *,
        lock_out: LockOut = _lock_nobody,
    ) -> None:
        """`lock_out` is what the inventory does to devices whose plan says so."""
        self._pack = pack
        self._database = database
        self._writer = writer
        self._clock = clock
        self._lock_out = lock_out

    def forecast(self, selection: Selection, act: str, reason: RevocationReason) -> Forecast:
        """The counts; nothing is written. Raises PolicyRefusal(POLICY_VIOLATION) for a selection of everything.

        A compromise also counts what is revoked for another reason: its keys may be certified until they are blocked.
        """
        _check_selection(selection)
        at, states = int(self._clock.now().timestamp()), _before(act, reason)
        with self._database.reading() as connection:
            counts = selections.count_selected(connection, selection, alive_at=at, states=states)
            devices = selections.count_devices(connection, selection, alive_at=at, states=states)
            named = counts
            if act == revocation_rows.HOLD:  # what is held now may be released before the plan comes by, which holds it
                named = selections.count_selected(connection, selection, alive_at=at)
            return self._forecast(connection, counts, devices, act, named)

    def count_left(self, row: RevocationPlanRow) -> int:
        """How many certificates of a plan's selection its act has not reached now, whenever they were issued.

        Of a plan that is done: what was issued since it was proposed, and what was changed back since.
        """
        at = int(self._clock.now().timestamp())
        with self._database.reading() as connection:
            return selections.count_without_self_issued(
                connection,
                row.selection,
                alive_at=at,
                states=_before(row.act, row.reason),
                is_of_authorities=row.act != revocation_rows.HOLD,
            )

    def propose(
        self,
        selection: Selection,
        act: str,
        reason: RevocationReason,
        *,
        by: str,
        stages: tuple[int, ...] = DEFAULT_STAGES,
        locks_out: bool = False,
    ) -> RevocationPlanRow:
        """Write a plan down with its counts; proposing is the proposer's approval. `stages` are growing percents.

        With `locks_out` the devices whose certificates are revoked do not enrol anew with what else they have.
        Raises PolicyRefusal(POLICY_VIOLATION) for a selection of everything, an odd reason or odd stages, and
        Conflict(NOT_FOUND) when there is nothing to do.
        """
        with self._database.reading() as connection:
            counted_until = selections.newest_leaf(connection)
            newest_step = revocation_rows.newest_sequence(connection)
        forecast = self.forecast(selection, act, reason)
        _check_reason(act, reason)
        if list(stages) != sorted(set(stages)) or not all(0 < one < 100 for one in stages):
            msg = f"stages {stages} are not growing percents between 1 and 99; write them as 1, 10, 50"
            raise PolicyRefusal(Reason.POLICY_VIOLATION, msg)
        if forecast.certificates == 0:
            raise Conflict(Reason.NOT_FOUND, "nothing that lives is selected, so there is nothing to do")
        ends = {max(1, forecast.certificates * one // 100) for one in stages} | {forecast.certificates}

        def write(batch: Batch) -> RevocationPlanRow:
            states = _before(act, reason)  # what was issued since the count is in the plan, and may need more persons
            late = selections.list_late_profiles(
                batch.connection, selection, alive_at=batch.at, after=counted_until, states=states
            )
            row = RevocationPlanRow(
                id=0,
                selection=selection,
                act=act,
                reason=int(reason),
                counts={name: count for name, count in asdict(forecast).items() if name not in _NO_COUNTS},
                stages=tuple(sorted(ends)),
                approvals_needed=max(forecast.approvals_needed, *(self._approvals(one) for one in late), 1),
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
                locks_out=locks_out and act == revocation_rows.REVOKE,
            )
            made = replace(row, id=rows.insert_plan(batch.connection, row))
            _log(batch, "mass-revocation-proposed", made, by)
            return made

        return self._writer.submit(write).result()

    def approve(self, plan_id: int, *, by: str) -> RevocationPlanRow:
        """One more approval. Raises Conflict(NOT_FOUND, DEVICE_STATE: has ended, ALREADY_EXISTS: of this operator)."""

        def write(batch: Batch) -> RevocationPlanRow:
            row = _find(batch.connection, plan_id)
            _check_goes_on(row)
            if by in row.approvals:
                msg = f"{by} approved plan {plan_id} already; another person must"
                raise Conflict(Reason.ALREADY_EXISTS, msg, plan=plan_id)
            return _keep(batch, replace(row, approvals=(*row.approvals, by)), "mass-revocation-approved", by)

        return self._writer.submit(write).result()

    def run(
        self,
        plan_id: int,
        *,
        by: str,
        stop: StopCondition = lambda _: None,
        advance: Callable[[RevocationPlanRow], None] = lambda _: None,
        seen: RevocationPlanRow | None = None,
    ) -> RevocationPlanRow:
        """Run the next stage, or what is left of the one that was cut off; gives the plan as it stands then.

        `seen` is the plan as whoever wants it looked at it; left out: as it is now. What `stop` says in the middle of a
        stage ends the plan; before a stage it only keeps it from beginning. Raises NotAuthorised(APPROVAL_MISSING),
        Conflict(NOT_FOUND, DEVICE_STATE: done, stopped or not as seen, STATUS_STALE: `stop` says so, and it stands).
        """
        looked_at = seen or self._look(plan_id)
        self._check_may_begin(looked_at, stop)
        row = self._writer.submit(lambda batch: _begin(batch, looked_at, by)).result()
        rest = _Rest(self._database, self._clock, row)
        while row.state == rows.RUNNING:
            before, row = row, self._submit_step(plan_id, by, rest.choose(row))
            if row.done == before.done:  # paused or done by somebody else, or nothing was left
                continue
            advance(row)
            why = stop(row) if row.state == rows.RUNNING else None
            if why is not None:
                row = self.stop(plan_id, by=by, because=why)
        return row

    def pause(self, plan_id: int, *, by: str) -> RevocationPlanRow:
        """Let a running plan pause after the step that it is at; from any process.

        One that paused behind a stage is marked, so that a stage that was handed over does not begin.
        """
        return self._writer.submit(lambda batch: _move(batch, plan_id, rows.PAUSED, by, PAUSED_BY_OPERATOR)).result()

    def stop(self, plan_id: int, *, by: str, because: str | None = None) -> RevocationPlanRow:
        """End a plan for good. What it did stays done."""
        return self._writer.submit(lambda batch: _move(batch, plan_id, rows.STOPPED, by, because)).result()

    def _submit_step(self, plan_id: int, by: str, chosen: _Chosen) -> RevocationPlanRow:
        return self._writer.submit(lambda batch: _step(batch, plan_id, by, chosen, self._lock_out)).result()

    def _look(self, plan_id: int) -> RevocationPlanRow:
        with self._database.reading() as connection:
            return _find(connection, plan_id)

    def _check_may_begin(self, row: RevocationPlanRow, stop: StopCondition) -> None:
        why = stop(row) if row.state in _STATES else None
        if why is not None:
            msg = (
                f"plan {row.id} stays {row.state} with {row.done} done, because of {why}: a revocation waits too long "
                f"for its list; see that `vagus serve` publishes, then `vagus revoke run {row.id}`, with "
                "--ignore-late-lists if it cannot wait"
            )
            raise Conflict(Reason.STATUS_STALE, msg, plan=row.id, why=why)

    def _forecast(
        self,
        connection: Connection,
        counts: Sequence[SelectionCount],
        devices: int,
        act: str,
        named: Sequence[SelectionCount],
    ) -> Forecast:
        grows = 0 if act == revocation_rows.RELEASE else _ENTRY_OCTETS
        added: dict[tuple[int, int], int] = {}
        for one in counts:
            key = (one.authority_id, one.shard)
            added[key] = added.get(key, 0) + one.certificates * grows
        sizes = [
            publications.find_size(connection, authority_id, shard) + octets
            for (authority_id, shard), octets in added.items()
        ]
        offline = {one.id: one.reference for one in authority_rows.list_authorities(connection) if one.is_offline}
        return Forecast(
            certificates=sum(one.certificates for one in counts),
            devices=devices,
            list_octets=sum(added.values()),
            largest_list_octets=max(sizes, default=0),
            ocsp_answers=sum(one.certificates for one in counts if one.authority_id not in offline),
            approvals_needed=max((self._approvals(one.profile) for one in named), default=1),
            offline=tuple(sorted({offline[one.authority_id] for one in counts if one.authority_id in offline})),
        )

    def _approvals(self, profile: str) -> int:
        """What the policy asks for a profile's bearers; authorities' and servers' own need two persons."""
        rule = self._pack.rules.get(profile)
        return 2 if rule is None else max(1, rule.review_approvals)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Leaves for a step: all that its act can reach from the plan's place up to the last of them.

    With `are_last` there are none behind these either. All of it was so a moment ago, in no turn of the writer.
    """

    leaves: tuple[int, ...]
    are_last: bool


class _Rest:
    """What a plan may still reach, found on a reading: once whatever stays so, and before each step its state.

    The first search is as long as the selection; nothing that it leaves out can come to be in the plan later.
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
                states=_before(row.act, row.reason),
            )

    def choose(self, row: RevocationPlanRow) -> _Chosen:
        """The next of a plan that stands as `row` says."""
        room, at, found = _room(row), bisect_right(self._leaves, row.position), list[int]()
        size = room
        with self._database.reading() as connection:
            while len(found) < room and at < len(self._leaves):
                page = self._leaves[at : at + size]
                at, size = at + len(page), _LOOKED_AT
                states = _before(row.act, row.reason)
                now = selections.list_among(connection, row.selection, page, alive_at=self._now(), states=states)
                found += [one.leaf_index for one in now]
        return _Chosen(tuple(found[:room]), are_last=at == len(self._leaves) and len(found) <= room)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def check_as_seen(row: RevocationPlanRow, seen: RevocationPlanRow) -> None:
    """Raises Conflict(DEVICE_STATE) where a plan has another state, stage or mark than what somebody looked at."""
    if (row.state, row.stage, row.stopped_because) != (seen.state, seen.stage, seen.stopped_because):
        msg = (
            f"plan {row.id} was {_standing(seen)} when it was looked at and is {_standing(row)} now, moved by somebody "
            f"else; nothing was begun here: look with `vagus revoke show {row.id}`, then say it again"
        )
        raise Conflict(Reason.DEVICE_STATE, msg, plan=row.id, state=row.state)


def _standing(row: RevocationPlanRow) -> str:
    mark = "" if row.stopped_because is None else f" ({row.stopped_because})"
    return f"{row.state}{mark} at stage {row.stage + 1} of {len(row.stages)}"


def _check_goes_on(row: RevocationPlanRow) -> None:
    if row.state not in _STATES:
        msg = f"plan {row.id} is {row.state} for good; propose what it left as a new plan"
        raise Conflict(Reason.DEVICE_STATE, msg, plan=row.id, state=row.state)


def _begin(batch: Batch, seen: RevocationPlanRow, by: str) -> RevocationPlanRow:
    row = _find(batch.connection, seen.id)
    _check_goes_on(row)
    check_as_seen(row, seen)
    if len(row.approvals) < row.approvals_needed:
        msg = f"plan {row.id} has {len(row.approvals)} of {row.approvals_needed} approvals; have another person approve"
        raise NotAuthorised(Reason.APPROVAL_MISSING, msg, plan=row.id)
    return _move(batch, row.id, rows.RUNNING, by)


def _room(row: RevocationPlanRow) -> int:
    """How many certificates the next step takes at most.

    The last stage goes to the end of the selection, not to a count: what was issued between the count and the
    proposal, or released since, would stay good behind it.
    """
    return STEP if _is_in_last_stage(row) else max(0, min(STEP, row.stages[row.stage] - row.done))


def _is_in_last_stage(row: RevocationPlanRow) -> bool:
    return row.stage + 1 == len(row.stages)


def _step(batch: Batch, plan_id: int, by: str, chosen: _Chosen, lock_out: LockOut) -> RevocationPlanRow:
    """One transaction: those of the chosen that are still in their state for it, and the place in the plan."""
    row = _find(batch.connection, plan_id)
    if row.state != rows.RUNNING:
        return row
    room = _room(row)
    ahead = [leaf for leaf in chosen.leaves if leaf > row.position]  # what is not, another runner did or passed
    states = _before(row.act, row.reason)
    fit = selections.list_among(batch.connection, row.selection, ahead, alive_at=batch.at, states=states)
    found = fit[:room]
    names, done = dict[int, str](), row.done
    for one in found:
        reference = names.get(one.authority_id) or _reference(batch.connection, one.authority_id)
        names[one.authority_id] = reference
        is_meant = row.locks_out and (not row.selection.authority_ids or _lives(batch, one))
        done += _apply(batch, row, one, reference, by)
        if is_meant and one.device_id is not None:
            lock_out(batch, one.device_id, by)
    passed = ahead if len(found) == len(fit) else [one.leaf_index for one in found]
    row = replace(row, done=done, position=max(passed, default=row.position))
    if len(found) < room and chosen.are_last:  # nothing is left, also where fewer lived on than were counted
        return _keep(batch, replace(row, state=rows.DONE), "mass-revocation-done", by)
    if _is_in_last_stage(row) or done < row.stages[row.stage]:
        rows.update_plan(batch.connection, row)
        return row
    return _keep(batch, replace(row, state=rows.PAUSED, stage=row.stage + 1), "mass-revocation-stage-done", by)


def _lives(batch: Batch, one: CertificateRow) -> bool:
    """Whether it, or another for its key, lives: a unit's that was revoked may be of a device that left the unit."""
    if one.state != certificate_rows.REVOKED:
        return True
    others = certificate_rows.list_of_key(batch.connection, one.spki_sha256)
    return any(other.not_after > batch.at and other.state != certificate_rows.REVOKED for other in others)


def _apply(batch: Batch, row: RevocationPlanRow, one: CertificateRow, reference: str, by: str) -> bool:
    """False for a hold that began after the proposal: nobody was asked about it."""
    if row.act == revocation_rows.RELEASE:
        return revocation.release_row(batch, one, by=by, held_until=row.newest_step) is not None
    if one.owner == f"authority:{reference}":  # a root's own certificate is in no list of its own
        return True
    if row.act == revocation_rows.REVOKE:
        revocation.revoke_row(batch, one, RevocationReason(row.reason), by=by)
    elif not one.owner.startswith("authority:"):
        revocation.hold_row(batch, one, by=by)
    return True


def _move(batch: Batch, plan_id: int, state: str, by: str, because: str | None = None) -> RevocationPlanRow:
    row = _find(batch.connection, plan_id)
    _check_goes_on(row)
    if state not in _STATES[row.state]:
        msg = f"plan {plan_id} has not begun, so there is nothing to pause; end it with `vagus revoke stop {plan_id}`"
        raise Conflict(Reason.DEVICE_STATE, msg, plan=plan_id, state=row.state)
    moved = replace(row, state=state, stopped_because=because)
    return _keep(batch, moved, f"mass-revocation-{state}", by)


def _keep(batch: Batch, row: RevocationPlanRow, act: str, by: str) -> RevocationPlanRow:
    rows.update_plan(batch.connection, row)
    _log(batch, act, row, by)
    return row


def _log(batch: Batch, act: str, row: RevocationPlanRow, by: str) -> None:
    said = f"{row.id}:{row.act}:{row.reason}:{row.done}:{row.locks_out}:{row.selection.encode()}"
    detail = hashlib.sha256(said.encode()).digest()
    append(batch, OperatorAct(act, by, subject=f"job:revocation-plan-{row.id}", detail_sha256=detail))


def _find(connection: Connection, plan_id: int) -> RevocationPlanRow:
    row = rows.find_plan(connection, plan_id)
    if row is None:
        raise Conflict(Reason.NOT_FOUND, f"there is no revocation plan {plan_id}", plan=plan_id)
    return row


def _reference(connection: Connection, authority_id: int) -> str:
    found = authority_rows.find_by_id(connection, authority_id)
    return f"unknown#{authority_id}" if found is None else found.reference


def _check_selection(selection: Selection) -> None:
    if selection.is_empty:
        msg = "a selection of every certificate there is is none; name a unit, devices, a profile, a key or a time"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg)


def _check_reason(act: str, reason: RevocationReason) -> None:
    own = {
        revocation_rows.HOLD: RevocationReason.CERTIFICATE_HOLD,
        revocation_rows.RELEASE: RevocationReason.REMOVE_FROM_CRL,
    }
    if (act in own) is not (reason in own.values()) or own.get(act, reason) is not reason:
        msg = f"{reason.spelling} is no reason for {act}; holds have certificateHold, releases removeFromCRL"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg)
