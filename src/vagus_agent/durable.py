"""Files that survive a power cut whole or not at all; knows nothing of what is written in them."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vagus.errors import NotAuthorised
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def make_private_folder(folder: Path) -> None:
    """The folder, readable by its owner alone, made where it was missing (with its parents)."""
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's list of names durable: a rename is only on disk after this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Put `content` at `path` atomically: another name first, fsync, rename, fsync of the folder. Mode 0600."""
    scratch = path.with_name(path.name + ".new")
    _write_and_sync(scratch, content)
    scratch.rename(path)
    sync_folder(path.parent)


def write_folder_durably(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put a whole folder of files in place at once, replacing nothing: `folder` must not exist yet."""
    scratch = folder.with_name(folder.name + ".new")
    remove_folder(scratch)
    scratch.mkdir(mode=PRIVATE_FOLDER)
    for name, content in files.items():
        _write_and_sync(scratch / name, content)
    sync_folder(scratch)
    scratch.rename(folder)
    sync_folder(folder.parent)


def swing_link(link: Path, target: str) -> None:
    """Point the symbolic link at `target` (relative to the link) in one step."""
    scratch = link.with_name(link.name + ".new")
    with suppress(FileNotFoundError):
        scratch.unlink()
    scratch.symlink_to(target)
    scratch.rename(link)
    sync_folder(link.parent)


def remove_folder(folder: Path) -> None:
    """Remove the folder and what is in it; a missing folder is fine."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def load_private(path: Path) -> bytes:
    """The content of a file that only its owner may read.

    Raises NotAuthorised(PERMISSIONS_TOO_OPEN) where others may read it too.
    """
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        msg = f"{path} has mode {mode:04o}, a key allows {PRIVATE_FILE:04o}; run chmod 600 on it and consider it read"
        raise NotAuthorised(Reason.PERMISSIONS_TOO_OPEN, msg, path=str(path), mode=f"{mode:04o}")
    return path.read_bytes()


def _write_and_sync(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
