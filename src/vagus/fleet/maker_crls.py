"""What makers say of the birth certificates of their devices: the lists in an installation's folder; fetches none.

The folder `makers/` holds lists (`*.crl`, PEM or DER) and the certificates of lines that sign lists of their own
(`*.pem`). It is read again whenever a file of it changes. A file that cannot be taken stops nothing but itself: what
it said before stays in force, and where nothing is known of before, its issuer's devices wait for a good one.
"""

from __future__ import annotations

import logging
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
from vagus.trust.crl_status import CrlStatus
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.crls.decoding import Crl, decode_crl
from vagus.x509.names.matching import DistinguishedName
from vagus.x509.paths.search import Pool, ValidPath
from vagus.x509.pem import decode_blocks

FOLDER: Final = "makers"
RETRY_SECONDS: Final = 30.0
"""Until a file that could not be taken is read again although nobody wrote to it."""

_LOG = logging.getLogger(__name__)


def list_files(folder: Path) -> tuple[Path, ...]:
    """The files of such a folder that count: lists, and the certificates of lines that sign some."""
    if not folder.is_dir():
        return ()
    return tuple(sorted((*folder.glob("*.crl"), *folder.glob("*.pem"))))


@dataclass(frozen=True, slots=True)
class MakerCrlStatus:
    """What is known of birth certificates' status: a maker's lists where its files are here, else the inventory alone.

    802.1AR asks for no revocation of IDevIDs, and a hospital that cannot reach a maker must still enrol. A list that is
    here binds whatever else is missing: a root's list that revokes a line CA refuses every device of that line, also
    without a list by the line CA itself.
    """

    lists: CrlStatus | None
    untaken: Mapping[str, DistinguishedName | None] = field(default_factory=dict)
    """Files that could not be taken, with the issuer of the list; None where it cannot be read."""

    def check_path_status(self, path: ValidPath, at: datetime) -> None:
        """Raises NotTrusted as the lists say; an issuer of whom no list is here passes.

        NotTrusted(STATUS_UNAVAILABLE) where a list is here that could not be taken, and no other one speaks.
        """
        if self.lists is not None:
            self.lists.check_path_where_loaded(path, at)
        for certificate in path.certificates:
            if self.lists is None or not self.lists.has_crl_for(certificate):
                self._check_untaken(certificate)

    def _check_untaken(self, certificate: PathCertificate) -> None:
        for name, issuer in self.untaken.items():
            if issuer is None or issuer.matches(certificate.issuer):
                msg = f"{FOLDER}/{name} may say that certificate {certificate.label} is revoked and could not be taken;"
                msg = f"{msg} bring the maker's newest list, or remove the file"
                raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg, certificate=certificate.label)


