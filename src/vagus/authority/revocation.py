"""Revokes, holds and releases single certificates, each in one commit that every gateway follows; publishes no CRL.

Each act writes in one transaction: the entry for every later CRL (encoded once), the next number of the gapless
sequence that gateways follow, the certificate's state, and a ledger entry. No act waits for a CRL.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vagus.errors import Conflict, PolicyRefusal
from vagus.ledger.append import append
from vagus.ledger.entries import Hold, KeyBlocked, Release, Revocation
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import certificates as certificate_rows
from vagus.records import keys as key_rows
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.records.engine.statements import Write, write_together
from vagus.records.revocation import revocations as rows
from vagus.records.revocation.candidates import Revocable, find_revocable, find_revocable_serial
from vagus.records.revocation.revocations import RevocationRow
from vagus.x509.crls.building import RevocationReason, encode_crl_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from vagus.records.engine.writer import Batch, Writer


@dataclass(frozen=True, slots=True)
class Revoked:
    """What became of a device's certificates: how many changed, and the sequence after the last."""

    count: int
    sequence: int
    before: int = 0
    """How many were in that state already, and did not change."""


class Revocations:
    """The acts of revocation, each through the one writer. `by` names who asked (`operator:…`, `rule:…`).

    Every future resolves after the commit. From then on the gateways of this process refuse, others within 500 ms.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def revoke(self, authority_id: int, serial: int, reason: RevocationReason, *, by: str) -> Future[int]:
        """Revoke one certificate for good; gives its number in the sequence. A repeated call changes nothing.

        The future raises Conflict(NOT_ISSUED) for a serial that this authority never issued.
        """
        return self._writer.submit(lambda batch: _revoke(batch, _find(batch, authority_id, serial), reason, by=by))

    def hold(self, authority_id: int, serial: int, *, by: str) -> Future[int]:
        """Suspend one certificate until it is released or revoked. Raises as `revoke`, and Conflict(REVOKED)."""
        return self._writer.submit(lambda batch: _hold(batch, _find(batch, authority_id, serial), by=by))

    def release(self, authority_id: int, serial: int, *, by: str) -> Future[int]:
        """End a hold. Raises as `revoke`, Conflict(REVOKED), and Conflict(NOT_FOUND) when there is no hold."""
        return self._writer.submit(lambda batch: _release(batch, _find(batch, authority_id, serial), by=by))

    def block_key(self, spki_sha256: bytes, *, by: str) -> Future[bool]:
        """Never certify a key again, known here or not; revokes nothing. Whether it was not blocked before."""
        return self._writer.submit(lambda batch: block_key(batch, spki_sha256, by=by))


def revoke_device(batch: Batch, device_id: str, reason: RevocationReason, *, by: str) -> Revoked:
    """Revoke every certificate of a device that has not expired, in the writer act that does the rest."""
    return _each(batch, _list_alive(batch, device_id), lambda one: _revoke(batch, one, reason, by=by))


def hold_device(batch: Batch, device_id: str, *, by: str) -> Revoked:
    """Suspend every certificate of a device that is neither expired nor revoked, in a writer act."""
    live = [row for row in _list_alive(batch, device_id) if row.state != certificate_rows.REVOKED]
    return _each(batch, live, lambda one: _hold(batch, one, by=by))


def release_device(batch: Batch, device_id: str, *, by: str) -> Revoked:
    """End every hold on a device's certificates, in a writer act."""
    held = [row for row in _list_alive(batch, device_id) if row.state == certificate_rows.HELD]
    return _each(batch, held, lambda one: _release(batch, one, by=by))


def block_key(batch: Batch, spki_sha256: bytes, *, by: str) -> bool:
    """`Revocations.block_key` inside an act that does more; with a ledger entry, as perhaps no certificate has it."""
    is_news = key_rows.block_key(batch.connection, spki_sha256, "rule:compromised", at=batch.at)
    if is_news:
        known = key_rows.find_key(batch.connection, spki_sha256)
        append(batch, KeyBlocked(spki_sha256, "rule:compromised" if known is None else known.owner, by))
    return is_news


def revoke_row(
    batch: Batch,
    row: certificate_rows.CertificateRow,
    reason: RevocationReason,
    *,
    by: str,
    dated_at: int | None = None,
) -> int:
    """Revoke the certificate of `row`, in its present state; gives its number in the sequence.

    A compromise concerns the key: its other unexpired certificates, of any issuer, are revoked in the same act.
    A second revocation changes nothing, unless it is the first one for a compromise. `dated_at` is the date that a CRL
    from elsewhere gave, in seconds since 1970 UTC. Raises PolicyRefusal(POLICY_VIOLATION) for the reasons of hold and
    release, and for a root's own certificate.
    """
    return _revoke(batch, _read_again(batch, row), reason, by=by, dated_at=dated_at)


