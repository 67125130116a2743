"""Writes the newest CRLs and the CA certificates as files for static servers and CDNs; signs nothing, changes no row.

Paths in the folder are those in the URLs of certificates: `crl/...` (cRLDistributionPoints), `ca/...` (caIssuers).
Every serving process brings its folder up to the table, whichever process signed. So a folder of its own is as new as a
shared one.

No file is ever replaced by an older CRL:

- A process writes under the folder's lock, and writes what the table has at that moment. A process that was delayed
  between row and file therefore writes the newer CRL of another process, not its own.
- A file that the same authority signed later than the newest row stays. The database was then restored or set back:
  `find_newer` reports it, and `write` raises.

Threads: one task of a process writes (`_written`, `_certificates`); `_numbers` and `_crls` cache what files hold, by
their stamps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.authority.crls.foreign import check_signer
from vagus.durable_files import PUBLIC_FILE, FolderLocked, lock_folder, make_public_folder, replace_file
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
"""A process that holds the lock for longer hangs: that is reported, and signing goes on."""
_EXTENSIONS = 0xA0

_Stamp = tuple[int, int, int]
"""Identifies the contents of a file: inode, time of the last change in nanoseconds, size in bytes."""


@dataclass(frozen=True, slots=True)
class CrlPlace:
    """The CRL of one shard of one generation of an authority; `slug` as `AuthorityRow.slug`."""

    authority_id: int
    slug: str
    generation: int
    shard: int

    @property
    def stem(self) -> str:
        """The path of its file in the folder, without the ending."""
        name = "complete" if self.shard == COMPLETE else str(self.shard)
        return f"crl/{self.slug}/{self.generation}/{name}"


@dataclass(frozen=True, slots=True)
class _Written:
    """What this process wrote last: the CRL's number, and the stamps of CRL and delta (None: there is no delta)."""

    number: int
    stamp: _Stamp | None
    delta_stamp: _Stamp | None


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A CRL in a file, with a valid signature of its authority."""

    crl_der: bytes
    number: int
    this_update: datetime
    next_update: datetime
    sha256: bytes


class CrlFiles:
    """The CRLs and CA certificates in one folder. Several processes may use the same folder."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._written: dict[CrlPlace, _Written] = {}
        self._certificates: dict[Path, _Stamp | None] = {}
        self._numbers: dict[Path, tuple[_Stamp, int]] = {}
        self._crls: dict[Path, tuple[_Stamp, bytes, SignedFile | None]] = {}

    def find_outdated(self) -> tuple[CrlPlace, ...]:
        """The CRLs that the table has newer than this process wrote last, or whose file or delta has changed since."""
        with self._database.reading() as connection:
            numbers, outdated = rows.list_numbers(connection), rows.list_outdated(connection)
            authorities = list_authorities(connection)
        return tuple(
            place
            for row in authorities
            for shard, number in numbers.get(row.id, {}).items()
            if (row.id, shard) not in outdated
            and self._is_outdated(place := CrlPlace(row.id, row.slug, row.generation, shard), number)
        )

    def _is_outdated(self, place: CrlPlace, number: int) -> bool:
        written = self._written.get(place)
        if written is None or number > written.number:
            return True
        return (_stamp(self._crl_path(place)), _stamp(self._delta_path(place))) != (written.stamp, written.delta_stamp)

    def find_newer(self) -> tuple[CrlPlace, ...]:
        """The CRLs whose file is newer than the table and signed by the table's own authority: the table was set back.

        Files of other installations, and files that hold no CRL, are ignored.
        """
        # 1. List the CRL files before the rows. Rows are committed before their files, so a file without a row is never
        # a race.
        paths = (path for path in self._folder.glob("crl/*/*/*.crl") if _shard_of(path) is not None)
        found = {path: self._number(path) for path in paths}
        with self._database.reading() as connection:
            numbers = rows.list_numbers(connection)
            authorities = {(row.slug, str(row.generation)): row for row in list_authorities(connection)}
        # 2. A CRL file with a greater number counts only if its authority signed it: else any user of the folder could
        # stop publication.
        newer: list[CrlPlace] = []
        for path, number in found.items():
            row, shard = authorities.get((path.parent.parent.name, path.parent.name)), _shard_of(path)
            if row is None or row.certificate_der is None or shard is None:
                continue
            if number > numbers.get(row.id, {}).get(shard, -1) and self._load(path, row.certificate_der) is not None:
                newer.append(CrlPlace(row.id, row.slug, row.generation, shard))
        return tuple(newer)

    def load(self, place: CrlPlace, certificate_der: bytes, *, is_delta: bool = False) -> SignedFile | None:
        """The CRL (or delta) in a file, if the authority with this certificate signed it."""
        return self._load(self._delta_path(place) if is_delta else self._crl_path(place), certificate_der)

    def write(self, place: CrlPlace, made: Publication | None = None, delta: DeltaRow | None = None) -> None:
        """Write the newest CRL and its delta, the CRL first, so that it is never older than its delta.

        They are `made` and `delta` unless the table has newer ones by now. A delta file without a row is deleted: with
        an older CRL it would hide what was revoked since. Raises OSError, Conflict(RESTORE_UNSETTLED) if the file is
        newer than the table, and Unavailable(STATUS_UNAVAILABLE) while another process hangs in the folder.
        """
        with self._locked(), self._database.reading() as connection:
            number = rows.find_number(connection, place.authority_id, place.shard, is_delta=False)
            if number is None:
                return
            self._check_not_newer(connection, place, number)
            if made is None or made.number != number:
                made = rows.find_publication(connection, place.authority_id, place.shard)
                delta = rows.find_delta(connection, place.authority_id, place.shard)
            if made is not None:
                write_public(self._crl_path(place), made.crl_der)
            beside = self._delta_path(place)
            if delta is None or delta.crl_der is None:
                beside.unlink(missing_ok=True)
            else:
                write_public(beside, delta.crl_der)
            if made is not None:
                self._written[place] = _Written(number, _stamp(self._crl_path(place)), _stamp(beside))

    def write_certificates(self) -> None:
        """Write the certificate of each authority that has one, unless its file is there and unchanged.

        A generation never changes its certificate, so the folder is locked only when a file is missing or was changed.
        Raises OSError, and Unavailable(STATUS_UNAVAILABLE) while another process hangs in the folder.
        """
        with self._database.reading() as connection:
            authorities = list_authorities(connection)
        certificates = {
            self._folder / f"ca/{row.slug}/{row.generation}.cer": row.certificate_der
            for row in authorities
            if row.certificate_der is not None
        }
        outdated = [path for path in certificates if (_stamp(path) or ()) != self._certificates.get(path)]
        if not outdated:
            return
        with self._locked():
            for path in outdated:
                write_public(path, certificates[path])
                self._certificates[path] = _stamp(path)

    def _check_not_newer(self, connection: Connection, place: CrlPlace, number: int) -> None:
        """Raises Conflict(RESTORE_UNSETTLED) if the file holds a newer CRL of the same authority than the table."""
        path = self._crl_path(place)
        if self._number(path) <= number:
            return
        authority = find_by_id(connection, place.authority_id)
        signer = None if authority is None else authority.certificate_der
        if signer is None or self._load(path, signer) is None:
            return
        msg = (
            f"CRL file {path} was signed later than the newest CRL in the database, so the database was set "
            "back to an older state. The file is left as it is; close the gap with `vagus restore-gap`"
        )
        raise Conflict(Reason.RESTORE_UNSETTLED, msg, path=str(path))

    def _number(self, path: Path) -> int:
        """The number of the CRL in a file, read again once the file changed; -1 if it is no CRL."""
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
        known = self._crls.get(path)
        if known is None or known[:2] != (stamp, certificate_der):
            found = None
            with suppress(OSError, VagusError):
                crl = decode_crl(path.read_bytes())
                check_signer(crl, certificate_der)
                if crl.next_update is not None:
                    found = SignedFile(crl.der, crl.number or 0, crl.this_update, crl.next_update, crl.sha256)
            known = self._crls[path] = (stamp, certificate_der, found)
        return known[2]

    def _crl_path(self, place: CrlPlace) -> Path:
        return self._folder / f"{place.stem}.crl"

    def _delta_path(self, place: CrlPlace) -> Path:
        return self._folder / f"{place.stem}.delta.crl"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time in this folder, from all processes."""
        make_public_folder(self._folder)
        try:
            with lock_folder(self._folder / ".lock", seconds=_LOCK_SECONDS, mode=PUBLIC_FILE):
                yield
        except FolderLocked:
            msg = f"another process has locked CRL folder {self._folder} for {_LOCK_SECONDS:.0f} s; end it if it hangs"
            raise Unavailable(Reason.STATUS_UNAVAILABLE, msg) from None


def read_number(crl_der: bytes) -> int:
    """The number of a CRL (RFC 5280 5.2.3), without decoding its entries; -1 if none. Raises Malformed(NON_DER)."""
    _, at, end = der.read_element(crl_der, 0, len(crl_der))
    _, at, end = der.read_element(crl_der, at, end)
    tag = 0
    # crlExtensions is the last field of tbsCertList (RFC 5280 5.1), so it is found from the end.
    while at < end:
        tag, start, at = der.read_element(crl_der, at, end)
    if tag != _EXTENSIONS:
        return -1
    for _, content, _ in der.split_elements(der.content_of(crl_der[start:at], der.SEQUENCE)):
        parts = der.split_elements(content)
        if parts[0][2] == der.object_identifier(oids.CRL_NUMBER):
            return int.from_bytes(der.content_of(parts[-1][1], der.INTEGER), "big")
    return -1


def write_public(place: Path, content: bytes) -> None:
    """Replace a file that everyone may read, atomically and durably; nothing is written if it has this content already.

    One writer at a time: a temporary file that a killed process left is overwritten. If the file does not fit on the
    disk the temporary file is deleted, since the database may need its space for the next revocation.
    """
    if _has_content(place, content):
        return
    make_public_folder(place.parent)
    replace_file(place, content, PUBLIC_FILE)


def _has_content(place: Path, content: bytes) -> bool:
    """Whether a file holds exactly these bytes; it is read in pieces up to the first difference."""
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
    """The shard whose CRL has this file name; None for deltas and other files."""
    name = path.name.removesuffix(".crl")
    if name == "complete":
        return COMPLETE
    return int(name) if name.isascii() and name.isdigit() else None
