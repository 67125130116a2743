"""The arguments that many commands share, and how a command finds its installation; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vagus.wiring import House

PassphraseOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--passphrase-source",
        metavar="[NAME=]fd:N|file:PATH|env:NAME",
        envvar="VAGUS_PASSPHRASE_SOURCE",
        help="Where the passphrase of a keystore is read from; give NAME= to speak for one keystore. Repeatable.",
    ),
]


def folder_of(context: typer.Context) -> Path:
    """The installation folder that `--dir` named."""
    folder = context.find_root().obj
    return folder if isinstance(folder, Path) else Path()


def open_house(context: typer.Context, sources: Sequence[str] | None = None) -> House:
    """The installation of this command, wired; close it when done (it is a context manager)."""
    from vagus.wiring import House

    return House.open(folder_of(context), passphrase_sources=sources or ())
