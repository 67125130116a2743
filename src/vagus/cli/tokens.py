"""`vagus token make`: one-time enrolment tokens; shown once, kept nowhere."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
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
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to this new file with mode 0600 and show it nowhere.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a token with which one device may enrol once; it is shown here and never again."""
    from vagus.errors import Conflict
    from vagus.keystore.files import write_new
    from vagus.reasons import Reason

    if out is not None and out.exists():  # before a token is made that nobody could read
        msg = f"{out} exists already; a secret is never overwritten, choose another name"
        raise Conflict(Reason.ALREADY_EXISTS, msg, path=str(out))
    with open_house(context) as house:
        found = house.find_device(device)
        life = None if hours is None else timedelta(hours=hours)
        made = house.tokens.make(found.id, by=house.operator, life=life).result()
    if out is not None:
        write_new(out, f"{made.text}\n".encode("ascii"))
    shown = {"token": made.text} if out is None else {"file": str(out)}
    Output(json).facts({"device": str(made.device_id), **shown, "expires_at": spell_time(made.expires_at)})
