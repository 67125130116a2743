"""Closes the gap between a restored database and what was published since its backup; recovers no private key.

What a restored house cannot know is what it issued and revoked after the backup. Three things kept elsewhere tell: the
newest checkpoint (how much is missing), the published log (which certificates and revocations), the newest CRLs (what
relying parties were told). Whatever they show is written down as lost, and revoked or accepted by an operator.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from vagus.authority.revocation import revoke_row
from vagus.errors import Conflict, IntegrityFailure, NotTrusted
from vagus.ledger.append import append
from vagus.ledger.entries import GapAccepted, Issuance, Restored, Revocation, decode_entry
from vagus.ledger.publish import load_tile
from vagus.ledger.verify import verify_log
from vagus.reasons import Reason
from vagus.records.authorities import AuthorityRow, list_authorities
from vagus.records.certificates import (
    ISSUED,
    NO_EXPIRY,
    CertificateRow,
    find_certificate,
    insert_intent,
)
from vagus.records.database import Connection
from vagus.records.installation import set_restored
from vagus.records.log import iterate_leaves, load_head
from vagus.records.publications import COMPLETE, Publication, find_publication, put_publication
from vagus.records.revocations import find_revocation
from vagus.records.writer import Batch
from vagus.tlog.checkpoint import Checkpoint, NoteKey, decode_checkpoint
from vagus.tlog.tiles import WIDTH, Tile, decode_bundle
from vagus.wiring import House
from vagus.x509.certificates import decode_certificate
from vagus.x509.crl_building import RevocationReason
from vagus.x509.crls import Crl, decode_crl, verify_crl
from vagus.x509.signatures import SignatureVerdicts

_SHARD = re.compile(rb"/([0-9]{1,9})\.crl")
_LOST = "lost"


@dataclass(slots=True)
class Gap:
    """What was published and is unknown here. Certificates are named by (authority's reference, serial)."""

    start: int
    end: int
    issued: dict[tuple[str, int], Issuance] = field(default_factory=dict)
    revoked: dict[tuple[str, int], int] = field(default_factory=dict)  # with the reason code
    lists: list[tuple[AuthorityRow, Crl]] = field(default_factory=list)

    @property
    def lost_leaves(self) -> int:
        """How many entries of the ledger are gone."""
        return max(0, self.end - self.start)


def measure_gap(house: House, *, checkpoint: Checkpoint | None, published: Path | None, lists: Sequence[bytes]) -> Gap:
    """What stands between this database and what was published.

    `checkpoint` is verified by the caller. Raises Conflict(ALREADY_EXISTS) when there is no gap to close,
    IntegrityFailure(LOG_TAMPERED) when the checkpoint is of another history, NotTrusted(CRL_INVALID) for a list that
    no authority here signed.
    """
    if house.installation.restored_at is None:
        raise Conflict(Reason.ALREADY_EXISTS, "this system is not waiting for a gap to be closed; nothing to do")
    key = NoteKey.decode(house.log_verifier)
    with house.database.reading() as connection:
        known = _size_at_restore(connection)
        authorities = list_authorities(connection)
    if checkpoint is not None and checkpoint.size <= known:
        verify_log(house.database, public_key=key.public_key, against=checkpoint)
    gap = Gap(known, known if checkpoint is None else max(known, checkpoint.size))
    # 1. The published log names every certificate and revocation that this database lost.
    if published is not None:
        verify_log(published, public_key=key.public_key, against=checkpoint)
        _check_same_beginning(house, published, known)
        _read_log(published, gap)
    # 2. The newest lists tell what relying parties were told.
    for der in lists:
        _read_list(der, authorities, gap)
    return gap


def close_gap(house: House, gap: Gap, *, is_revoking: bool, by: str) -> int:
    """Write everything in the gap down, revoke what was revoked and, if asked, all that was issued; gives how many.

    One transaction: afterwards the house may issue again. Lists that are newer than ours become ours, so that numbers
    and dates go on from them.
    """

    def act(batch: Batch) -> int:
        by_reference = {row.reference: row for row in list_authorities(batch.connection)}
        revoked = 0
        for named, entry in gap.issued.items():
            row = _record_lost(batch, by_reference, named, entry)
            if is_revoking and row is not None and named not in gap.revoked:
                revoke_row(batch, row, named[0], RevocationReason.UNSPECIFIED, by=by)
                revoked += 1
        for named, reason in gap.revoked.items():
            row = _record_lost(batch, by_reference, named, gap.issued.get(named))
            if row is not None and find_revocation(batch.connection, row.leaf_index) is None:
                revoke_row(batch, row, named[0], RevocationReason(reason), by=by)
                revoked += 1
        for authority, crl in gap.lists:
            _adopt_list(batch, authority, crl)
        append(batch, GapAccepted(gap.start, gap.end, "revoked" if is_revoking else "accepted", by))
        set_restored(batch.connection, None)
        return revoked

    return house.writer.submit(act).result()


def _size_at_restore(connection: Connection) -> int:
    """How many leaves the backup had: the newest `restored` entry says it."""
    found: int | None = None
    for leaf in iterate_leaves(connection, max(0, load_head(connection).size - 1000)):
        entry = decode_entry(leaf.entry).entry
        if isinstance(entry, Restored):
            found = entry.size
    if found is None:
        for leaf in iterate_leaves(connection):
            entry = decode_entry(leaf.entry).entry
            if isinstance(entry, Restored):
                found = entry.size
    if found is None:
        msg = "the database is marked as restored, but no entry of the ledger says so; run: vagus audit verify"
        raise IntegrityFailure(Reason.LOG_TAMPERED, msg)
    return found


def _published_entries(folder: Path, size: int) -> Iterator[bytes]:
    for index in range(0, size, WIDTH):
        width = min(WIDTH, size - index)
        tile = Tile(None, index // WIDTH) if width == WIDTH else Tile(None, index // WIDTH, width)
        yield from decode_bundle(load_tile(folder, tile), width)


def _check_same_beginning(house: House, published: Path, known: int) -> None:
    """The published log must go on where this database ends, or it is of another history."""
    with house.database.reading() as connection:
        size = _size_of(published)
        pairs = zip(iterate_leaves(connection, 0, min(known, size)), _published_entries(published, size), strict=False)
        for leaf, entry in pairs:
            if leaf.entry != entry:
                msg = f"leaf {leaf.index} differs between the restored database and the published log"
                raise IntegrityFailure(Reason.LOG_TAMPERED, msg, index=leaf.index)


def _size_of(published: Path) -> int:
    return decode_checkpoint((published / "checkpoint").read_bytes()).size


def _read_log(published: Path, gap: Gap) -> None:
    for index, raw in enumerate(_published_entries(published, _size_of(published))):
        if index < gap.start:
            continue
        entry = decode_entry(raw).entry
        if isinstance(entry, Issuance):
            gap.issued[entry.authority, entry.serial] = entry
        elif isinstance(entry, Revocation):
            gap.revoked[entry.authority, entry.serial] = entry.reason


def _read_list(der: bytes, authorities: Sequence[AuthorityRow], gap: Gap) -> None:
    crl = decode_crl(der)
    verdicts = SignatureVerdicts()
    for authority in authorities:
        if authority.certificate_der is None:
            continue
        signer = decode_certificate(authority.certificate_der)
        if signer.subject.relative_names != crl.issuer.relative_names:
            continue
        verify_crl(crl, signer, verdicts)
        for serial, reason in crl.entries.get(crl.issuer.relative_names, {}).items():
            gap.revoked.setdefault((authority.reference, int.from_bytes(serial, "big")), reason)
        gap.lists.append((authority, crl))
        return
    msg = f"list {crl.label} is of none of the authorities here; give the lists of this installation alone"
    raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)


def _record_lost(
    batch: Batch, by_reference: Mapping[str, AuthorityRow], named: tuple[str, int], lost: Issuance | None
) -> CertificateRow | None:
    """The row of a certificate, written now when the backup did not know it; its bytes are gone, and it says so."""
    reference, serial = named
    authority = by_reference.get(reference)
    if authority is None:
        return None
    known = find_certificate(batch.connection, authority.id, serial)
    if known is not None:
        return known
    owner = "rule:lost" if lost is None else lost.owner
    spki_sha256 = bytes(32) if lost is None else lost.spki_sha256
    request_id = f"{_LOST}:{authority.id}:{serial:x}"
    leaf_index = append(
        batch,
        Issuance(
            authority=reference,
            serial=serial,
            tbs_sha256=_sha256(b""),
            spki_sha256=spki_sha256,
            profile=_LOST,
            owner=owner,
            request_id_hash=_sha256(request_id.encode()),
        ),
    )
    row = CertificateRow(
        leaf_index=leaf_index,
        authority_id=authority.id,
        serial=serial,
        owner=owner,
        device_id=None,
        profile=_LOST,
        spki_sha256=spki_sha256,
        request_id=request_id,
        not_before=batch.at,
        not_after=authority.not_after or NO_EXPIRY,
        shard=0,
        state=ISSUED,
    )
    insert_intent(batch.connection, row, b"")
    return row


def _adopt_list(batch: Batch, authority: AuthorityRow, crl: Crl) -> None:
    """A list newer than ours becomes ours: its number and dates are the floor of the next one."""
    found = _SHARD.search(crl.scope_der)
    shard = int(found[1]) if found is not None else COMPLETE
    newest = find_publication(batch.connection, authority.id, shard)
    if crl.number is None or crl.next_update is None or (newest is not None and newest.number >= crl.number):
        return
    put_publication(
        batch.connection,
        Publication(
            authority_id=authority.id,
            shard=shard,
            number=crl.number,
            this_update=_seconds(crl.this_update),
            next_update=_seconds(crl.next_update),
            sequence=0,  # covers nothing of what was just written down: the next look signs it anew
            crl_der=crl.der,
        ),
    )


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
