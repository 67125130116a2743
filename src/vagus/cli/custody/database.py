"""`vagus move-database`: another database for an installation, proven before it is used."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from vagus.cli.options import example, open_installation
from vagus.cli.output import JsonOption, Output, facts_of


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    line = "vagus --dir hospital move-database 'postgresql+psycopg://vagus@db.example/vagus?sslmode=verify-full'"
    application.command("move-database", epilog=example(line))(move_database)


def move_database(
    context: typer.Context,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="An empty database: postgresql+psycopg://... or sqlite:///new-file.")
    ],
    *,
    json: JsonOption = False,
) -> None:
    """Copy everything into an empty database, prove it as `audit verify` does, then name it in vagus.toml.

    Stop every `vagus serve` of this database before. Until the last step the old database stays in use, also after a
    crash; it is left as it is. Other folders that use it need the new URL too.
    """
    from vagus.maintenance.database_move import move_database as move

    output, began = Output(json), time.monotonic()
    done, shown = 0, began

    def progress(some: int, of: int) -> None:
        nonlocal shown, done
        done += some
        if not json and time.monotonic() - shown >= 1.0:
            shown = time.monotonic()
            typer.echo(f"{done} of {of} rows", err=True)

    with open_installation(context) as installation:
        moved = move(installation, installation.actor, url, progress)
    seconds = {"seconds": round(time.monotonic() - began, 1)}
    output.facts({**facts_of(moved, "old", "new", "rows", "log_size", "published"), **seconds})
    output.say(
        "The copy was proven as by `vagus audit verify`, and vagus.toml names it. The old database is as it was:"
    )
    output.say("keep it until `vagus doctor` is content and a backup exists. No process may use it any more.")
