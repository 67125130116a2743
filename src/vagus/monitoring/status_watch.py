"""Watches how old lists grow and what the prober finds, for /health, metrics and doctor; mends nothing."""

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
"""Of so many seconds at most one is spent on probing."""


@dataclass(frozen=True, slots=True)
class WatchedCrl:
    """The newest list of a shard, and how many seconds it still holds; `is_due`: somebody should act now."""

    authority: str
    shard: str
    is_offline: bool
    seconds_left: int
    is_due: bool

    @property
    def sentence(self) -> str:
        """For people."""
        if self.seconds_left <= 0:
            return f"the list {self.authority}/{self.shard} has ended: its certificates are refused everywhere"
        days, hours = divmod(self.seconds_left // 3600, 24)
        return f"the list {self.authority}/{self.shard} ends in {days} d {hours} h"

    @property
    def remedy(self) -> str:
        """What to run."""
        return "vagus ceremony" if self.is_offline else f"vagus serve --issue-for {self.authority.partition('#')[0]}"


@dataclass(frozen=True, slots=True)
class Watched:
    """One look at every authority that lives."""

    lists: tuple[WatchedCrl, ...]
    silent: tuple[str, ...]  # references of authorities that have published nothing
    expired_responders: tuple[str, ...]
    unlisted: tuple[UnpublishedRevocations, ...]  # authorities with revocations that stand in no list


def watch_crls(connection: Connection, pack: PolicyPack, now: datetime, keystores: Path) -> Watched:
    """How long every published list still holds, and what none says; `keystores`: as for `find_unpublished`.

    Lists of offline authorities are due 60 days ahead (policy).
    """
    at = int(now.timestamp())
    lists: list[WatchedCrl] = []
    silent: list[str] = []
    expired: list[str] = []
    unlisted: list[UnpublishedRevocations] = []
    for row in list_living(connection, at):
        published = list_facts(connection, row.id)
        if not published:
            silent.append(row.reference)
        lists += [_watch(row, one, pack, at) for one in published]
        responder = None if row.is_offline else find_responder(connection, row.id)
        if responder is not None and responder.not_after <= at:
            expired.append(row.reference)
        if (waits := find_unpublished(connection, row, pack, now, keystores)) is not None:
            unlisted.append(waits)
    return Watched(tuple(lists), tuple(silent), tuple(expired), tuple(unlisted))


def _watch(row: AuthorityRow, one: Publication, pack: PolicyPack, at: int) -> WatchedCrl:
    is_offline = AuthorityKind(row.kind).is_offline
    notice = pack.crl.offline_alert if is_offline else pack.crl.resign_every
    left = one.next_update - at
    shard = "complete" if one.shard == COMPLETE else str(one.shard)
    return WatchedCrl(row.reference, shard, is_offline, left, left < notice.total_seconds())


class StatusWatch:
    """What this process knows of the published status; its two methods are tasks of `Jobs`, read from any thread."""

    def __init__(
        self, pack: PolicyPack, database: Database, clock: Clock, keystores: Path, *, probe_seconds: float = 60.0
    ) -> None:
        self._pack = pack
        self._database = database
        self._clock = clock
        self._keystores = keystores
        self._probe_seconds = probe_seconds
        self.prober: Prober | None = None
        """Set once the doors are open: before, there is nothing to fetch."""
        self.report: ProbeReport | None = None
        self.kept_lists: Callable[[], CrlCacheState] | None = None
        """How the lists stand that this process hands out from memory."""
        self.watched = Watched((), (), (), ())

    def look(self) -> None:
        """Read how old the lists are."""
        with self._database.reading() as connection:
            self.watched = watch_crls(connection, self._pack, self._clock.now(), self._keystores)

    def probe(self) -> float | None:
        """Fetch and compare; gives the pause: a large house's rounds must not take time from those it serves."""
        if self.prober is None:
            return None
        self.report = self.prober.probe()
        return max(self._probe_seconds, _SPARING * self.report.seconds)

    @property
    def behind(self) -> tuple[UnpublishedRevocations, ...]:
        """What the signing side should have published by now; `waits` tells of offline authorities."""
        return tuple(one for one in self.watched.unlisted if not one.is_offline)

    def waits(self) -> dict[str, str]:
        """What only an operator can publish, by what it is about."""
        offline = (one for one in self.watched.unlisted if one.is_offline)
        return {f"lists of {one.authority}": f"{one.sentence}; run: {one.remedy}" for one in offline}

    def stop(self) -> None:
        """The process ends: so does the round that runs."""
        if self.prober is not None:
            self.prober.stop()

    def facts(self) -> dict[str, object]:
        """What /health shows: whatever is wrong with what is published, as plain values."""
        report = self.report
        due = [one for one in self.watched.lists if one.is_due]
        unlisted = self.watched.unlisted
        is_well = not (
            due or unlisted or self.watched.silent or self.watched.expired_responders or (report and report.defects)
        )
        kept = None if self.kept_lists is None else self.kept_lists()
        is_well = is_well and not (kept is not None and kept.is_away)
        return {
            "status": "well" if is_well else "warning",
            "from_memory": None if kept is None else _kept_facts(kept),
            "due": [f"{one.sentence}; {one.remedy}" for one in due],
            "unlisted": [f"{one.sentence}; {one.remedy}" for one in unlisted],
            "silent": list(self.watched.silent),
            "expired_responders": list(self.watched.expired_responders),
            "probe": None
            if report is None
            else {
                "at": f"{report.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
                "lists": report.lists,
                "answers": report.answers,
                "defects": [
                    {"reason": one.reason.value, "place": one.place, "sentence": one.sentence} for one in report.defects
                ],
            },
        }


def _kept_facts(kept: CrlCacheState) -> dict[str, object]:
    """`is_away`: the database is, and what is kept goes out as it was then, until its nextUpdate."""
    looked_at = None if kept.refreshed_at is None else f"{kept.refreshed_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {"lists": kept.count, "as_of": looked_at, "is_away": kept.is_away}
