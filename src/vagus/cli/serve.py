"""`vagus serve`: the serving process."""

from __future__ import annotations

import json as encoder
from typing import Annotated, Literal

import typer

from vagus.cli.options import PassphraseOption, example, open_installation


def register(application: typer.Typer) -> None:
    """Add the command of this file."""
    application.command("serve", epilog=example("vagus serve --issue-for h1/icu,h1/infra"))(serve)


def serve(
    context: typer.Context,
    *,
    issue_for: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Online authorities whose keys are opened: h1/icu,h1/infra; h1 for a whole hospital; or `all`.",
        ),
    ] = "",
    role: Annotated[
        Literal["all", "status"], typer.Option(help="`status`: CRLs, OCSP and the ledger alone; nothing is issued.")
    ] = "all",
    passphrase_source: PassphraseOption = None,
) -> None:
    """Serve enrolment, status and gateways until SIGTERM or Ctrl-C. Prints one JSON line when all listeners are open.

    Needs the passphrases of the authorities that it issues for, and of `log`, `ocsp` and `gate`. Without --issue-for it
    issues nothing. At SIGHUP the listeners of the plan that was applied meanwhile are taken, and another
    such line is printed. Addresses are bound first, so that one in use is reported at once. Standard error shows how
    the start goes on.
    """
    from vagus.server.serving import serve as run

    with open_installation(context, passphrase_source) as installation:
        names = tuple(name.strip() for name in issue_for.split(",") if name.strip())
        run(
            installation,
            issue_for=names,
            is_status_only=role == "status",
            ready=lambda facts: typer.echo(encoder.dumps(facts, sort_keys=True)),
            say=lambda line: typer.echo(f"vagus: {line}", err=True),
        )
