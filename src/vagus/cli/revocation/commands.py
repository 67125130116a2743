"""The commands `vagus revoke ...`: propose, approve, run, pause, stop, list and show a revocation plan.

A plan whose approvals are missing waits: exit code 3, until `approve` by another operator and `run`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vagus.cli.failures import INTERRUPTED, REFUSED, STATE
from vagus.cli.files import read_certificates
from vagus.cli.options import REASONS, example, open_installation
from vagus.cli.output import JsonOption, Output, YesOption, check_confirmed, confirm
from vagus.cli.revocation.arguments import BatchOption, HospitalOption, ModelOption, UnitsOption, read_act, read_stages
from vagus.cli.revocation.wording import plan_facts, preview_facts, question, spell_plan, spell_state, spell_wait
from vagus.errors import Conflict, Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from vagus.operations.revocation import RevocationPlan, RevocationRequest
    from vagus.wiring import Installation

DEFAULT_STAGES = "1,10,50"
PlanArgument = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=2**31 - 1, help="A plan, as `vagus revoke list` numbers it.")
]
LateOption = Annotated[
    bool, typer.Option("--ignore-late-lists", help="Go on although earlier revocations still wait for a published CRL.")
]
_Many = list[str] | None
SerialOption = Annotated[
    _Many, typer.Option(metavar="AUTHORITY#N:SERIAL", help="One certificate, as in h1/icu#1:0x4A01. Repeatable.")
]
CertificateOption = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="The certificates in a file, PEM or DER. Repeatable.")
]
KeyOption = Annotated[
    str | None, typer.Option(metavar="SHA256", help="All for one public key: SHA-256 of its SubjectPublicKeyInfo.")
]
AuthorityOption = Annotated[
    _Many, typer.Option(metavar="NAME[#N]", help="All that it issued, also to servers and responders. Repeatable.")
]
StagesOption = Annotated[
    str, typer.Option(metavar="PERCENTS", help="Pause after each of these; the last stage does the rest.")
]

_HELP = """Revoke, hold or release many certificates, by a plan that is counted, approved and run in stages.

Name them by the options below; several kinds narrow each other (a unit and a model: that unit's devices of that
model). The counts are shown first, then one question. Where policy asks for one approval (yours) the first stage runs
at once. Where it asks for more, the plan is written down and the exit code is 3: another operator gives `vagus revoke
approve ID`, then `vagus revoke run ID`. Needs no passphrase; `vagus serve` publishes the CRLs.

With keyCompromise, cessationOfOperation or privilegeWithdrawn, devices that are named (by device, unit, hospital,
model or batch) are also locked out, as by `vagus device revoke`: quarantined, their tokens ended. Those without a
certificate are locked out first. A recalled lot (model or batch) stays recalled: its devices that are added later come
in recalled, until `vagus device state received` names the lot. A hold names devices in the same way.

A key that is named with a compromise as the reason is blocked at once, also where no certificate is for it: no
certificate is issued for it any more.

One device, at once and without approvals: `vagus device revoke`.

\b
Examples:
  vagus revoke --unit h1/icu --reason cACompromise --dry-run
  vagus revoke --batch "Aorta IP3:AIP3-000001..AIP3-000200" --reason keyCompromise
  vagus revoke --serial h1/icu#1:0x4A01BC --reason superseded
  vagus revoke --certificate pump.pem --reason keyCompromise
