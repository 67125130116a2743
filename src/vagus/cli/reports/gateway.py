"""`vagus gateway log`: which peers the gateways admitted, refused and cut off, and whether the ledger agrees."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.options import add_group, decode_moment, decode_period, open_installation
from vagus.cli.output import CsvOption, JsonOption, Output, Row, check_one_format, csv_lines, facts_of
from vagus.errors import IntegrityFailure, Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from datetime import datetime

    from vagus.operations.gateway_log import GatewayCheck, GatewayLine, GatewayPage

_COLUMNS = ("at", "listener", "outcome", "reason", "device", "serial", "source", "count", "detail")
_FACTS = (
    "listener", "outcome", "reason", "device", "serial", "claimed_device", "claimed_serial", "source", "leaf_sha256",
    "resumed", "count", "detail",
)  # fmt: skip


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    add_group(
        application,
        "gateway",
        "The gateways: what they decided about each connection.",
        (
            "log",
            log,
            "vagus gateway log --outcome refused --since 24h",
            'vagus gateway log --device "Aorta IP3:AIP3-000123"',
            "vagus gateway log --verify",
        ),
    )


def log(
    context: typer.Context,
    *,
    listener: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this listener.")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Only of this device: its id, or MODEL:SERIAL.")
    ] = None,
    serial: Annotated[
        str | None, typer.Option(metavar="SERIAL", help="Only of this certificate: 0x4A01, 4A:01 or dec:18945.")
    ] = None,
    outcome: Annotated[
        str | None, typer.Option(metavar="OUTCOME", help="admitted, refused, closed, degraded or failed.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="CODE", help="Only with this reason code, as in REVOKED.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on: 24h or 7d ago, or 2026-11-30T12:00 (UTC).")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Until then, written like --since.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many at most.")] = 100,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the files against the ledger instead of showing lines.")
    ] = False,
    csv: CsvOption = False,
    json: JsonOption = False,
) -> None:
    """Show what the gateways decided, the newest first: the files gates/LISTENER/DAY.jsonl. Changes nothing.

    A device or serial that is only claimed is marked so: no authority here vouches for that certificate, and any
    stranger can write one. A process that serves writes its lines at most 5 seconds later.

    --verify (with --listener, --since) follows the hash chain of the files and compares it with the ledger, which has
    the hash of each minute's last line. Exit code 5: a line was changed, removed or inserted.
    """
    from vagus.operations.gateway_log import GatewayQuery

    check_one_format(csv=csv, json=json)
    narrow = (device, serial, outcome, reason, until)
    if verify and (csv or any(one is not None for one in narrow)):
        msg = "--verify checks whole files, not for --csv; beside it give --listener and --since only"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    with open_installation(context) as installation:
        now, act, actor = installation.clock.now(), installation.operations.gateway_log, installation.actor
        first = None if since is None else _decode_moment_or_period(since, "--since", now)
        last = None if until is None else _decode_moment_or_period(until, "--until", now)
        if verify:
            _report(Output(json), act.verify(actor, listener=listener, since=first))
            return
        code = None if reason is None else reason.upper()
        query = GatewayQuery(listener, device, serial, outcome, code, first, last)
        page = act.read(actor, query, limit=limit)
    _print(page, Output(json), is_csv=csv)
    if len(page.lines) == limit:
        until = _in_milliseconds(page.lines[-1].at)
        typer.echo(f"Older ones may follow: --until {until}, or --limit.", err=csv or json)
    if page.unreadable:
        where = f", the newest of them in gates/{page.unreadable_in}" if page.unreadable_in else ""
        text = f"{page.unreadable} lines could not be read{where}; see `vagus gateway log --verify`"
        typer.echo(f"vagus: {text}", err=True)


def _print(page: GatewayPage, output: Output, *, is_csv: bool) -> None:
    if is_csv:
        for text in csv_lines(("at", *_FACTS), map(_row, page.lines)):
            typer.echo(text, nl=False)
    elif page.listeners == () and not output.is_json:
        output.say("No gateway of this folder has decided anything yet: there is no file below gates/.")
    else:
        rows = [_row(line) if output.is_json else _shown(line) for line in page.lines]
        output.rows("Gateway decisions", _COLUMNS, rows)


def _row(line: GatewayLine) -> Row:
    """With the milliseconds of the line itself: a program pages by `at`, and a second has many lines."""
    return {"at": f"{_in_milliseconds(line.at)}Z", **facts_of(line, *_FACTS)}


def _in_milliseconds(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}"[:-3]


def _shown(line: GatewayLine) -> Row:
    """For people, a claim is in the column of what is claimed."""
    claims = {"device": line.claimed_device, "serial": line.claimed_serial}
    at = f"{line.at:%Y-%m-%dT%H:%M:%S}Z"
    return {
        **_row(line),
        "at": at,
        **{name: f"claimed: {claim}" for name, claim in claims.items() if claim is not None},
    }


def _report(output: Output, check: GatewayCheck) -> None:
    rows: list[Row] = [
        {
            **facts_of(one.segment, "listener", "day"),
            **facts_of(one, "lines", "covered"),
            "not_covered": one.lines - one.covered,
            **facts_of(one, "torn"),
            "finding": "; ".join(check.findings_of(one)) or None,
        }
        for one in check.reports
    ]
    rows += [
        {"listener": listener, "day": day, "finding": "the ledger has minutes of this day, and its file is not here"}
        for listener, day in check.absent
    ]
    output.rows("Gateway log", ("listener", "day", "lines", "covered", "not_covered", "torn", "finding"), rows)
    if check.fault is not None:
        msg = f"the gateway log is not what was written: {check.fault}; compare it with a backup and secure the host"
        raise IntegrityFailure(Reason.LOG_TAMPERED, msg)
    output.say("Lines that are not covered have no later minute in the ledger yet: the newest wait for theirs.")


def _decode_moment_or_period(text: str, option: str, now: datetime) -> datetime:
    """A period before `now`, or a UTC time. Raises Malformed(BAD_ARGUMENT)."""
    with suppress(Malformed):
        return decode_moment(text, option)
    try:
        return now - decode_period(text, option)
    except Malformed as fault:
        msg = f"{option} {text[:40]!r} is no moment; write 24h or 7d ago, or a UTC time as in 2026-11-30T12:00"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text[:40]) from fault
