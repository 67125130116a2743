"""Whether this process sees what was published: a database that is behind it makes it blind; closes no gap.

A database comes back older than the world's knowledge by a restore, which marks it, or by its server's own tools and
failovers, which do not. What stands beside it tells then: a published log that is longer, a list that is newer. Until
the gap is closed no list and no checkpoint is signed, no file written and nobody called good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vagus.authority.crls.files import CrlFiles, CrlPlace
from vagus.authority.crls.published import PublishedCrl, PublishedCrls
from vagus.authority.ocsp.responses import CachedResponse, OcspResponses, SignedResponse
from vagus.errors import Conflict, Unavailable, VagusError
from vagus.reasons import Reason
from vagus.records.authorities import find_generation
from vagus.records.installation import load_installation
from vagus.records.publications import ADOPTED, find_facts, find_number
from vagus.tlog.tiles import CHECKPOINT

if TYPE_CHECKING:
    from vagus.records.engine.database import Database

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_WAITS = "published"


class SetbackWatch:
    """What the last look at the database and at what stands beside it said. Safe to ask from several threads.

    `is_behind` says whether the published log in a folder is longer than the database's, `mark` writes into a database
    that was set back that it was: no process appends to it any more. `waits` is what operators are told.
    """

    def __init__(
        self,
        database: Database,
        files: CrlFiles,
        log: Path,
        *,
        is_behind: Callable[[Path], bool],
        mark: Callable[[], object],
        waits: dict[str, str],
    ) -> None:
        self._database = database
        self.files = files
        self._log = log
        self._is_log_longer = is_behind
        self._mark = mark
        self.waits = waits
        self._looked_at = float("-inf")
        self._is_restored = False
        self._is_behind = False

    @property
    def is_settled(self) -> bool:
        """Whether what the database says may be signed and handed out."""
        return not self._is_restored and not self._is_behind

    @property
    def is_blind(self) -> bool:
        """Whether the database may lack revocations that the log would give back: nobody is called good."""
        return self._is_behind or (self._is_restored and not (self._log / CHECKPOINT).exists())

    @property
    def sees_files(self) -> bool:
        """Whether the files are as new as what was published here; beside a restored database they may be old too."""
        return self._is_behind or not self._is_restored

    def look(self) -> None:
        """Raises what the database raises; then all stays as it was."""
        # The evidence first: what it speaks of is committed before, and the database only grows meanwhile.
        newer = [f"{one.stem}.crl is newer" for one in self.files.find_newer()]
        if self._is_longer():
            newer.append(f"{self._log} is longer")
        with self._database.reading() as connection:
            self._is_restored = load_installation(connection).restored_at is not None
        if newer and not self._is_behind:
            _LOG.error("the database was brought back from an older state: %s; close the gap", ", ".join(newer))
        self._is_behind = bool(newer)
        self._looked_at = time.monotonic()
        if newer:
            told = f"{newer[0]} than the database says, which was brought back from an older state"
            self.waits[_WAITS] = f"{told}: nothing is signed and nobody called good; see `vagus restore-gap`"
            if not self._is_restored:
                self._mark()
        else:
            self.waits.pop(_WAITS, None)

    def look_again(self) -> bool:
        """Look if the last look is a moment ago: an operator may close the gap meanwhile. Gives `is_settled`."""
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self.look()
        return self.is_settled

    def check(self) -> None:
        """Raises Conflict(RESTORE_UNSETTLED) where the database is behind: then nothing starts that signs."""
        if self._is_behind:
            raise Conflict(Reason.RESTORE_UNSETTLED, self.waits[_WAITS])

    def _is_longer(self) -> bool:
        try:
            return self._is_log_longer(self._log)
        except VagusError as error:
            if error.reason is Reason.DATABASE_UNAVAILABLE:
                raise
            return False  # of another installation, under another name, or no checkpoint at all: it tells nothing


@dataclass(frozen=True, slots=True)
class GuardedOcspResponses:
    """CachedResponses nothing while the database may lack revocations: it would call good what was revoked."""

    desk: OcspResponses
    sight: SetbackWatch

    def respond(self, request_der: bytes, at: datetime) -> SignedResponse:
        """As `OcspResponses.respond`; raises Unavailable(RESTORE_UNSETTLED) before the gap is known."""
        if self.sight.is_blind:
            msg = "this system was restored and does not know yet what was revoked since its backup; try later"
            raise Unavailable(Reason.RESTORE_UNSETTLED, msg)
        return self.desk.respond(request_der, at)

    def find_cached(self, request_der: bytes, at: datetime) -> CachedResponse | None:
        """As `OcspResponses.find_cached`; nothing is found before the gap is known."""
        return None if self.sight.is_blind else self.desk.find_cached(request_der, at)


@dataclass(frozen=True, slots=True)
class GuardedCrls:
    """Hands out no list that is older than what was published: from files or adopted ones while there is a gap."""

    lists: PublishedCrls
    sight: SetbackWatch
    database: Database

    def find_cached_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """As `PublishedCrls.find_cached_crl`; nothing is found while there is a gap."""
        if not self.sight.is_settled:
            return None
        return self.lists.find_cached_crl(name, generation, shard, is_delta=is_delta)

    def find_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """As `PublishedCrls.find_crl`; raises Unavailable(RESTORE_UNSETTLED) where a newer one may be out."""
        if self.sight.is_settled:
            return self.lists.find_crl(name, generation, shard, is_delta=is_delta)
        with self.database.asking() as connection:
            row = find_generation(connection, name, generation)
            if row is None or row.certificate_der is None:
                return None
            facts = find_facts(connection, row.id, shard)
            number = find_number(connection, row.id, shard, is_delta=is_delta)
        place = CrlPlace(row.id, row.slug, generation, shard)
        found = self.sight.files.load(place, row.certificate_der, is_delta=is_delta)
        if found is not None and self.sight.sees_files and found.number >= (number or 0):
            return PublishedCrl(found.crl_der, found.this_update, found.next_update, found.sha256)
        if facts is not None and facts.sequence == ADOPTED and not is_delta:
            return self.lists.find_crl(name, generation, shard)
        if facts is None and found is None:
            return None
        msg = "this system was restored, and newer lists than its own may be out; fetch it elsewhere or try later"
        raise Unavailable(Reason.RESTORE_UNSETTLED, msg)

    def find_cached_certificate(self, name: str, generation: int) -> bytes | None:
        """As `PublishedCrls.find_cached_certificate`."""
        return self.lists.find_cached_certificate(name, generation)

    def find_certificate(self, name: str, generation: int) -> bytes | None:
        """As `PublishedCrls.find_certificate`."""
        return self.lists.find_certificate(name, generation)