"""


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(help="Revoke many certificates by plan.", rich_markup_mode=None)
    group.callback(invoke_without_command=True, help=_HELP)(revoke)
    for command in (approve, run, pause, stop, show):
        group.command(epilog=example(f"vagus revoke {command.__name__} 3"))(command)
    group.command("list", epilog=example("vagus revoke list"))(list_plans)
    group.command("resume", help="The same as `run`.")(run)
    application.add_typer(group, name="revoke")


def revoke(
    context: typer.Context,
    *,
    serial: SerialOption = None,
    certificate: CertificateOption = None,
    device: Annotated[_Many, typer.Option(metavar="DEVICE", help="A device id, or MODEL:SERIAL. Repeatable.")] = None,
    unit: UnitsOption = None,
    hospital: HospitalOption = None,
    model: ModelOption = None,
    batch: BatchOption = None,
    key: KeyOption = None,
    authority: AuthorityOption = None,
    reason: Annotated[str | None, typer.Option(metavar="REASON", help=f"{REASONS}. Left out: unspecified.")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Suspend them instead; --release takes it back.")] = False,
    release: Annotated[bool, typer.Option("--release", help="End their holds instead.")] = False,
    certificates_only: Annotated[
        bool, typer.Option("--certificates-only", help="Do not lock the devices out: they may enrol anew at once.")
    ] = False,
    stages: StagesOption = DEFAULT_STAGES,
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
    from vagus.operations.revocation import RevocationRequest

    (act, why), percents, output = read_act(reason, is_hold=hold, is_release=release), read_stages(stages), Output(json)
    request = RevocationRequest(
        act=act,
        reason=why,
        target=RevocationTarget(
            serials=tuple(serial or ()),
            units=unit or (),
            hospital=hospital,
            authorities=authority or (),
            model=model,
            batch=batch,
            key_sha256=key,
        ),
        devices=device or (),
        certificates=[(str(path), read_certificates(path)) for path in certificate or ()],
        stages=percents,
        keeps_enrolling=certificates_only,
    )
    with open_installation(context) as installation:
        preview_and_propose(
            installation, request, output, is_dry=dry_run, is_assumed=yes, ignores_late_crls=ignore_late_lists
        )


def approve(context: typer.Context, plan: PlanArgument, *, yes: YesOption = False, json: JsonOption = False) -> None:
    """Approve a plan that another operator proposed; it is shown before.

    Needs an account that has not approved it yet: proposing is the proposer's approval. Nothing is revoked by it; when
    the last approval is given, `vagus revoke run ID` begins.
    """
    output = Output(json)
    with open_installation(context) as installation:
        plans, actor = installation.operations.revocation, installation.actor
        found = plans.preview_approval(actor, plan)
        if not (json or yes):
            output.facts(spell_plan(found))
        check_confirmed(f"Approve plan {plan} as {actor.id}?", is_assumed=yes)
        found = plans.approve(actor, plan)
    output.facts(plan_facts(found) if json else spell_plan(found))
    missing = found.missing_approvals
    output.say(f"{missing} more must approve." if missing > 0 else f"It may run: vagus revoke run {plan}")


def run(
    context: typer.Context,
    plan: PlanArgument,
    *,
    ignore_late_lists: LateOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask between stages.")] = False,
    hand_over: Annotated[
        bool, typer.Option("--hand-over", help="Leave this stage to a serving process, also when this command ends.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run the next stage of a plan, or what is left of one that was cut off or paused.

    Needs all approvals, and a serving process that publishes what was revoked before. On a terminal it asks before
    each further stage; anything but yes leaves the plan paused, exit code 0.
    """
    output = Output(json)
    with open_installation(context) as installation:
        found = installation.operations.revocation.find(installation.actor, plan)
        found.check_goes_on()
        if hand_over:
            _hand_over(installation, found, output, ignores_late_crls=ignore_late_lists)
        else:
            _run_stages(installation, found, output, is_assumed=yes, ignores_late_crls=ignore_late_lists)


def pause(context: typer.Context, plan: PlanArgument, *, json: JsonOption = False) -> None:
    """Let a plan that runs in any process pause after its present step of at most 200 certificates.

    `vagus revoke run ID` goes on from there. A stage that was handed over to a server does not begin either.
    """
    with open_installation(context) as installation:
        found = installation.operations.revocation.pause(installation.actor, plan)
        _show(installation, found, Output(json))


def stop(context: typer.Context, plan: PlanArgument, *, yes: YesOption = False, json: JsonOption = False) -> None:
    """End a plan for good. What it did stays done, what it did not reach stays as it is.

    The rest needs a new plan with approvals of its own; to go on later, `vagus revoke pause ID` instead.
    """
    with open_installation(context) as installation:
        plans, actor = installation.operations.revocation, installation.actor
        found = plans.find(actor, plan)
        found.check_goes_on()
        count = found.row.counts["certificates"]
        check_confirmed(f"End plan {plan} for good, with {found.row.done:,} of {count:,} done?", is_assumed=yes)
        _show(installation, plans.stop(actor, plan), Output(json))


def show(context: typer.Context, plan: PlanArgument, *, json: JsonOption = False) -> None:
    """Show one plan: what it selects, who approved it, how far it has come.

    `left` counts what its act has not reached now, whenever it was issued. `devices left` counts the devices that it
    names and that may still enrol; for a release, those that are still on hold.
    """
    with open_installation(context) as installation:
        plans, actor = installation.operations.revocation, installation.actor
        found = plans.find(actor, plan)
        left, devices = plans.count_left(actor, found), plans.count_devices_left(actor, found)
        _show(installation, found, Output(json), left=left, devices_left=devices)


def list_plans(context: typer.Context, *, json: JsonOption = False) -> None:
    """List every plan, the oldest first: its number, act, state and how much is done."""
    with open_installation(context) as installation:
        found = [plan_facts(plan) for plan in installation.operations.revocation.list_all(installation.actor)]
    Output(json).rows("Plans", ("id", "act", "reason", "state", "done", "certificates", "made_by", "made_at"), found)


