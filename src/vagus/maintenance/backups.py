"""Takes a consistent backup of a serving installation and restores one; `restored_gap` closes the gap after that.

A restored installation is marked as restored before its folder gets its name, so that it can issue at no moment.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vagus.durable_files import FolderLocked, lock_folder
from vagus.errors import Conflict, IntegrityFailure, Malformed, Misconfigured, Unavailable
from vagus.fleet.maker_crls import FOLDER as MAKERS
from vagus.fleet.maker_crls import list_files
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.ledger.gateway_lines import FOLDER, finished_size, list_segments
from vagus.maintenance.archive import digest_of, pack, unpack
from vagus.maintenance.restored_gap import adopt_crls, note_key, take_log_back
from vagus.operations.actor import Actor
from vagus.operations.roles import Act, check_may
from vagus.reasons import Reason
from vagus.records.engine.backup import copy_database, restore_database
from vagus.records.installation import set_restored
from vagus.settings import FILE_NAME, load_settings
from vagus.tlog.checkpoint import verify_checkpoint
from vagus.wiring import Installation

_DATABASE = "database.sqlite3"
_CHECKPOINT = "log/checkpoint"
_FOLDERS = ("keystores", "requests", "sealed")


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was taken."""

    file: Path
    sha256: bytes
    log_size: int


@dataclass(frozen=True, slots=True)
class RestoredSystem:
    """What was restored: the size of its ledger in the backup, and what was recovered from outside the backup."""

    folder: Path
    sha256: bytes
    log_size: int
    recovered: int
    """Entries of the published log."""
    crls: int
    """CRLs that are newer than the backup's."""


@dataclass(frozen=True, slots=True)
class Published:
    """What remains of the lost installation elsewhere: its log, its newest checkpoint (a note), CRLs (DER)."""

    log: Path | None = None
    checkpoint: bytes | None = None
    crls: tuple[bytes, ...] = ()


NOTHING_PUBLISHED = Published()


def take_backup(installation: Installation, actor: Actor, target: Path) -> Backup:
    """Write all that a restore needs into the file `target`.

    It holds database, sealed keystores, policy, plan, settings, makers' CRLs, checkpoint and the gateways' log. The
    installation may serve meanwhile. The folder that it goes into must exist. Raises Conflict(ALREADY_EXISTS),
    Misconfigured(BAD_ARGUMENT) on PostgreSQL, Unavailable(DATABASE_UNAVAILABLE).
    """
    check_may(actor, Act.TAKE_BACKUP)
    settings = installation.settings
    if target.exists():
        msg = f"backup file {target} exists already; name another file"
        raise Conflict(Reason.ALREADY_EXISTS, msg, file=str(target))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as scratch:
        # 1. Copy the database first. A key is made before the row that names it, so no row of the copy lacks its key.
        copy = Path(scratch) / _DATABASE
        size = copy_database(installation.database, copy)
        # 2. Copy every other file, in the state that it has now: other processes may replace some meanwhile.
        files = [(_DATABASE, copy), *_files(settings.folder), *_copy_replaced(settings.folder, Path(scratch))]
        # 3. Take of the gateways' log what is there now: it holds every line to which the copied ledger commits.
        gates = {f"{FOLDER}/{one.name}": one.path for one in list_segments(settings.folder / FOLDER)}
        sizes = {name: finished_size(path) for name, path in gates.items()}
        files += gates.items()
        if (own_pack := settings.own_policy_pack) is not None:
            files.append((_inside(own_pack, settings.folder), own_pack))
        facts: dict[str, str | int | None] = {
            "origin": settings.origin,
            "kind": settings.kind,
            "log_size": size,
            "made_at": int(installation.clock.now().timestamp()),
        }
        try:
            with lock_folder(settings.keystores / ".lock", seconds=60.0):  # no passphrase is changed meanwhile
                digest = pack(target, files, facts, sizes=sizes)
        except FolderLocked:
            msg = "the passphrase of a keystore is being changed; take the backup when that has ended"
            raise Unavailable(Reason.OVERLOADED, msg) from None
    # 4. Record the backup in the ledger, so that auditors know which backups exist.
    installation.writer.submit(
        lambda batch: append(batch, OperatorAct("backup-taken", actor.id, detail_sha256=digest))
    ).result()
    return Backup(target, digest, size)


