"""`vagus revoke`: many certificates by plan: counted, approved, run in stages, paused, stopped; one device is simpler.

A plan whose approvals are missing waits: exit code 3, until `approve` by another operator and `run`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.devices import spell_time
from vagus.cli.failures import REFUSED, STATE
from vagus.cli.options import REASONS, open_house
from vagus.cli.output import JsonOption, Output, YesOption, confirm

if TYPE_CHECKING:
    from vagus.authority.mass_revocation import Forecast
    from vagus.cli.output import Row
    from vagus.records.revocation_plans import RevocationPlanRow
    from vagus.wiring import House
    from vagus.x509.crl_building import RevocationReason

PlanArgument = Annotated[int, typer.Argument(metavar="ID", help="A plan, as `vagus revoke list` numbers it.")]
LateOption = Annotated[
    bool, typer.Option("--ignore-late-lists", help="Go on although revocations wait for a list: no server publishes.")
]
_Many = list[str] | None


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(help="Revoke many certificates by plan.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(revoke)
    for name, command in (
        ("approve", approve),
        ("run", run),
        ("resume", run),
        ("pause", pause),
        ("stop", stop),
        ("show", show),
        ("list", list_plans),
    ):
        group.command(name)(command)
    application.add_typer(group, name="revoke")


def revoke(
    context: typer.Context,
    *,
    serial: Annotated[_Many, typer.Option(metavar="AUTHORITY#N:HEX", help="One certificate. Repeatable.")] = None,
    device: Annotated[_Many, typer.Option(metavar="DEVICE", help="A device id, or MODEL:SERIAL. Repeatable.")] = None,
    unit: Annotated[_Many, typer.Option(metavar="HOSPITAL/UNIT", help="Its devices' certificates. Repeatable.")] = None,
    hospital: Annotated[str | None, typer.Option(help="Its devices' certificates.")] = None,
    model: Annotated[str | None, typer.Option(help="Those of all devices of a model.")] = None,
    batch: Annotated[str | None, typer.Option(metavar="MODEL:FIRST..LAST", help="By the makers' serials.")] = None,
    key: Annotated[str | None, typer.Option(metavar="SHA256", help="Those for one public key.")] = None,
    authority: Annotated[
        _Many, typer.Option(metavar="NAME[#N]", help="All that it issued, to servers too. Repeatable.")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="REASON", help=f"{REASONS}.")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Suspend them instead.")] = False,
    release: Annotated[bool, typer.Option("--release", help="End their holds instead.")] = False,
    certificates_only: Annotated[
        bool, typer.Option("--certificates-only", help="Do not lock the devices out: they may enrol anew at once.")
    ] = False,
    stages: Annotated[str, typer.Option(metavar="PERCENTS", help="Where to stop and look.")] = "1,10,50",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the counts and stop.")] = False,
    ignore_late_lists: LateOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Revoke, hold or release the certificates that all given options name together, after showing how many.

    Where devices are named and the reason is keyCompromise, cessationOfOperation or privilegeWithdrawn, they are also
    locked out as by `vagus device revoke`: quarantined, their tokens ended; `--certificates-only` leaves them alone.
    """
    if context.invoked_subcommand is not None:
        return
    from vagus.fleet.revocation_targets import RevocationTarget, select_target

    (act, why), percents, output = _act(reason, is_hold=hold, is_release=release), _percents(stages), Output(json)
    with open_house(context) as house:
        target = RevocationTarget(
            serials=serial or (),
            devices=tuple(house.find_device(one).id for one in device or ()),
            units=unit or (),
            hospital=hospital,
            authorities=authority or (),
            model=model,
            batch=batch,
            key_sha256=key,
        )
        with house.database.reading() as connection:
            selection = select_target(connection, target)
        locks_out = target.names_devices and why in _locking() and not certificates_only
        forecast = house.mass_revocation.forecast(selection, act)
        if dry_run or not json:
            output.facts({**_counts(act, why, forecast), "locks_devices_out": locks_out})
        if dry_run:
            return
        count, by = forecast.certificates, house.operator
        if count and not confirm(f"Plan to {act} {count} of them?", is_assumed=yes):
            raise typer.Exit(REFUSED)
        row = house.mass_revocation.propose(selection, act, why, by=by, stages=percents, locks_out=locks_out)
        output.say(f"Plan {row.id} is written down.")
        _carry_on(house, row, output, is_assumed=yes, is_late_fine=ignore_late_lists)


