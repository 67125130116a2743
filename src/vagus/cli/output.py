"""Prints tables for people, JSON for programs and progress bars; type of a table's cells; knows no command."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import IO, Annotated, TypeAlias

import typer

from vagus.cli.failures import REFUSED
from vagus.errors import Malformed
from vagus.reasons import Reason

Cell: TypeAlias = str | int | float | bool | None
Row: TypeAlias = Mapping[str, "Cell | Sequence[Cell] | Row | Sequence[Row]"]
Advance: TypeAlias = Callable[[int], None]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet may run as a formula, full-width forms included."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's findings go: standard output; questions and progress go to standard error."""

    is_json: bool

    def rows(self, title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """A table, or a JSON array of objects."""
        if self.is_json:
            _print_json(list(rows))
            return
        print_table(title, columns, rows, sys.stdout)

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


def check_one_format(*, csv: bool, json: bool) -> None:
    """Raises Malformed(BAD_ARGUMENT) for both."""
    if csv and json:
        raise Malformed(Reason.BAD_ARGUMENT, "--csv and --json are two formats of one output; give one of them")


def facts_of(value: object, *names: str) -> dict[str, Cell | Sequence[Cell]]:
    """The named attributes of a value as JSON has them, in this order."""
    return {name: plain(getattr(value, name)) for name in names}


def print_table(title: str, columns: Sequence[str], rows: Sequence[Row], stream: IO[str]) -> None:
    """A table for people, or that there is none."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_spell(row.get(column)) for column in columns))
    # A pipe has no terminal width. Without this, rich would break lines at 80 columns there.
    console = Console(file=stream, width=None if stream.isatty() else 220, highlight=False, markup=False)
    if rows:
        console.print(table)
    else:
        console.print(f"{title}: none")


def csv_lines(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """A table as CSV (RFC 4180), a line for the names and one for each row, without keeping rows.

    Names of devices, places and models come from others. A text that a spreadsheet would run as a formula gets an
    apostrophe before it.
    """
    for cells in chain([columns], ([row.get(column) for column in columns] for row in rows)):
        line = io.StringIO()
        csv.writer(line).writerow(_guard(cell) for cell in cells)
        yield line.getvalue()


def _guard(cell: Cell | Sequence[Cell] | Row | Sequence[Row]) -> str | int | float:
    if cell is None or cell == []:
        return ""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return cell
    text = _spell(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text


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
