"""Detects in a serving process that its database is older than what it published, and holds OCSP and CRLs back.

A database goes back to an older state in two ways: by `vagus restore`, which marks it, and by its server's own tools or
a failover, which do not mark it. Two things outside the database give an unmarked one away. The published log has
more entries than the database's, or a file in the folder of CRLs has a higher number than the newest in the table.

Until `vagus restore-gap` has closed the gap, the database may lack revocations. So no CRL and no checkpoint is signed,
no file is written, and OCSP calls no certificate good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vagus.authority.crls.files import CrlFiles, CrlPlace
from vagus.authority.crls.published import PublishedCrl, PublishedCrls
from vagus.authority.ocsp.responses import CachedResponse, OcspResponses, SignedResponse
from vagus.errors import Conflict, Unavailable, VagusError
from vagus.jobs.part import Part, PartHealth
from vagus.reasons import Reason
from vagus.records.authorities import find_generation
from vagus.records.installation import load_installation
from vagus.records.publications import ADOPTED, find_facts, find_number
from vagus.tlog.tiles import CHECKPOINT

if TYPE_CHECKING:
    from vagus.records.engine.database import Database

_LOG = logging.getLogger(__name__)
_FRESH_SECONDS = 0.5
_SUBJECT = "published"


@dataclass(slots=True)
class SetbackWatch:
    """Whether the database is restored or older than what was published, as of the newest check.

    `is_log_longer` compares the published log in a folder with the database's. `mark` writes into a database that was
    set back that it was: then no process appends to it any more.

    Threads: the tasks of the upkeep and ledger threads call `is_settled_now`, which checks again; the event loop and
    its worker threads only read the two flags. Two checks at once do no harm: each writes what it found, `mark` may be
    repeated, and the next check half a second later writes the newest state.
    """

    database: Database
    files: CrlFiles
    log: Path
    _: KW_ONLY
    is_log_longer: Callable[[Path], bool]
    mark: Callable[[], object]
    waits: dict[str, str] = field(default_factory=dict)
    """What an operator must do, by subject."""
    _checked_at: float = float("-inf")  # when the last check ran, in seconds of the monotonic clock
    _is_restored: bool = False
    _is_behind: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether what the database says may be signed and handed out."""
        return not self._is_restored and not self._is_behind

    @property
    def is_blind(self) -> bool:
        """Whether the database may lack revocations that the log would give back: then OCSP calls nothing good.

        A restored database whose published log is in place is not blind: `restore` took the log's revocations back.
        """
        return self._is_behind or (self._is_restored and not (self.log / CHECKPOINT).exists())

    @property
    def has_newest_files(self) -> bool:
        """Whether the files are as new as what was published here; beside a restored database they may be old too."""
        return self._is_behind or not self._is_restored

    def refresh(self) -> None:
        """Check now. Raises what the database raises; then the flags stay as they were."""
        # 1. Read the published checkpoint and CRLs first. A commit precedes its publication, and the database only
        # grows. So what is published now is in the rows that are read after it, unless the database was set back.
        newer = [f"{one.stem}.crl is newer" for one in self.files.find_newer()]
        if self._is_published_log_longer():
            newer.append(f"{self.log} is longer")
        # 2. Set the mark in the database, so that the writer of every process stops appending.
        with self.database.reading() as connection:
            self._is_restored = load_installation(connection).restored_at is not None
        if newer and not self._is_behind:
            _LOG.error("the database was brought back from an older state: %s; close the gap", ", ".join(newer))
        self._is_behind = bool(newer)
        self._checked_at = time.monotonic()
        # 3. Report it on /health, and let other processes find the mark.
        if newer:
            text = f"{newer[0]} than the database says, which was brought back from an older state"
            self.waits[_SUBJECT] = f"{text}: nothing is signed and OCSP calls nothing good; see `vagus restore-gap`"
            if not self._is_restored:
                self.mark()
        else:
            self.waits.pop(_SUBJECT, None)

    def is_settled_now(self) -> bool:
        """As `is_settled`, checked anew after half a second: an operator may close the gap meanwhile."""
        if time.monotonic() - self._checked_at >= _FRESH_SECONDS:
            self.refresh()
        return self.is_settled

    def check(self) -> None:
        """Raises Conflict(RESTORE_UNSETTLED) where the database was set back: then nothing starts that signs."""
        if self._is_behind:
            raise Conflict(Reason.RESTORE_UNSETTLED, self.waits[_SUBJECT])

    def part(self) -> Part:
        """What waits for an operator; the checks are made by the tasks that sign, before they do."""
        return Part("setback-watch", health=lambda: PartHealth(waits=dict(self.waits)))

    def _is_published_log_longer(self) -> bool:
        try:
            return self.is_log_longer(self.log)
        except VagusError as error:
            if error.reason is Reason.DATABASE_UNAVAILABLE:
                raise
            return False  # a log of another installation or no valid checkpoint: no evidence about this database


