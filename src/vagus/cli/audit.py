"""`vagus audit verify|show|checkpoint`: the ledger checked and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.files import decode_file
from vagus.cli.options import add_group, open_installation
from vagus.cli.output import JsonOption, Output, Row, facts_of, spell_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from vagus.tlog.checkpoint import Checkpoint


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    add_group(
        application,
        "audit",
        "The tamper-evident ledger of every issuance, revocation and operator's act.",
        ("verify", verify, "vagus audit verify --against /copies/checkpoint"),
        ("show", show, "vagus audit show --kind revocation --limit 20"),
        ("checkpoint", checkpoint, "vagus audit checkpoint"),
    )


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
    from vagus.tlog.checkpoint import NoteKey, verify_checkpoint

    output = Output(json)
    compared: int | None = None
    # with both options no installation is needed: an auditor has the published log and its key alone
    if published is not None and key is not None:
        note_key = NoteKey.decode(key.strip())
        kept = _load(against, lambda note: verify_checkpoint(note, note_key))
        report = verify_log(published, public_key=note_key.public_key, against=kept)
    else:
        with open_installation(context) as installation:
            audit, actor = installation.operations.audit, installation.actor
            kept = _load(against, lambda note: audit.verify_note(actor, note, key=key))
            report, compared = audit.verify(actor, published=published, key=key, against=kept)
    output.facts(
        {
            "verdict": "sound",
            **facts_of(report, "origin", "size", "root", "certificates", "revocations"),
            "published": compared,
            **facts_of(report, "against", "caveat"),
        }
    )


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

    People and devices are in it as hashes. Changes nothing.
    """
    with open_installation(context) as installation:
        page = installation.operations.audit.read_entries(installation.actor, start=start, limit=limit, kind=kind)
    rows: list[Row] = [
        {
            "leaf": one.leaf,
            "at": spell_time(one.at),
            "kind": one.kind,
            "facts": " ".join(f"{name}={_spell(name, value)}" for name, value in one.facts.items()),
        }
        for one in page.entries
    ]
    output = Output(json)
    output.rows("Ledger", ("leaf", "at", "kind", "facts"), rows)
    if not rows:
        output.say(f"The ledger has {page.size:,} entries, from leaf 0 on.")


def checkpoint(context: typer.Context, *, json: JsonOption = False) -> None:
    """Show the checkpoint that is published now, and its file: keep a copy elsewhere for `verify --against`."""
    with open_installation(context) as installation:
        found, file = installation.operations.audit.read_checkpoint(installation.actor)
    Output(json).facts({**facts_of(found, "origin", "size", "root"), "file": str(file)})


def _load(against: Path | None, verify: Callable[[bytes], Checkpoint]) -> Checkpoint | None:
    return None if against is None else decode_file(against, verify)


def _spell(name: str, value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return f"{value:x}" if name == "serial" and isinstance(value, int) else str(value)
