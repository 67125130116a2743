"""`vagus plan check|apply`: what a plan would change, and changing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.failures import STATE
from vagus.cli.options import PassphraseOption, add_group, open_installation
from vagus.cli.output import JsonOption, Output, YesOption, check_confirmed, facts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vagus.fleet.plans.differences import Difference

_MOST_SHOWN = 5
PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, a TOML file.")]


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    add_group(
        application,
        "plan",
        "The plan: hospitals, units, models, devices and listeners in one TOML file.",
        ("check", check, "vagus --dir hospital plan check plan.toml"),
        ("apply", apply, "vagus --dir hospital plan apply plan.toml"),
    )


def check(context: typer.Context, file: PlanArgument, *, json: JsonOption = False) -> None:
    """Show what applying PLAN would change; changes nothing.

    Exit code 0 whether something would change or not, 2 for a plan with a mistake in it.
    """
    with open_installation(context) as installation:
        _show(Output(json), installation.operations.plans.compare(installation.actor, file).difference)


def apply(
    context: typer.Context,
    file: PlanArgument,
    *,
    ceremony: Annotated[
        bool, typer.Option("--ceremony", help="Hold the ceremony now: offline keys are made and sign here.")
    ] = False,
    yes: YesOption = False,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Make PLAN true: add units, models, authorities and devices, after showing the changes and asking.

    An authority that the plan no longer names is retired; nothing is deleted. A second apply changes nothing and holds
    no second ceremony. Needs passphrases for the keystores of new authorities. Without --ceremony their requests wait
    for `vagus ceremony` (exit code 3).
    """
    output = Output(json)
    with open_installation(context, passphrase_source) as installation:
        plans, ceremonies = installation.operations.plans, installation.operations.ceremonies
        actor = installation.actor
        found = plans.compare(actor, file)
        if not json:
            _show(output, found.difference)
        if not found.difference.is_empty:
            check_confirmed("Apply this plan?", is_assumed=yes)
        with output.progress("Applying", plans.count_steps(actor, found)) as advance:
            applied = plans.apply(actor, found, advance=advance, with_offline=ceremony)
        if ceremony:
            with output.progress("Ceremony", len(ceremonies.find_waiting(actor).authorities)) as advance:
                ceremonies.hold_if_due(actor, advance=lambda _step: advance(1))
        waiting = ceremonies.find_waiting(actor).authorities
        done = facts_of(applied, "authorities", "units", "models", "devices", "retired")
        output.facts({**done, "waiting": list(waiting) if json else _spell_waiting(waiting)})
        if found.difference.is_new_plan:
            for line in applied.next_steps:
                output.say(line)
        if waiting:
            typer.echo(f"vagus: ceremony needed: {len(waiting)} requests", err=True)
            raise typer.Exit(STATE)


def _show(output: Output, found: Difference) -> None:
    columns = ("act", "what", "name", "detail")
    output.rows("Changes", columns, [facts_of(change, *columns) for change in found.changes])
    if found.totals:
        output.say(f"In all: {', '.join(_spell_total(*what, number) for what, number in found.totals.items())}.")
    for remark in found.remarks:
        output.say(f"Note: {remark}.")


def _spell_total(act: str, what: str, number: int) -> str:
    many = {"authority": "authorities", "batch": "batches"}.get(what, f"{what}s")
    return f"{act} {number:,} {what if number == 1 else many}"


def _spell_waiting(names: Sequence[str]) -> str:
    """How many, and the first of them: a group of hospitals has dozens."""
    shown = ", ".join(names[:_MOST_SHOWN])
    more = f" and {len(names) - _MOST_SHOWN} more: `vagus ceremony --dry-run`" if len(names) > _MOST_SHOWN else ""
    return f"{len(names)} ({shown}{more})" if names else "0"
