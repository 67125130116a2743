"""Finds revocations that no CRL contains yet, from the database rows alone, in every process; fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vagus.authority.clock_bound import SLACK
from vagus.authority.crls.emergency import is_ready
from vagus.records.authorities import list_children
from vagus.records.certificates import list_shards
from vagus.records.publications import ADOPTED, COMPLETE, find_publication, list_facts
from vagus.records.revocation.revocations import find_revoked_serial, list_changes, oldest_waiting
from vagus.records.revocation.status_facts import iterate_revoked
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.crls.decoding import decode_crl

if TYPE_CHECKING:
    from pathlib import Path

    from vagus.policy.values import PolicyPack
    from vagus.records.authorities import AuthorityRow
    from vagus.records.engine.database import Connection
    from vagus.records.publications import Publication


@dataclass(frozen=True, slots=True)
class UnpublishedRevocations:
    """An authority whose newest CRLs lack what was revoked at `since` (seconds since 1970 UTC) and later."""

    authority: str
    slug: str
    generation: int
    is_offline: bool
    since: int
    crls: int
    """How many of its CRLs lack something."""
    envelope: Path | None = None
    """A sealed emergency CRL that has all that is missing."""

    @property
    def sentence(self) -> str:
        """For operators."""
        since = f"{datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M:%S}Z"
        return f"what {self.authority} revoked since {since} is in no CRL yet: relying parties still accept it by CRL"

    @property
    def remedy(self) -> str:
        """The command to run."""
        if self.envelope is not None:
            return f"vagus ca emergency {self.envelope}, or vagus ceremony"
        return "vagus ceremony" if self.is_offline else f"vagus serve --issue-for {self.authority.partition('#')[0]}"


def find_unpublished(
    connection: Connection, row: AuthorityRow, pack: PolicyPack, now: datetime, keystores: Path
) -> UnpublishedRevocations | None:
    """The revocations of an authority that wait for a CRL for longer than policy allows, if there are any.

    Those of an offline authority count at once: they wait for a ceremony. A revocation that is dated in the future was
    dated by a clock that ran ahead, at an unknown time, so it counts as overdue. An authority that has published
    nothing is none of these; `Watched.without_crl` has it. `keystores`: where emergency CRLs rest, if they are here.
    """
    published = {one.shard: one for one in list_facts(connection, row.id)}
    if not published:
        return None
    earliest = int((now - pack.crl.publish_within).timestamp())
    latest = int((now + SLACK).timestamp())
    moments = _moments(connection, row, published)
    waiting = [at for at in moments if row.is_offline or not earliest <= at <= latest]
    if not waiting:
        return None
    envelope = _find_envelope(connection, row, published, now, keystores) if row.is_offline else None
    return UnpublishedRevocations(
        row.reference, row.slug, row.generation, row.is_offline, min(waiting), len(waiting), envelope=envelope
    )


def _moments(connection: Connection, row: AuthorityRow, published: dict[int, Publication]) -> Iterator[int]:
    """For each CRL that lacks something: when the first of it was revoked."""
    for shard in (*list_shards(connection, row.id), COMPLETE):
        newest = published.get(shard)
        if newest is not None and newest.sequence == ADOPTED:
            at = _find_missing(connection, row, shard)
        else:
            at = oldest_waiting(connection, row.id, shard, after=0 if newest is None else newest.sequence)
        if at is not None:
            yield at


def _find_missing(connection: Connection, row: AuthorityRow, shard: int) -> int | None:
    """As `oldest_waiting`, for an adopted CRL: it was signed elsewhere, so the revocation sequence does not cover it.

    The CRL of an online authority is not read: it is signed anew within a second, or waits for the gap of a restore to
    be closed, which is reported already. And it may be too large to be decoded each minute.
    """
    newest = find_publication(connection, row.id, shard) if row.is_offline else None
    if newest is None:
        return None
    crl = decode_crl(newest.crl_der)
    shown = {int.from_bytes(encoded, "big") for encoded in crl.entries.get(crl.issuer.relative_names, {})}
    revoked = iterate_revoked(connection, row.id, None if shard == COMPLETE else shard)
    missing = (one.revoked_at for one in revoked if one.serial not in shown and one.not_after > newest.this_update)
    return min(missing, default=None)


def _find_envelope(
    connection: Connection, row: AuthorityRow, published: dict[int, Publication], now: datetime, keystores: Path
) -> Path | None:
    """The emergency CRL for the one subordinate that waits; its reason code is always CA compromise."""
    covered = min(one.sequence for one in published.values())
    changes = list_changes(connection, row.id, COMPLETE, after=covered, most=2)
    if len(changes) != 1:
        return None
    serial = changes[0].serial
    revoked = find_revoked_serial(connection, row.id, serial)
    if revoked is None or revoked.reason != RevocationReason.CA_COMPROMISE:
        return None
    for below in list_children(connection, row.id):
        if below.certificate_der is None or decode_certificate(below.certificate_der).serial != serial:
            continue
        envelope = keystores / row.slug / "emergency" / f"{below.slug}.{below.generation}.sealed"
        try:
            content = envelope.read_bytes()
        # The CRL file is not on this host, or this user cannot read it: no finding, for the operator may publish
        # elsewhere.
        except OSError:
            return None
        return envelope if is_ready(content, tuple(published.values()), now) else None
    return None
