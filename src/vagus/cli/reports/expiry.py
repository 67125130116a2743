"""`vagus report expiry`: whose certificate ends soon or is missing, and who does what, for people and programs."""

from __future__ import annotations

import io
import json as json_text
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from vagus.cli.files import check_new, is_replaceable
from vagus.cli.options import OutOption, ReplaceOption, add_group, decode_period, open_installation
from vagus.cli.output import CsvOption, JsonOption, Row, check_one_format, csv_lines, print_table, spell_time

if TYPE_CHECKING:
    from vagus.operations.reports import Expiry, ExpiryReport

_COLUMNS = ("ends", "days_left", "device", "id", "place", "unit", "category", "situation", "who_does_what")
_PROGRAM_COLUMNS = (
    "id", "model", "serial", "place", "unit", "category", "certificate", "not_after", "days_left", "situation",
    "who_does_what",
)  # fmt: skip
_AT_ONCE = 500
"""Rows of one printed table: a longer report is printed as several."""


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    add_group(
        application,
        "report",
        "Reports over the whole inventory.",
        (
            "expiry",
            expiry,
            "vagus report expiry --within 60d --unit h1/icu",
            "vagus report expiry --within 30d --category ventilator --csv --out ventilators.csv",
        ),
    )


def expiry(
    context: typer.Context,
    *,
    within: Annotated[
        str, typer.Option(metavar="PERIOD", help="Certificates that end within this time, as in 60d, 8h, 2w or 1y.")
    ] = "60d",
    unit: Annotated[str | None, typer.Option(metavar="HOSPITAL/UNIT", help="Only of this compartment.")] = None,
    hospital: Annotated[str | None, typer.Option(metavar="LABEL", help="Only of this hospital, as in h1.")] = None,
    category: Annotated[str | None, typer.Option(metavar="CATEGORY", help="Only of this category of devices.")] = None,
    out: OutOption = None,
    replace: ReplaceOption = False,
    csv: CsvOption = False,
    json: JsonOption = False,
) -> None:
    """List devices whose certificate has ended, ends soon or is missing, with who does what; what ends first is first.

    A device whose certificate was renewed is not in it. Situations: renews by itself, renewed by hand (it cannot do it
    itself), overdue (its time to renew is past), expired, never enrolled, held, revoked, locked out. Totals are at the
    end. Changes nothing. FILE gets the whole report or stays as it is; one that exists is refused, unless --replace is
    given.
    """
    from vagus.operations.devices import DeviceQuery

    check_one_format(csv=csv, json=json)
    period = decode_period(within, "--within")
    if out is not None:
        check_new(out, may_replace=replace)
    query = DeviceQuery(unit=unit, hospital=hospital, category=category)
    with open_installation(context) as installation:
        report = installation.operations.reports.expiry(installation.actor, query, period)
        write = _write_csv if csv else _write_json if json else _write_text
        with _opened(out) as stream:
            write(report, stream)


@contextmanager
def _opened(out: Path | None) -> Iterator[IO[str]]:
    """Standard output, or the file `out`: it gets the whole report or stays as it is, where it is no pipe."""
    if out is None:
        yield sys.stdout
        return
    from vagus.durable_files import replacing

    with replacing(out) if is_replaceable(out) else out.open("wb") as raw:
        stream = io.TextIOWrapper(raw, "utf-8", newline="")
        yield stream
        stream.flush()
        stream.detach()


def _write_csv(report: ExpiryReport, stream: IO[str]) -> None:
    stream.writelines(csv_lines(_PROGRAM_COLUMNS, map(_program_row, report.rows)))


def _write_json(report: ExpiryReport, stream: IO[str]) -> None:
    """One object, written piece by piece: a million rows need no more memory than one."""
    totals: Counter[str] = Counter()
    stream.write(f'{{"at": "{spell_time(report.at)}", "until": "{spell_time(report.until)}", "devices": [')
    comma = "\n"
    for one in _counted(report.rows, totals):
        stream.write(comma + json_text.dumps(_program_row(one), ensure_ascii=True))
        comma = ",\n"
    stream.write(f'\n], "totals": {json_text.dumps(dict(sorted(totals.items())))}}}\n')


def _write_text(report: ExpiryReport, stream: IO[str]) -> None:
    totals: Counter[str] = Counter()
    rows = _counted(report.rows, totals)
    title = f"Certificates that end by {spell_time(report.until)}, and devices without one"
    page = [_text_row(one) for one in islice(rows, _AT_ONCE)]
    print_table(title, _COLUMNS, page, stream)
    while page := [_text_row(one) for one in islice(rows, _AT_ONCE)]:
        print_table(title, _COLUMNS, page, stream)
    if totals:
        counted = ", ".join(f"{number:,} {situation}" for situation, number in sorted(totals.items()))
        stream.write(f"{totals.total():,} in all: {counted}\n")


def _counted(rows: Iterable[Expiry], totals: Counter[str]) -> Iterator[Expiry]:
    for one in rows:
        totals[one.situation.value] += 1
        yield one


def _program_row(one: Expiry) -> Row:
    return {
        "id": one.device.id.text,
        "model": one.device.model,
        "serial": one.device.maker_serial,
        "place": one.device.place,
        "unit": str(one.device.unit),
        "category": one.category,
        "certificate": one.kind,
        "not_after": spell_time(one.not_after),
        "days_left": one.days_left,
        "situation": one.situation.value,
        "who_does_what": one.who_does_what,
    }


def _text_row(one: Expiry) -> Row:
    of_kind = "" if one.kind == "device" else f" ({one.kind} certificate)"
    what = f"{one.device.model} {one.device.maker_serial}{of_kind}"
    ends = (spell_time(one.not_after) or "")[:10] or None
    return {**_program_row(one), "device": what, "ends": ends}
