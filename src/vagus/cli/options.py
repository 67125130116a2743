"""The typer options that many commands share, addresses, and how a command finds its installation."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from vagus.addresses import split_address
from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vagus.wiring import Installation

_PERIOD: Final = re.compile(r"([1-9][0-9]{0,5})([hdwy])\Z")
_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}
_LONGEST: Final = timedelta(days=100 * 365)

PassphraseOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--passphrase-source",
        metavar="[NAME=]fd:N|file:PATH|env:NAME",
        envvar="VAGUS_PASSPHRASE_SOURCE",
        help="Where the passphrase of keystores is read from; with NAME= (an authority, log, ocsp, gate, emergency) "
        "that of one keystore. Repeatable.",
    ),
]

DeviceArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="DEVICE", help='A device id, or MODEL:SERIAL as in "Aorta IP3:AIP3-000001".')
]
OutOption: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where to; standard output if left out.")
]
ReplaceOption: TypeAlias = Annotated[bool, typer.Option("--replace", help="Replace FILE if it exists, in one step.")]

REASONS = (
    "unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation, "
    "privilegeWithdrawn or aACompromise (RFC 5280 5.3.1)"
)


def example(*commands: str) -> str:
    """The end of a command's help: lines to copy, not to be wrapped."""
    return "\b\n" + "\n  ".join(("Example:" if len(commands) == 1 else "Examples:", *commands))


def add_group(
    application: typer.Typer, name: str, purpose: str, *commands: tuple[str, Callable[..., None], *tuple[str, ...]]
) -> None:
    """Add `vagus NAME` with its commands: the name of each, its function and the examples in its help."""
    group = typer.Typer(help=purpose, no_args_is_help=True, rich_markup_mode=None)
    # typer runs a group of one command without its name, unless the group has a callback
    group.callback()(lambda: None)
    for command_name, command, *lines in commands:
        group.command(command_name, epilog=example(*lines) if lines else None)(command)
    application.add_typer(group, name=name, help=purpose)


def folder_of(context: typer.Context) -> Path:
    """The installation folder that `--dir` named."""
    folder = context.find_root().obj
    return folder if isinstance(folder, Path) else Path()


def open_installation(context: typer.Context, sources: Sequence[str] | None = None) -> Installation:
    """The installation of this command, wired; close it when done (it is a context manager)."""
    from vagus.wiring import Installation

    return Installation.open(folder_of(context), passphrase_sources=sources or ())


def decode_address(text: str) -> tuple[str, int]:
    """HOST:PORT as a pair. Raises Malformed(BAD_ARGUMENT)."""
    with suppress(ValueError):
        host, port = split_address(text)
        if port:
            return host, port
    msg = f"{text!r} is no address; write HOST:PORT, as in 127.0.0.1:8080 or [::1]:8080"
    raise Malformed(Reason.BAD_ARGUMENT, msg, value=text)


def decode_moment(text: str, option: str) -> datetime:
    """A date or time (ISO 8601, UTC by default) as people write it for `option`. Raises Malformed(BAD_ARGUMENT)."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as fault:
        msg = f"{option} {text[:40]!r} is no date of the years 1 to 9999; write 2027-03-01 or 2027-03-01T12:00:00Z"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text[:40]) from fault


def decode_period(text: str, option: str) -> timedelta:
    """A period as people write it for `option`: `60d`, `8h`, `2w`, `1y`. Raises Malformed(BAD_ARGUMENT)."""
    match = _PERIOD.match(text)
    period = None if match is None else timedelta(hours=int(match[1]) * _HOURS[match[2]])
    if period is None or period > _LONGEST:
        msg = f"{option} {text[:40]!r} is no period; write a number from 1 and h, d, w or y, up to 100y, as in 60d"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text[:40])
    return period