def hold_row(batch: Batch, row: certificate_rows.CertificateRow, *, by: str, dated_at: int | None = None) -> int:
    """Suspend the certificate of `row`; gives its number in the sequence. A second hold changes nothing.

    `dated_at` as in `revoke_row`.
    Raises Conflict(REVOKED), and PolicyRefusal(POLICY_VIOLATION) for an authority: with its release all that it signed
    meanwhile would become good.
    """
    return _hold(batch, _read_again(batch, row), by=by, dated_at=dated_at)


def release_row(batch: Batch, row: certificate_rows.CertificateRow, *, by: str, held_until: int) -> int | None:
    """End the hold on the certificate of `row`; gives its number in the sequence.

    None, and nothing changes, if it was held by a step after `held_until`. Raises Conflict(REVOKED or NOT_FOUND).
    """
    one = _read_again(batch, row)
    is_later = one.sequence is not None and one.sequence > held_until
    return None if is_later else _release(batch, one, by=by)


def _revoke(batch: Batch, one: Revocable, reason: RevocationReason, *, by: str, dated_at: int | None = None) -> int:
    sequence = _revoke_one(batch, one, reason, by=by, dated_at=dated_at)
    if not (reason.is_compromise and one.is_key_shared):
        return sequence
    mine = one.certificate
    for other in certificate_rows.list_of_key(batch.connection, mine.spki_sha256):
        if other.leaf_index == mine.leaf_index or other.not_after <= batch.at:
            continue
        found = _read_again(batch, other)
        # A root's own certificate is in no CRL of that root: relying parties must remove the anchor instead.
        if not _is_root_itself(found):
            _revoke_one(batch, found, reason, by=by)
    return sequence


def _revoke_one(batch: Batch, one: Revocable, reason: RevocationReason, *, by: str, dated_at: int | None = None) -> int:
    row = one.certificate
    # 1. Refuse what is no revocation: hold and removeFromCRL are other acts, and a root cannot revoke itself.
    if reason in {RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL}:
        msg = f"reason {reason.spelling} is not for a permanent revocation; use the commands for hold and release"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg, reason=reason.spelling)
    if _is_root_itself(one):
        msg = f"{one.reference} is a root, which its own CRL cannot revoke; remove its certificate from the anchors"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg, authority=one.reference)
    # 2. Block a compromised key, so that it is never certified again for any owner.
    blocked: tuple[Write, ...] = ()
    if reason.is_compromise:
        blocked = key_rows.block_writes(row.spki_sha256, row.owner, at=batch.at, state=one.key_state)
    # 3. A revocation is permanent. Only a compromise may replace an earlier reason.
    if one.sequence is not None and one.reason is not None:
        present = RevocationReason(one.reason)
        is_graver = reason.is_compromise and not present.is_compromise
        if present is not RevocationReason.CERTIFICATE_HOLD and not is_graver:
            write_together(batch.connection, *blocked)
            return one.sequence
    # 4. Write all of the revocation in this one act: step of the sequence, CRL entry, state of the certificate, state
    # of the key, ledger entry.
    sequence = _write(batch, one, rows.REVOKE, reason, certificate_rows.REVOKED, dated_at, blocked)
    _note_authority(batch, row)
    append(batch, Revocation(one.reference, row.serial, int(reason), sequence, by, dated_at))
    return sequence


def _hold(batch: Batch, one: Revocable, *, by: str, dated_at: int | None = None) -> int:
    row = one.certificate
    if row.owner.startswith("authority:"):
        msg = f"certificate owner {row.owner} is an authority, and an authority cannot be put on hold; revoke it"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg)
    if row.state == certificate_rows.REVOKED:
        raise _revoked(one)
    if one.sequence is not None:
        return one.sequence
    sequence = _write(batch, one, rows.HOLD, RevocationReason.CERTIFICATE_HOLD, certificate_rows.HELD, dated_at)
    append(batch, Hold(one.reference, row.serial, sequence, by, dated_at))
    return sequence


