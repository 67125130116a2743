"""Signs and publishes CRLs, as files and rows; revokes nothing and responds to no request.

Words used here:

- *Shard*: a part of an authority's certificates with a CRL of its own; `COMPLETE` is the CRL over all shards.
- *Step*: a revocation, hold or release. The gapless revocation sequence numbers the steps.
- A CRL *covers* the sequence up to the step that was the newest when its entries were read.

A CRL is made in four steps (`publish`): read its entries in one snapshot, sign it outside any transaction, store it as
the newest of its shard, write the file. Entries were encoded when they were revoked; here they are only joined.

Number and thisUpdate strictly grow (RFC 5280 5.2.3), also with several servers whose clocks differ by minutes. `_store`
decides this in the transaction: a server that finds a CRL as new as its own, or one that covers more, discards its own.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vagus.authority import leases
from vagus.authority.clock_bound import SLACK, ClockBound
from vagus.authority.crls import deltas
from vagus.authority.crls.deltas import DeltaFacts
from vagus.authority.crls.files import CrlFiles, CrlPlace
from vagus.errors import Unavailable
from vagus.keystore.signing import Purpose
from vagus.ledger.append import append
from vagus.ledger.entries import CrlPublished, OperatorAct
from vagus.reasons import Reason
from vagus.records import certificates as certificate_rows
from vagus.records import publications as rows
from vagus.records.authorities import list_authorities, slug_of
from vagus.records.publications import COMPLETE, DeltaRow, Publication
from vagus.records.revocation import revocations as revocation_rows
from vagus.x509.crls.building import CrlContents, assemble_crl, build_crl_tbs, next_crl_number

if TYPE_CHECKING:
    from pathlib import Path

    from vagus.authority.issuers import Issuer
    from vagus.clock import Clock
    from vagus.policy.values import PolicyPack
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Batch, Writer

_LOG = logging.getLogger(__name__)
_KEPT_AFTER_EXPIRY = timedelta(hours=24)
"""An entry stays this long after its certificate expired, so that at least one later CRL has it (RFC 5280 3.3)."""

_LEASE_SECONDS = 10
"""The other servers wait this long at most for a server that died."""
_PAUSE = timedelta(seconds=5)
"""The pause after a failure: long enough for another server, which tries each second, to take the lease."""


@dataclass(frozen=True, slots=True)
class CrlFacts:
    """What is read from the database before a CRL is made, in one snapshot."""

    previous: Publication | None
    sequence: int
    entries: tuple[bytes, ...]
    delta: DeltaFacts | None


@dataclass(frozen=True, slots=True)
class SignedCrl:
    """A signed CRL that is not published yet, with the row of its delta."""

    publication: Publication
    crl_sha256: bytes
    delta: DeltaRow | None


@dataclass(frozen=True, slots=True)
class ShardSteps:
    """By shard, the newest step of the sequence up to `until`; under `COMPLETE` the newest of all shards."""

    until: int
    newest: Mapping[int, int]


@dataclass(eq=False, repr=False)
class CrlPublisher:
    """Publishes the CRLs of open issuers. `folder` None: rows only, no files. `holder` names this process for leases.

    `bound` checks that the clock can be right; None trusts the clock.

    Threads: one task publishes, in one thread at a time, and only it changes `_steps` and `_failed`. `_signed_at` is
    set after each publication. All three are caches of this process: when they are lost, work is done again and
    nothing is published twice, since `_store` decides in the database.
    """

    pack: PolicyPack
    database: Database
    writer: Writer
    clock: Clock
    _: KW_ONLY
    folder: InitVar[Path | None]
    holder: str | None = None
    bound: ClockBound | None = None

    def __post_init__(self, folder: Path | None) -> None:
        self.files = None if folder is None else CrlFiles(self.database, folder)
        self._steps: dict[int, ShardSteps] = {}  # newest revocation step of each shard, by authority id
        # when this process signed a CRL, by authority and shard, seconds since 1970 UTC
        self._signed_at: dict[tuple[int, int], float] = {}
        # time and error of the last failure, by authority, until no CRL is due
        self._failed: dict[int, tuple[datetime, Exception]] = {}

    def check_clock(self) -> None:
        """Raises Unavailable(CLOCK_AHEAD) while no CRL would be dated, so that it is reported before one is due."""
        if self.bound is not None:
            self.bound.check_only()

    def publish_due(self, issuer: Issuer) -> tuple[Publication, ...]:
        """Publish each CRL that lacks a step or is due by the schedule; one of this very second waits.

        Called every second or so, and after revocations. With a `holder`, only under this authority's lease, so that
        one of several servers does the work. Raises Unavailable(CLOCK_ROLLBACK), and what keys, database and disk
        raise: every due CRL is tried, then the first failure is raised. After a failure the lease is given back. For
        some seconds this process leaves the authority to others, and raises the same again as long as a CRL is due.
        """
        now = self.now()
        due = self.find_due(issuer, now)
        if not due:
            self._failed.pop(issuer.authority_id, None)
            return ()
        failed = self._failed.get(issuer.authority_id)
        if failed is not None and timedelta(0) <= now - failed[0] < _PAUSE:
            raise failed[1].with_traceback(None)
        if not leases.take(self.writer, f"crl:{issuer.authority_id}", self.holder, _LEASE_SECONDS):
            return ()
        done, failures = [], []
        for shard in due:
            try:
                done.append(self.publish(issuer, shard))
            except Exception as error:  # noqa: BLE001  one CRL that fails must not keep the others from being published
                _LOG.error("CRL %d of %s was not published: %s", shard, issuer.reference, error)
                failures.append(error)
        if failures:
            self._failed[issuer.authority_id] = (now, failures[0])
            self.release(issuer)
            raise failures[0]
        return tuple(one for one in done if one is not None)

    def find_due(self, issuer: Issuer, now: datetime) -> tuple[int, ...]:
        """The shards (and `COMPLETE`) whose CRL lacks a step of the table, or is older than the schedule allows.

        A CRL from the future is among them, so that `publish` raises what is wrong with it.
        """
        with self.database.reading() as connection:
            published = {one.shard: one for one in rows.list_facts(connection, issuer.authority_id)}
            touched = self._read_shard_steps(connection, issuer.authority_id, published)
            shards = certificate_rows.list_shards(connection, issuer.authority_id)

        # A CRL is due in four cases: it does not exist yet, the schedule asks for a new one, it is dated in the future,
        # or the revocation sequence has a newer step in its shard.
        latest = int((now + SLACK).timestamp())

        def is_due(shard: int) -> bool:
            newest = published.get(shard)
            if newest is None or self._is_stale(newest, now, issuer) or newest.this_update > latest:
                return True
            return touched.get(shard, 0) > newest.sequence and not self._may_wait(newest, now, len(shards))

        return tuple(shard for shard in (*shards, COMPLETE) if is_due(shard))

    def _read_shard_steps(
        self, connection: Connection, authority_id: int, published: Mapping[int, Publication]
    ) -> Mapping[int, int]:
        """The newest step in each shard, of the steps after those that every published CRL covers.

        Only steps that no earlier call has read are read. The CRL of a quiet shard covers nothing of the last hours:
        without the cache a mass revocation in these hours would be read again each second.
        """
        end = revocation_rows.newest_sequence(connection)
        seen = self._steps.get(authority_id)
        # first call for this authority, or the database was replaced by an older one
        if seen is None or seen.until > end:
            seen = ShardSteps(min((one.sequence for one in published.values()), default=0), {})
        newer = revocation_rows.newest_by_shard(connection, authority_id, after=seen.until) if end > seen.until else {}
        newest = {**seen.newest, **newer}
        if newer:
            newest[COMPLETE] = max(newer.values())
        self._steps[authority_id] = ShardSteps(end, newest)
        return newest

    def _may_wait(self, newest: Publication, now: datetime, shards: int) -> bool:
        """Whether to gather revocations for half a minute first: for the complete CRL of an issuer with shards."""
        patience = int(self.pack.crl.publish_within.total_seconds()) // 2
        return newest.shard == COMPLETE and shards > 1 and self._age(newest, now) < patience

    def release(self, issuer: Issuer) -> None:
        """Give this authority's lease back at an orderly end, so that the next server need not wait."""
        leases.give_back(self.writer, f"crl:{issuer.authority_id}", self.holder)

    def publish_all(self, issuer: Issuer) -> tuple[Publication, ...]:
        """Publish every CRL of an issuer now, except those of this very second. For ceremonies and first starts."""
        with self.database.reading() as connection:
            shards = certificate_rows.list_shards(connection, issuer.authority_id)
        found = (self.publish(issuer, shard) for shard in (*shards, COMPLETE))
        return tuple(one for one in found if one is not None)

    def publish(self, issuer: Issuer, shard: int) -> Publication | None:
        """Sign and publish one CRL; None if its shard was published in this second already.

        If the newest CRL is dated ahead, by no more than clocks may differ, this one is dated one second later. Raises
        Unavailable(CLOCK_ROLLBACK) if it is further in the future, since nothing older may replace it, and
        Unavailable(CLOCK_AHEAD) if the clock cannot be right.
        """
        # 1. Read one snapshot: the entries of the CRL, and the step of the revocation sequence that they cover. A
        # revocation that commits later has a higher step, so the next `find_due` finds this CRL incomplete.
        if self.bound is not None:
            self.bound.check()
        now = self.now()
        facts = self._read_facts(issuer, shard, now)
        date = now if facts.previous is None else self._choose_date(facts.previous, now, issuer)
        if date is None:
            return None
        # 2. Sign the CRL outside any transaction: a large CRL takes seconds, and no writer may wait for it.
        made = self._sign(issuer, shard, facts, date)
        del facts  # release the entries of the CRL at once: a million of them take 53 MB
        # 3. Store the signed CRL, unless another server stored a CRL of this shard first: `_store` compares CRL numbers
        # under the writer's lock.
        stored = self.writer.submit(lambda batch: _store(batch, issuer, made)).result()
        self._signed_at[issuer.authority_id, shard] = now.timestamp()
        # 4. Write the CRL files after the commit. If this process crashes or the disk is full, `CrlFiles.find_outdated`
        # compares the files with the rows and writes what is missing.
        if self.files is not None:
            place = CrlPlace(issuer.authority_id, slug_of(issuer.name), issuer.generation, shard)
            self.files.write(place, made.publication, made.delta)
        return stored

    def next_update(self, issuer: Issuer, this_update: datetime) -> datetime:
        """The nextUpdate of a CRL made at `this_update`."""
        rules = self.pack.crl
        return this_update + (rules.offline_next_update if issuer.is_offline else rules.next_update)

    def now(self) -> datetime:
        """The thisUpdate of a CRL made now: whole seconds, UTC."""
        return self.clock.now().astimezone(UTC).replace(microsecond=0)

    def _read_facts(self, issuer: Issuer, shard: int, now: datetime) -> CrlFacts:
        with self.database.reading() as connection:
            previous = rows.find_facts(connection, issuer.authority_id, shard)
            sequence = revocation_rows.newest_sequence(connection)
            entries = tuple(list_entries(connection, issuer.authority_id, shard, ends_from(previous, now)))
            is_scheduled = previous is None or self._is_stale(previous, now, issuer)
            delta = deltas.read_delta_facts(connection, issuer, shard, is_scheduled=is_scheduled)
        return CrlFacts(previous, sequence, entries, delta)

    def _choose_date(self, previous: Publication, now: datetime, issuer: Issuer) -> datetime | None:
        """The thisUpdate of the next CRL: now, or one second after a CRL that is dated a little ahead of this clock.

        None until a second has passed. A CRL from further in the future raises Unavailable(CLOCK_ROLLBACK).
        """
        next_second = datetime.fromtimestamp(previous.this_update + 1, UTC)
        if next_second > now + SLACK:
            dated = f"{datetime.fromtimestamp(previous.this_update, UTC):%Y-%m-%dT%H:%M:%SZ}"
            msg = f"the newest CRL of {issuer.reference} is dated {dated}, five minutes or more ahead of the clock"
            msg = f"{msg}; set the clock, or if it is right run `vagus ca forget-dates`. Until then no CRL is signed"
            raise Unavailable(Reason.CLOCK_ROLLBACK, msg, authority=issuer.reference)
        if self._age(previous, now) < self.pack.crl.shortest_interval.total_seconds():
            return None
        return max(now, next_second)

    def _age(self, newest: Publication, now: datetime) -> float:
        """Seconds since a CRL was signed.

        The date of a CRL from the future does not say when: then it is what this process noted, else infinite.
        """
        at = int(now.timestamp())
        signed_at: float = newest.this_update
        if signed_at > at:
            signed_at = self._signed_at.get((newest.authority_id, newest.shard), -math.inf)
        return at - signed_at if signed_at <= at else math.inf

    def _is_stale(self, previous: Publication, now: datetime, issuer: Issuer) -> bool:
        """Whether the regular schedule asks for a new CRL, whatever is in it."""
        every = self.pack.crl.resign_every
        # the key of an offline authority is opened in ceremonies only, so its CRL is renewed there
        if issuer.is_offline:
            every = self.pack.crl.offline_next_update / 2
        return int(now.timestamp()) - previous.this_update >= int(every.total_seconds())

    def _sign(self, issuer: Issuer, shard: int, facts: CrlFacts, now: datetime) -> SignedCrl:
        previous = 0 if facts.previous is None else facts.previous.number
        next_update = self.next_update(issuer, now)
        contents = CrlContents(
            number=next_crl_number(previous, self.clock.now()),
            this_update=now,
            next_update=next_update,
            entries=facts.entries,
            shard_url=scope_url(issuer, shard),
        )
        delta = None if facts.delta is None else deltas.delta_contents(facts.delta, issuer, contents, shard)
        if delta is not None:
            contents = replace(contents, freshest_url=issuer.delta_url(shard))
        publication = Publication(
            authority_id=issuer.authority_id,
            shard=shard,
            number=contents.number,
            this_update=int(now.timestamp()),
            next_update=int(next_update.timestamp()),
            sequence=facts.sequence,
            crl_der=sign_crl(issuer, contents),
        )
        digest = hashlib.sha256(publication.crl_der).digest()
        if facts.delta is None:
            return SignedCrl(publication, digest, None)
        delta_der = None if delta is None else sign_crl(issuer, delta)
        return SignedCrl(publication, digest, deltas.next_delta_row(facts.delta, publication, delta_der))


