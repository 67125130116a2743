"""Writes files that survive a power cut whole or not at all, and lets one process at a time write in a folder.

How a file becomes durable (every writer here follows these steps):

1. Write the content under another name in the same folder, so that no reader ever sees a part of it.
2. fsync the file: its bytes are on the disk.
3. Rename it over the final name. POSIX renames within one file system in one step.
4. fsync the folder: now the name is on the disk too. `replace_file` leaves this step to a caller that writes many
   files and syncs their folder once.

The library `filelock` is not used for `lock_folder`. Where a file system has no flock, version 4 falls back to marker
files, which outlive a holder that died; this product must report an error there, and the rest is twenty lines.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vagus.errors import Conflict, Misconfigured
from vagus.reasons import Reason

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
GROUP_FILE = 0o640
PUBLIC_FILE = 0o644
PUBLIC_FOLDER = 0o755

_POLL_SECONDS = 0.02


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: one that was made, renamed or removed is on the disk only after this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(stream: IO[bytes]) -> None:
    """Make what was written to `stream` durable. The file's name may still be lost, see `sync_folder`."""
    stream.flush()
    os.fsync(stream.fileno())


def create_file(path: Path, mode: int = PRIVATE_FILE) -> IO[bytes]:
    """A new, empty file, open for reading and writing. Raises FileExistsError where the name is taken.

    A symbolic link counts as taken (O_EXCL), so the file cannot be made elsewhere by one that was planted here.
    """
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w+b")


def replace_file(path: Path, content: bytes, mode: int = PRIVATE_FILE, *, has_rivals: bool = False) -> None:
    """Put `content` at `path` in one step, with its bytes on the disk; call `sync_folder` for the name.

    For one writer at a time: it overwrites what a killed one left under the temporary name. Where another process may
    write the same file meanwhile (`has_rivals`), each has a temporary name of its own. A file that does not fit on the
    disk is taken away again, since others need the room. `PUBLIC_FILE` holds whatever the umask is. Raises OSError.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new" if has_rivals else f".{path.name}.new")
    _write_scratch(scratch, content, mode)
    scratch.replace(path)


def replace_durably(path: Path, content: bytes, mode: int = PRIVATE_FILE, *, has_rivals: bool = False) -> None:
    """`replace_file`, then `sync_folder`: after a power cut `path` holds the old content or the new. Raises OSError."""
    replace_file(path, content, mode, has_rivals=has_rivals)
    sync_folder(path.parent)


@contextmanager
def replacing(path: Path, mode: int = PRIVATE_FILE) -> Iterator[IO[bytes]]:
    """`replace_durably` for content that is too long for memory: the block writes it to the stream.

    After an error, in the block or of the disk, `path` is what it was.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with create_file(scratch, mode) as stream:
            yield stream
            sync_file(stream)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_new(path: Path, content: bytes) -> None:
    """Put `content` at `path` with mode 0600: all of it or nothing, on the disk before this returns.

    Raises Conflict(ALREADY_EXISTS) when the name is taken: a hard link, unlike a rename, never replaces. Two processes
    may do this at once, so each has a temporary name of its own.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    _write_scratch(scratch, content, PRIVATE_FILE)
    try:
        os.link(scratch, path)
    except FileExistsError:
        msg = f"file {path} exists already, and a secret is never overwritten; choose another name"
        raise Conflict(Reason.ALREADY_EXISTS, msg, path=str(path)) from None
    finally:
        scratch.unlink()
    sync_folder(path.parent)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put a whole private folder of files in place at once; `folder` must not exist yet."""
    scratch = folder.with_name(folder.name + ".new")
    remove_folder(scratch)
    scratch.mkdir(mode=PRIVATE_FOLDER)
    for name, content in files.items():
        with create_file(scratch / name) as stream:
            stream.write(content)
            sync_file(stream)
    sync_folder(scratch)
    scratch.rename(folder)
    sync_folder(folder.parent)


def replace_link(link: Path, target: str) -> None:
    """Point the symbolic link at `target` (relative to the link) in one step."""
    scratch = link.with_name(link.name + ".new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.rename(link)
    sync_folder(link.parent)


def remove_folder(folder: Path) -> None:
    """Remove the folder and what is in it; a missing folder is fine."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def make_private_folder(path: Path) -> None:
    """Make `path` with mode 0700, its parents too; an existing one is only checked, as `check_private_folder`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=PRIVATE_FOLDER)
        sync_folder(path.parent)
    check_private_folder(path)


