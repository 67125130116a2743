"""`vagus revoke`: many certificates by plan: counted, approved, run in stages, paused, stopped; one device is simpler.

A plan whose approvals are missing waits: exit code 3, until `approve` by another operator and `run`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vagus.cli.failures import INTERRUPTED, REFUSED, STATE
from vagus.cli.options import REASONS, example, open_installation
from vagus.cli.output import JsonOption, Output, Row, YesOption, check_confirmed, confirm
from vagus.cli.revocation.arguments import locking_reasons, read_act, read_serials, read_stages
from vagus.cli.revocation.wording import (
    ALREADY,
    BY_THIS,
    end_of,
    forecast_facts,
    plan_facts,
    question,
    spell_block,
    spell_plan,
    spell_state,
    spell_wait,
)

if TYPE_CHECKING:
    from vagus.authority.mass_revocation import Forecast
    from vagus.fleet.revocation_targets import RevocationTarget
    from vagus.records.revocation.plans import RevocationPlanRow
    from vagus.records.revocation.selections import Selection
    from vagus.wiring import Installation
    from vagus.x509.crls.building import RevocationReason

PlanArgument = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=2**31 - 1, help="A plan, as `vagus revoke list` numbers it.")
]
LateOption = Annotated[
    bool,
    typer.Option("--ignore-late-lists", help="Go on although earlier revocations still wait for a published list."),
]
_Many = list[str] | None
SerialOption = Annotated[
    _Many, typer.Option(metavar="AUTHORITY#N:HEX", help="One certificate, as in h1/icu#1:4A01. Repeatable.")
]
CertificateOption = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="The certificates in a file, PEM or DER. Repeatable.")
]
DeviceOption = Annotated[_Many, typer.Option(metavar="DEVICE", help="A device id, or MODEL:SERIAL. Repeatable.")]
UnitOption = Annotated[_Many, typer.Option(metavar="HOSPITAL/UNIT", help="All devices of a unit. Repeatable.")]
HospitalOption = Annotated[str | None, typer.Option(metavar="LABEL", help="All devices of a hospital, as in h1.")]
ModelOption = Annotated[str | None, typer.Option(metavar="MODEL", help="All devices of a model.")]
BatchOption = Annotated[
    str | None, typer.Option(metavar="MODEL:FIRST..LAST", help="A range of a model's serial numbers, both ends in it.")
]
KeyOption = Annotated[
    str | None, typer.Option(metavar="SHA256", help="All for one public key: SHA-256 of its SubjectPublicKeyInfo.")
]
AuthorityOption = Annotated[
    _Many, typer.Option(metavar="NAME[#N]", help="All that it issued, also to servers and responders. Repeatable.")
]
ReasonOption = Annotated[str | None, typer.Option(metavar="REASON", help=f"{REASONS}. Left out: unspecified.")]
StagesOption = Annotated[
    str, typer.Option(metavar="PERCENTS", help="Pause after each of these; the last stage does the rest.")
]

_HELP = """Revoke, hold or release many certificates, by a plan that is counted, approved and run in stages.

Name them by the options below; several kinds narrow each other (a unit and a model: that unit's devices of that
model). The counts are shown first, then one question. Where policy asks for one approval (yours) the first stage runs
at once. Where it asks for more, the plan is written down and the exit code is 3: another operator gives `vagus revoke
approve ID`, then `vagus revoke run ID`. Needs no passphrase; `vagus serve` publishes the lists.

With keyCompromise, cessationOfOperation or privilegeWithdrawn, devices that are named (by device, unit, hospital,
model or batch) are also locked out, as by `vagus device revoke`: quarantined, their tokens ended.

A key that is named with a compromise as the reason is blocked at once, also where no certificate is for it: it is
certified for nobody any more.

One device, at once and without approvals: `vagus device revoke`.

\b
Examples:
  vagus revoke --unit h1/icu --reason cACompromise --dry-run
  vagus revoke --batch "Aorta IP3:AIP3-000001..AIP3-000200" --reason keyCompromise
  vagus revoke --serial h1/icu#1:4A01BC --reason superseded
  vagus revoke --certificate pump.pem --reason keyCompromise
