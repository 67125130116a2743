"""Takes a consistent backup of a serving installation and brings one back; its gap is `restored_gap`'s work.

What comes back is marked as restored before its folder gets its name, so that no moment exists in which it could issue.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vagus.errors import Conflict, IntegrityFailure, Malformed, Misconfigured, Unavailable
from vagus.fleet.maker_crls import FOLDER as MAKERS
from vagus.fleet.maker_crls import list_files
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.maintenance.archive import digest_of, pack, unpack
from vagus.maintenance.restored_gap import adopt_crls, note_key, take_log_back
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
    """What came back: how much its ledger knew, and what was taken back from the outside beside it."""

    folder: Path
    sha256: bytes
    log_size: int
    recovered: int
    lists: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What others have of the lost installation: the published log, the newest checkpoint (a note), lists (DER)."""

    published: Path | None = None
    checkpoint: bytes | None = None
    lists: tuple[bytes, ...] = ()


NOTHING_SEEN = Seen()


def take_backup(installation: Installation, target: Path, *, by: str) -> Backup:
    """Write database, sealed keystores, policy, plan, settings, makers' lists and checkpoint into the file `target`.

    The installation may serve meanwhile. The folder that it goes into must exist. Raises Conflict(ALREADY_EXISTS),
    Misconfigured(BAD_ARGUMENT) on PostgreSQL, Unavailable(DATABASE_UNAVAILABLE).
    """
    settings = installation.settings
    if target.exists():
        raise Conflict(Reason.ALREADY_EXISTS, f"{target} stands already; name another file", file=str(target))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as scratch:
        # 1. The database first: keys are made before the rows that name them, so no key can be missing below.
        copy = Path(scratch) / _DATABASE
        size = copy_database(installation.database, copy)
        # 2. Everything else, as files; those that others replace meanwhile as they are now.
        files = [(_DATABASE, copy), *_files(settings.folder), *_copy_replaced(settings.folder, Path(scratch))]
        if settings.policy_pack is not None:
            files.append((_inside(settings.policy_pack, settings.folder), settings.policy_pack))
        facts: dict[str, str | int | None] = {
            "origin": settings.origin,
            "kind": settings.kind,
            "log_size": size,
            "made_at": int(installation.clock.now().timestamp()),
        }
        digest = pack(target, files, facts)
    # 3. The ledger knows which backups there are.
    installation.writer.submit(
        lambda batch: append(batch, OperatorAct("backup-taken", by, detail_sha256=digest))
    ).result()
    return Backup(target, digest, size)


def restore(archive: Path, folder: Path, seen: Seen = NOTHING_SEEN) -> RestoredSystem:
    """Bring the installation in `archive` back as the new `folder`; it answers status and issues nothing.

    What was seen of it elsewhere is taken back at once, so that it answers as the lost one did. Not one entry is added
    to the ledger: the first one follows on the last that was published, once the gap is closed. Raises
    IntegrityFailure(BACKUP_DAMAGED) before anything appears, Conflict(ALREADY_EXISTS), and as `take_log_back` and
    `adopt_crls`.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(Reason.ALREADY_EXISTS, f"{folder} is not empty; restore into a new folder", folder=str(folder))
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    partial = folder.absolute().with_name(f".{folder.absolute().name}.restoring")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # 1. Everything checked, into a folder that nobody knows.
        manifest = unpack(archive, partial)
        size = manifest.facts.get("log_size")
        if not isinstance(size, int) or not (partial / _DATABASE).exists() or not (partial / FILE_NAME).exists():
            msg = "this backup is damaged: it lacks the database, the settings or the ledger's size; take another one"
            raise IntegrityFailure(Reason.BACKUP_DAMAGED, msg)
        settings = load_settings(partial)
        place = settings.database_file
        if place is None or not place.resolve().is_relative_to(partial.resolve()):
            msg = f"{FILE_NAME}: installation.database lies outside the folder; restore it with its own tools"
            raise Misconfigured(Reason.BAD_SETTINGS, msg, key="installation.database")
        if restore_database(partial / _DATABASE, place) != size:
            raise IntegrityFailure(Reason.BACKUP_DAMAGED, "the database does not have the size that the backup says")
        if place != partial / _DATABASE:
            (partial / _DATABASE).unlink()
        # A checkpoint without its tiles is no published log; it is kept beside, for comparison.
        if (partial / _CHECKPOINT).exists():
            (partial / _CHECKPOINT).rename(partial / "backup.checkpoint")
            (partial / _CHECKPOINT).parent.rmdir()
        # 2. Marked as restored before it gets its name: from here on the ledger takes no entry.
        digest = digest_of(archive)
        with Installation.open(partial) as installation:
            installation.writer.submit(
                lambda batch: set_restored(batch.connection, batch.at, size=size, backup_sha256=digest)
            ).result()
            # 3. What others have seen.
            recovered, lists = _take_back(installation, seen)
        # 4. Its name.
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return RestoredSystem(folder, digest, size, recovered, lists)


def _take_back(installation: Installation, seen: Seen) -> tuple[int, int]:
    """How many entries of the log came back, and how many lists that are newer than the backup's."""
    recovered = 0
    if seen.published is not None:
        kept = None if seen.checkpoint is None else verify_checkpoint(seen.checkpoint, note_key(installation))
        found = take_log_back(installation, seen.published, kept)
        recovered = found.end - found.start
    return recovered, adopt_crls(installation, seen.lists) if seen.lists else 0


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for name in (FILE_NAME, "plan.toml", "log.vkey"):
        if (folder / name).exists():
            yield name, folder / name
    for part in _FOLDERS:
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(folder).as_posix(), path


def _copy_replaced(folder: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Copies of what is replaced at any time: the checkpoint each second, makers' lists by whoever brings new ones."""
    for path in (folder / _CHECKPOINT, *list_files(folder / MAKERS)):
        if not path.is_file():
            continue  # a link to nowhere, say: `serve` does without it too
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
