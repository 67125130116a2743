"""What only lists still tell of an authority: revocations made before it came here, or behind a backup; signs none.

A list names serials of which nothing else is known. Each becomes a row without bytes, key or owner, revoked or on hold,
so that it stands in every further list and answer; and the list's number and dates become the floor of ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from vagus.authority.revocation import hold_row, revoke_row
from vagus.errors import Conflict, NotTrusted
from vagus.ledger.append import append
from vagus.ledger.entries import Issuance
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import keys as key_rows
from vagus.records.authorities import AuthorityRow
from vagus.records.certificates import ISSUED, NO_EXPIRY, CertificateRow, find_certificate, insert_intent
from vagus.records.publications import COMPLETE, Publication, find_publication, put_publication
from vagus.records.revocations import find_revocation
from vagus.records.writer import Batch, Writer
from vagus.x509.certificates import decode_certificate
from vagus.x509.crl_building import RevocationReason
from vagus.x509.crls import Crl, decode_crl, verify_crl
from vagus.x509.signatures import SignatureVerdicts

LOST = "lost"
"""Why a certificate has no bytes here: it was issued behind the backup that was restored."""

ELSEWHERE = "elsewhere"
"""As `LOST`: it was issued before its authority came here."""

_SHARD = re.compile(rb"/([0-9]{1,9})\.crl")


@dataclass(frozen=True, slots=True)
class ListedElsewhere:
    """A complete list of one of our authorities, as relying parties have it."""

    authority: AuthorityRow
    crl: Crl

    @property
    def entries(self) -> dict[int, int]:
        """Serial and reason code of each certificate that it names."""
        listed = self.crl.entries.get(self.crl.issuer.relative_names, {})
        return {int.from_bytes(serial, "big"): reason for serial, reason in listed.items()}


def read_list(crl_der: bytes, authorities: Sequence[AuthorityRow]) -> ListedElsewhere | None:
    """The list and the authority whose key signed it; None for a delta, which repeats what its shard's list says.

    Raises NotTrusted(CRL_INVALID) for a list that none of them signed, Malformed and LimitExceeded as decoding does.
    """
    crl = decode_crl(crl_der)
    if crl.is_delta:
        return None
    for authority in authorities:
        if authority.certificate_der is not None:
            with suppress(NotTrusted):  # imported generations may share their name: the one whose key verifies
                check_signer(crl, authority.certificate_der)
                return ListedElsewhere(authority, crl)
    msg = f"list {crl.label} is of none of the authorities here; give the lists of these authorities alone"
    raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)


def check_signer(crl: Crl, certificate_der: bytes) -> None:
    """The list is of the name and the key of this certificate. Raises NotTrusted(CRL_INVALID) and as `verify_crl`."""
    signer = decode_certificate(certificate_der)
    if signer.subject.relative_names != crl.issuer.relative_names:
        msg = f"list {crl.label} is of another authority than {signer.label}; give its own"
        raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)
    verify_crl(crl, signer, SignatureVerdicts())


def take_in(batch: Batch, listed: ListedElsewhere, *, since: str, by: str) -> int:
    """Write down what a list says, and go on from its number; gives how many certificates that was news of."""
    news = sum(
        apply_listed(batch, listed.authority, serial, RevocationReason(reason), since=since, by=by)
        for serial, reason in listed.entries.items()
    )
    adopt_list(batch, listed.authority, listed.crl)
    return news


def apply_listed(
    batch: Batch, authority: AuthorityRow, serial: int, reason: RevocationReason, *, since: str, by: str
) -> int:
    """Revoke or hold what a list names, whether its certificate is known here or not; 1 where that was news."""
    row = find_certificate(batch.connection, authority.id, serial) or _record(batch, authority, serial, since)
    before = find_revocation(batch.connection, row.leaf_index)
    if before is not None and (before.reason != RevocationReason.CERTIFICATE_HOLD or before.reason == reason):
        return 0
    if reason is RevocationReason.CERTIFICATE_HOLD:
        hold_row(batch, row, by=by)
    else:
        revoke_row(batch, row, reason, by=by)
    return 1


def _record(batch: Batch, authority: AuthorityRow, serial: int, since: str) -> CertificateRow:
    """The row of a certificate that only a list speaks of: neither key nor owner nor bytes are known."""
    request_id = f"{since}:{authority.id}:{serial:x}"
    owner = f"rule:{since}"
    # of no key, but of this row alone: whoever revokes by key must not take two of them for one
    spki_sha256 = hashlib.sha256(request_id.encode()).digest()
    key_rows.insert_key(batch.connection, spki_sha256, owner, at=batch.at)
    leaf_index = append(
        batch,
        Issuance(
            authority=authority.reference,
            serial=serial,
            tbs_sha256=hashlib.sha256(b"").digest(),
            spki_sha256=spki_sha256,
            profile=since,
            owner=owner,
            request_id_hash=hashlib.sha256(request_id.encode()).digest(),
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
        shard=0,
        state=ISSUED,
    )
    insert_intent(batch.connection, row, b"")
    return row


def adopt_list(batch: Batch, authority: AuthorityRow, crl: Crl) -> bool:
    """A list newer than ours becomes ours: its number and dates are the floor of the next one. Whether it was newer."""
    if crl.number is None or crl.next_update is None:
        return False
    found = _SHARD.search(crl.scope_der)
    # What an offline authority signs speaks for all that it issued, under both of its addresses.
    shards = (int(found[1]),) if found is not None else (COMPLETE, 0) if authority.is_offline else (COMPLETE,)
    is_news = False
    for shard in shards:
        newest = find_publication(batch.connection, authority.id, shard)
        if newest is not None and newest.number >= crl.number:
            continue
        is_news = True
        put_publication(
            batch.connection,
            Publication(
                authority_id=authority.id,
                shard=shard,
                number=crl.number,
                this_update=int(crl.this_update.timestamp()),
                next_update=int(crl.next_update.timestamp()),
                sequence=0,  # covers nothing of what was just written down: the next look signs it anew
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
        return apply_listed(batch, row, serial, reason, since=ELSEWHERE, by=by)

    return writer.submit(act).result()
