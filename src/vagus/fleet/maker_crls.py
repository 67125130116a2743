"""Makers' CRLs for the certificates that they gave their devices (IDevIDs), from a folder; fetches none.

The folder `makers/` holds CRLs (`*.crl`, PEM or DER) and the certificates of line CAs that sign their own CRLs
(`*.pem`). It is read again whenever a file of it changes. A file that cannot be used affects only itself: its last good
content stays in force. Where there was none, its issuer's devices are refused until a good file comes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from vagus.errors import NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.trust.anchors import AnchorSet, ClockFloor
from vagus.trust.crl_memory import CrlMemory
from vagus.trust.crl_rules import STRICT_CRL_RULES
from vagus.trust.crl_status import CrlStatus, newest_first
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.crls.decoding import Crl, decode_crl
from vagus.x509.names.distinguished import DistinguishedName
from vagus.x509.paths.search import Pool, ValidPath
from vagus.x509.pem import decode_blocks

FOLDER: Final = "makers"
RETRY_SECONDS: Final = 30.0
"""After this time a file that could not be used is read again, although it did not change."""


def list_files(folder: Path) -> tuple[Path, ...]:
    """The files of such a folder that count: CRLs, and the certificates of line CAs that sign some."""
    if not folder.is_dir():
        return ()
    return tuple(sorted((*folder.glob("*.crl"), *folder.glob("*.pem"))))


@dataclass(frozen=True, slots=True)
class UntakenFile:
    """A CRL file that could not be used: the CRL's issuer, None where it cannot be read, and what an operator does."""

    issuer: DistinguishedName | None
    remedy: str


@dataclass(frozen=True, slots=True)
class MakerCrlStatus:
    """The status of makers' certificates: by the maker's CRLs where there are some, else by the inventory alone.

    802.1AR asks for no revocation of IDevIDs, and a hospital that cannot reach a maker must still enrol. A CRL that is
    here counts whatever else is missing: a root's CRL that revokes a line CA refuses every device of that line, also
    without a CRL by the line CA itself.
    """

    crls: CrlStatus | None
    untaken: Mapping[str, UntakenFile] = field(default_factory=dict)

    def check_path_status(self, path: ValidPath, at: datetime) -> None:
        """Raises NotTrusted as the CRLs say; an issuer without a CRL here passes.

        NotTrusted(STATUS_UNAVAILABLE) where the only CRL of an issuer could not be used.
        """
        if self.crls is not None:
            self.crls.check_path_where_loaded(path, at)
        for certificate in path.certificates:
            if self.crls is None or not self.crls.has_crl_for(certificate):
                self._check_untaken(certificate)

    def _check_untaken(self, certificate: PathCertificate) -> None:
        for name, file in self.untaken.items():
            if file.issuer is None or file.issuer.matches(certificate.issuer):
                msg = f"{FOLDER}/{name} may say that certificate {certificate.label} is revoked"
                msg = f"{msg}, but that CRL file cannot be used; {file.remedy}"
                raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg, certificate=certificate.label)


