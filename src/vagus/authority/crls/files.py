"""The newest lists as files that any static server or CDN may hand out; signs nothing and changes no row.

Every serving process brings its folder up to the table, whoever signed, so folders of their own grow no older than a
shared one. What is written is what the table says under the folder's lock: a process that was held up between row and
file puts nothing older over what another has written meanwhile. Nor does a table that somebody set back: a file that
the same authority signed later stays, and tells that the table is behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.authority.crls.foreign import check_signer
from vagus.durable_files import PUBLIC_FILE, FolderLocked, lock_folder, replace_file
from vagus.errors import Conflict, Unavailable, VagusError
from vagus.reasons import Reason
from vagus.records import publications as rows
from vagus.records.authorities import find_by_id, list_authorities
from vagus.records.publications import COMPLETE, DeltaRow, Publication
from vagus.x509 import der, oids
from vagus.x509.crls.decoding import decode_crl

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from vagus.records.engine.database import Connection, Database

_PIECE = 1 << 20
_LOCK_SECONDS = 2.0
"""Whoever writes for longer is hung: that is told, and signing goes on."""
_EXTENSIONS = 0xA0

_Stamp = tuple[int, int, int]
"""Of a file: another one has another. Inode, moment of the last change, octets."""


@dataclass(frozen=True, slots=True)
class CrlPlace:
    """One list of one generation of an authority; `slug` as `AuthorityRow.slug`."""

    authority_id: int
    slug: str
    generation: int
    shard: int

    @property
    def stem(self) -> str:
        """The file's path in a folder of lists, without what ends it."""
        name = "complete" if self.shard == COMPLETE else str(self.shard)
        return f"crl/{self.slug}/{self.generation}/{name}"


@dataclass(frozen=True, slots=True)
class _Written:
    """What this process wrote last: the list's number, the files of list and delta (None: there is no delta)."""

    number: int
    stamp: _Stamp | None
    delta_stamp: _Stamp | None


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A list that stands in a file and has its authority's signature."""

    crl_der: bytes
    number: int
    this_update: datetime
    next_update: datetime
    sha256: bytes


