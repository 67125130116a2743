"""Signs and publishes certificate revocation lists, as files and rows; revokes nothing and answers no request.

A list is assembled from entries that were encoded when they were revoked, signed once, kept as the newest of its
shard, and written to a folder that any static server or CDN may hand out. Numbers and thisUpdate strictly grow, also
with several servers: whoever finds a newer list when it comes to keep its own throws its own away.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vagus.errors import Unavailable
from vagus.keystore.signing import Purpose
from vagus.ledger.append import append
from vagus.ledger.entries import CrlPublished
from vagus.reasons import Reason
from vagus.records import certificates as certificate_rows
from vagus.records import publications as rows
from vagus.records import revocations as revocation_rows
from vagus.records.authorities import slug_of
from vagus.records.publications import COMPLETE, Publication
from vagus.x509.crl_building import CrlContents, assemble_crl, build_crl_tbs, next_crl_number

if TYPE_CHECKING:
    from pathlib import Path

    from vagus.authority.issuers import Issuer
    from vagus.clock import Clock
    from vagus.policy.values import PolicyPack
    from vagus.records.database import Connection, Database
    from vagus.records.writer import Batch, Writer

_KEPT_AFTER_EXPIRY = timedelta(hours=24)
"""An expired entry stays this long: at least one list of the regular schedule appears in it (RFC 5280 3.3)."""


@dataclass(frozen=True, slots=True)
class ListFacts:
    """What one look at the database tells before a list is made; all of one snapshot."""

    previous: Publication | None
    sequence: int
    entries: tuple[bytes, ...]


class CrlPublisher:
    """Publishes the lists of open issuers. `folder` None keeps rows alone."""

    def __init__(
        self, pack: PolicyPack, database: Database, writer: Writer, clock: Clock, *, folder: Path | None
    ) -> None:
        self._pack = pack
        self._database = database
        self._writer = writer
        self._clock = clock
        self._folder = folder

    def publish_due(self, issuer: Issuer) -> tuple[Publication, ...]:
        """Publish what has something new to say or is due again; what was published in this second waits.

        Called every second or so, and after revocations. Raises Unavailable(CLOCK_ROLLBACK).
        """
        now = self._now()
        return tuple(done for shard in self.find_due(issuer, now) if (done := self.publish(issuer, shard)) is not None)

    def find_due(self, issuer: Issuer, now: datetime) -> tuple[int, ...]:
        """The shards (and `COMPLETE`) whose list says less than the table, or is older than the schedule allows."""
        at = int(now.timestamp())
        with self._database.reading() as connection:
            published = {one.shard: one for one in rows.list_publications(connection, issuer.authority_id)}
            covered = min((one.sequence for one in published.values()), default=0)
            touched = revocation_rows.newest_by_shard(connection, issuer.authority_id, after=covered)
            shards = certificate_rows.list_shards(connection, issuer.authority_id)
        touched[COMPLETE] = max(touched.values(), default=0)
        resign_every = int(self._pack.crl.resign_every.total_seconds())
        if issuer.is_offline:  # its key is opened in ceremonies alone: what is due is due there
            resign_every = int(self._pack.crl.offline_next_update.total_seconds() // 2)
        due: list[int] = []
        for shard in (*shards, COMPLETE):
            newest = published.get(shard)
            if newest is None or touched.get(shard, 0) > newest.sequence or at - newest.this_update >= resign_every:
                due.append(shard)
        return tuple(due)

    def publish_all(self, issuer: Issuer) -> tuple[Publication, ...]:
        """Publish every list of an issuer now; those of this very second stand. For ceremonies and first starts."""
        with self._database.reading() as connection:
            shards = certificate_rows.list_shards(connection, issuer.authority_id)
        found = (self.publish(issuer, shard) for shard in (*shards, COMPLETE))
        return tuple(one for one in found if one is not None)

    def publish(self, issuer: Issuer, shard: int) -> Publication | None:
        """Sign and publish one list; None when its shard was published in this second already.

        Raises Unavailable(CLOCK_ROLLBACK) when the newest list is from the future: nothing older may replace it.
        """
        # 1. a snapshot: entries and the place in the sequence that they cover
        now = self._now()
        facts = self._look(issuer, shard, now)
        if facts.previous is not None and not self._is_time(facts.previous, now, issuer):
            return None
        # 2. sign, outside any transaction
        made = self._make(issuer, shard, facts, now)
        # 3. keep it, unless another server was faster
        kept = self._writer.submit(lambda batch: _keep(batch, issuer, made)).result()
        # 4. the file; a crash before it leaves the row, from which the file is written again at start
        self.write_file(issuer, kept)
        return kept

    def write_files(self, issuer: Issuer) -> None:
        """Write every newest list of an issuer that the folder lacks or has older; at start, after a crash."""
        with self._database.reading() as connection:
            newest = rows.list_publications(connection, issuer.authority_id)
        for one in newest:
            self.write_file(issuer, one)

    def write_file(self, issuer: Issuer, publication: Publication) -> None:
        """Put a list where it is handed out, atomically."""
        if self._folder is None:
            return
        name = "complete" if publication.shard == COMPLETE else str(publication.shard)
        place = self._folder / "crl" / slug_of(issuer.name) / str(issuer.generation) / f"{name}.crl"
        write_public(place, publication.crl_der)

    def next_update(self, issuer: Issuer, this_update: datetime) -> datetime:
        """How long a list made at `this_update` holds."""
        rules = self._pack.crl
        return this_update + (rules.offline_next_update if issuer.is_offline else rules.next_update)

    def _now(self) -> datetime:
        return self._clock.now().astimezone(UTC).replace(microsecond=0)

    def _look(self, issuer: Issuer, shard: int, now: datetime) -> ListFacts:
        with self._database.reading() as connection:
            previous = rows.find_publication(connection, issuer.authority_id, shard)
            sequence = revocation_rows.newest_sequence(connection)
            entries = tuple(list_entries(connection, issuer.authority_id, shard, ends_from(previous, now)))
        return ListFacts(previous, sequence, entries)

    def _is_time(self, previous: Publication, now: datetime, issuer: Issuer) -> bool:
        """Whether a second has passed since; a list from the future stops everything."""
        at = int(now.timestamp())
        if previous.this_update > at:
            until = datetime.fromtimestamp(previous.this_update, UTC)
            msg = f"the newest list of {issuer.reference} is from {until:%Y-%m-%dT%H:%M:%SZ}, later than this clock"
            raise Unavailable(Reason.CLOCK_ROLLBACK, f"{msg}; set the clock", authority=issuer.reference)
        return at - previous.this_update >= int(self._pack.crl.shortest_interval.total_seconds())

    def _make(self, issuer: Issuer, shard: int, facts: ListFacts, now: datetime) -> Publication:
        previous = 0 if facts.previous is None else facts.previous.number
        next_update = self.next_update(issuer, now)
        contents = CrlContents(
            number=next_crl_number(previous, self._clock.now()),
            this_update=now,
            next_update=next_update,
            entries=facts.entries,
            shard_url=scope_url(issuer, shard),
        )
        return Publication(
            authority_id=issuer.authority_id,
            shard=shard,
            number=contents.number,
            this_update=int(now.timestamp()),
            next_update=int(next_update.timestamp()),
            sequence=facts.sequence,
            crl_der=sign_list(issuer, contents),
        )


def sign_list(issuer: Issuer, contents: CrlContents) -> bytes:
    """A signed DER CertificateList."""
    tbs_der = build_crl_tbs(contents, issuer.facts)
    return assemble_crl(tbs_der, issuer.facts.signature_algorithm, issuer.key.sign(Purpose.CRL, tbs_der))


def scope_url(issuer: Issuer, shard: int) -> str | None:
    """What a list's IssuingDistributionPoint says; None where the list speaks for all that its issuer issued.

    Offline authorities have one shard for ever, and their lists no such extension: whoever checks the root itself,
    which has no CDP (`openssl verify -crl_check_all`), finds no scope in one that has.
    """
    return None if shard == COMPLETE or issuer.is_offline else issuer.crl_url(shard)


def ends_from(previous: Publication | None, now: datetime) -> int:
    """Entries of certificates that ended before this may leave (RFC 5280 3.3: one list past expiry has shown them)."""
    grace = int((now - _KEPT_AFTER_EXPIRY).timestamp())
    return grace if previous is None else min(grace, previous.this_update)


def list_entries(connection: Connection, authority_id: int, shard: int, since: int) -> Iterator[bytes]:
    """The entries of one shard, or of all of them for `COMPLETE`."""
    shards = certificate_rows.list_shards(connection, authority_id) if shard == COMPLETE else (shard,)
    for one in shards:
        yield from revocation_rows.iterate_entries(connection, authority_id, one, ends_from=since)


def _keep(batch: Batch, issuer: Issuer, made: Publication) -> Publication:
    newest = rows.find_publication(batch.connection, made.authority_id, made.shard)
    if newest is not None and (newest.number >= made.number or newest.this_update >= made.this_update):
        return newest
    rows.put_publication(batch.connection, made)
    append(
        batch,
        CrlPublished(
            authority=issuer.reference,
            shard=made.shard,
            number=made.number,
            this_update=made.this_update,
            next_update=made.next_update,
            sequence=made.sequence,
            crl_sha256=hashlib.sha256(made.crl_der).digest(),
        ),
    )
    return made


def write_public(place: Path, content: bytes) -> None:
    """Replace a file that everyone may read, atomically and durably; nothing is written where it says so already."""
    if place.exists() and place.read_bytes() == content:
        return
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    scratch = place.with_name(f".{place.name}.{os.getpid()}.new")
    with scratch.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.chmod(0o644)
    scratch.replace(place)
