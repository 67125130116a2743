"""Prints tables for people, JSON for programs and progress bars; type of a table's cells; knows no command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from vagus.cli.failures import REFUSED

Cell: TypeAlias = str | int | float | bool | None
Row: TypeAlias = Mapping[str, "Cell | Sequence[Cell] | Row | Sequence[Row]"]
Advance: TypeAlias = Callable[[int], None]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's findings go: standard output; questions and progress go to standard error."""

    is_json: bool

    def rows(self, title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """A table, or a JSON array of objects."""
        if self.is_json:
            _print_json(list(rows))
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for row in rows:
            table.add_row(*(_spell(row.get(column)) for column in columns))
        # A pipe has no terminal width. Without this, rich would break lines at 80 columns there.
        console = Console(width=None if sys.stdout.isatty() else 220, highlight=False, markup=False)
        if rows:
            console.print(table)
        else:
            console.print(f"{title}: none")

    def facts(self, facts: Row) -> None:
        """Named values: one a line, or one JSON object."""
        if self.is_json:
            _print_json(facts)
            return
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            typer.echo(f"{name.replace('_', ' '):<{width}}  {_spell(value)}")

    def say(self, sentence: str) -> None:
        """A remark for people; it is not printed for programs."""
        if not self.is_json:
            typer.echo(sentence)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Advance]:
        """A progress bar on standard error while the block runs; quiet for programs and pipes."""
        if self.is_json or not sys.stderr.isatty():
            yield lambda _steps: None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda steps: bar.advance(task, steps)


def confirm(question: str, *, is_assumed: bool) -> bool:
    """Ask on a terminal; end of input and Ctrl-C mean no. Without a terminal it is no, and the text names `--yes`."""
    if is_assumed:
        return True
    if not sys.stdin.isatty():
        typer.echo(f"{question} No terminal to ask on: give --yes.", err=True)
        return False
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)
        return False


def check_confirmed(question: str, *, is_assumed: bool) -> None:
    """Ask before anything is changed. Raises Exit(1) for anything but yes, and prints that nothing was changed."""
    if not confirm(question, is_assumed=is_assumed):
        typer.echo("vagus: not confirmed; nothing was changed", err=True)
        raise typer.Exit(REFUSED)


def facts_of(value: object, *names: str) -> dict[str, Cell | Sequence[Cell]]:
    """The named attributes of a value as JSON has them, in this order."""
    return {name: plain(getattr(value, name)) for name in names}


def plain(value: object) -> Cell | Sequence[Cell]:
    """A value as JSON has it: bytes in hexadecimal, a tuple of names as a list, an identifier or a path as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    return [str(one) for one in value] if isinstance(value, tuple) else str(value)


def spell_time(seconds: int | None) -> str | None:
    """Seconds since 1970 as people read them; 9999-12-31 where no end is meant."""
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"


def _spell(value: Cell | Sequence[Cell] | Row | Sequence[Row]) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    return ", ".join(_spell(one) for one in value) or "-"


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True))