@dataclass(slots=True)
class MakerCrls:
    """The lists of a folder, as they were last read. Used by one thread."""

    folder: Path
    memory: CrlMemory
    floor: ClockFloor
    now: Callable[[], datetime]
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong with a file, by its name."""
    _seen: tuple[tuple[str, int, int, int], ...] | None = None
    _good: dict[str, tuple[bytes, ...]] = field(default_factory=dict)  # the lists of each file when it was last good
    _ends: dict[str, datetime] = field(default_factory=dict)
    _retry_at: float = math.inf  # of the monotonic clock

    @property
    def count(self) -> int:
        """How many lists are in use."""
        return sum(len(ders) for ders in self._good.values())

    def has_changed(self) -> bool:
        """Whether a file came, went or was written since `read`, or one that could not be taken is due again.

        What stood in the way may have been a database or a clock, which leave no trace in the folder.
        """
        return self._look() != self._seen or time.monotonic() >= self._retry_at

    def forget(self) -> None:
        """Let `has_changed` be true: for an operator who says so."""
        self._seen = None

    def read(self, anchors: Sequence[bytes]) -> MakerCrlStatus:
        """The status of birth certificates under these makers' anchors; `faults` tells what could not be taken."""
        self._seen = self._look()
        names = [name for name, *_ in self._seen]
        self.faults, self._ends = {}, {}
        untaken: dict[str, DistinguishedName | None] = {}
        status: CrlStatus | None = None
        lists = [name for name in names if name.endswith(".crl")]
        if lists:
            pool = Pool(AnchorSet.from_der(anchors), self._lines(names))
            status = CrlStatus(pool, rules=STRICT_CRL_RULES, memory=self.memory, floor=self.floor)
        for name in lists:
            assert status is not None  # noqa: S101  made above
            issuer, is_taken = self._take(name, status)
            if not is_taken:
                untaken[name] = issuer
        self._good = {name: ders for name, ders in self._good.items() if name in lists}
        self._retry_at = time.monotonic() + RETRY_SECONDS if self.faults else math.inf
        return MakerCrlStatus(status, untaken)

    def told(self) -> dict[str, str]:
        """What an operator should know of the folder now, by file: faults, and lists that have run out."""
        found = {f"{FOLDER}/{name}": fault for name, fault in self.faults.items()}
        now = self.now()
        for name, end in self._ends.items():
            if end < now:
                found.setdefault(
                    f"{FOLDER}/{name}",
                    f"was to be replaced by {end:%Y-%m-%d %H:%M} UTC, so its issuer's devices are refused until the "
                    f"maker's newest list is here",
                )
        return found

    def _look(self) -> tuple[tuple[str, int, int, int], ...]:
        """Each file with what changes when it is written anew."""
        seen = []
        for file in list_files(self.folder):
            try:
                facts = file.stat()
            except OSError:
                continue  # it went while we looked, or is a link to nowhere
            seen.append((file.name, facts.st_mtime_ns, facts.st_size, facts.st_ino))
        return tuple(seen)

    def _lines(self, names: Sequence[str]) -> list[PathCertificate]:
        """A line CA's own list needs the line CA's certificate."""
        found: list[PathCertificate] = []
        for name in names:
            if name.endswith(".pem"):
                try:
                    ders = decode_blocks((self.folder / name).read_bytes(), "CERTIFICATE")
                    found += [decode_certificate(der) for der in ders]
                except (VagusError, OSError) as fault:
                    self.faults[name] = _spell(fault)
        return found

    def _take(self, name: str, status: CrlStatus) -> tuple[DistinguishedName | None, bool]:
        """Take a file's lists, or what it held when it was last good; the issuer, and whether the file was taken."""
        issuer: DistinguishedName | None = None
        try:
            ders = tuple(decode_blocks((self.folder / name).read_bytes(), "X509 CRL"))
            for der in ders:
                issuer = None
                issuer = decode_crl(der).issuer
                self._note_end(name, status.load(der, self.now()))
        except (VagusError, OSError) as fault:
            self.faults[name] = _spell(fault)
        else:
            self._good[name] = ders
            return issuer, True
        for der in self._good.get(name, ()):
            self._load_again(name, der, status)
        return issuer, False

    def _load_again(self, name: str, der: bytes, status: CrlStatus) -> None:
        try:
            status.load(der, self.now())
        except VagusError as fault:
            self.faults[name] = f"{self.faults[name]}; and what it held before counts no more: {fault.message}"

    def _note_end(self, name: str, crl: Crl) -> None:
        if crl.next_update is not None:
            self._ends[name] = min(crl.next_update, self._ends.get(name, datetime.max.replace(tzinfo=UTC)))


def _spell(fault: VagusError | OSError) -> str:
    return fault.message if isinstance(fault, VagusError) else f"cannot be read: {fault.strerror or fault}"


def note(waits: dict[str, str], told: Mapping[str, str]) -> None:
    """Bring what /health says of makers' files up to `told`, and say what is new in the log, once."""
    for about in [about for about in waits if about.startswith(f"{FOLDER}/") and about not in told]:
        del waits[about]
    for about, what in told.items():
        if waits.get(about) != what:
            _LOG.warning("%s: %s", about, what)
        waits[about] = what