def approve(context: typer.Context, plan: PlanArgument, *, yes: YesOption = False, json: JsonOption = False) -> None:
    """Approve a plan that another operator proposed; it is shown before."""
    output = Output(json)
    with open_house(context) as house:
        row = _find(house, plan)
        if not json:
            output.facts(_facts(row))
        if not confirm(f"Approve plan {plan} as {house.operator}?", is_assumed=yes):
            raise typer.Exit(REFUSED)
        row = house.mass_revocation.approve(plan, by=house.operator)
    if json:
        output.facts(_facts(row))
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
    """Run the next stage of a plan, or what is left of one that was cut off or paused."""
    with open_house(context) as house:
        row = _find(house, plan)
        if hand_over:
            _hand_over(house, row, Output(json), is_late_fine=ignore_late_lists)
        else:
            _carry_on(house, row, Output(json), is_assumed=yes, is_late_fine=ignore_late_lists)


def pause(context: typer.Context, plan: PlanArgument, *, json: JsonOption = False) -> None:
    """Let a plan that runs, in whatever process, pause after its present step."""
    with open_house(context) as house:
        Output(json).facts(_facts(house.mass_revocation.pause(plan, by=house.operator)))


def stop(context: typer.Context, plan: PlanArgument, *, yes: YesOption = False, json: JsonOption = False) -> None:
    """End a plan for good; what it did stays done."""
    with open_house(context) as house:
        if not confirm(f"End plan {plan} for good?", is_assumed=yes):
            raise typer.Exit(REFUSED)
        Output(json).facts(_facts(house.mass_revocation.stop(plan, by=house.operator)))


def show(context: typer.Context, plan: PlanArgument, *, json: JsonOption = False) -> None:
    """Show one plan and how far it has come."""
    with open_house(context) as house:
        row = _find(house, plan)
        Output(json).facts({**_facts(row), "left": house.mass_revocation.count_left(row)})


def list_plans(context: typer.Context, *, json: JsonOption = False) -> None:
    """List every plan, the oldest first."""
    from vagus.records.revocation_plans import list_plans as all_plans

    with open_house(context) as house, house.database.reading() as connection:
        found = [_facts(row) for row in all_plans(connection)]
    Output(json).rows("Plans", ("id", "act", "reason", "state", "done", "certificates", "made_by", "made_at"), found)


def _carry_on(house: House, row: RevocationPlanRow, output: Output, *, is_assumed: bool, is_late_fine: bool) -> None:
    """Stage after stage, as long as the answer is yes; then the plan as it stands."""
    from vagus.authority.mass_revocation import lists_behind
    from vagus.records.revocation_plans import DONE, PAUSED, STOPPED

    _check_approved(row, output)
    behind = lists_behind(house.database, house.clock, house.pack.crl.publish_within)
    while True:
        before, done = row, row.done
        with output.progress(f"plan {row.id}", row.counts["certificates"]) as bar:
            bar(done)

            def advance(now: RevocationPlanRow) -> None:
                nonlocal done
                bar(now.done - done)
                done = now.done

            row = house.mass_revocation.run(
                row.id, by=house.operator, stop=(lambda _: None) if is_late_fine else behind, advance=advance
            )
        is_stage_done = row.state == PAUSED and row.stage > before.stage
        if not is_stage_done or not confirm(f"{row.done} are done. Run the next stage?", is_assumed=is_assumed):
            break
    left = house.mass_revocation.count_left(row)
    output.facts({**_facts(row), "left": left})
    if left and row.state == DONE:
        msg = f"vagus: {left} of the selection are left, issued or changed back since the proposal; propose it again"
        typer.echo(msg, err=True)
    if row.state == STOPPED:
        raise typer.Exit(REFUSED)