def forget_future_dates(writer: Writer, *, by: str) -> tuple[str, ...]:
    """Let CRLs be signed again whose newest one was dated by a clock that ran ahead; gives which, as `h1/icu#1/0`.

    Their numbers go on growing and their dates go back once: an operator has set the clock and asks for it. CRLs of
    offline authorities are signed in the next ceremony. A relying party that remembers the old date refuses the new
    CRLs until that date.
    """

    def act(batch: Batch) -> tuple[str, ...]:
        found = rows.list_dated_after(batch.connection, batch.at)
        references = {row.id: row.reference for row in list_authorities(batch.connection)}
        for authority_id, shard in found:
            rows.forget_date(batch.connection, authority_id, shard)
        for reference in dict.fromkeys(references[authority_id] for authority_id, _ in found):
            append(batch, OperatorAct("list-dates-forgotten", by, subject=f"authority:{reference}"))
        return tuple(f"{references[authority_id]}/{shard}" for authority_id, shard in found)

    return writer.submit(act).result()


def sign_crl(issuer: Issuer, contents: CrlContents) -> bytes:
    """A signed DER CertificateList."""
    tbs_der = build_crl_tbs(contents, issuer.facts)
    return assemble_crl(tbs_der, issuer.facts.signature_algorithm, issuer.key.sign(Purpose.CRL, tbs_der))