def make_public_folder(path: Path) -> None:
    """Make `path` and the folders above it that are missing with mode 0755, whatever the umask is.

    Existing folders keep their modes, so that their owner decides who may enter. A link counts as its folder. Raises
    OSError, NotADirectoryError for a file or for a link that leads to no folder.
    """
    if path.is_dir():
        return
    if path.is_symlink() or path.exists():
        msg = "no folder, or a link to a folder that does not exist; make that folder"
        raise NotADirectoryError(errno.ENOTDIR, msg, str(path))
    make_public_folder(path.parent)
    with suppress(FileExistsError):  # another process was faster
        path.mkdir()
        path.chmod(PUBLIC_FOLDER)


def check_private_file(path: Path) -> None:
    """`path` is a regular file of this user (or root) that group and others cannot touch.

    Raises Misconfigured(PERMISSIONS_TOO_OPEN), Misconfigured(BAD_SETTINGS) for what is no regular file, and OSError
    where there is no such file.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise Misconfigured(
            Reason.BAD_SETTINGS,
            f"{path} is not a regular file; name a file that is no folder, link or device",
            path=str(path),
        )
    _check_closed(path, facts, PRIVATE_FILE)


def check_private_folder(path: Path) -> None:
    """`path` is a folder of this user (or root), closed to group and others. Raises as `check_private_file`."""
    facts = path.stat()
    if not stat.S_ISDIR(facts.st_mode):
        raise Misconfigured(Reason.BAD_SETTINGS, f"{path} is not a folder; name an existing folder", path=str(path))
    _check_closed(path, facts, PRIVATE_FOLDER)


class FolderLocked(Exception):
    """Another process held the lock of a folder for as long as the caller was ready to wait."""


@contextmanager
def lock_folder(lock_file: Path, *, seconds: float, mode: int = PRIVATE_FILE) -> Iterator[None]:
    """Keep other processes (and other callers in this one) out of the folder of `lock_file` within the block.

    Waits at most `seconds`; 0 asks once. The lock is flock(2) on the file, which is made where it is missing and never
    removed: two processes that lock two files of one name would not see each other. The kernel gives the lock back when
    its holder dies, however it dies. Raises FolderLocked, and OSError where the file cannot be opened or its file
    system has no locks.
    """
    descriptor = _open_lock(lock_file, mode)
    try:
        _wait_for_lock(descriptor, seconds)
        yield
    finally:
        os.close(descriptor)


def _open_lock(lock_file: Path, mode: int) -> int:
    # An NFS server locks a file only for a process that opened it for writing. A local flock needs read access alone,
    # so that users who share a folder can lock one file.
    try:
        return os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    except PermissionError:
        return os.open(lock_file, os.O_RDONLY | os.O_CLOEXEC)


def _wait_for_lock(descriptor: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise FolderLocked from None
            time.sleep(_POLL_SECONDS)  # flock(2) has no time-out, so poll until the deadline
        else:
            return


def _check_closed(path: Path, facts: os.stat_result, mode: int) -> None:
    open_bits = stat.S_IMODE(facts.st_mode) & ~PRIVATE_FOLDER
    if open_bits:
        found = stat.S_IMODE(facts.st_mode)
        msg = f"file {path} has mode {found:04o}, open beyond its owner; run: chmod {mode:04o} {path}"
        raise Misconfigured(Reason.PERMISSIONS_TOO_OPEN, msg, path=str(path), mode=f"{found:04o}")
    if facts.st_uid not in {os.geteuid(), 0}:
        msg = f"file {path} belongs to user {facts.st_uid}, not to this process; run: chown {os.geteuid()} {path}"
        raise Misconfigured(Reason.PERMISSIONS_TOO_OPEN, msg, path=str(path))


def _write_scratch(scratch: Path, content: bytes, mode: int) -> None:
    scratch.unlink(missing_ok=True)  # remove the scratch file of a process that was killed
    try:
        with create_file(scratch, mode) as stream:
            if mode == PUBLIC_FILE:
                os.fchmod(stream.fileno(), mode)
            stream.write(content)
            sync_file(stream)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
