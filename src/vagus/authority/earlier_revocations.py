"""What only lists still tell of an authority: revocations made before it came here, or behind a backup; signs none.

A list names serials of which nothing else is known. Each becomes a row without bytes, key or owner, revoked or on hold,
so that it stands in every further list and answer; and the list's number and dates become the floor of ours. Which of
our lists a certificate names is taken from the list that names it; where that does not tell, it stands in each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from vagus.authority.crls import shards
from vagus.authority.crls.foreign import CombinedEntry, ForeignCrl, combine_crls
from vagus.authority.revocation import hold_row, revoke_row
from vagus.errors import Conflict
from vagus.ledger.append import append
from vagus.ledger.entries import IssuanceRecorded
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import keys as key_rows
from vagus.records.authorities import AuthorityRow
from vagus.records.certificates import (
    EVERY_SHARD,
    ISSUED,
    NO_EXPIRY,
    CertificateRow,
    fill_shard,
    find_certificate,
    find_shard,
    insert_intent,
)
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch, Writer
from vagus.records.lost_certificates import set_known_shard, take_place
from vagus.records.publications import ADOPTED, COMPLETE, Publication, find_facts, put_publication
from vagus.records.revocation.revocations import find_revocation
from vagus.x509.crls.building import RevocationReason

LOST = "lost"
"""Why a certificate has no bytes here: it was issued behind the backup that was restored."""

ELSEWHERE = "elsewhere"
"""As `LOST`: it was issued before its authority came here."""


def find_known_shard(connection: Connection, authority: AuthorityRow, serial: int) -> int | None:
    """The shard in which a certificate is known to stand."""
    row = find_certificate(connection, authority.id, serial)
    return None if row is None or row.shard == EVERY_SHARD else row.shard


def record_crls(batch: Batch, *lists: ForeignCrl, since: str, by: str) -> int:
    """Write down what lists say together, and go on from their numbers; gives how many certificates that was news of.

    A certificate from elsewhere names no list of ours, unless one of these lists is.
    """
    for one in lists:
        adopt_crl(batch, one)
    said = combine_crls(lists, lambda authority, serial: find_known_shard(batch.connection, authority, serial))
    authorities = {one.authority.reference: one.authority for one in lists}
    is_of_ours = since == LOST or any(one.shard is not None for one in lists)
    return record_combined(batch, authorities, said, since=since, by=by, is_of_ours=is_of_ours)


def record_combined(
    batch: Batch,
    authorities: Mapping[str, AuthorityRow],
    said: Mapping[tuple[str, int], CombinedEntry],
    *,
    since: str,
    by: str,
    is_of_ours: bool = False,
) -> int:
    """Revoke or hold what lists name together; gives how many certificates that was news of.

    `is_of_ours`: whether lists of ours may be named by certificates of which nothing is known.
    """
    return sum(
        record_entry(
            batch,
            authorities[reference],
            serial,
            one.reason,
            since=since,
            by=by,
            shard=one.shard,
            is_of_ours=is_of_ours,
        )
        for (reference, serial), one in said.items()
    )


def record_entry(
    batch: Batch,
    authority: AuthorityRow,
    serial: int,
    reason: RevocationReason,
    *,
    since: str,
    by: str,
    shard: int | None = None,
    is_of_ours: bool = False,
) -> int:
    """Revoke or hold what a list names, whether its certificate is known here or not; 1 where that was news.

    `shard` is that of the list of ours which its CDP names, if that is known; `is_of_ours` as in `record_combined`.
    """
    row = find_certificate(batch.connection, authority.id, serial)
    if row is None:
        row = _record(batch, authority, serial, since, shard, is_of_ours=is_of_ours)
    elif row.shard == EVERY_SHARD and shard is not None:
        set_known_shard(batch.connection, row, shard)
    before = find_revocation(batch.connection, row.leaf_index)
    if before is not None and not _says_more(RevocationReason(before.reason), reason):
        return 0
    if reason is RevocationReason.CERTIFICATE_HOLD:
        hold_row(batch, row, by=by)
    else:
        revoke_row(batch, row, reason, by=by)
    return 1


def _says_more(before: RevocationReason, reason: RevocationReason) -> bool:
    if reason is RevocationReason.CERTIFICATE_HOLD:
        return False
    return before is RevocationReason.CERTIFICATE_HOLD or (reason.is_compromise and not before.is_compromise)


def _record(
    batch: Batch, authority: AuthorityRow, serial: int, since: str, shard: int | None, *, is_of_ours: bool
) -> CertificateRow:
    """The row of a certificate that only a list speaks of: neither key nor owner nor bytes are known."""
    request_id = f"{since}:{authority.id}:{serial:x}"
    owner = f"rule:{since}"
    # of no key, but of this row alone: whoever revokes by key must not take two of them for one
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
    row = CertificateRow(
        leaf_index=leaf_index,
        authority_id=authority.id,
        serial=serial,
        owner=owner,
        device_id=None,
        profile=since,
        spki_sha256=spki_sha256,
        request_id=request_id,
        not_before=batch.at,
        not_after=authority.not_after or NO_EXPIRY,
        shard=_choose_shard(batch.connection, authority, is_of_ours=is_of_ours) if shard is None else shard,
        state=ISSUED,
    )
    insert_intent(batch.connection, row, b"")
    take_place(batch.connection, authority.id, row.shard)
    return row


def _choose_shard(connection: Connection, authority: AuthorityRow, *, is_of_ours: bool) -> int:
    """Where a certificate stands whose CDP nobody knows: in every list that it may name, in any if it names none."""
    if authority.is_offline:  # it has one shard for ever
        return 0
    if is_of_ours:
        return EVERY_SHARD
    shard, taken = find_shard(connection, authority.id) or (0, 0)
    return shard if taken < shards.SHARD_PLACES else shard + 1


def adopt_crl(batch: Batch, listed: ForeignCrl) -> bool:
    """A list newer than ours becomes ours: its number and dates are the floor of the next one. Whether it was newer.

    Its shard, which certificates that are not known here may name, is signed again from now on and takes no new ones.
    """
    authority, crl = listed.authority, listed.crl
    if crl.number is None or crl.next_update is None:
        return False
    # What an offline authority signs speaks for all that it issued, under both of its addresses.
    places = (COMPLETE, 0) if authority.is_offline else (COMPLETE if listed.shard is None else listed.shard,)
    is_news = False
    for shard in places:
        if shard >= 0 and not authority.is_offline:
            fill_shard(batch.connection, authority.id, shard, shards.SHARD_PLACES)
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
                sequence=ADOPTED,  # covers nothing of what is written down from it: the next look signs it anew
                crl_der=crl.der,
            ),
        )
    return is_news


def revoke_earlier(
    writer: Writer, name: str, generation: int, serial: int, reason: RevocationReason, *, by: str
) -> int:
    """Revoke a certificate that an imported authority issued elsewhere; 1 where that was news.

    Raises Conflict(AUTHORITY_UNKNOWN), and Conflict(NOT_ISSUED) for an authority whose every certificate was made
    here: a serial that it does not know was never issued.
    """

    def act(batch: Batch) -> int:
        row = authority_rows.find_generation(batch.connection, name, generation)
        if row is None or row.certificate_der is None:
            msg = f"there is no authority {name}#{generation} with a certificate; see: vagus ca list"
            raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, authority=f"{name}#{generation}")
        if row.request_der is not None:
            msg = f"{row.reference} was born here, so it never issued {serial:x} elsewhere; see: vagus revoke"
            raise Conflict(Reason.NOT_ISSUED, msg, authority=row.reference, serial=f"{serial:x}")
        return record_entry(batch, row, serial, reason, since=ELSEWHERE, by=by)

    return writer.submit(act).result()
