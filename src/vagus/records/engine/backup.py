"""Copies a SQLite database while it is written, checks such a copy, and puts it back; makes no archive.

PostgreSQL has its own tools (pg_basebackup, pg_dump); for it this is refused with that remedy.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from vagus.durable_files import create_file, sync_file, sync_folder
from vagus.errors import Conflict, IntegrityFailure, Misconfigured, Unavailable
from vagus.reasons import Reason
from vagus.records.engine.database import Database


def copy_database(database: Database, target: Path) -> int:
    """Copy the database as it is at one instant into the new file `target`; gives the size of its log.

    Writing goes on meanwhile. The copy has mode 0600, holds everything (no side files) and is on the disk when this
    returns. Raises Conflict(ALREADY_EXISTS), Unavailable(DATABASE_UNAVAILABLE), Misconfigured(BAD_ARGUMENT) on
    PostgreSQL.
    """
    if not database.is_sqlite:
        msg = "vagus backup copies no PostgreSQL database; use pg_dump --serializable-deferrable"
        raise Misconfigured(Reason.BAD_ARGUMENT, msg)
    partial = _new_file(target)
    try:
        with closing(sqlite3.connect(partial)) as copy:
            with database.reading() as connection:
                # One step copies every page of one snapshot. With several steps, SQLite would start over after each
                # commit of the writer.
                driver: Any = connection.connection.driver_connection
                driver.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode = DELETE")
        size = check_copy(partial)
        _settle(partial, target)
    except sqlite3.Error as error:
        msg = f"the database could not be copied to {target} ({error}); check the free space on the disk"
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg) from error
    finally:
        partial.unlink(missing_ok=True)
    return size


def restore_database(copy: Path, target: Path) -> int:
    """Put a checked copy in the place of a database file that does not exist yet; gives the size of its log.

    Atomic: after a crash `target` is there whole or not at all. The caller marks the installation as restored before
    anything is issued. Raises Conflict(ALREADY_EXISTS), IntegrityFailure(BACKUP_DAMAGED).
    """
    partial = _new_file(target)
    try:
        shutil.copyfile(copy, partial)
        size = check_copy(partial)
        # SQLite would replay the side files of a deleted database into the restored one
        for suffix in ("-wal", "-shm", "-journal"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        _settle(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return size


def check_copy(copy: Path) -> int:
    """The size of the log in `copy`, once its pages, indexes, references and log head are sound.

    Raises IntegrityFailure(BACKUP_DAMAGED).
    """
    try:
        with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as connection:
            findings = [row[0] for row in connection.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
            findings += [f"{row[0]} refers to nothing" for row in connection.execute("PRAGMA foreign_key_check")][:3]
            (size,) = connection.execute("SELECT size FROM log_head").fetchone() or (None,)
            (leaves,) = connection.execute("SELECT count(*) FROM log_leaves").fetchone()
    except sqlite3.Error as error:
        msg = f"backup file {copy} is not a database of this program ({error}); take another backup"
        raise IntegrityFailure(Reason.BACKUP_DAMAGED, msg, path=str(copy)) from error
    if size != leaves:
        findings.append(f"its log head counts {size} leaves, {leaves} are there")
    if findings:
        msg = f"backup database {copy} is damaged: {'; '.join(findings)}; take another backup"
        raise IntegrityFailure(Reason.BACKUP_DAMAGED, msg, path=str(copy))
    return int(leaves)


def _new_file(target: Path) -> Path:
    """An empty file beside `target`, for its owner alone."""
    if target.exists():
        msg = f"database file {target} exists and is never overwritten; name another file or move it away"
        raise Conflict(Reason.ALREADY_EXISTS, msg, path=str(target))
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    create_file(partial).close()
    return partial


def _settle(partial: Path, target: Path) -> None:
    """Make the finished file durable under its name: its bytes first, then its name."""
    with partial.open("r+b") as stream:
        sync_file(stream)
    partial.rename(target)
    sync_folder(target.parent)