def scope_url(issuer: Issuer, shard: int) -> str | None:
    """The URL in a CRL's issuingDistributionPoint; None if the CRL covers all that its issuer issued.

    Offline authorities have one shard for ever, and their CRLs have no such extension: a relying party that checks the
    root itself, which has no CDP (`openssl verify -crl_check_all`), accepts no scope (RFC 5280 6.3.3 (b)).
    """
    return None if shard == COMPLETE or issuer.is_offline else issuer.crl_url(shard)


def ends_from(previous: Publication | None, now: datetime) -> int:
    """Entries of certificates that ended before this leave: a CRL past their expiry has had them (RFC 5280 3.3)."""
    grace = int((now - _KEPT_AFTER_EXPIRY).timestamp())
    return grace if previous is None else min(grace, previous.this_update)


def list_entries(connection: Connection, authority_id: int, shard: int, since: int) -> Iterator[bytes]:
    """The entries of one shard, or of all of them for `COMPLETE`, many joined at a time."""
    for one in certificate_rows.list_covered_shards(connection, authority_id, shard):
        yield from revocation_rows.iterate_entries(connection, authority_id, one, ends_from=since)


def _store(batch: Batch, issuer: Issuer, both: SignedCrl) -> Publication | None:
    """Store a CRL with its delta, unless another one has become the newest; gives the newest. Two round trips.

    Number and date must grow. So must the covered steps: a CRL from an older snapshot would take back a revocation for
    a moment, although it is newer by the clock.
    """
    made = both.publication
    stored = rows.find_shard_state(batch.connection, made.authority_id, made.shard)
    newest = stored.newest
    if newest is not None and (
        newest.number >= made.number or newest.this_update >= made.this_update or newest.sequence > made.sequence
    ):
        return rows.find_publication(batch.connection, made.authority_id, made.shard)
    rows.keep(batch.connection, stored, made, both.delta)
    log_publication(batch, issuer.reference, made, both.crl_sha256)
    return made


def log_publication(batch: Batch, reference: str, made: Publication, crl_sha256: bytes) -> None:
    """The ledger entry of a CRL of the authority `reference`."""
    append(
        batch,
        CrlPublished(
            authority=reference,
            shard=made.shard,
            number=made.number,
            this_update=made.this_update,
            next_update=made.next_update,
            sequence=made.sequence,
            crl_sha256=crl_sha256,
        ),
    )