"""


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(help="Revoke many certificates by plan.", rich_markup_mode=None)
    group.callback(invoke_without_command=True, help=_HELP)(revoke)
    for name, command in (
        ("approve", approve),
        ("run", run),
        ("pause", pause),
        ("stop", stop),
        ("show", show),
        ("list", list_plans),
    ):
        line = f"vagus revoke {name}" if name == "list" else f"vagus revoke {name} 3"
        group.command(name, epilog=example(line))(command)
    group.command("resume", help="The same as `run`.")(run)
    application.add_typer(group, name="revoke")


def revoke(
    context: typer.Context,
    *,
    serial: SerialOption = None,
    certificate: CertificateOption = None,
    device: DeviceOption = None,
    unit: UnitOption = None,
    hospital: HospitalOption = None,
    model: ModelOption = None,
    batch: BatchOption = None,
    key: KeyOption = None,
    authority: AuthorityOption = None,
    reason: ReasonOption = None,
    hold: Annotated[bool, typer.Option("--hold", help="Suspend them instead; --release takes it back.")] = False,
    release: Annotated[bool, typer.Option("--release", help="End their holds instead.")] = False,
    certificates_only: Annotated[
        bool, typer.Option("--certificates-only", help="Do not lock the devices out: they may enrol anew at once.")
    ] = False,
    stages: StagesOption = "1,10,50",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the counts and stop; nothing is written.")] = False,
    ignore_late_lists: LateOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, neither now nor between stages.")] = False,
    json: JsonOption = False,
) -> None:
    """Revoke, hold or release the certificates that all given options name together, after showing how many."""
    if context.invoked_subcommand is not None:
        _check_nothing_before(context)
        return
    from vagus.fleet.revocation_targets import RevocationTarget

    (act, why), percents, output = read_act(reason, is_hold=hold, is_release=release), read_stages(stages), Output(json)
    with open_installation(context) as installation:
        target = RevocationTarget(
            serials=read_serials(installation, serial or (), certificate or ()),
            devices=tuple(installation.operations.devices.find(installation.actor, one).id for one in device or ()),
            units=unit or (),
            hospital=hospital,
            authorities=authority or (),
            model=model,
            batch=batch,
            key_sha256=key,
        )
        selection, block = _select(installation, target, why)
        locks_out = target.names_devices and why in locking_reasons() and not certificates_only
        forecast = (plans := installation.mass_revocation).forecast(selection, act, why)
        facts = {**forecast_facts(act, why, forecast), "locks_devices_out": locks_out, "key_is_blocked": block}
        if dry_run or not json:
            output.facts(facts)
        if dry_run:
            _check_any(forecast, block)
            return
        if forecast.certificates or block == BY_THIS:  # else nothing happens, or the proposal is refused
            asked = question(act, forecast, percents, locks_out=locks_out, blocks_key=block == BY_THIS)
            check_confirmed(asked, is_assumed=yes)
        if block is not None and not _block_key(installation, selection, why, facts, output):
            return
        row = plans.propose(selection, act, why, by=installation.actor.id, stages=percents, locks_out=locks_out)
        output.say(f"Plan {row.id} is written down.")
        _carry_on(installation, row, output, is_assumed=yes, is_late_fine=ignore_late_lists)


def approve(context: typer.Context, plan: PlanArgument, *, yes: YesOption = False, json: JsonOption = False) -> None:
    """Approve a plan that another operator proposed; it is shown before.

    Needs an account that has not approved it yet: proposing is the proposer's approval. Nothing is revoked by it; when
    the last approval is given, `vagus revoke run ID` begins.
    """
    from vagus.errors import Conflict
    from vagus.reasons import Reason

    output = Output(json)
    with open_installation(context) as installation:
        row, by = _find(installation, plan), installation.actor.id
        _check_goes_on(row)
        if by in row.approvals:  # before anything is asked
            how = "proposed" if by == row.made_by else "approved"
            msg = f"{by} {how} plan {plan} already, which counts as one approval; another account must approve"
            raise Conflict(Reason.ALREADY_EXISTS, msg, plan=plan)
        if not (json or yes):
            output.facts(spell_plan(installation, row))
        check_confirmed(f"Approve plan {plan} as {by}?", is_assumed=yes)
        row = installation.mass_revocation.approve(plan, by=by)
        output.facts(plan_facts(installation, row) if json else spell_plan(installation, row))
    missing = row.approvals_needed - len(row.approvals)
    output.say(f"{missing} more must approve." if missing > 0 else f"It may run: vagus revoke run {plan}")


def run(
    context: typer.Context,
    plan: PlanArgument,
    *,
    ignore_late_lists: LateOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask between stages.")] = False,
    hand_over: Annotated[
        bool, typer.Option("--hand-over", help="Leave this stage to a process that serves, whatever becomes of it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run the next stage of a plan, or what is left of one that was cut off or paused.

    Needs all approvals, and a serving process that publishes what was revoked before. On a terminal it asks before
    each further stage; anything but yes leaves the plan paused, exit code 0.
    """
    output = Output(json)
    with open_installation(context) as installation:
        row = _find(installation, plan)
        _check_goes_on(row)
        if hand_over:
            _hand_over(installation, row, output, is_late_fine=ignore_late_lists)
        else:
            _carry_on(installation, row, output, is_assumed=yes, is_late_fine=ignore_late_lists)


