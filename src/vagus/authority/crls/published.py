"""The newest lists and authorities' certificates in memory, for whoever hands them out; signs and publishes nothing.

What is handed out at sight is never older than what this process knows: each of its own commits asks for another look,
and a look every so often learns what other processes published. A database that is away ends nothing: what is kept
goes out until its nextUpdate.
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
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import CommitFacts, Writer

REFRESH_SECONDS = 0.5
"""How often a serving process looks for newer lists."""

FRESH_SECONDS = 6.0
"""How long it goes by a look: longer than one that hangs takes, for no client waits for a database that does."""

_RETRY_SECONDS = 1.0
_LOAD_SECONDS = 10.0
_LOG = logging.getLogger(__name__)

_Place = tuple[int, int, bool]
"""Authority, shard (-1: the complete list), whether it is the delta."""


@dataclass(frozen=True, slots=True)
class PublishedCrl:
    """A CRL as published."""

    crl_der: bytes
    this_update: datetime
    next_update: datetime
    sha256: bytes
    """Of the list: hashed once, for a list may have megabytes."""


@dataclass(frozen=True, slots=True)
class CrlCacheState:
    """How things stand, for /health."""

    count: int
    refreshed_at: datetime | None
    """When the newest numbers were last known."""
    is_away: bool
    """Whether the last look failed."""


class PublishedCrls:
    """Safe to ask from several threads. Without `fresh_seconds` each question looks for a newer list first."""

    def __init__(self, database: Database, clock: Clock, *, fresh_seconds: float = 0.0) -> None:
        self._database = database
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._refreshing = threading.Lock()
        self._loading = threading.Lock()
        self._ids: dict[tuple[str, int], int] = {}  # a generation keeps its number for good, and its certificate
        self._certificates: dict[tuple[str, int], bytes] = {}
        self._numbers: dict[_Place, int] = {}
        self._crls: dict[_Place, tuple[int, PublishedCrl | None]] = {}
        self._commits = 0  # of this process: any may have published
        self._seen_commits = -1
        self._fresh_until = self._retry_at = float("-inf")  # of the monotonic clock
        self._refreshed_at: datetime | None = None
        self._is_away = False

    def follow(self, writer: Writer) -> None:
        """What this process publishes is found from the moment of its commit."""
        writer.on_commit(self._on_commit)

    def state(self) -> CrlCacheState:
        """How things stand."""
        count = sum(kept is not None for _, kept in tuple(self._crls.values()))
        return CrlCacheState(count, self._refreshed_at, self._is_away)

    def find_cached_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """The newest list of a shard where memory has it, without waiting for anything; None: ask `find_crl`."""
        authority_id = self._ids.get((name, generation))
        if authority_id is None or not self._is_fresh():
            return None
        place = (authority_id, shard, is_delta)
        number, kept = self._crls.get(place, (-1, None))
        if kept is None or (not self._is_away and (place not in self._numbers or number < self._numbers[place])):
            return None
        return None if self._is_away and self._clock.now() >= kept.next_update else kept

    def find_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """The newest list of a shard (-1: the complete one); None for one that there is not. May wait for the database.

        Raises Unavailable(DATABASE_UNAVAILABLE) where neither the database nor memory has one that still holds.
        """
        found = self.find_cached_crl(name, generation, shard, is_delta=is_delta)
        if found is not None:
            return found
        if time.monotonic() < self._retry_at:
            msg = "the database did not answer a moment ago, and memory has no such list that still holds; try again"
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
            kept = self.find_cached_crl(name, generation, shard, is_delta=is_delta)
            if kept is None:
                raise
            return kept

    def find_cached_certificate(self, name: str, generation: int) -> bytes | None:
        """The certificate of an authority where memory has it; None: ask `find_certificate`."""
        return self._certificates.get((name, generation))

    def find_certificate(self, name: str, generation: int) -> bytes | None:
        """The certificate of an authority, for caIssuers; None for one that there is not."""
        if (name, generation) not in self._certificates:
            with self._database.asking() as connection:  # its id may be known from before it was certified
                row = authority_rows.find_generation(connection, name, generation)
            if row is not None:
                self._learn(row)
        return self._certificates.get((name, generation))

    def refresh(self) -> None:
        """Learn what is newest and have all of it in memory: what nobody asked for yet outlives the database too."""
        try:
            self._refresh_if_due(is_due=True)
            certified = {self._ids[named] for named in tuple(self._certificates)}
            if not {place[0] for place in self._numbers} <= certified:
                self._learn_names()
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
        """The numbers of all lists, once for all who ask at the same time."""
        with self._refreshing:
            if not is_due and self._is_fresh():
                return
            commits, refreshed_at = self._commits, self._clock.now()
            with self._database.asking() as connection:
                full = publication_rows.list_numbers(connection)
                deltas = publication_rows.list_delta_numbers(connection)
                outdated = publication_rows.list_outdated(connection)
            self._numbers = _numbers(full, deltas, outdated)
            self._seen_commits, self._refreshed_at = commits, refreshed_at
            self._fresh_until, self._retry_at = time.monotonic() + self._fresh_seconds, float("-inf")
            if self._is_away:
                _LOG.warning("the database answers again: lists are looked up in it as before")
            self._is_away = False

    def _load(self, place: _Place) -> PublishedCrl | None:
        """The bytes are read again only when the number moved, and once for all who ask at the same time."""
        number = self._numbers.get(place)
        if number is None:
            self._crls.pop(place, None)
            return None
        kept = self._crls.get(place)
        if kept is not None and kept[0] >= number:
            return kept[1]
        with self._loading:
            kept = self._crls.get(place)
            if kept is None or kept[0] < number:
                with self._database.reading(patience=_LOAD_SECONDS) as connection:
                    kept = _read(connection, place)
                self._crls[place] = kept
            return kept[1]

    def _find_id(self, name: str, generation: int) -> int | None:
        authority_id = self._ids.get((name, generation))
        if authority_id is None:
            with self._database.asking() as connection:
                row = authority_rows.find_generation(connection, name, generation)
            if row is not None:
                authority_id = self._learn(row)
        return authority_id

    def _learn_names(self) -> None:
        with self._database.asking() as connection:
            for row in authority_rows.list_authorities(connection):
                self._learn(row)

    def _learn(self, row: authority_rows.AuthorityRow) -> int:
        self._ids[row.name, row.generation] = row.id
        if row.certificate_der is not None:
            self._certificates[row.name, row.generation] = row.certificate_der
        return row.id

    def _note_away(self, error: Unavailable) -> None:
        if not self._is_away:
            _LOG.warning("lists go out from memory until their nextUpdate: %s", error.message)
        self._is_away = True
        self._retry_at, self._fresh_until = time.monotonic() + _RETRY_SECONDS, float("-inf")


def _numbers(
    full: Mapping[int, Mapping[int, int]],
    deltas: Mapping[int, Mapping[int, int]],
    outdated: AbstractSet[tuple[int, int]],
) -> dict[_Place, int]:
    """What is handed out. A delta comes with its list: one that is older was brought back by a restore."""
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
    if is_delta:
        delta = publication_rows.find_delta(connection, authority_id, shard)
        if delta is None:
            return -1, None
        return delta.number, _published(delta.crl_der, delta.this_update, delta.next_update)
    full = publication_rows.find_publication(connection, authority_id, shard)
    return (-1, None) if full is None else (full.number, _published(full.crl_der, full.this_update, full.next_update))


def _published(crl_der: bytes | None, this_update: int, next_update: int) -> PublishedCrl | None:
    if crl_der is None:
        return None
    digest = hashlib.sha256(crl_der).digest()
    return PublishedCrl(
        crl_der, datetime.fromtimestamp(this_update, UTC), datetime.fromtimestamp(next_update, UTC), digest
    )