@dataclass(slots=True)
class MakerCrls:
    """The CRLs of a folder, as they were last read. Used by one thread."""

    folder: Path
    memory: CrlMemory
    floor: ClockFloor
    now: Callable[[], datetime]
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong with a file, by its name."""
    _seen: tuple[tuple[str, int, int, int], ...] | None = None
    # the CRLs of each file at its last good reading: a damaged file keeps them in force
    _good: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    _ends: dict[str, datetime] = field(default_factory=dict)
    _retry_at: float = math.inf  # in seconds of the monotonic clock

    @property
    def count(self) -> int:
        """How many CRLs are in use."""
        return sum(len(ders) for ders in self._good.values())

    def has_changed(self) -> bool:
        """Whether a file came, went or was written since `read`, or one that could not be used is due again.

        The reason may have been a database or a clock, which leave no trace in the folder.
        """
        return self._read_names() != self._seen or time.monotonic() >= self._retry_at

    def forget(self) -> None:
        """Make `has_changed` true: an operator asked for a new reading."""
        self._seen = None

    def read(self, anchors: Sequence[bytes]) -> MakerCrlStatus:
        """The status of makers' certificates under these anchors; `faults` has the files that could not be used."""
        self._seen = self._read_names()
        names = [name for name, *_ in self._seen]
        self.faults, self._ends = {}, {}
        untaken: dict[str, UntakenFile] = {}
        status: CrlStatus | None = None
        crls = [name for name in names if name.endswith(".crl")]
        if crls:
            pool = Pool(AnchorSet.from_der(anchors), self._lines(names))
            status = CrlStatus(pool, rules=STRICT_CRL_RULES, memory=self.memory, floor=self.floor)
            self._load(crls, status, untaken, pool)
        self._good = {name: ders for name, ders in self._good.items() if name in crls}
        self._retry_at = time.monotonic() + RETRY_SECONDS if self.faults else math.inf
        return MakerCrlStatus(status, untaken)

    def problems(self) -> dict[str, str]:
        """What an operator should know of the folder now, by file: faults, and CRLs that have expired."""
        found = {f"{FOLDER}/{name}": fault for name, fault in self.faults.items()}
        now = self.now()
        for name, end in self._ends.items():
            if end < now:
                found.setdefault(
                    f"{FOLDER}/{name}",
                    f"was to be replaced by {end:%Y-%m-%d %H:%M} UTC; its issuer's devices are refused: get a new CRL",
                )
        return found

    def _read_names(self) -> tuple[tuple[str, int, int, int], ...]:
        """Each file with what changes when it is written anew."""
        seen = []
        for file in list_files(self.folder):
            try:
                facts = file.stat()
            except OSError:
                continue  # the file was removed meanwhile, or is a link without a target
            seen.append((file.name, facts.st_mtime_ns, facts.st_size, facts.st_ino))
        return tuple(seen)

    def _lines(self, names: Sequence[str]) -> list[PathCertificate]:
        """The certificates of line CAs: without one, a line CA's own CRL cannot be checked."""
        found: list[PathCertificate] = []
        for name in names:
            if name.endswith(".pem"):
                try:
                    ders = decode_blocks((self.folder / name).read_bytes(), "CERTIFICATE")
                    found += [decode_certificate(der) for der in ders]
                except (VagusError, OSError) as fault:
                    self.faults[name] = _spell(fault)
        return found

    def _load(self, names: Sequence[str], status: CrlStatus, untaken: dict[str, UntakenFile], pool: Pool) -> None:
        """Use the newest CRL of each kind in these files. A file with a fault goes on with its last good content."""
        read: dict[str, list[tuple[bytes, Crl]]] = {}
        for name in names:
            try:
                ders = decode_blocks((self.folder / name).read_bytes(), "X509 CRL")
                read[name] = [(der, decode_crl(der)) for der in ders]
            except (VagusError, OSError) as fault:
                self.faults[name], untaken[name] = _spell(fault), UntakenFile(None, _remedy(None, pool))
        of_all = [(name, der, crl) for name, found in read.items() for der, crl in found]
        for name, der, crl in sorted(of_all, key=lambda one: newest_first(one[2])):
            try:
                self._note_end(name, status.load_unless_older(der, self.now()))
            except VagusError as fault:
                self.faults[name], untaken[name] = _spell(fault), UntakenFile(crl.issuer, _remedy(crl.issuer, pool))
        self._good.update({name: tuple(der for der, _ in found) for name, found in read.items() if name not in untaken})
        for name in untaken:
            for der in self._good.get(name, ()):
                self._load_again(name, der, status)

    def _load_again(self, name: str, der: bytes, status: CrlStatus) -> None:
        try:
            status.load_unless_older(der, self.now())
        except VagusError as fault:
            self.faults[name] = f"{self.faults[name]}; and its last good content is no longer valid: {fault.message}"

    def _note_end(self, name: str, crl: Crl | None) -> None:
        if crl is not None and crl.next_update is not None:
            self._ends[name] = min(crl.next_update, self._ends.get(name, datetime.max.replace(tzinfo=UTC)))


def _remedy(issuer: DistinguishedName | None, pool: Pool) -> str:
    if issuer is None or pool.anchors_named(issuer) or pool.certificates_named(issuer):
        return "bring the maker's newest CRL, or remove the file"
    return f"put the certificate of the CA that signed it into {FOLDER}/, as a .pem file"


def _spell(fault: VagusError | OSError) -> str:
    return fault.message if isinstance(fault, VagusError) else f"cannot be read: {fault.strerror or fault}"