def pause(context: typer.Context, plan: PlanArgument, *, json: JsonOption = False) -> None:
    """Let a plan that runs, in whatever process, pause after its present step of at most 200 certificates.

    `vagus revoke run ID` goes on from there. A stage that was handed over to a server does not begin either.
    """
    from vagus.errors import Conflict
    from vagus.reasons import Reason
    from vagus.records.revocation.plans import PROPOSED

    with open_installation(context) as installation:
        row = _find(installation, plan)
        _check_goes_on(row)
        if row.state == PROPOSED:
            msg = f"plan {plan} has not begun, so there is nothing to pause; end it with `vagus revoke stop {plan}`"
            raise Conflict(Reason.DEVICE_STATE, msg, plan=plan, state=row.state)
        _tell(installation, installation.mass_revocation.pause(plan, by=installation.actor.id), Output(json))


def stop(context: typer.Context, plan: PlanArgument, *, yes: YesOption = False, json: JsonOption = False) -> None:
    """End a plan for good. What it did stays done, what it did not reach stays as it is.

    The rest needs a new plan with approvals of its own; to go on later, `vagus revoke pause ID` instead.
    """
    with open_installation(context) as installation:
        row = _find(installation, plan)
        _check_goes_on(row)
        count = row.counts["certificates"]
        check_confirmed(f"End plan {plan} for good, with {row.done:,} of {count:,} done?", is_assumed=yes)
        _tell(installation, installation.mass_revocation.stop(plan, by=installation.actor.id), Output(json))


def show(context: typer.Context, plan: PlanArgument, *, json: JsonOption = False) -> None:
    """Show one plan: what it selects, who approved it, how far it has come.

    `left` counts what its act has not reached now, whenever it was issued.
    """
    with open_installation(context) as installation:
        row = _find(installation, plan)
        _tell(installation, row, Output(json), left=installation.mass_revocation.count_left(row))


def list_plans(context: typer.Context, *, json: JsonOption = False) -> None:
    """List every plan, the oldest first: its number, act, state and how much is done."""
    from vagus.records.revocation.plans import list_plans as all_plans

    with open_installation(context) as installation:
        with installation.database.reading() as connection:
            plans = all_plans(connection)
        found = [plan_facts(installation, row) for row in plans]
    Output(json).rows("Plans", ("id", "act", "reason", "state", "done", "certificates", "made_by", "made_at"), found)


def _select(
    installation: Installation, target: RevocationTarget, why: RevocationReason
) -> tuple[Selection, str | None]:
    """What is named, and what becomes of a key that is."""
    from vagus.fleet.revocation_targets import select_target
    from vagus.operations.devices import check_known

    with installation.database.reading() as connection:
        check_known(connection, model=target.model or (target.batch or "").rpartition(":")[0] or None)
        selection = select_target(connection, target)
        return selection, spell_block(connection, selection, why)


def _check_any(forecast: Forecast, block: str | None) -> None:
    """What the proposal would say to a selection of nothing; a key alone may be named to be blocked."""
    from vagus.errors import Conflict
    from vagus.reasons import Reason

    if not forecast.certificates and block is None:
        raise Conflict(Reason.NOT_FOUND, "nothing that lives is selected, so there is nothing to do")


def _block_key(
    installation: Installation, selection: Selection, why: RevocationReason, facts: Row, output: Output
) -> bool:
    """Block the key that is named before its certificates are dealt with, if there are any: whether there are."""
    from vagus.records.revocation.revocations import REVOKE

    is_news = installation.revocations.block_key(selection.spki_sha256 or b"", by=installation.actor.id).result()
    output.say("The key is blocked: it is certified for nobody any more." if is_news else "The key is blocked already.")
    if installation.mass_revocation.forecast(
        selection, REVOKE, why
    ).certificates:  # looked at again: from now on there are no more
        return True
    if output.is_json:
        output.facts({**facts, "key_is_blocked": BY_THIS if is_news else ALREADY})
    return False


