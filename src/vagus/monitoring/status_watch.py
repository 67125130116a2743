"""Measures the age of published CRLs and stores the prober's report, for /health, metrics and the doctor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vagus.monitoring.unpublished_revocations import UnpublishedRevocations, find_unpublished
from vagus.policy.plans import AuthorityKind
from vagus.records.authorities import AuthorityRow, list_living
from vagus.records.publications import COMPLETE, Publication, find_responder, list_facts

if TYPE_CHECKING:
    from pathlib import Path

    from vagus.authority.crls.published import CrlCacheState
    from vagus.clock import Clock
    from vagus.monitoring.prober import Prober, ProbeReport
    from vagus.policy.values import PolicyPack
    from vagus.records.engine.database import Connection, Database

_SPARING = 50
"""Probing may take one second in so many."""


@dataclass(frozen=True, slots=True)
class WatchedCrl:
    """The newest CRL of a shard, and how many seconds it is still valid; `is_due`: an operator should act now."""

    authority: str
    shard: str
    is_offline: bool
    seconds_left: int
    is_due: bool

    @property
    def sentence(self) -> str:
        """For operators."""
        if self.seconds_left <= 0:
            return f"the CRL {self.authority}/{self.shard} has ended: its certificates are refused everywhere"
        days, hours = divmod(self.seconds_left // 3600, 24)
        return f"the CRL {self.authority}/{self.shard} ends in {days} d {hours} h"

    @property
    def remedy(self) -> str:
        """The command to run."""
        return "vagus ceremony" if self.is_offline else f"vagus serve --issue-for {self.authority.partition('#')[0]}"


@dataclass(frozen=True, slots=True)
class Watched:
    """The state of every live authority at one moment."""

    crls: tuple[WatchedCrl, ...]
    without_crl: tuple[str, ...]
    """References of authorities that have published no CRL."""
    expired_responders: tuple[str, ...]
    unpublished: tuple[UnpublishedRevocations, ...]
    """Authorities with revocations that are in no CRL."""


def watch_crls(connection: Connection, pack: PolicyPack, now: datetime, keystores: Path) -> Watched:
    """How long every published CRL is still valid, and which revocations are in none.

    `keystores`: as for `find_unpublished`. CRLs of offline authorities are due 60 days ahead (policy).
    """
    at = int(now.timestamp())
    crls: list[WatchedCrl] = []
    without_crl: list[str] = []
    expired: list[str] = []
    unpublished: list[UnpublishedRevocations] = []
    for row in list_living(connection, at):
        published = list_facts(connection, row.id)
        if not published:
            without_crl.append(row.reference)
        crls += [_watch(row, one, pack, at) for one in published]
        responder = None if row.is_offline else find_responder(connection, row.id)
        if responder is not None and responder.not_after <= at:
            expired.append(row.reference)
        if (found := find_unpublished(connection, row, pack, now, keystores)) is not None:
            unpublished.append(found)
    return Watched(tuple(crls), tuple(without_crl), tuple(expired), tuple(unpublished))


def _watch(row: AuthorityRow, one: Publication, pack: PolicyPack, at: int) -> WatchedCrl:
    is_offline = AuthorityKind(row.kind).is_offline
    notice = pack.crl.offline_alert if is_offline else pack.crl.resign_every
    left = one.next_update - at
    shard = "complete" if one.shard == COMPLETE else str(one.shard)
    return WatchedCrl(row.reference, shard, is_offline, left, left < notice.total_seconds())


@dataclass(slots=True)
class StatusWatch:
    """What this process knows of the published status.

    `find_prober` returns the prober for the listeners and the plan in force, or None while there is nothing to fetch;
    `read_crl_cache` the state of the CRLs that this process hands out from memory.

    `refresh` and `probe` are called by one thread, and replace `watched` and `report` as a whole. Any thread may read
    these two. `stop` is called by another thread.
    """

    pack: PolicyPack
    database: Database
    clock: Clock
    keystores: Path
    find_prober: Callable[[], Prober | None] = lambda: None
    read_crl_cache: Callable[[], CrlCacheState] | None = None
    probe_seconds: float = 60.0
    watched: Watched = Watched((), (), (), ())
    report: ProbeReport | None = None
    _prober: Prober | None = None
    _is_stopping: bool = False

    def refresh(self) -> None:
        """Read how old the CRLs are."""
        with self.database.reading() as connection:
            self.watched = watch_crls(connection, self.pack, self.clock.now(), self.keystores)

    def probe(self) -> float | None:
        """Fetch and compare; returns the pause in seconds, so that the rounds of a large installation stay cheap."""
        self._prober = self.find_prober()
        if self._prober is None or self._is_stopping:
            return None
        self.report = self._prober.probe()
        return max(self.probe_seconds, _SPARING * self.report.seconds)

    def stop(self) -> None:
        """End the round that runs: the process ends."""
        self._is_stopping = True
        if self._prober is not None:
            self._prober.stop()

    @property
    def overdue(self) -> tuple[UnpublishedRevocations, ...]:
        """What the signing side should have published by now; `find_waiting` returns the offline authorities."""
        return tuple(one for one in self.watched.unpublished if not one.is_offline)

    def find_waiting(self) -> dict[str, str]:
        """What only an operator can publish, by subject."""
        offline = (one for one in self.watched.unpublished if one.is_offline)
        return {f"lists of {one.authority}": f"{one.sentence}; run: {one.remedy}" for one in offline}

    def facts(self) -> dict[str, object]:
        """All that is wrong with what is published, as plain values for /health."""
        report, watched = self.report, self.watched
        due = [one for one in watched.crls if one.is_due]
        cache = None if self.read_crl_cache is None else self.read_crl_cache()
        is_wrong = bool(due or watched.unpublished or watched.without_crl or watched.expired_responders)
        is_wrong = is_wrong or bool(report and report.defects) or (cache is not None and cache.is_away)
        return {
            "status": "warning" if is_wrong else "well",
            "from_memory": None if cache is None else _cache_facts(cache),
            "due": [f"{one.sentence}; {one.remedy}" for one in due],
            "unlisted": [f"{one.sentence}; {one.remedy}" for one in watched.unpublished],
            "silent": list(watched.without_crl),
            "expired_responders": list(watched.expired_responders),
            "probe": None
            if report is None
            else {
                "at": f"{report.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
                "lists": report.crls,
                "answers": report.responses,
                "defects": [
                    {"reason": one.reason.value, "place": one.place, "sentence": one.sentence} for one in report.defects
                ],
            },
        }


def _cache_facts(cache: CrlCacheState) -> dict[str, object]:
    """`is_away`: the database cannot be read. Cached CRLs are handed out as of then, until their nextUpdate."""
    read_at = None if cache.refreshed_at is None else f"{cache.refreshed_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {"lists": cache.count, "as_of": read_at, "is_away": cache.is_away}