@dataclass(frozen=True, slots=True)
class GuardedOcspResponses:
    """OCSP responses, and none while the database may lack revocations: they would call good what was revoked."""

    responses: OcspResponses
    setback_watch: SetbackWatch

    def respond(self, request_der: bytes, at: datetime) -> SignedResponse:
        """As `OcspResponses.respond`; raises Unavailable(RESTORE_UNSETTLED) before the gap is known."""
        if self.setback_watch.is_blind:
            msg = "this installation was restored and does not know yet what was revoked since; ask again later"
            raise Unavailable(Reason.RESTORE_UNSETTLED, msg)
        return self.responses.respond(request_der, at)

    def find_cached(self, request_der: bytes, at: datetime) -> CachedResponse | None:
        """As `OcspResponses.find_cached`; nothing is found before the gap is known."""
        return None if self.setback_watch.is_blind else self.responses.find_cached(request_der, at)


@dataclass(frozen=True, slots=True)
class GuardedCrls:
    """Hands out no CRL that is older than what was published: while there is a gap, from files or adopted ones."""

    crls: PublishedCrls
    setback_watch: SetbackWatch
    database: Database

    def find_cached_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """As `PublishedCrls.find_cached_crl`; nothing is found while there is a gap."""
        if not self.setback_watch.is_settled:
            return None
        return self.crls.find_cached_crl(name, generation, shard, is_delta=is_delta)

    def find_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """As `PublishedCrls.find_crl`; raises Unavailable(RESTORE_UNSETTLED) where a newer one may be published."""
        if self.setback_watch.is_settled:
            return self.crls.find_crl(name, generation, shard, is_delta=is_delta)
        with self.database.bounded_reading() as connection:
            row = find_generation(connection, name, generation)
            if row is None or row.certificate_der is None:
                return None
            facts = find_facts(connection, row.id, shard)
            number = find_number(connection, row.id, shard, is_delta=is_delta)
        place = CrlPlace(row.id, row.slug, generation, shard)
        found = self.setback_watch.files.load(place, row.certificate_der, is_delta=is_delta)
        if found is not None and self.setback_watch.has_newest_files and found.number >= (number or 0):
            return PublishedCrl(found.crl_der, found.this_update, found.next_update, found.sha256)
        if facts is not None and facts.sequence == ADOPTED and not is_delta:
            return self.crls.find_crl(name, generation, shard)
        if facts is None and found is None:
            return None
        msg = "this installation was restored and may lack newer published CRLs; fetch the CRL elsewhere or later"
        raise Unavailable(Reason.RESTORE_UNSETTLED, msg)

    def find_cached_certificate(self, name: str, generation: int) -> bytes | None:
        """As `PublishedCrls.find_cached_certificate`."""
        return self.crls.find_cached_certificate(name, generation)

    def find_certificate(self, name: str, generation: int) -> bytes | None:
        """As `PublishedCrls.find_certificate`."""
        return self.crls.find_certificate(name, generation)
