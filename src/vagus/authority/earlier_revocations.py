"""Records revocations that only CRLs know: made before an authority was imported, or after a backup; signs no CRL.

Such a CRL names serial numbers of certificates that are not in the database. Each becomes a row without bytes, key and
owner, revoked or on hold, so that every later CRL and OCSP response has it. The number and dates of the CRL become the
floor of ours. If the CRL does not show which of our shards the certificate names, the row counts for every shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from vagus.authority import shards
from vagus.authority.crls.foreign import CombinedEntry, ForeignCrl, combine_crls, gravity
from vagus.authority.revocation import hold_row, revoke_row
from vagus.errors import Conflict
from vagus.ledger.append import append
from vagus.ledger.entries import IssuanceRecorded
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import certificates as rows
from vagus.records import keys as key_rows
from vagus.records.authorities import AuthorityRow
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch, Writer
from vagus.records.lost_certificates import set_known_shard, take_place
from vagus.records.publications import ADOPTED, COMPLETE, Publication, find_facts, put_publication
from vagus.records.revocation.revocations import find_revocation
from vagus.x509.crls.building import RevocationReason

LOST = "lost"
"""Why a certificate has no bytes here: it was issued after the backup that was restored."""

ELSEWHERE = "elsewhere"
"""As `LOST`: it was issued before its authority came here."""


def find_known_shard(connection: Connection, authority: AuthorityRow, serial: int) -> int | None:
    """The shard of a certificate that is known here, if that is known."""
    row = rows.find_certificate(connection, authority.id, serial)
    return None if row is None or row.shard == rows.EVERY_SHARD else row.shard


def record_crls(batch: Batch, *crls: ForeignCrl, since: str, by: str) -> int:
    """Record what CRLs together say, and go on from their numbers; gives how many certificates changed.

    A certificate from elsewhere names no CRL of ours, unless one of these CRLs is ours.
    """
    for one in crls:
        adopt_crl(batch, one)
    combined = combine_crls(crls, lambda authority, serial: find_known_shard(batch.connection, authority, serial))
    authorities = {one.authority.reference: one.authority for one in crls}
    is_of_ours = since == LOST or any(one.shard is not None for one in crls)
    return record_combined(batch, authorities, combined, since=since, by=by, is_of_ours=is_of_ours)


def record_combined(
    batch: Batch,
    authorities: Mapping[str, AuthorityRow],
    combined: Mapping[tuple[str, int], CombinedEntry],
    *,
    since: str,
    by: str,
    is_of_ours: bool = False,
) -> int:
    """Revoke or hold what CRLs name together; gives how many certificates changed.

    `is_of_ours`: whether certificates that are not known here may name CRLs of ours.
    """
    return sum(
        record_entry(batch, authorities[reference], serial, one, since=since, by=by, is_of_ours=is_of_ours)
        for (reference, serial), one in combined.items()
    )


def record_entry(
    batch: Batch,
    authority: AuthorityRow,
    serial: int,
    said: CombinedEntry,
    *,
    since: str,
    by: str,
    is_of_ours: bool = False,
) -> int:
    """Revoke or hold a certificate that a CRL names, known here or not; 1 if that changed it, else 0.

    `is_of_ours` as in `record_combined`.
    """
    reason, shard = said.reason, said.shard
    row = rows.find_certificate(batch.connection, authority.id, serial)
    if row is None:
        row = _insert_row(batch, authority, serial, since, shard, is_of_ours=is_of_ours)
    elif row.shard == rows.EVERY_SHARD and shard is not None:
        set_known_shard(batch.connection, row, shard)
    before = find_revocation(batch.connection, row.leaf_index)
    if before is not None and gravity(reason) <= gravity(RevocationReason(before.reason)):
        return 0
    # a date in the future, or a missing one, is the time of this act
    dated_at = said.dated_at if said.dated_at is not None and said.dated_at < batch.at else None
    if reason is RevocationReason.CERTIFICATE_HOLD:
        hold_row(batch, row, by=by, dated_at=dated_at)
    else:
        revoke_row(batch, row, reason, by=by, dated_at=dated_at)
    return 1


def _insert_row(
    batch: Batch, authority: AuthorityRow, serial: int, since: str, shard: int | None, *, is_of_ours: bool
) -> rows.CertificateRow:
    """Insert the row of a certificate that only a CRL names: its key, owner and bytes are not known."""
    request_id = f"{since}:{authority.id}:{serial:x}"
    owner = f"rule:{since}"
    # This placeholder is no SHA-256 of a key, but unique to the row: a revocation by key must never select two such
    # rows at once.
    spki_sha256 = hashlib.sha256(request_id.encode()).digest()
    key_rows.insert_key(batch.connection, spki_sha256, owner, at=batch.at)
    leaf_index = append(
        batch,
        IssuanceRecorded(
            authority=authority.reference,
            serial=serial,
            tbs_sha256=hashlib.sha256(b"").digest(),
            spki_sha256=spki_sha256,
            profile=since,
            owner=owner,
            request_id_hash=hashlib.sha256(request_id.encode()).digest(),
            shard=shard,
        ),
    )
    row = rows.CertificateRow(
        leaf_index=leaf_index,
        authority_id=authority.id,
        serial=serial,
        owner=owner,
        device_id=None,
        profile=since,
        spki_sha256=spki_sha256,
        request_id=request_id,
        not_before=batch.at,
        not_after=authority.not_after or rows.NO_EXPIRY,
        shard=choose_shard(batch.connection, authority, is_of_ours=is_of_ours) if shard is None else shard,
        state=rows.ISSUED,
    )
    rows.insert_intent(batch.connection, row, b"")
    take_place(batch.connection, authority.id, row.shard)
    return row


def choose_shard(connection: Connection, authority: AuthorityRow, *, is_of_ours: bool = False) -> int:
    """The shard of a certificate with an unknown CDP: every shard if it may name one of ours, else any with places."""
    if authority.is_offline:  # an offline authority has one CRL shard for ever
        return 0
    if is_of_ours:
        return rows.EVERY_SHARD
    shard, taken = rows.find_shard(connection, authority.id) or (0, 0)
    return shard if taken < shards.SHARD_PLACES else shard + 1


def adopt_crl(batch: Batch, foreign: ForeignCrl) -> bool:
    """Store a CRL that is newer than ours as ours, so that the next one goes on from its number; whether it was newer.

    Certificates that are not known here may name its shard. So the shard is signed from now on and takes no new ones.
    """
    authority, crl = foreign.authority, foreign.crl
    if crl.number is None or crl.next_update is None:
        return False
    # The one CRL of an offline authority covers all certificates that it issued, under the URLs of both its complete
    # CRL and its shard.
    places = (COMPLETE, 0) if authority.is_offline else (COMPLETE if foreign.shard is None else foreign.shard,)
    is_news = False
    for shard in places:
        if shard >= 0 and not authority.is_offline:
            rows.fill_shard(batch.connection, authority.id, shard, shards.SHARD_PLACES)
        newest = find_facts(batch.connection, authority.id, shard)
        if newest is not None and newest.number > crl.number:
            continue
        is_news = is_news or newest is None or newest.number < crl.number
        put_publication(
            batch.connection,
            Publication(
                authority_id=authority.id,
                shard=shard,
                number=crl.number,
                this_update=int(crl.this_update.timestamp()),
                next_update=int(crl.next_update.timestamp()),
                # An adopted CRL covers no step of our revocation sequence, so the publisher signs a new one at its next
                # check.
                sequence=ADOPTED,
                crl_der=crl.der,
            ),
        )
    return is_news


def revoke_earlier(
    writer: Writer, name: str, generation: int, serial: int, reason: RevocationReason, *, by: str
) -> int:
    """Revoke a certificate that an imported authority issued elsewhere; 1 if that changed it, else 0.

    Raises Conflict(AUTHORITY_UNKNOWN), and Conflict(NOT_ISSUED) for an authority that issued only here: then a
    serial number that is not in the database was never issued.
    """

    def act(batch: Batch) -> int:
        row = authority_rows.find_generation(batch.connection, name, generation)
        if row is None or row.certificate_der is None:
            msg = f"authority {name}#{generation} does not exist here or has no certificate; see: vagus ca list"
            raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, authority=f"{name}#{generation}")
        if row.request_der is not None:
            msg = f"authority {row.reference} was made here, so it never issued {serial:x} elsewhere; see: vagus revoke"
            raise Conflict(Reason.NOT_ISSUED, msg, authority=row.reference, serial=f"{serial:x}")
        return record_entry(batch, row, serial, CombinedEntry(reason), since=ELSEWHERE, by=by)

    return writer.submit(act).result()
