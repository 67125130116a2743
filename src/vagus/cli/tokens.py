"""`vagus token make`: one-time enrolment tokens; shown once, kept nowhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from vagus.cli.devices import DeviceArgument, spell_time
from vagus.cli.options import open_house
from vagus.cli.output import JsonOption, Output


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(help="One-time enrolment tokens.", no_args_is_help=True, rich_markup_mode=None)
    group.command("make")(make)
    group.callback()(_group)
    application.add_typer(group, name="token")


def _group() -> None:
    """One-time enrolment tokens."""


def make(
    context: typer.Context,
    device: DeviceArgument,
    *,
    hours: Annotated[
        float | None, typer.Option(min=0.02, max=2160, help="How long it may be used; the policy's time if left out.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a token with which one device may enrol once; it is shown here and never again."""
    with open_house(context) as house:
        found = house.find_device(device)
        life = None if hours is None else timedelta(hours=hours)
        made = house.tokens.make(found.id, by=house.operator, life=life).result()
    Output(json).facts({"device": str(made.device_id), "token": made.text, "expires_at": spell_time(made.expires_at)})
