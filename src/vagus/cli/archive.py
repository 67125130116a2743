"""`vagus backup|restore|restore-gap`: a consistent copy, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vagus.cli.options import folder_of, open_house
from vagus.cli.output import JsonOption, Output


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    application.command("backup")(backup)
    application.command("restore")(restore)


def backup(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where to; backups/TIME.tar in the folder if left out.")
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Copy database, sealed keystores, policy, plan, settings and checkpoint while serving goes on."""
    from vagus.server.backups import take_backup

    with open_house(context) as house:
        target = file or house.settings.backups / f"{house.clock.now():%Y%m%dT%H%M%SZ}.tar"
        taken = take_backup(house, target, by=house.operator)
    Output(json).facts({"file": str(taken.file), "sha256": taken.sha256.hex(), "log_size": taken.log_size})


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    *,
    json: JsonOption = False,
) -> None:
    """Bring a backup back as the new folder --dir. It answers status and issues nothing until its gap is closed."""
    from vagus.server.backups import restore as bring_back

    done = bring_back(file, folder_of(context))
    output = Output(json)
    output.facts({"folder": str(done.folder), "sha256": done.sha256.hex(), "log_size": done.log_size})
    output.say(
        "Nothing is issued until `vagus restore-gap` closes the gap to the newest checkpoint kept elsewhere."
    )