def preview_and_propose(
    installation: Installation,
    request: RevocationRequest,
    output: Output,
    *,
    is_dry: bool,
    is_assumed: bool,
    ignores_late_crls: bool,
) -> None:
    """Show what would happen, ask, block a key that was named, write the plan down and run what may run."""
    from vagus.operations.revocation import KeyBlock

    plans, actor = installation.operations.revocation, installation.actor
    preview = plans.preview(actor, request)
    if is_dry or not output.is_json:
        output.facts(preview_facts(preview))
    if is_dry:
        preview.check_any()
        return
    blocks_key = preview.key_block is KeyBlock.BY_THIS
    # Ask to confirm only if the plan would do something; an empty plan is refused by the proposal itself.
    if not preview.is_empty or blocks_key:
        check_confirmed(question(preview), is_assumed=is_assumed)
    if preview.key_block is not None:
        block, has_certificates = plans.block_key(actor, preview)
        more = ": no certificate is issued for it any more" if block is KeyBlock.BY_THIS else " already"
        output.say(f"The key is blocked{more}.")
        if not has_certificates:
            if output.is_json:
                output.facts({**preview_facts(preview), "key_is_blocked": block})
            return
    preview.check_any()
    plan = plans.propose(actor, preview)
    output.say(f"Plan {plan.row.id} is written down.")
    _run_stages(installation, plan, output, is_assumed=is_assumed, ignores_late_crls=ignores_late_crls)


def _run_stages(
    installation: Installation, plan: RevocationPlan, output: Output, *, is_assumed: bool, ignores_late_crls: bool
) -> None:
    """Run stage after stage, as long as the operator says yes; then show the plan."""
    from vagus.operations.revocation import PlanState

    plans, actor = installation.operations.revocation, installation.actor
    _check_approved(plan, output)
    while True:
        before, done = plan.row, plan.row.done
        with output.progress(f"plan {before.id}", before.counts["certificates"]) as bar:
            bar(done)

            def advance(now: int) -> None:
                nonlocal done
                bar(now - done)
                done = now

            try:
                plan = plans.run_stage(actor, plan, ignores_late_crls=ignores_late_crls, advance=advance)
            except KeyboardInterrupt:
                _pause_now(installation, before.id)
        is_stage_done = plan.row.state == PlanState.PAUSED and plan.row.stage > before.stage
        if not is_stage_done or not confirm(f"{plan.row.done:,} are done. Run the next stage?", is_assumed=is_assumed):
            break
    left, devices = plans.count_left(actor, plan), plans.count_devices_left(actor, plan)
    waiting = _show(installation, plan, output, left=left, devices_left=devices)
    if left and plan.row.state == PlanState.DONE:
        msg = f"vagus: {left} certificates of the selection are left, issued or released since; propose a new plan"
        typer.echo(msg, err=True)
    if devices and plan.row.state == PlanState.DONE:
        msg = f"vagus: {devices} devices of the selection are left, added or moved on since; propose a new plan"
        typer.echo(msg, err=True)
    if plan.row.state == PlanState.STOPPED:
        raise typer.Exit(REFUSED)
    if waiting:
        raise typer.Exit(STATE)


def _pause_now(installation: Installation, plan_id: int) -> NoReturn:
    """After Ctrl-C: the step that is being written is kept, and the plan is left as one that can go on."""
    from contextlib import suppress

    plans, actor = installation.operations.revocation, installation.actor
    with suppress(Conflict):  # the stage ended before the pause was recorded
        plans.pause(actor, plan_id)
    typer.echo(f"\nvagus: {spell_state(plans.find(actor, plan_id))}", err=True)
    raise typer.Exit(INTERRUPTED)


def _show(installation: Installation, plan: RevocationPlan, output: Output, **left: int) -> tuple[str, ...]:
    """A plan as it is; for people also what may be done with it. Gives the authorities that wait for a ceremony."""
    waiting = installation.operations.revocation.find_waiting(installation.actor, plan)
    facts = plan_facts(plan) if output.is_json else spell_plan(plan)
    output.facts({**facts, "waits_for_ceremony": waiting, **left})
    output.say(spell_state(plan))
    if waiting:
        typer.echo(f"vagus: what plan {plan.row.id} did is {spell_wait(waiting)}", err=True)
    return waiting


def _hand_over(installation: Installation, plan: RevocationPlan, output: Output, *, ignores_late_crls: bool) -> None:
    _check_approved(plan, output)
    plans, actor = installation.operations.revocation, installation.actor
    job = plans.hand_over(actor, plan, ignores_late_crls=ignores_late_crls)
    output.facts({**(plan_facts(plan) if output.is_json else spell_plan(plan)), "job": job})
    output.say(
        f"Handed over: a process of `vagus serve` (not one of `--role status`) runs this stage as job {job}; see "
        f"`vagus revoke show {plan.row.id}`."
    )


def _check_approved(plan: RevocationPlan, output: Output) -> None:
    if plan.missing_approvals > 0:
        output.facts(plan_facts(plan) if output.is_json else spell_plan(plan))
        typer.echo(f"vagus: {spell_state(plan)}", err=True)
        raise typer.Exit(STATE)


def _check_nothing_before(context: typer.Context) -> None:
    """An option before a subcommand would be dropped silently, though it was meant to narrow what happens."""
    given = [
        name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        option = "--" + given[0].replace("_", "-")
        msg = (
            f"option {option} stands before `{context.invoked_subcommand}` and has no effect there; write it "
            "after the subcommand, or leave it out: an existing plan has its selection already"
        )
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=option)
