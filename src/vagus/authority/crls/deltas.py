"""The contents of a shard's delta CRL (RFC 5280 5.2.4): the changes since the base that it names; signs nothing.

Each CRL is published with a delta of the same number and time. The delta leads to it from the base, which is the
newest earlier CRL of the regular schedule. A relying party that holds the base, or any CRL after it, needs only the
delta.

    base 10 --- CRL 11, delta 10->11 --- CRL 12, delta 10->12 --- scheduled CRL 13, delta 10->13: 13 is the next base
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vagus.records import publications as rows
from vagus.records.publications import DeltaRow, Publication
from vagus.records.revocation import revocations as revocation_rows
from vagus.x509.crls.building import CrlContents, RevocationReason, encode_crl_entry

if TYPE_CHECKING:
    from vagus.authority.issuers import Issuer
    from vagus.records.engine.database import Connection

MOST_CHANGES = 5_000
"""A larger delta saves little: the CRL becomes the new base instead."""


@dataclass(frozen=True, slots=True)
class DeltaFacts:
    """The base of a CRL's delta and the delta's entries, both None if there is no delta; whether the base moves."""

    base: DeltaRow | None
    entries: tuple[bytes, ...] | None
    moves_base: bool


def read_delta_facts(connection: Connection, issuer: Issuer, shard: int, *, is_scheduled: bool) -> DeltaFacts | None:
    """What the delta of the next CRL of `shard` would say. None: offline authorities and complete CRLs have none."""
    if shard < 0 or issuer.is_offline:
        return None
    base = rows.find_delta(connection, issuer.authority_id, shard)
    if base is None:
        return DeltaFacts(None, None, moves_base=True)
    changes = revocation_rows.list_changes(
        connection, issuer.authority_id, shard, after=base.base_sequence, most=MOST_CHANGES + 1
    )
    # One more change than allowed is read, to notice that there are too many. Then the next full CRL becomes the base.
    if len(changes) > MOST_CHANGES:
        return DeltaFacts(base, None, moves_base=True)
    return DeltaFacts(base, tuple(_entry(one) for one in changes), moves_base=is_scheduled)


def _entry(change: revocation_rows.Change) -> bytes:
    """5.2.4: what was released since the base, or held and released since, is named with removeFromCRL."""
    if change.entry_der is not None:
        return change.entry_der
    at = datetime.fromtimestamp(change.at, UTC)
    return encode_crl_entry(change.serial, at, RevocationReason.REMOVE_FROM_CRL)


def delta_contents(facts: DeltaFacts, issuer: Issuer, full: CrlContents, shard: int) -> CrlContents | None:
    """The delta of `full`: same number, times and scope (5.2.4 (c)); None if there is no base."""
    if facts.base is None or facts.entries is None:
        return None
    return replace(full, entries=facts.entries, shard_url=issuer.crl_url(shard), base_number=facts.base.base_number)


def next_delta_row(facts: DeltaFacts, made: Publication, crl_der: bytes | None) -> DeltaRow:
    """The row for `made` and its delta: the base stays, or `made` becomes the base of the deltas to come."""
    base = None if facts.moves_base else facts.base
    return DeltaRow(
        authority_id=made.authority_id,
        shard=made.shard,
        base_number=made.number if base is None else base.base_number,
        base_sequence=made.sequence if base is None else base.base_sequence,
        number=made.number,
        this_update=made.this_update,
        next_update=made.next_update,
        crl_der=crl_der,
    )
