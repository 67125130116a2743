"""`vagus doctor`: whether this installation is healthy."""

from __future__ import annotations

from typing import Annotated

import typer

from vagus.cli.failures import REFUSED
from vagus.cli.options import decode_address, example, open_installation
from vagus.cli.output import JsonOption, Output, facts_of


def register(application: typer.Typer) -> None:
    """Add the command of this file."""
    application.command("doctor", epilog=example("vagus doctor --status-address 127.0.0.1:8080"))(doctor)


def doctor(
    context: typer.Context,
    *,
    status_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Fetch CRLs and OCSP responses from here, not from the status URL's own host."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check permissions, disk, clock, ledger, authorities, CRLs and OCSP responses; each finding has its remedy.

    Changes nothing and needs no passphrase. Exit code 1 when something fails; a warning alone is 0.
    """
    from vagus.operations.doctor.findings import State

    connect_to = None if status_address is None else decode_address(status_address)
    with open_installation(context) as installation:
        findings = list(installation.operations.doctor.diagnose(installation.actor, connect_to=connect_to))
    columns = ("check", "state", "finding", "remedy")
    rows = [{**facts_of(one, *columns), "remedy": one.remedy or None} for one in findings]
    Output(json).rows("Findings", columns, rows)
    if any(one.state is State.FAILING for one in findings):
        raise typer.Exit(REFUSED)
