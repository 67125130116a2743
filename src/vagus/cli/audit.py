"""`vagus audit verify|show|checkpoint`: the ledger checked and read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.devices import spell_time
from vagus.cli.files import naming, read_file
from vagus.cli.options import example, folder_of, open_installation
from vagus.cli.output import JsonOption, Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vagus.cli.output import Row
    from vagus.records.engine.database import Connection
    from vagus.tlog.checkpoint import Checkpoint, NoteKey
    from vagus.wiring import Installation

_PART = 5000
"""Leaves that are read at once on the way back from the ledger's end."""


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(
        help="The tamper-evident ledger of every issuance, revocation and operator's act.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, command, line in (
        ("verify", verify, "vagus audit verify --against /copies/checkpoint"),
        ("show", show, "vagus audit show --kind revocation --limit 20"),
        ("checkpoint", checkpoint, "vagus audit checkpoint"),
    ):
        group.command(name, epilog=example(line))(command)
    application.add_typer(group, name="audit")


def verify(
    context: typer.Context,
    *,
    against: Annotated[
        Path | None, typer.Option(metavar="CHECKPOINT", help="A checkpoint that was kept elsewhere.")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Check this published log instead of the database.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="VKEY", help="The log's verifier key; the installation's own by default.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check every entry of the ledger, in the database and as published, and against an older checkpoint.

    Changes nothing. Exit code 5 names the first entry or row that is not what it was. Without --against a ledger that
    was cut off at its end looks sound: keep checkpoints elsewhere. An auditor needs only --published and --key.
    """
    from vagus.ledger.verify import verify_log

    output = Output(json)
    compared: int | None = None
    if published is not None and key is not None:
        note_key = _decode_key(key)
        report = verify_log(published, public_key=note_key.public_key, against=_load(against, note_key))
    else:
        with open_installation(context) as installation:
            note_key = _decode_key(key or installation.log_verifier)
            kept = _load(against, note_key)
            if published is None:
                compared = _compare(installation, note_key)
            source = published or (
                installation.settings.log if _is_waiting(installation, compared) else installation.database
            )
            report = verify_log(source, public_key=note_key.public_key, against=kept)
    output.facts(
        {
            "verdict": "sound",
            "origin": report.origin,
            "size": report.size,
            "root": report.root.hex(),
            "certificates": report.certificates,
            "revocations": report.revocations,
            "published": compared,
            "against": report.against,
            "caveat": report.caveat,
        }
    )


def _compare(installation: Installation, key: NoteKey) -> int | None:
    """The database against what it published, first of all: only so is the first leaf known that differs."""
    from vagus.ledger.verify import verify_published
    from vagus.tlog.tiles import CHECKPOINT

    log = installation.settings.log
    if not (log / CHECKPOINT).exists():
        return None
    return verify_published(installation.database, log, public_key=key.public_key).size


def _is_waiting(installation: Installation, compared: int | None) -> bool:
    """Whether lost entries came back and their certificates wait for an operator's word: the tables lack them."""
    return compared is not None and installation.row.restored_at is not None


def show(
    context: typer.Context,
    *,
    start: Annotated[
        int | None, typer.Option("--from", min=0, help="The first leaf; the newest ones if left out.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 50,
    kind: Annotated[
        str | None, typer.Option(help="Only entries of this kind, as in revocation; a wrong one lists them all.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show entries of the ledger in their order: the newest ones, or those from one leaf on.

    People and devices stand in it as hashes. Changes nothing.
    """
    from vagus.records.log import load_head

    _check_kind(kind)
    with open_installation(context) as installation, installation.database.reading() as connection:
        size = load_head(connection).size
        if start is None:
            rows = _newest(connection, size, limit, kind)
        else:
            rows = list(islice(_shown(connection, start, size, kind), limit))
    output = Output(json)
    output.rows("Ledger", ("leaf", "at", "kind", "facts"), rows)
    if not rows:
        output.say(f"The ledger has {size:,} entries, from leaf 0 on.")


def _newest(connection: Connection, size: int, limit: int, kind: str | None) -> list[Row]:
    """The last entries of a kind, read from the end so that a long ledger is not read whole."""
    rows: list[Row] = []
    part, end = limit if kind is None else max(limit, _PART), size
    while end > 0 and len(rows) < limit:
        begin = max(0, end - part)
        rows = [*_shown(connection, begin, end, kind), *rows]
        end = begin
    return rows[-limit:]


def _shown(connection: Connection, first: int, end: int, kind: str | None) -> Iterator[Row]:
    from dataclasses import fields

    from vagus.ledger.entries import decode_entry
    from vagus.records.log import iterate_leaves

    for leaf in iterate_leaves(connection, first, end) if first < end else ():
        logged = decode_entry(leaf.entry)
        if kind is not None and logged.entry.kind != kind:
            continue
        said = {field.name: getattr(logged.entry, field.name) for field in fields(logged.entry)}
        facts = " ".join(f"{name}={_spell(name, value)}" for name, value in said.items() if value is not None)
        yield {"leaf": leaf.index, "at": spell_time(logged.at), "kind": logged.entry.kind, "facts": facts}


def checkpoint(context: typer.Context, *, json: JsonOption = False) -> None:
    """Show the checkpoint that is published now, and its file: keep a copy elsewhere for `verify --against`."""
    from vagus.errors import Unavailable
    from vagus.ledger.publish import load_published
    from vagus.reasons import Reason
    from vagus.settings import load_settings

    folder = load_settings(folder_of(context)).log
    with open_installation(context) as installation:
        found = load_published(folder, _decode_key(installation.log_verifier))
    if found is None:
        raise Unavailable(Reason.CHECKPOINT_INVALID, "nothing is published yet; `vagus serve` publishes the ledger")
    place = str(folder / "checkpoint")
    Output(json).facts({"origin": found.origin, "size": found.size, "root": found.root.hex(), "file": place})


def _check_kind(kind: str | None) -> None:
    """A misspelt kind must not look like a ledger without such entries."""
    from typing import get_args

    from vagus.errors import Malformed
    from vagus.ledger.entries import Entry
    from vagus.reasons import Reason

    kinds = sorted(form.kind for form in get_args(Entry))
    if kind is not None and kind not in kinds:
        msg = f"{kind!r} is no kind of entry; there are {', '.join(kinds)}"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=kind)


def _decode_key(text: str) -> NoteKey:
    from vagus.tlog.checkpoint import NoteKey

    return NoteKey.decode(text.strip())


def _load(against: Path | None, key: NoteKey) -> Checkpoint | None:
    from vagus.tlog.checkpoint import verify_checkpoint

    if against is None:
        return None
    content = read_file(against)
    with naming(against):
        return verify_checkpoint(content, key)


def _spell(name: str, value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return f"{value:x}" if name == "serial" and isinstance(value, int) else str(value)