def _hand_over(house: House, row: RevocationPlanRow, output: Output, *, is_late_fine: bool) -> None:
    """A job for whoever serves: this stage and no other, also when that process dies in the middle."""
    from vagus.errors import Conflict
    from vagus.reasons import Reason
    from vagus.records.revocation_plans import DONE, STOPPED
    from vagus.server.work_kinds import hand_over_stage

    _check_approved(row, output)
    if row.state in {DONE, STOPPED}:
        msg = f"plan {row.id} is {row.state}, so there is no stage to hand over; propose a new one"
        raise Conflict(Reason.DEVICE_STATE, msg, plan=row.id)
    by = house.operator
    job = house.writer.submit(
        lambda batch: hand_over_stage(batch.connection, row, by=by, ignores_late_lists=is_late_fine)
    ).result()
    output.facts({**_facts(row), "job": job})


def _check_approved(row: RevocationPlanRow, output: Output) -> None:
    missing = row.approvals_needed - len(row.approvals)
    if missing <= 0:
        return
    output.facts(_facts(row))
    typer.echo(
        f"vagus: approvals are missing: {missing}; another operator gives `vagus revoke approve {row.id}`, then "
        f"`vagus revoke run {row.id}`",
        err=True,
    )
    raise typer.Exit(STATE)


def _act(reason: str | None, *, is_hold: bool, is_release: bool) -> tuple[str, RevocationReason]:
    from vagus.errors import Malformed
    from vagus.reasons import Reason
    from vagus.records.revocations import HOLD, RELEASE, REVOKE
    from vagus.x509.crl_building import RevocationReason

    if (is_hold or is_release) and (reason is not None or is_hold is is_release):
        msg = "--hold, --release and --reason exclude each other: a hold has its own reason; give one of them"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    if is_hold:
        return HOLD, RevocationReason.CERTIFICATE_HOLD
    if is_release:
        return RELEASE, RevocationReason.REMOVE_FROM_CRL
    return REVOKE, RevocationReason.parse(reason or RevocationReason.UNSPECIFIED.spelling)


def _locking() -> frozenset[RevocationReason]:
    """Reasons after which nobody expects the same device to come back with another certificate by itself."""
    from vagus.x509.crl_building import RevocationReason as Why

    return frozenset({Why.KEY_COMPROMISE, Why.CESSATION_OF_OPERATION, Why.PRIVILEGE_WITHDRAWN})


def _percents(text: str) -> tuple[int, ...]:
    from vagus.errors import Malformed
    from vagus.reasons import Reason

    parts = [one.strip() for one in text.split(",") if one.strip()]
    if not all(one.isascii() and one.isdigit() and len(one) < 3 for one in parts):
        msg = f"stages {text!r} are no percents; write them growing and below 100, as in 1,10,50"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text)
    return tuple(int(one) for one in parts)


def _find(house: House, plan_id: int) -> RevocationPlanRow:
    from vagus.errors import Conflict
    from vagus.reasons import Reason
    from vagus.records.revocation_plans import find_plan

    with house.database.reading() as connection:
        row = find_plan(connection, plan_id)
    if row is None:
        msg = f"there is no plan {plan_id}; see `vagus revoke list`"
        raise Conflict(Reason.NOT_FOUND, msg, plan=plan_id)
    return row


def _counts(act: str, reason: RevocationReason, forecast: Forecast) -> Row:
    return {
        "act": act,
        "reason": reason.spelling,
        "certificates": forecast.certificates,
        "devices": forecast.devices,
        "lists_grow_by_octets": forecast.list_octets,
        "largest_list_octets": forecast.largest_list_octets,
        "ocsp_answers_signed_anew": forecast.ocsp_answers,
        "approvals_needed": forecast.approvals_needed,
    }


def _facts(row: RevocationPlanRow) -> Row:
    from vagus.x509.crl_building import RevocationReason

    return {
        "id": row.id,
        "act": row.act,
        "reason": RevocationReason(row.reason).spelling,
        "state": row.state,
        "stopped_because": row.stopped_because,
        "certificates": row.counts["certificates"],
        "devices": row.counts["devices"],
        "locks_devices_out": row.locks_out,
        "lists_grow_by_octets": row.counts["list_octets"],
        "largest_list_octets": row.counts["largest_list_octets"],
        "ocsp_answers_signed_anew": row.counts["ocsp_answers"],
        "done": row.done,
        "stages": list(row.stages),
        "stage": min(row.stage + 1, len(row.stages)),
        "approvals": list(row.approvals),
        "approvals_needed": row.approvals_needed,
        "made_by": row.made_by,
        "made_at": spell_time(row.made_at),
        "selection": row.selection.encode(),
    }
