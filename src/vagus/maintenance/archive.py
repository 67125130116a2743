"""A backup as one tar file with a manifest of digests: packs, checks and unpacks files, whatever is in them.

    manifest.json     format, facts, and of each file its name, size and SHA-256
    manifest.sha256   the digest of the manifest
    ...               the files, in the order of the manifest

Keystores travel sealed. Nothing of a damaged archive is unpacked: everything is checked before the folder appears.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NoReturn, cast

from vagus.durable_files import create_file, sync_file, sync_folder
from vagus.errors import Conflict, IntegrityFailure, Malformed, Unavailable
from vagus.reasons import Reason

FORMAT = 1
_MANIFEST = "manifest.json"
_SEAL = "manifest.sha256"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,119}(?:/[A-Za-z0-9][A-Za-z0-9._@-]{0,119}){0,5}\Z")
_LARGEST_MANIFEST = 16 * 1024 * 1024
_PART = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Packed:
    """One file of an archive."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says of itself: facts (numbers and words that its packer chose) and its files."""

    facts: Mapping[str, str | int | None]
    files: tuple[Packed, ...]


def pack(
    target: Path,
    files: Sequence[tuple[str, Path]],
    facts: Mapping[str, str | int | None],
    *,
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> bytes:
    """Write `files` (name inside, where it lies) into the new file `target` (0600); returns the archive's SHA-256.

    `sizes` are the bytes to take from the beginning of files to which others append meanwhile, by name. The archive
    appears whole or not at all. Raises Conflict(ALREADY_EXISTS), Malformed(BAD_ARGUMENT) for a name that no archive may
    hold, Unavailable(DATABASE_UNAVAILABLE) when the disk refuses or a file changes while it is packed.
    """
    if target.exists():
        msg = f"backup file {target} exists already; name another file"
        raise Conflict(Reason.ALREADY_EXISTS, msg, file=str(target))
    partial = target.with_name(f".{target.name}.partial")
    try:
        packed = tuple(_measure(name, path, sizes.get(name)) for name, path in files)
        manifest = _encode(Manifest(facts, packed))
        partial.unlink(missing_ok=True)
        with create_file(partial) as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                _add(tar, _MANIFEST, io.BytesIO(manifest), len(manifest))
                seal = hashlib.sha256(manifest).hexdigest().encode()
                _add(tar, _SEAL, io.BytesIO(seal), len(seal))
                for one, (_, path) in zip(packed, files, strict=True):
                    with path.open("rb") as source:
                        _add_measured(tar, one, source, may_grow=one.name in sizes)
            sync_file(stream)
            stream.seek(0)
            digest = _digest(stream)
        partial.rename(target)
        sync_folder(target.parent)
    except OSError as fault:
        msg = f"backup {fault.filename or target} cannot be written: {fault.strerror}; make room or name another"
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg, file=str(target)) from fault
    finally:
        partial.unlink(missing_ok=True)
    return digest


def unpack(archive: Path, folder: Path) -> Manifest:
    """Check `archive` whole, then let its files appear in the new `folder` (0700, files 0600).

    `folder` must not exist; until everything is checked and on the disk it does not. Raises
    IntegrityFailure(BACKUP_DAMAGED), Conflict(ALREADY_EXISTS), Malformed(BAD_ARGUMENT: no such file, or a folder),
    Unavailable(DATABASE_UNAVAILABLE).
    """
    if folder.exists():
        msg = f"folder {folder} exists already; restore the backup into a new folder"
        raise Conflict(Reason.ALREADY_EXISTS, msg, folder=str(folder))
    try:
        with archive.open("rb") as stream:
            try:
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    folder.mkdir(mode=0o700, parents=True)
                    return _unpack(tar, folder)
            except (tarfile.TarError, EOFError, ValueError, OverflowError) as fault:
                _damaged(f"it is no whole tar file ({fault})")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as fault:
        shutil.rmtree(folder, ignore_errors=True)
        what = "this is a folder" if isinstance(fault, IsADirectoryError) else "there is no such file"
        msg = f"backup {fault.filename or archive}: {what}; name a file that `vagus backup` made"
        raise Malformed(Reason.BAD_ARGUMENT, msg, file=str(archive)) from fault
    except OSError as fault:
        shutil.rmtree(folder, ignore_errors=True)
        msg = f"{fault.filename or archive}: {fault.strerror}; check the path and the space on the disk"
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg, file=str(archive)) from fault
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def digest_of(archive: Path) -> bytes:
    """The SHA-256 of an archive as a whole, as `pack` returned it."""
    with archive.open("rb") as stream:
        return _digest(stream)