def _carry_on(
    installation: Installation, row: RevocationPlanRow, output: Output, *, is_assumed: bool, is_late_fine: bool
) -> None:
    """Stage after stage, as long as the answer is yes; then the plan as it stands."""
    from vagus.authority.crls.overdue import overdue_crls
    from vagus.records.revocation.plans import DONE, PAUSED, STOPPED

    _check_approved(installation, row, output)
    behind = overdue_crls(installation.database, installation.clock, installation.pack.crl.publish_within)
    while True:
        before, done = row, row.done
        with output.progress(f"plan {row.id}", row.counts["certificates"]) as bar:
            bar(done)

            def advance(now: RevocationPlanRow) -> None:
                nonlocal done
                bar(now.done - done)
                done = now.done

            try:
                stop = (lambda _: None) if is_late_fine else behind
                row = installation.mass_revocation.run(
                    row.id, by=installation.actor.id, stop=stop, advance=advance, seen=row
                )
            except KeyboardInterrupt:
                _pause_now(installation, row.id)
        is_stage_done = row.state == PAUSED and row.stage > before.stage
        if not is_stage_done or not confirm(f"{row.done:,} are done. Run the next stage?", is_assumed=is_assumed):
            break
    left = installation.mass_revocation.count_left(row)
    waiting = _tell(installation, row, output, left=left)
    if left and row.state == DONE:
        msg = f"vagus: {left} of the selection are left, issued or changed back since the proposal; propose it again"
        typer.echo(msg, err=True)
    if row.state == STOPPED:
        raise typer.Exit(REFUSED)
    if waiting:
        raise typer.Exit(STATE)


def _pause_now(installation: Installation, plan_id: int) -> NoReturn:
    """After Ctrl-C: the step that is being written is kept, and the plan is left as one that can go on."""
    from contextlib import suppress

    from vagus.errors import Conflict

    with suppress(Conflict):  # the stage ended meanwhile
        installation.mass_revocation.pause(plan_id, by=installation.actor.id)
    typer.echo(f"\nvagus: {spell_state(_find(installation, plan_id))}", err=True)
    raise typer.Exit(INTERRUPTED)


def _tell(
    installation: Installation, row: RevocationPlanRow, output: Output, *, left: int | None = None
) -> tuple[str, ...]:
    """A plan as it stands; for people also what may be done with it. Gives whose lists wait for a ceremony."""
    from vagus.authority.crls.overdue import find_crls_awaiting_ceremony

    waiting: tuple[str, ...] = ()
    if row.done:
        with installation.database.reading() as connection:
            waiting = find_crls_awaiting_ceremony(connection, row.selection, int(installation.clock.now().timestamp()))
    facts = plan_facts(installation, row) if output.is_json else spell_plan(installation, row)
    output.facts({**facts, "waits_for_ceremony": waiting} | ({} if left is None else {"left": left}))
    output.say(spell_state(row))
    if waiting:
        typer.echo(f"vagus: what plan {row.id} did is {spell_wait(waiting)}", err=True)
    return waiting


def _hand_over(installation: Installation, row: RevocationPlanRow, output: Output, *, is_late_fine: bool) -> None:
    """A job for whoever serves: this stage and no other, also when that process dies in the middle."""
    from vagus.jobs.kinds import hand_over_stage

    _check_approved(installation, row, output)
    by = installation.actor.id
    job = installation.writer.submit(
        lambda batch: hand_over_stage(batch.connection, row, by=by, ignores_late_lists=is_late_fine)
    ).result()
    output.facts({**(plan_facts(installation, row) if output.is_json else spell_plan(installation, row)), "job": job})
    output.say(
        f"Handed over: a process of `vagus serve` (not one of `--role status`) runs this stage as job {job}; see "
        f"`vagus revoke show {row.id}`."
    )


def _check_goes_on(row: RevocationPlanRow) -> None:
    """Raises Conflict(DEVICE_STATE) for a plan that is done or stopped, before anything is asked of anybody."""
    from vagus.errors import Conflict
    from vagus.reasons import Reason
    from vagus.records.revocation.plans import DONE, STOPPED

    if row.state in {DONE, STOPPED}:
        raise Conflict(Reason.DEVICE_STATE, end_of(row), plan=row.id, state=row.state)


def _check_approved(installation: Installation, row: RevocationPlanRow, output: Output) -> None:
    missing = row.approvals_needed - len(row.approvals)
    if missing <= 0:
        return
    output.facts(plan_facts(installation, row) if output.is_json else spell_plan(installation, row))
    typer.echo(f"vagus: {spell_state(row)}", err=True)
    raise typer.Exit(STATE)


def _find(installation: Installation, plan_id: int) -> RevocationPlanRow:
    from vagus.errors import Conflict
    from vagus.reasons import Reason
    from vagus.records.revocation.plans import find_plan

    with installation.database.reading() as connection:
        row = find_plan(connection, plan_id)
    if row is None:
        msg = f"there is no plan {plan_id}; see `vagus revoke list`"
        raise Conflict(Reason.NOT_FOUND, msg, plan=plan_id)
    return row


def _check_nothing_before(context: typer.Context) -> None:
    """An option before a subcommand would be dropped without a word, where it might have narrowed what happens."""
    from vagus.errors import Malformed
    from vagus.reasons import Reason

    given = [
        name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        option = "--" + given[0].replace("_", "-")
        msg = (
            f"{option} stands before `{context.invoked_subcommand}` and would not count there; write it behind, or "
            "leave it out: a plan has its selection already"
        )
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=option)
