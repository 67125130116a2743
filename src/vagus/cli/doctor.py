"""`vagus doctor`: whether this installation is well."""

from __future__ import annotations

import typer

from vagus.cli.failures import REFUSED
from vagus.cli.options import open_house
from vagus.cli.output import JsonOption, Output


def register(application: typer.Typer) -> None:
    """Add the command of this file."""
    application.command("doctor")(doctor)


def doctor(context: typer.Context, *, json: JsonOption = False) -> None:
    """Look at permissions, durability, disk, clock, ledger, authorities, CRLs. Exit code 1 when something fails."""
    from vagus.server.diagnosis import State, diagnose

    with open_house(context) as house:
        findings = list(diagnose(house))
    Output(json).rows(
        "Findings",
        ("check", "state", "finding", "remedy"),
        [
            {"check": one.check, "state": one.state.value, "finding": one.finding, "remedy": one.remedy or None}
            for one in findings
        ],
    )
    if any(one.state is State.FAILING for one in findings):
        raise typer.Exit(REFUSED)
