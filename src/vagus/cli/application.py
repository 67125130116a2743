"""Gathers the commands into one program and turns every error into a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from vagus.cli.failures import DONE, INTERRUPTED, describe, exit_code, program_version

application = typer.Typer(
    name="vagus",
    help="A PKI for medical devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
    epilog="Exit codes: 0 done, 1 refused, 2 wrong use, 3 needs an act first, 4 not available, 5 integrity failure. "
    "Passphrases come from --passphrase-source or VAGUS_PASSPHRASE_SOURCE. A trial begins with: vagus quickstart ward",
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"vagus {program_version()}")
        raise typer.Exit


@application.callback()
def choose_installation(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Option("--dir", envvar="VAGUS_DIR", metavar="DIR", help="The installation's folder.")
    ] = Path(),
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A PKI for medical devices."""
    context.obj = folder


# `vagus --help` lists the commands in the order of these lines.
for part in (
    "quickstart",
    "installation",
    "plan",
    "ceremony",
    "authorities",
    "devices",
    "certificates.commands",
    "reports.expiry",
    "revocation.commands",
    "tokens",
    "serve",
    "validate",
    "audit",
    "reports.gateway",
    "archive",
    "custody.keystores",
    "custody.database",
    "doctor",
    "maker",
    "snapshots",
):
    import_module(f"vagus.cli.{part}").register(application)


@cache
def _command() -> Callable[..., object]:
    """The tree of commands, read from their signatures once: that takes longer than most commands do."""
    return typer.main.get_command(application)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code; nothing that goes wrong shows a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _command()(args=given, prog_name="vagus", standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 the outermost caller turns every error into a message and an exit code
        if type(error).__name__ == "NoArgsIsHelpError":  # a command group without a subcommand prints only its help
            typer.echo(str(error), err=True)
        else:
            typer.echo(describe(error, is_json="--json" in given), err=True)
        sys.exit(exit_code(error))
    if code == INTERRUPTED:
        typer.echo("vagus: interrupted; what was committed before stays", err=True)
    sys.exit(code if isinstance(code, int) else DONE)