def restore(actor: Actor, archive: Path, folder: Path, published: Published = NOTHING_PUBLISHED) -> RestoredSystem:
    """Restore the installation in `archive` into the new `folder`; it serves status and issues nothing.

    What was `published` is recovered at once, so that status is what the lost installation served. No entry is added to
    the ledger: the first one follows the last published one, once the gap is closed. Raises
    IntegrityFailure(BACKUP_DAMAGED) before anything appears, Conflict(ALREADY_EXISTS), and as `take_log_back` and
    `adopt_crls`.
    """
    check_may(actor, Act.RESTORE)
    if folder.exists() and any(folder.iterdir()):
        msg = f"folder {folder} is not empty; restore the backup into a new folder"
        raise Conflict(Reason.ALREADY_EXISTS, msg, folder=str(folder))
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    partial = folder.absolute().with_name(f".{folder.absolute().name}.restoring")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # 1. Unpack and check everything in a new folder that no process uses yet.
        manifest = unpack(archive, partial)
        size = manifest.facts.get("log_size")
        if not isinstance(size, int) or not (partial / _DATABASE).exists() or not (partial / FILE_NAME).exists():
            msg = "this backup lacks the database, the settings or the size of the log; take another backup"
            raise IntegrityFailure(Reason.BACKUP_DAMAGED, msg)
        settings = load_settings(partial)
        place = settings.database_file
        if place is None or not place.resolve().is_relative_to(partial.resolve()):
            msg = f"{FILE_NAME}: installation.database lies outside the folder; restore that database by its own tools"
            raise Misconfigured(Reason.BAD_SETTINGS, msg, key="installation.database")
        if restore_database(partial / _DATABASE, place) != size:
            msg = "the database in the backup does not have the size that its manifest names; take another backup"
            raise IntegrityFailure(Reason.BACKUP_DAMAGED, msg)
        if place != partial / _DATABASE:
            (partial / _DATABASE).unlink()
        # A checkpoint without its tiles is no published log. It is stored under another name, to be compared with at
        # the end of the restore.
        if (partial / _CHECKPOINT).exists():
            (partial / _CHECKPOINT).rename(partial / "backup.checkpoint")
            (partial / _CHECKPOINT).parent.rmdir()
        # 2. Mark the database as restored before the folder gets its final name: from here on the writer appends no
        # entry.
        digest = digest_of(archive)
        with Installation.open(partial) as installation:
            installation.database.upgrade()  # the backup may be of an earlier release
            installation.writer.submit(
                lambda batch: set_restored(batch.connection, batch.at, size=size, backup_sha256=digest)
            ).result()
            # 3. Copy what was published since the backup, where the operator gave it.
            recovered, crls = _take_back(installation, published)
        # 4. Rename the folder to its final name, the last step of the restore.
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return RestoredSystem(folder, digest, size, recovered, crls)


def _take_back(installation: Installation, published: Published) -> tuple[int, int]:
    """How many entries of the log were recovered, and how many CRLs are newer than the backup's."""
    recovered = 0
    if published.log is not None:
        note = published.checkpoint
        newest = None if note is None else verify_checkpoint(note, note_key(installation))
        found = take_log_back(installation, published.log, newest)
        recovered = found.end - found.start
    return recovered, adopt_crls(installation, published.crls) if published.crls else 0


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for name in (FILE_NAME, "plan.toml", "log.vkey"):
        if (folder / name).exists():
            yield name, folder / name
    for part in _FOLDERS:
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(folder).as_posix(), path


def _copy_replaced(folder: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Copies of what may be replaced meanwhile: the checkpoint each second, makers' CRLs by an operator."""
    for path in (folder / _CHECKPOINT, *list_files(folder / MAKERS)):
        if not path.is_file():
            continue  # a link without a target, for example: `vagus serve` does not need it either
        name = path.relative_to(folder).as_posix()
        copy = scratch / name
        copy.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            shutil.copyfile(path, copy)
        except OSError as fault:
            msg = f"{path} cannot be taken into the backup: {fault.strerror or fault}; mend or remove it"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg, file=str(path)) from fault
        yield name, copy


def _inside(path: Path, folder: Path) -> str:
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        msg = f"policy pack {path} lies outside the installation's folder; move it in, so that backups hold it"
        raise Malformed(Reason.BAD_ARGUMENT, msg, file=str(path)) from None
