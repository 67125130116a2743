"""`vagus quickstart`: one command from nothing to a hospital that serves, for a trial."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vagus.cli.options import example
from vagus.cli.output import JsonOption, Output


def register(application: typer.Typer) -> None:
    """Add the command of this file."""
    lines = ("vagus quickstart ward", "vagus quickstart ward --port 9000 --no-serve")
    application.command("quickstart", epilog=example(*lines))(quickstart)


def quickstart(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder for everything that is made.")],
    *,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=1, max=65_532, help="The first of four ports; free ones if left out."),
    ] = None,
    no_serve: Annotated[
        bool, typer.Option("--no-serve", help="Only make the hospital, and print the command that serves it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make a hospital with one ward of ten infusion pumps in DIR, and serve it until Ctrl-C.

    As init, plan apply with its ceremony, token make, ca export and serve, with a passphrase in a file and a small
    telemetry store behind the gateway. Prints the next commands: a device's first certificate and connection. For a
    trial only. Needs no --dir; nothing half made stays.
    """
    from vagus.server.quickstart.ward import NOT_FOR_PRODUCTION, Ward, make_ward, serve_ward

    began, output = time.monotonic(), Output(json)

    def say(line: str) -> None:
        typer.echo(f"vagus: {line}", err=True)

    def report(ward: Ward) -> None:
        seconds, commands = round(time.monotonic() - began, 1), ward.commands()
        if json:
            output.facts({"folder": str(ward.folder), "seconds": seconds, "commands": commands})
            return
        output.say(f"A hospital with one ward {'is' if no_serve else 'serves'} in {ward.folder}, after {seconds} s.")
        output.say(f"Not for production: {NOT_FOR_PRODUCTION}.\n")
        if no_serve:
            output.say("Serve it, each in a terminal: the telemetry store behind the gateway, then the hospital.")
            output.say(f"  {commands['store']}\n  {commands['serve']}\n")
        output.say("In another terminal: a device's first certificate, by one-time token, and its first connection.")
        output.say(f"  {commands['enrol']}\n  {commands['connect']}\n")
        output.say("Then the device is stolen: revoke it, and connect again. The gateway refuses it.")
        output.say(f"  {commands['revoke']}")
        if not no_serve:
            output.say(f"\nCtrl-C ends it. What happens is logged in {ward.events}.")

    ward = make_ward(folder, first_port=port, say=say)
    if no_serve:
        report(ward)
        return
    lines = serve_ward(ward, ready=lambda _facts: report(ward), say=say)
    commands = ward.commands()
    output.say(
        f"\nThe telemetry store took {lines} lines. To serve again:\n  {commands['store']} &\n  {commands['serve']}"
    )