def _release(batch: Batch, one: Revocable, *, by: str) -> int:
    row = one.certificate
    if row.state == certificate_rows.REVOKED:
        raise _revoked(one)
    if row.state != certificate_rows.HELD:
        msg = f"certificate {row.serial:x} of authority {one.reference} is not on hold, so it cannot be released"
        raise Conflict(Reason.NOT_FOUND, msg, serial=f"{row.serial:x}")
    sequence = batch.next_revocation()
    # A certificate that was put on hold before it was signed becomes an intent again when released, and is then signed
    # or settled as one.
    state = certificate_rows.INTENDED if row.fingerprint is None else certificate_rows.ISSUED
    write_together(
        batch.connection,
        rows.event_write(_event(batch, one, sequence, rows.RELEASE, RevocationReason.REMOVE_FROM_CRL)),
        rows.removal_write(row.leaf_index),
        certificate_rows.state_write(row.leaf_index, state),
    )
    append(batch, Release(one.reference, row.serial, sequence, by))
    return sequence


def _write(
    batch: Batch,
    one: Revocable,
    act: str,
    reason: RevocationReason,
    state: str,
    dated_at: int | None,
    further: tuple[Write, ...] = (),
) -> int:
    """Write the next step of the sequence, the entry for later CRLs and the certificate's state, in one round trip."""
    row, sequence = one.certificate, batch.next_revocation()
    event = _event(batch, one, sequence, act, reason, dated_at)
    if one.sequence is not None:
        rows.delete_revocation(batch.connection, row.leaf_index)
    entry = RevocationRow(
        leaf_index=row.leaf_index,
        sequence=sequence,
        authority_id=row.authority_id,
        serial=row.serial,
        shard=row.shard,
        reason=int(reason),
        revoked_at=batch.at,
        not_after=row.not_after,
        entry_der=encode_crl_entry(row.serial, datetime.fromtimestamp(event.date, UTC), reason),
    )
    write_together(
        batch.connection,
        rows.event_write(event),
        rows.revocation_write(entry),
        certificate_rows.state_write(row.leaf_index, state),
        *further,
    )
    return sequence


def _event(
    batch: Batch, one: Revocable, sequence: int, act: str, reason: RevocationReason, dated_at: int | None = None
) -> RevocationEvent:
    row = one.certificate
    event = RevocationEvent(sequence, row.authority_id, row.serial, act, int(reason), batch.at, dated_at)
    batch.note_step(event)
    return event


def _note_authority(batch: Batch, row: certificate_rows.CertificateRow) -> None:
    """An authority whose certificate is revoked issues nothing more from this commit on."""
    if not row.owner.startswith("authority:"):
        return
    name, _, generation = row.owner.removeprefix("authority:").partition("#")
    below = authority_rows.find_generation(batch.connection, name, int(generation))
    if below is not None:
        authority_rows.set_authority_state(batch.connection, below.id, authority_rows.REVOKED)


def _find(batch: Batch, authority_id: int, serial: int) -> Revocable:
    found = find_revocable_serial(batch.connection, authority_id, serial)
    if found is None:
        msg = f"authority {authority_id} never issued certificate serial {serial:x}; check the issuer and the serial"
        raise Conflict(Reason.NOT_ISSUED, msg, authority_id=authority_id, serial=f"{serial:x}")
    return found


def _read_again(batch: Batch, row: certificate_rows.CertificateRow) -> Revocable:
    """`row` as it is in this transaction: this act may have changed it since it was read."""
    found = find_revocable(batch.connection, row.leaf_index)
    if found is None:
        msg = f"certificate {row.serial:x} (log leaf {row.leaf_index}) left the database; read the certificates again"
        raise Conflict(Reason.NOT_ISSUED, msg, serial=f"{row.serial:x}")
    return found


def _is_root_itself(one: Revocable) -> bool:
    """Whether it is a root's self-signed certificate."""
    return one.certificate.owner == f"authority:{one.reference}"


def _list_alive(batch: Batch, device_id: str) -> tuple[certificate_rows.CertificateRow, ...]:
    return certificate_rows.list_of_device(batch.connection, device_id, alive_at=batch.at)


def _each(batch: Batch, found: Iterable[certificate_rows.CertificateRow], act: Callable[[Revocable], int]) -> Revoked:
    begun_at = rows.newest_sequence(batch.connection)
    places = [act(_read_again(batch, row)) for row in found]
    count = sum(place > begun_at for place in places)
    return Revoked(count, max(places, default=0), before=len(places) - count)


def _revoked(one: Revocable) -> Conflict:
    serial = one.certificate.serial
    msg = f"certificate {serial:x} of {one.reference} is revoked for good; enrol the device for a new certificate"
    return Conflict(Reason.REVOKED, msg, serial=f"{serial:x}")