def _unpack(tar: tarfile.TarFile, folder: Path) -> Manifest:
    manifest = _read_manifest(tar)
    for one in manifest.files:
        member = tar.next()
        if member is None or member.name != one.name or not _is_plain(member) or member.size != one.size:
            _damaged(f"{one.name} is missing or not as the manifest says")
        source = tar.extractfile(member)
        path = folder / one.name
        for parent in reversed(path.relative_to(folder).parents):
            (folder / parent).mkdir(mode=0o700, exist_ok=True)
        with create_file(path) as target:
            if source is None or _copy(source, target) != one.sha256:
                _damaged(f"{one.name} does not have the digest of the manifest")
            sync_file(target)
    if tar.next() is not None:
        _damaged("it holds more files than the manifest says")
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(path)
    return manifest


def _read_manifest(tar: tarfile.TarFile) -> Manifest:
    raw, seal = _small(tar, _MANIFEST, _LARGEST_MANIFEST), _small(tar, _SEAL, 64)
    if hashlib.sha256(raw).hexdigest().encode() != seal:
        _damaged("the manifest does not have its own digest")
    try:
        said: dict[str, Any] = json.loads(raw)
        if said["format"] != FORMAT:
            _damaged(f"it is of format {said['format']!r}, this program reads {FORMAT}")
        files = tuple(Packed(str(one["name"]), int(one["size"]), str(one["sha256"])) for one in said["files"])
        facts = {str(name): value for name, value in said["facts"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _damaged("the manifest cannot be read")
    if len({one.name for one in files}) != len(files) or not all(_NAME.match(one.name) for one in files):
        _damaged("the manifest names a file twice or outside the installation")
    return Manifest(facts, files)


def _small(tar: tarfile.TarFile, name: str, largest: int) -> bytes:
    member = tar.next()
    if member is None or member.name != name or not _is_plain(member) or member.size > largest:
        _damaged(f"{name} is missing")
    source = tar.extractfile(member)
    return b"" if source is None else source.read()


def _is_plain(member: tarfile.TarInfo) -> bool:
    """A file whose bytes are all in the archive: a sparse one may be of any size and cost its sender nothing."""
    return member.type == tarfile.REGTYPE and not member.issparse()


def _measure(name: str, path: Path, size: int | None) -> Packed:
    if not _NAME.match(name):
        raise Malformed(Reason.BAD_ARGUMENT, f"a backup cannot hold a file named {name!r}; rename it", name=name)
    with path.open("rb") as stream:
        if size is not None:
            return Packed(name, size, _digest(stream, size).hex())
        return Packed(name, path.stat().st_size, _digest(stream).hex())


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    tar.addfile(member, source)


def _add_measured(tar: tarfile.TarFile, one: Packed, source: IO[bytes], *, may_grow: bool) -> None:
    """The manifest comes first, so the sizes and digests were measured before. A file that changed since is refused."""
    read = _Read(source)
    is_whole = False
    try:
        _add(tar, one.name, cast("IO[bytes]", read), one.size)
        is_whole = may_grow or not source.read(1)
    except OSError as fault:
        if fault.errno is not None:  # tarfile sets no errno where an archive ends too early
            raise
    if not is_whole or read.digest.hexdigest() != one.sha256:
        msg = f"file {one.name} was written while the backup was taken; take the backup again"
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg, file=one.name)


class _Read:
    """A file, and the digest of what was read of it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._source.read(size)
        self.digest.update(part)
        return part


def _encode(manifest: Manifest) -> bytes:
    return json.dumps({"format": FORMAT, **asdict(manifest)}, sort_keys=True, indent=1).encode("ascii")


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    read = _Read(source)
    shutil.copyfileobj(read, target, _PART)
    return read.digest.hexdigest()


def _digest(stream: IO[bytes], size: int | None = None) -> bytes:
    """Of the whole stream, or of its first `size` bytes."""
    digest = hashlib.sha256()
    while part := stream.read(_PART if size is None else min(_PART, size)):
        digest.update(part)
        size = None if size is None else size - len(part)
    return digest.digest()


def _damaged(finding: str) -> NoReturn:
    raise IntegrityFailure(Reason.BACKUP_DAMAGED, f"this backup is damaged: {finding}; take another one")
