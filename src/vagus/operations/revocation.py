"""Revocation plans as an operator sees them: propose, approve, run, pause, stop, with preview and progress."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum, unique
from typing import TYPE_CHECKING

from vagus.authority.crls.overdue import find_crls_awaiting_ceremony, overdue_crls
from vagus.authority.stage_jobs import hand_over_stage
from vagus.errors import Conflict, Malformed
from vagus.fleet.revocation_targets import RevocationTarget, select_target, serials_in
from vagus.operations.acts import Acts
from vagus.operations.devices import check_known, find_named
from vagus.operations.named_selections import NamedSelection, name_selection
from vagus.operations.roles import Act, check_may
from vagus.reasons import Reason
from vagus.records.keys import find_key
from vagus.records.revocation import plans as rows
from vagus.records.revocation import revocations
from vagus.x509.crls.building import RevocationReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vagus.authority.revocation_forecast import Forecast
    from vagus.operations.actor import Actor
    from vagus.records.revocation.selections import Selection

_BECAME = {
    revocations.REVOKE: ("revoked", "locked out"),
    revocations.HOLD: ("on hold", "on hold"),
    revocations.RELEASE: ("released", "released"),
}
"""What certificates have become, and devices without one."""


@unique
class RevocationAct(StrEnum):
    """What a plan does with its certificates."""

    REVOKE = revocations.REVOKE
    HOLD = revocations.HOLD
    RELEASE = revocations.RELEASE


@unique
class PlanState(StrEnum):
    """How far a plan is."""

    PROPOSED = rows.PROPOSED
    RUNNING = rows.RUNNING
    PAUSED = rows.PAUSED
    STOPPED = rows.STOPPED
    DONE = rows.DONE


@unique
class KeyBlock(StrEnum):
    """Whether a key that is named with a compromise is blocked by this request or was blocked before."""

    BY_THIS = "by this"
    ALREADY = "already"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationRequest:
    """What a person asks for; everything that is named narrows the rest.

    `certificates` are files as (name, certificates as DER). `target.devices` stays empty: `devices` names them, each by
    its id or as MODEL:SERIAL. `stages` are growing percents.
    """

    act: RevocationAct
    reason: RevocationReason
    target: RevocationTarget
    devices: Sequence[str] = ()
    certificates: Sequence[tuple[str, Sequence[bytes]]] = ()
    stages: tuple[int, ...]
    keeps_enrolling: bool = False


@dataclass(frozen=True, slots=True)
class RevocationPreview:
    """What a request would do; nothing is written yet.

    `names_devices`: it concerns devices, with a certificate or without. `key_block` is None where no key is blocked:
    only a compromise says something about the key itself.
    """

    request: RevocationRequest
    selection: Selection
    forecast: Forecast
    names_devices: bool
    key_block: KeyBlock | None

    @property
    def locks_out(self) -> bool:
        """Whether the devices that are named enrol no more, until an operator says so."""
        return self.names_devices and self.request.act is RevocationAct.REVOKE

    @property
    def locks_lot(self) -> bool:
        """Whether devices of the lot that are added later come in recalled or on hold."""
        return not self.is_empty and _locks_lot(self.names_devices, self.request.act, self.selection)

    @property
    def is_empty(self) -> bool:
        """Whether no certificate and no device would change."""
        return not (self.forecast.certificates or self.forecast.devices_without_certificate)

    def check_any(self) -> None:
        """Raises Conflict(NOT_FOUND) where nothing would happen; a key may be named only to be blocked."""
        if self.is_empty and self.key_block is None:
            msg = "the revocation plan selects no live certificate, so there is nothing to do; check the selection"
            if self.names_devices and self.request.act is not RevocationAct.RELEASE:
                msg = (
                    "the revocation plan selects no live certificate and no device that may enrol, so nothing is "
                    "locked; check the selection. `vagus device state recalled` with the same selection recalls "
                    "what is added later"
                )
            raise Conflict(Reason.NOT_FOUND, msg)


@dataclass(frozen=True, slots=True)
class RevocationPlan:
    """A plan as it is now: its row, and what it selects by the names that people use."""

    row: rows.RevocationPlanRow
    selected: NamedSelection

    @property
    def missing_approvals(self) -> int:
        """How many more operators must approve; 0 or less when it may run."""
        return self.row.approvals_needed - len(self.row.approvals)

    @property
    def progress(self) -> str:
        """As in `5 of 12 certificates done, 0 of 3 devices without one`."""
        row, without = self.row, self.devices_without_certificate
        more = f", {row.devices_done:,} of {count_of(without, 'device')} without one" if without else ""
        return f"{row.done:,} of {count_of(row.counts['certificates'], 'certificate')} done{more}"

    @property
    def result(self) -> str:
        """As in `12 certificates are revoked` and `12 certificates are revoked, 3 devices without one locked out`."""
        done, (became, of_devices) = self.row.done, _BECAME[self.row.act]
        result = f"{count_of(done, 'certificate')} {'is' if done == 1 else 'are'} {became}"
        if not self.row.devices_done:
            return result
        return f"{result}, {count_of(self.row.devices_done, 'device')} without one {of_devices}"

    @property
    def devices_without_certificate(self) -> int | None:
        """How many devices without a certificate its approvers saw; None where the plan is about none."""
        return self.row.counts.get(rows.DEVICES_WITHOUT)

    @property
    def locks_lot(self) -> bool:
        """Whether devices of the lot that are added later come in recalled or on hold."""
        return _locks_lot(self.row.names_devices, self.row.act, self.row.selection)

    @property
    def why_stopped(self) -> str:
        """The reason of a stop in brackets, with a space before it; empty where an operator stopped it."""
        return f" ({self.row.stopped_because})" if self.row.stopped_because else ""

    def check_goes_on(self) -> None:
        """Raises Conflict(DEVICE_STATE) for a plan that is done or stopped, with what to do instead."""
        row = self.row
        if row.state == PlanState.DONE:
            msg = (
                f"revocation plan {row.id} is done: {self.result}, and none of its certificates is left; "
                "propose a new plan for certificates issued since"
            )
        elif row.state == PlanState.STOPPED:
            msg = (
                f"revocation plan {row.id} was stopped for good{self.why_stopped}, with {self.progress}; "
                "propose a new plan for the rest with `vagus revoke` and the same options"
            )
        else:
            return
        raise Conflict(Reason.DEVICE_STATE, msg, plan=row.id, state=row.state)


class RevocationPlans(Acts):
    """What an operator may do with revocation plans. A plan is named by its number."""

    def preview(self, actor: Actor, request: RevocationRequest) -> RevocationPreview:
        """What a request selects and would do. Raises as `select_target`, `serials_in`, `find_named`, `forecast`."""
        check_may(actor, Act.PROPOSE_REVOCATION)
        devices = tuple(find_named(self.components.database, one).id for one in request.devices)
        with self.components.database.reading() as connection:
            serials = list(request.target.serials)
            for file, ders in request.certificates:
                serials += serials_in(connection, ders, file)
            target = replace(request.target, serials=tuple(dict.fromkeys(serials)), devices=devices)
            check_known(connection, model=target.model or (target.batch or "").rpartition(":")[0] or None)
            selection = select_target(connection, target)
            block = None
            if selection.spki_sha256 is not None and request.reason.is_compromise:
                known = find_key(connection, selection.spki_sha256)
                block = KeyBlock.ALREADY if known is not None and known.is_blocked else KeyBlock.BY_THIS
        is_about_devices = request.act is not RevocationAct.REVOKE or request.reason in rows.LOCKING_REASONS
        names_devices = target.names_devices and is_about_devices and not request.keeps_enrolling
        forecast = self.components.mass_revocation.forecast(
            selection, request.act.value, request.reason, names_devices=names_devices
        )
        return RevocationPreview(request, selection, forecast, names_devices, block)

    def block_key(self, actor: Actor, preview: RevocationPreview) -> tuple[KeyBlock, bool]:
        """Block the key that was named, before its certificates are dealt with; and whether there are any.

        They are counted again: from now on there can be no more of them.
        """
        check_may(actor, Act.PROPOSE_REVOCATION)
        digest = preview.selection.spki_sha256 or b""
        is_news = self.components.revocations.block_key(digest, by=actor.id).result()
        left = self.components.mass_revocation.forecast(preview.selection, revocations.REVOKE, preview.request.reason)
        return KeyBlock.BY_THIS if is_news else KeyBlock.ALREADY, bool(left.certificates)

    def propose(self, actor: Actor, preview: RevocationPreview) -> RevocationPlan:
        """Write the plan down; proposing is the proposer's approval. Raises as `MassRevocation.propose`."""
        check_may(actor, Act.PROPOSE_REVOCATION)
        request = preview.request
        row = self.components.mass_revocation.propose(
            preview.selection,
            request.act.value,
            request.reason,
            by=actor.id,
            stages=request.stages,
            names_devices=preview.names_devices,
        )
        return self._view(row)

    def find(self, actor: Actor, plan_id: int) -> RevocationPlan:
        """The plan. Raises Malformed(NOT_FOUND)."""
        check_may(actor, Act.READ_REVOCATION)
        return self._find(plan_id)

    def list_all(self, actor: Actor) -> tuple[RevocationPlan, ...]:
        """Every plan, the oldest first."""
        check_may(actor, Act.READ_REVOCATION)
        with self.components.database.reading() as connection:
            found = rows.list_plans(connection)
        return tuple(self._view(row) for row in found)

    def count_left(self, actor: Actor, plan: RevocationPlan) -> int:
        """How many certificates of the selection the plan's act has not reached now, whenever they were issued."""
        check_may(actor, Act.READ_REVOCATION)
        return self.components.mass_revocation.count_left(plan.row)

    def count_devices_left(self, actor: Actor, plan: RevocationPlan) -> int:
        """How many devices of the selection the plan's act has not reached now, added or moved on since."""
        check_may(actor, Act.READ_REVOCATION)
        return self.components.mass_revocation.count_devices_left(plan.row)

    def find_waiting(self, actor: Actor, plan: RevocationPlan) -> tuple[str, ...]:
        """The offline authorities whose CRLs lack what the plan did, by reference; a ceremony signs them."""
        check_may(actor, Act.READ_REVOCATION)
        if not plan.row.done:
            return ()
        with self.components.database.reading() as connection:
            return find_crls_awaiting_ceremony(
                connection, plan.row.selection, int(self.components.clock.now().timestamp())
            )

    def preview_approval(self, actor: Actor, plan_id: int) -> RevocationPlan:
        """The plan, where this actor's approval counts. Raises as `find`, Conflict(DEVICE_STATE, ALREADY_EXISTS)."""
        check_may(actor, Act.APPROVE_REVOCATION)
        plan = self._find(plan_id)
        plan.check_goes_on()
        if actor.id in plan.row.approvals:
            how = "proposed" if actor.id == plan.row.made_by else "approved"
            msg = f"{actor.id} {how} revocation plan {plan_id} already, as one approval; another account must approve"
            raise Conflict(Reason.ALREADY_EXISTS, msg, plan=plan_id)
        return plan

    def approve(self, actor: Actor, plan_id: int) -> RevocationPlan:
        """One more approval. Raises as `MassRevocation.approve`."""
        check_may(actor, Act.APPROVE_REVOCATION)
        return self._view(self.components.mass_revocation.approve(plan_id, by=actor.id))

    def run_stage(
        self, actor: Actor, plan: RevocationPlan, *, ignores_late_crls: bool, advance: Callable[[int], None]
    ) -> RevocationPlan:
        """Run the next stage of a plan as it was seen; `advance` is called with how many are done in all.

        It stops where earlier revocations wait too long for a CRL, unless `ignores_late_crls`. Raises as
        `MassRevocation.run`.
        """
        check_may(actor, Act.RUN_REVOCATION)
        overdue = overdue_crls(self.components.database, self.components.clock, self.components.pack.crl.publish_within)
        row = self.components.mass_revocation.run(
            plan.row.id,
            by=actor.id,
            stop=(lambda _: None) if ignores_late_crls else overdue,
            advance=lambda now: advance(now.done),
            seen=plan.row,
        )
        return self._view(row)

    def hand_over(self, actor: Actor, plan: RevocationPlan, *, ignores_late_crls: bool) -> int:
        """Leave the next stage to a serving process, whatever happens to it; gives the job. Raises as `run_stage`."""
        check_may(actor, Act.RUN_REVOCATION)
        row, by = plan.row, actor.id
        return self.components.writer.submit(
            lambda batch: hand_over_stage(batch.connection, row, by=by, ignores_late_lists=ignores_late_crls)
        ).result()

    def pause(self, actor: Actor, plan_id: int) -> RevocationPlan:
        """Let a plan that runs in any process pause after its present step.

        Raises as `find`, Conflict(DEVICE_STATE) for a plan that has not begun or has ended.
        """
        check_may(actor, Act.PAUSE_REVOCATION)
        plan = self._find(plan_id)
        plan.check_goes_on()
        if plan.row.state == PlanState.PROPOSED:
            msg = f"revocation plan {plan_id} has not begun, so it cannot pause; end it: `vagus revoke stop {plan_id}`"
            raise Conflict(Reason.DEVICE_STATE, msg, plan=plan_id, state=plan.row.state)
        return self._view(self.components.mass_revocation.pause(plan_id, by=actor.id))

    def stop(self, actor: Actor, plan_id: int) -> RevocationPlan:
        """End a plan for good; what it did stays done. Raises as `find`, Conflict(DEVICE_STATE)."""
        check_may(actor, Act.STOP_REVOCATION)
        self._find(plan_id).check_goes_on()
        return self._view(self.components.mass_revocation.stop(plan_id, by=actor.id))

    def _find(self, plan_id: int) -> RevocationPlan:
        with self.components.database.reading() as connection:
            row = rows.find_plan(connection, plan_id)
        if row is None:
            msg = f"revocation plan {plan_id} does not exist; see `vagus revoke list`"
            raise Malformed(Reason.NOT_FOUND, msg, plan=plan_id)
        return self._view(row)

    def _view(self, row: rows.RevocationPlanRow) -> RevocationPlan:
        with self.components.database.reading() as connection:
            return RevocationPlan(row, name_selection(connection, row.selection))


def _locks_lot(names_devices: bool, act: str, selection: Selection) -> bool:
    is_lot = selection.model is not None and not selection.owners
    return names_devices and act != revocations.RELEASE and is_lot


def count_of(number: int, what: str) -> str:
    """As in `1 certificate` and `1,234 certificates`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
