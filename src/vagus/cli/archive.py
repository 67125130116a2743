"""`vagus backup|restore|restore-gap`: a consistent copy, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vagus.cli.failures import REFUSED
from vagus.cli.options import folder_of, open_house
from vagus.cli.output import JsonOption, Output, YesOption, confirm


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    application.command("backup")(backup)
    application.command("restore")(restore)
    application.command("restore-gap")(restore_gap)


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
    output.say("Nothing is issued until `vagus restore-gap` closes the gap to the newest checkpoint kept elsewhere.")


def restore_gap(
    context: typer.Context,
    *,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The newest checkpoint that was kept elsewhere.")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The published log, if a copy of it survived.")
    ] = None,
    crl: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="The newest lists of our authorities. Repeatable.")
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke every certificate issued in the gap.")] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Leave them; what was revoked stays revoked.")] = False,
    unsafe_no_checkpoint: Annotated[
        bool, typer.Option("--unsafe-no-checkpoint", help="Nothing was kept elsewhere: the gap cannot be measured.")
    ] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Close the gap behind a restore, with an entry in the ledger; only then is anything issued again."""
    from vagus.errors import Malformed
    from vagus.reasons import Reason
    from vagus.server.restored_gap import close_gap, measure_gap
    from vagus.tlog.checkpoint import NoteKey, verify_checkpoint
    from vagus.x509.pem import decode_blocks

    if revoke is accept:
        raise Malformed(Reason.BAD_ARGUMENT, "say what becomes of the gap: --revoke or --accept, one of them")
    if (checkpoint is None) is not unsafe_no_checkpoint:
        msg = "give the newest checkpoint kept elsewhere with --checkpoint, or say --unsafe-no-checkpoint"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    output = Output(json)
    with open_house(context) as house:
        key = NoteKey.decode(house.log_verifier)
        kept = None if checkpoint is None else verify_checkpoint(checkpoint.read_bytes(), key)
        lists = [der for path in crl or () for der in decode_blocks(path.read_bytes(), "X509 CRL")]
        gap = measure_gap(house, checkpoint=kept, published=published, lists=lists)
        output.say(
            f"{gap.lost_leaves} entries of the ledger are gone; {len(gap.issued)} certificates and "
            f"{len(gap.revoked)} revocations are known from what was published."
        )
        question = "Revoke what was issued in the gap?" if revoke else "Accept the gap?"
        if not confirm(question, is_assumed=yes):
            raise typer.Exit(REFUSED)
        revoked = close_gap(house, gap, is_revoking=revoke, by=house.operator)
    output.facts({"start": gap.start, "end": gap.end, "act": "revoked" if revoke else "accepted", "revoked": revoked})
