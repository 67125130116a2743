"""Files that hold secrets: their modes are checked and their writes are atomic; knows nothing of what is in them."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from vagus.errors import Conflict, Misconfigured
from vagus.reasons import Reason

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


def check_private_file(path: Path) -> None:
    """`path` is a regular file of this user (or root) that group and others cannot touch.

    Raises Misconfigured(PERMISSIONS_TOO_OPEN), and OSError where there is no such file.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise Misconfigured(Reason.BAD_SETTINGS, f"{path} is not a regular file", path=str(path))
    _check_closed(path, facts, _FILE_MODE)


def check_private_folder(path: Path) -> None:
    """`path` is a folder of this user (or root), closed to group and others. Raises as `check_private_file`."""
    facts = path.stat()
    if not stat.S_ISDIR(facts.st_mode):
        raise Misconfigured(Reason.BAD_SETTINGS, f"{path} is not a folder", path=str(path))
    _check_closed(path, facts, _FOLDER_MODE)


def _check_closed(path: Path, facts: os.stat_result, mode: int) -> None:
    open_bits = stat.S_IMODE(facts.st_mode) & ~_FOLDER_MODE
    if open_bits:
        found = stat.S_IMODE(facts.st_mode)
        msg = f"{path} has mode {found:04o}, open beyond its owner; run: chmod {mode:04o} {path}"
        raise Misconfigured(Reason.PERMISSIONS_TOO_OPEN, msg, path=str(path), mode=f"{found:04o}")
    if facts.st_uid not in {os.geteuid(), 0}:
        msg = f"{path} belongs to user {facts.st_uid}, not to this process ({os.geteuid()}); run: chown {os.geteuid()}"
        raise Misconfigured(Reason.PERMISSIONS_TOO_OPEN, msg, path=str(path))


def make_private_folder(path: Path) -> None:
    """Make `path` with mode 0700, its parents too; one that stands already is only checked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=_FOLDER_MODE)
        sync_folder(path.parent)
    check_private_folder(path)


def write_new(path: Path, content: bytes) -> None:
    """Put `content` at `path` with mode 0600: all of it or nothing, on the disk before this returns.

    Raises Conflict(ALREADY_EXISTS) when something stands there: a hard link, unlike a rename, never replaces.
    """
    scratch = _write_scratch(path, content)
    try:
        os.link(scratch, path)
    except FileExistsError:
        msg = f"{path} exists already; a secret is never overwritten, choose another name"
        raise Conflict(Reason.ALREADY_EXISTS, msg, path=str(path)) from None
    finally:
        scratch.unlink()
    sync_folder(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Put `content` at `path` with mode 0600 in place of what stood there, atomically and durably."""
    _write_scratch(path, content).replace(path)
    sync_folder(path.parent)


def _write_scratch(path: Path, content: bytes) -> Path:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    scratch.unlink(missing_ok=True)  # left by a process of this number that was killed
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return scratch


def sync_folder(path: Path) -> None:
    """Make names inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
