"""`vagus backup|restore|restore-gap`: take a consistent copy, and restore it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.files import check_place, naming, read_crls
from vagus.cli.options import example, folder_of, open_installation
from vagus.cli.output import JsonOption, Output, YesOption, check_confirmed, facts_of
from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from vagus.tlog.checkpoint import Checkpoint
    from vagus.wiring import Installation

CheckpointOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The newest checkpoint that was kept elsewhere.")
]
PublishedOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The published log: its tiles and checkpoint, or a copy of them.")
]
CrlsOption = Annotated[
    list[Path] | None, typer.Option(metavar="FILE|FOLDER", help="The newest CRLs of our authorities. Repeatable.")
]


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    for name, command, line in (
        ("backup", backup, "backup /backups/vagus.tar"),
        ("restore", restore, "restore /backups/vagus.tar --published /copies/log --checkpoint /copies/checkpoint"),
        ("restore-gap", restore_gap, "restore-gap --checkpoint /copies/checkpoint --accept"),
    ):
        application.command(name, epilog=example(f"vagus --dir hospital {line}"))(command)


def backup(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="Where to, in a folder that exists; backups/TIME.tar in --dir if left out."
        ),
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Copy database, sealed keystores, policy, plan, settings and checkpoint while serving goes on.

    Prints the file's SHA-256 and notes it in the ledger. Not in it: the published log and CRLs, keystores that are
    links, and a PostgreSQL database (use its own tools).
    """
    from vagus.maintenance.backups import take_backup

    with open_installation(context) as installation:
        if file is None:
            installation.settings.backups.mkdir(mode=0o700, exist_ok=True)
        target = file or installation.settings.backups / f"{installation.clock.now():%Y%m%dT%H%M%SZ}.tar"
        check_place(target)
        taken = take_backup(installation, installation.actor, target)
    Output(json).facts(facts_of(taken, "file", "sha256", "log_size"))


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `vagus backup` wrote.")],
    *,
    published: PublishedOption = None,
    checkpoint: CheckpointOption = None,
    crl: CrlsOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a backup back as the new folder --dir. It serves status and issues nothing until its gap is closed.

    Needs a folder that is new or empty and no passphrase; no other installation is touched. What happened since the
    backup is only in copies kept elsewhere: with the published log it knows at once what was revoked, with the newest
    CRLs it serves those, with a checkpoint it refuses a log that ends too early. Then `vagus restore-gap`.
    """
    from vagus.maintenance.backups import Published
    from vagus.maintenance.backups import restore as bring_back
    from vagus.operations.local_account import local_actor

    remains = Published(published, None if checkpoint is None else checkpoint.read_bytes(), _read_crls(crl))
    with naming(file, "BACKUP_DAMAGED"):
        done = bring_back(local_actor(), file, folder_of(context), remains)
    output = Output(json)
    output.facts({**facts_of(done, "folder", "sha256", "log_size", "recovered"), "lists": done.crls})
    output.say("Nothing is issued until `vagus restore-gap` closes the gap to the newest checkpoint kept elsewhere.")
    if published is None:
        output.say(
            "Without the published log (--published) what was revoked since the backup is unknown: OCSP says tryLater "
            "until the gap is closed."
        )


def restore_gap(
    context: typer.Context,
    *,
    checkpoint: CheckpointOption = None,
    published: PublishedOption = None,
    crl: CrlsOption = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke every certificate issued in the gap.")] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Leave them; what was revoked stays revoked.")] = False,
    new_origin: Annotated[
        str | None, typer.Option(metavar="NAME", help="The published log is lost: begin another one under this name.")
    ] = None,
    unsafe_no_checkpoint: Annotated[
        bool, typer.Option("--unsafe-no-checkpoint", help="No checkpoint was kept elsewhere: I know what is newest.")
    ] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Close the gap after a restore, with an entry in the ledger; only then is anything issued again.

    The gap is what was issued between the backup and the loss. Shows how much that is, and asks. Needs the newest
    checkpoint and, unless they were given to `restore`, the published log and the newest CRLs.
    """
    from vagus.maintenance.restored_gap import close_gap, measure_gap

    if revoke is accept:
        msg = "the gap after a restore needs one decision, --revoke or --accept; give exactly one of them"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    if (checkpoint is None) is not unsafe_no_checkpoint:
        msg = "no checkpoint to check the log against; give one with --checkpoint, or say --unsafe-no-checkpoint"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    output = Output(json)
    with open_installation(context) as installation:
        kept, crls = _verified(installation, checkpoint), _read_crls(crl)
        actor, is_new_log = installation.actor, new_origin is not None
        gap = measure_gap(installation, actor, checkpoint=kept, published=published, crls=crls, is_new_log=is_new_log)
        output.say(
            f"The log had {gap.lost_leaves} entries after the backup; {len(gap.issued)} certificates and "
            f"{gap.revoked} revocations of them are known again, {len(gap.combined)} certificates are in the CRLs."
        )
        question = "Revoke what was issued in the gap?" if revoke else "Accept the gap?"
        check_confirmed(question, is_assumed=yes)
        revoked = close_gap(installation, actor, gap, is_revoking=revoke, new_origin=new_origin)
        verifier = installation.log_verifier
    output.facts(
        {
            **facts_of(gap, "start", "end"),
            "act": "revoked" if revoke else "accepted",
            "issued": len(gap.issued),
            "revoked": revoked,
            "log_key": verifier,
        }
    )
    if new_origin is not None:
        output.say("This is another log: give devices, gateways and auditors its verifier key, log_key above.")


def _verified(installation: Installation, checkpoint: Path | None) -> Checkpoint | None:
    """The checkpoint in a file, signed with the log's key."""
    from vagus.maintenance.restored_gap import note_key
    from vagus.tlog.checkpoint import verify_checkpoint

    if checkpoint is None:
        return None
    with naming(checkpoint):
        return verify_checkpoint(checkpoint.read_bytes(), note_key(installation))


def _read_crls(places: list[Path] | None) -> tuple[bytes, ...]:
    """The CRLs in files and, of folders, in every *.crl beneath."""
    files = [file for place in places or () for file in (sorted(place.rglob("*.crl")) if place.is_dir() else (place,))]
    return tuple(der for file in files for der in read_crls(file))