class CrlFiles:
    """The lists in one folder, as this process knows them. Safe beside other processes on the same folder."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._written: dict[CrlPlace, _Written] = {}
        self._numbers: dict[Path, tuple[_Stamp, int]] = {}
        self._lists: dict[Path, tuple[_Stamp, bytes, SignedFile | None]] = {}

    def find_outdated(self) -> tuple[CrlPlace, ...]:
        """The lists of which the table has a newer one than this process wrote last, or whose file or delta changed."""
        with self._database.reading() as connection:
            numbers, outdated = rows.list_numbers(connection), rows.list_outdated(connection)
            authorities = list_authorities(connection)
        return tuple(
            place
            for row in authorities
            for shard, number in numbers.get(row.id, {}).items()
            if (row.id, shard) not in outdated
            and self._is_behind(place := CrlPlace(row.id, row.slug, row.generation, shard), number)
        )

    def _is_behind(self, place: CrlPlace, number: int) -> bool:
        written = self._written.get(place)
        if written is None or number > written.number:
            return True
        return (_stamp(self._list(place)), _stamp(self._delta(place))) != (written.stamp, written.delta_stamp)

    def find_newer(self) -> tuple[CrlPlace, ...]:
        """The lists whose file the table's own authority signed behind what the table has: the table was set back.

        Files of other installations, and what is no list, tell nothing.
        """
        # 1. The files first: rows are committed before them, and only grow meanwhile.
        paths = (path for path in self._folder.glob("crl/*/*/*.crl") if _shard_of(path) is not None)
        found = {path: self._number(path) for path in paths}
        with self._database.reading() as connection:
            numbers = rows.list_numbers(connection)
            authorities = {(row.slug, str(row.generation)): row for row in list_authorities(connection)}
        # 2. Whoever bears a greater number must have its authority's signature.
        newer: list[CrlPlace] = []
        for path, number in found.items():
            row, shard = authorities.get((path.parent.parent.name, path.parent.name)), _shard_of(path)
            if row is None or row.certificate_der is None or shard is None:
                continue
            if number > numbers.get(row.id, {}).get(shard, -1) and self._load(path, row.certificate_der) is not None:
                newer.append(CrlPlace(row.id, row.slug, row.generation, shard))
        return tuple(newer)

    def load(self, place: CrlPlace, certificate_der: bytes, *, is_delta: bool = False) -> SignedFile | None:
        """The list (or delta) in a file, if the authority with this certificate signed it."""
        return self._load(self._delta(place) if is_delta else self._list(place), certificate_der)

    def write(self, place: CrlPlace, made: Publication | None = None, delta: DeltaRow | None = None) -> None:
        """Write the newest list and its delta, the list first: it is never older than its delta.

        They are `made` and `delta` unless the table has newer ones by now. A delta file that no list speaks of any more
        goes: it would keep what was revoked since from whoever adds it to an older list. Raises OSError,
        Conflict(RESTORE_UNSETTLED) where the file is newer than the table, and Unavailable(STATUS_UNAVAILABLE) while
        another process hangs in the folder.
        """
        with self._turn(), self._database.reading() as connection:
            number = rows.find_number(connection, place.authority_id, place.shard, is_delta=False)
            if number is None:
                return
            self._check_not_newer(connection, place, number)
            if made is None or made.number != number:
                made = rows.find_publication(connection, place.authority_id, place.shard)
                delta = rows.find_delta(connection, place.authority_id, place.shard)
            if made is not None:
                write_public(self._list(place), made.crl_der)
            beside = self._delta(place)
            if delta is None or delta.crl_der is None:
                beside.unlink(missing_ok=True)
            else:
                write_public(beside, delta.crl_der)
            if made is not None:
                self._written[place] = _Written(number, _stamp(self._list(place)), _stamp(beside))

    def _check_not_newer(self, connection: Connection, place: CrlPlace, number: int) -> None:
        """Never an older list over a newer one, whatever became of the table."""
        path = self._list(place)
        if self._number(path) <= number:
            return
        authority = find_by_id(connection, place.authority_id)
        signer = None if authority is None else authority.certificate_der
        if signer is None or self._load(path, signer) is None:
            return
        msg = (
            f"{path} was signed later than the newest list in the database, which somebody brought back from an older "
            "state; the file stays: close the gap with `vagus restore-gap`"
        )
        raise Conflict(Reason.RESTORE_UNSETTLED, msg, path=str(path))

    def _number(self, path: Path) -> int:
        """The number of the list in a file, read anew once it changed; -1 for what is none."""
        stamp = _stamp(path)
        if stamp is None:
            return -1
        known = self._numbers.get(path)
        if known is None or known[0] != stamp:
            number = -1
            with suppress(OSError, VagusError):
                number = read_number(path.read_bytes())
            known = self._numbers[path] = (stamp, number)
        return known[1]

    def _load(self, path: Path, certificate_der: bytes) -> SignedFile | None:
        stamp = _stamp(path)
        if stamp is None:
            return None
        known = self._lists.get(path)
        if known is None or known[:2] != (stamp, certificate_der):
            found = None
            with suppress(OSError, VagusError):
                crl = decode_crl(path.read_bytes())
                check_signer(crl, certificate_der)
                if crl.next_update is not None:
                    found = SignedFile(crl.der, crl.number or 0, crl.this_update, crl.next_update, crl.sha256)
            known = self._lists[path] = (stamp, certificate_der, found)
        return known[2]

    def _list(self, place: CrlPlace) -> Path:
        return self._folder / f"{place.stem}.crl"

    def _delta(self, place: CrlPlace) -> Path:
        return self._folder / f"{place.stem}.delta.crl"

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer at a time in this folder, from all processes."""
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            with lock_folder(self._folder / ".lock", seconds=_LOCK_SECONDS, mode=PUBLIC_FILE):
                yield
        except FolderLocked:
            msg = f"another process has written in {self._folder} for {_LOCK_SECONDS:.0f} s; end it if it hangs"
            raise Unavailable(Reason.STATUS_UNAVAILABLE, msg) from None


def read_number(crl_der: bytes) -> int:
    """The number of a list (RFC 5280 5.2.3), its entries passed over; -1 without one. Raises Malformed(NON_DER)."""
    _, at, end = der.read_element(crl_der, 0, len(crl_der))
    _, at, end = der.read_element(crl_der, at, end)
    tag = 0
    while at < end:  # extensions are the last field of tbsCertList
        tag, start, at = der.read_element(crl_der, at, end)
    if tag != _EXTENSIONS:
        return -1
    for _, content, _ in der.split_elements(der.content_of(crl_der[start:at], der.SEQUENCE)):
        parts = der.split_elements(content)
        if parts[0][2] == der.object_identifier(oids.CRL_NUMBER):
            return int.from_bytes(der.content_of(parts[-1][1], der.INTEGER), "big")
    return -1


def write_public(place: Path, content: bytes) -> None:
    """Replace a file that everyone may read, atomically and durably; nothing is written where it says so already.

    For one writer at a time: what a killed one left is overwritten. What does not fit is taken away again, for the
    database may be on the same disk and needs what room there is for the next revocation.
    """
    if _says(place, content):
        return
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    replace_file(place, content, PUBLIC_FILE)


def _says(place: Path, content: bytes) -> bool:
    """Whether a file holds these octets; one that begins otherwise is not read further."""
    try:
        with place.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size != len(content):
                return False
            return all(stream.read(_PIECE) == content[at : at + _PIECE] for at in range(0, len(content), _PIECE))
    except FileNotFoundError:
        return False


def _stamp(place: Path) -> _Stamp | None:
    try:
        found = place.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _shard_of(path: Path) -> int | None:
    """The shard whose list has this file name; None for deltas and what is none of ours."""
    name = path.name.removesuffix(".crl")
    if name == "complete":
        return COMPLETE
    return int(name) if name.isascii() and name.isdigit() else None
