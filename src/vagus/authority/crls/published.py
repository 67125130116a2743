"""Caches the newest CRLs and CA certificates in memory for the listeners that send them; signs and publishes nothing.

How a CRL is found, and why it is never older than what this process knows:

1. `_numbers` holds the newest number of each CRL. It is *fresh* until the next commit of this process, and for
   `fresh_seconds`. So a CRL that this process published is found from the moment of its commit, and one of another
   process after the next refresh.
2. If `_numbers` is fresh and `_crls` holds a CRL of that number, it is sent from memory (`find_cached_crl`). This
   waits for nothing, and so may run on the event loop.
3. Otherwise `find_crl` reads the numbers, and the CRL if its number moved. This may wait for the database.

While the database is not available, a cached CRL is sent until its nextUpdate.

Threads: any thread may call. `_refreshing` lets one thread read the numbers, `_loading` one thread read CRLs; the
others wait for its result. `_numbers` is replaced as a whole, and `_crls`, `_ids` and `_certificates` change by one
assignment per key, so readers take no lock. `_refresh_if_due` counts commits before it reads: a commit during the read
makes the result stale at once. `_commits` is changed by the writer's thread alone, in `_on_commit`.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vagus.errors import Unavailable
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import publications as publication_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from vagus.clock import Clock
    from vagus.records.engine.commit_facts import CommitFacts
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Writer

REFRESH_SECONDS = 0.5
"""How often a serving process reads the newest numbers."""

FRESH_SECONDS = 6.0
"""How long numbers are fresh: longer than a read that hangs takes, so that no client waits for a hanging database."""

_RETRY_SECONDS = 1.0
_LOAD_SECONDS = 10.0
_LOG = logging.getLogger(__name__)

_Place = tuple[int, int, bool]
"""Authority, shard (-1: the complete CRL), whether it is the delta."""


@dataclass(frozen=True, slots=True)
class PublishedCrl:
    """A CRL as published."""

    crl_der: bytes
    this_update: datetime
    next_update: datetime
    sha256: bytes
    """Of the CRL: hashed once, since a CRL may have megabytes."""


@dataclass(frozen=True, slots=True)
class CrlCacheState:
    """The state of the cache, for /health."""

    count: int
    refreshed_at: datetime | None
    """When the newest numbers were last read."""
    is_away: bool
    """Whether the last read failed because the database is not available."""


class PublishedCrls:
    """The cache; see the module. Without `fresh_seconds` each call reads the newest numbers first."""

    def __init__(self, database: Database, clock: Clock, *, fresh_seconds: float = 0.0) -> None:
        self._database = database
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._refreshing = threading.Lock()
        self._loading = threading.Lock()
        # (name, generation) -> authority id, for good: a generation never changes its id or certificate
        self._ids: dict[tuple[str, int], int] = {}
        self._certificates: dict[tuple[str, int], bytes] = {}
        self._numbers: dict[_Place, int] = {}
        self._crls: dict[_Place, tuple[int, PublishedCrl | None]] = {}
        self._commits = 0  # commits of this process: each may have published a CRL, so each makes the cache due
        self._seen_commits = -1
        self._fresh_until = self._retry_at = float("-inf")  # both in seconds of the monotonic clock
        self._refreshed_at: datetime | None = None
        self._is_away = False

    def follow(self, writer: Writer) -> None:
        """Learn of each commit of `writer`, so that what this process publishes is found from that moment."""
        writer.on_commit(self._on_commit)

    def state(self) -> CrlCacheState:
        """What /health shows of this cache."""
        count = sum(cached is not None for _, cached in tuple(self._crls.values()))
        return CrlCacheState(count, self._refreshed_at, self._is_away)

    def find_cached_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """The newest CRL of a shard if it is in memory, without waiting for anything; None: call `find_crl`."""
        authority_id = self._ids.get((name, generation))
        if authority_id is None or not self._is_fresh():
            return None
        place = (authority_id, shard, is_delta)
        number, cached = self._crls.get(place, (-1, None))
        if cached is None or (not self._is_away and (place not in self._numbers or number < self._numbers[place])):
            return None
        return None if self._is_away and self._clock.now() >= cached.next_update else cached

    def find_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """The newest CRL of a shard (-1: the complete one); None if there is none. May wait for the database.

        Raises Unavailable(DATABASE_UNAVAILABLE) if neither the database nor memory has one before its nextUpdate.
        """
        found = self.find_cached_crl(name, generation, shard, is_delta=is_delta)
        if found is not None:
            return found
        if time.monotonic() < self._retry_at:
            msg = "the database does not respond, and no copy of this CRL is cached before its nextUpdate; try again"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
        try:
            authority_id = self._find_id(name, generation)
            if authority_id is None:
                return None
            self._refresh_if_due()
            return self._load((authority_id, shard, is_delta))
        except Unavailable as error:
            if error.reason is not Reason.DATABASE_UNAVAILABLE:
                raise
            self._note_away(error)
            cached = self.find_cached_crl(name, generation, shard, is_delta=is_delta)
            if cached is None:
                raise
            return cached

    def find_cached_certificate(self, name: str, generation: int) -> bytes | None:
        """The certificate of an authority if it is in memory; None: call `find_certificate`."""
        return self._certificates.get((name, generation))

    def find_certificate(self, name: str, generation: int) -> bytes | None:
        """The certificate of an authority, for caIssuers; None if there is none."""
        if (name, generation) not in self._certificates:
            self._read_authority(name, generation)  # the id may be cached from before the authority had a certificate
        return self._certificates.get((name, generation))

    def refresh(self) -> None:
        """Read the newest numbers and load every CRL, so that all of them are in memory if the database fails."""
        try:
            self._refresh_if_due(is_due=True)
            certified = {self._ids[named] for named in tuple(self._certificates)}
            if not {place[0] for place in self._numbers} <= certified:
                with self._database.bounded_reading() as connection:
                    for row in authority_rows.list_authorities(connection):
                        self._learn(row)
            for place in tuple(self._numbers):
                self._load(place)
        except Unavailable as error:
            self._note_away(error)

    def _on_commit(self, _facts: CommitFacts) -> None:
        self._commits += 1

    def _is_fresh(self) -> bool:
        now = time.monotonic()
        return now < self._retry_at or (self._seen_commits == self._commits and now < self._fresh_until)

    def _refresh_if_due(self, *, is_due: bool = False) -> None:
        """Read the numbers of all CRLs, once for all threads that wait for them."""
        with self._refreshing:
            if not is_due and self._is_fresh():
                return
            commits, refreshed_at = self._commits, self._clock.now()
            with self._database.bounded_reading() as connection:
                full = publication_rows.list_numbers(connection)
                deltas = publication_rows.list_numbers(connection, is_delta=True)
                outdated = publication_rows.list_outdated(connection)
            self._numbers = _numbers(full, deltas, outdated)
            self._seen_commits, self._refreshed_at = commits, refreshed_at
            self._fresh_until, self._retry_at = time.monotonic() + self._fresh_seconds, float("-inf")
            if self._is_away:
                _LOG.warning("the database responds again: CRLs are read from it as before")
            self._is_away = False

    def _load(self, place: _Place) -> PublishedCrl | None:
        """A CRL of the newest number: read only if the number moved, and once for all threads that wait for it."""
        number = self._numbers.get(place)
        if number is None:
            self._crls.pop(place, None)
            return None
        cached = self._crls.get(place)
        if cached is not None and cached[0] >= number:
            return cached[1]
        with self._loading:
            cached = self._crls.get(place)
            if cached is None or cached[0] < number:
                with self._database.reading(patience=_LOAD_SECONDS) as connection:
                    cached = _read(connection, place)
                self._crls[place] = cached
            return cached[1]

    def _find_id(self, name: str, generation: int) -> int | None:
        known = self._ids.get((name, generation))
        return self._read_authority(name, generation) if known is None else known

    def _read_authority(self, name: str, generation: int) -> int | None:
        with self._database.bounded_reading() as connection:
            row = authority_rows.find_generation(connection, name, generation)
        return None if row is None else self._learn(row)

    def _learn(self, row: authority_rows.AuthorityRow) -> int:
        self._ids[row.name, row.generation] = row.id
        if row.certificate_der is not None:
            self._certificates[row.name, row.generation] = row.certificate_der
        return row.id

    def _note_away(self, error: Unavailable) -> None:
        if not self._is_away:
            _LOG.warning("CRLs are sent from memory until their nextUpdate: %s", error.message)
        self._is_away = True
        self._retry_at, self._fresh_until = time.monotonic() + _RETRY_SECONDS, float("-inf")


def _numbers(
    full: Mapping[int, Mapping[int, int]],
    deltas: Mapping[int, Mapping[int, int]],
    outdated: AbstractSet[tuple[int, int]],
) -> dict[_Place, int]:
    """The numbers of what may be sent. A delta older than its CRL was brought back by a restore, and is not sent."""
    numbers: dict[_Place, int] = {}
    for authority_id, shards in full.items():
        for shard, number in shards.items():
            if (authority_id, shard) in outdated:
                continue
            numbers[authority_id, shard, False] = number
            delta = deltas.get(authority_id, {}).get(shard, -1)
            if delta >= number:
                numbers[authority_id, shard, True] = delta
    return numbers


def _read(connection: Connection, place: _Place) -> tuple[int, PublishedCrl | None]:
    authority_id, shard, is_delta = place
    row: publication_rows.DeltaRow | publication_rows.Publication | None
    if is_delta:
        row = publication_rows.find_delta(connection, authority_id, shard)
    else:
        row = publication_rows.find_publication(connection, authority_id, shard)
    if row is None or row.crl_der is None:
        return (-1 if row is None else row.number), None
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (row.this_update, row.next_update))
    return row.number, PublishedCrl(row.crl_der, begin, end, hashlib.sha256(row.crl_der).digest())
