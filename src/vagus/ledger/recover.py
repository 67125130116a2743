"""Puts leaves that a restored database has lost back from the published log, so that the log has one history.

Entries come back byte for byte in their old places. Rows come back by one rule: what took a right away is done again,
what gave a right is not.

- Done again: revocations and holds with their steps, blocked keys, spent and expired tokens, retired authorities, and
  the states, units and profiles of devices. An attacker must not gain from a restore.
- Not done: devices and authorities that were added. Their details are not in the log, which holds digests.
- Between: a lost certificate gets a row without its bytes, since someone may hold it; so it can be revoked and listed.
  Whether lost certificates are revoked or accepted is an operator's decision, taken elsewhere.

All of it is one act of the writer, so one transaction: after a crash either every leaf is back or none. It runs before
anything else is appended, since each entry must get its old index; `_append` checks that for each.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from vagus.errors import IntegrityFailure
from vagus.identifiers import DeviceId
from vagus.ledger import entries
from vagus.ledger.entries import LoggedEntry
from vagus.ledger.publish import load_published
from vagus.ledger.verify import published_entries, verify_log
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import certificates as certificate_rows
from vagus.records import devices
from vagus.records import keys as key_rows
from vagus.records.certificates import EVERY_SHARD, NO_EXPIRY, CertificateRow
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch, Writer
from vagus.records.installation import load_salt
from vagus.records.log import load_head
from vagus.records.lost_certificates import LOST, insert_lost_certificate, list_device_ids
from vagus.records.revocation import revocations as rows
from vagus.records.revocation.revocations import HOLD, RELEASE, REVOKE, RevocationRow
from vagus.records.tokens import bind_token, expire_tokens_of
from vagus.records.units import list_units
from vagus.records.work import add_work
from vagus.tlog.checkpoint import Checkpoint, NoteKey
from vagus.tlog.merkle import Frontier, leaf_hash
from vagus.x509.crls.building import RevocationReason, encode_crl_entry

SUPERSEDE: Final = "supersede"
"""The kind of job that revokes a transferred device's old certificates; its key is device, new unit and moment."""


@dataclass(frozen=True, slots=True)
class RecoveredGap:
    """What came back: the leaves [start, end), their certificates as (authority, serial), entries by kind."""

    start: int
    end: int
    certificates: tuple[tuple[str, int], ...]
    kinds: Mapping[str, int]


def recover_leaves(writer: Writer, folder: Path, key: NoteKey, *, overlap: timedelta) -> RecoveredGap:
    """Append every leaf that the published log in `folder` has beyond the database, in one transaction.

    Call it on a restored database before anything else is appended, while nothing serves. Gives an empty gap when
    nothing was lost. `overlap` is how long a transferred device's old certificates go on, by the policy. Raises
    IntegrityFailure(LOG_TAMPERED) when the two logs part before the database ends,
    IntegrityFailure(CHECKPOINT_INVALID), and whatever `verify_log` finds wrong with the folder.
    """
    # 1. Verify the whole published log, because its entries become entries of the database.
    published = load_published(folder, key)
    if published is None:
        msg = f"folder {folder} holds no checkpoint, so no log is recovered from it; give the published log's folder"
        raise IntegrityFailure(Reason.CHECKPOINT_INVALID, msg, path=str(folder))
    verify_log(folder, public_key=key.public_key)
    leaves = tuple(published_entries(folder, published.size))
    return writer.submit(lambda batch: _append(batch, published, leaves, overlap)).result()


def _append(batch: Batch, published: Checkpoint, leaves: tuple[bytes, ...], overlap: timedelta) -> RecoveredGap:
    batch.begin_settling()
    # 2. Check that the leaves in the database are the beginning of the published log.
    head = load_head(batch.connection)
    if head.size >= published.size:
        return RecoveredGap(head.size, head.size, (), {})
    if Frontier().extend(leaf_hash(leaf) for leaf in leaves[: head.size]).root != head.root:
        msg = f"the {head.size} leaves in the database do not begin the published log: the two logs have forked"
        raise IntegrityFailure(Reason.LOG_TAMPERED, msg, size=head.size)
    # 3. Append the lost entries at their old indexes, and restore the rows that can be derived from them.
    owners = _owners(batch.connection)
    certificates: list[tuple[str, int]] = []
    kinds: Counter[str] = Counter()
    for index, encoded in enumerate(leaves[head.size :], head.size):
        if batch.append(encoded) != index:
            msg = "another process appended to the log during the recovery of leaves; stop it and repeat"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, index=index)
        logged = entries.decode_entry(encoded)
        kinds[logged.entry.kind] += 1
        if isinstance(logged.entry, entries.IssuanceRecorded):
            _insert_certificate(batch, index, logged, logged.entry, owners)
            certificates.append((logged.entry.authority, logged.entry.serial))
        elif isinstance(logged.entry, entries.Revocation | entries.Hold | entries.Release):
            _insert_step(batch, index, logged, logged.entry)
        elif isinstance(logged.entry, entries.DeviceStateChanged):
            _move_device(batch, logged, logged.entry, owners)
        elif isinstance(logged.entry, entries.TokenSpent):
            spent = logged.entry
            bind_token(batch.connection, spent.token_sha256, spent.spki_sha256, request_id=None, at=logged.at)
        else:
            _take_away(batch, logged, owners, overlap)
    return RecoveredGap(head.size, published.size, tuple(certificates), dict(kinds))


def _owners(connection: Connection) -> Mapping[str, str]:
    """The devices of the inventory by their hash in the ledger, to find the owner of a lost certificate."""
    salt = load_salt(connection)
    owners = (f"device:{device_id}" for device_id in list_device_ids(connection))
    return {entries.conceal(salt, owner): owner for owner in owners}


def _move_device(
    batch: Batch, logged: LoggedEntry, entry: entries.DeviceStateChanged, owners: Mapping[str, str]
) -> None:
    """A device that was quarantined or decommissioned since the backup is so again; one added since is unknown."""
    owner = owners.get(entry.device)
    if owner is None:
        return
    device_id = DeviceId(owner.removeprefix("device:"))
    device = devices.find_device(batch.connection, device_id)
    if device is not None:
        devices.set_device_state(batch.connection, device_id, before=device.state, after=entry.state, at=logged.at)


def _take_away(batch: Batch, logged: LoggedEntry, owners: Mapping[str, str], overlap: timedelta) -> None:
    """End tokens, block keys, retire authorities and move devices as the entry says."""
    entry = logged.entry
    if isinstance(entry, entries.TokensExpired) and entry.device in owners:
        expire_tokens_of(batch.connection, DeviceId(owners[entry.device].removeprefix("device:")), at=logged.at)
    elif isinstance(entry, entries.KeyBlocked):
        key_rows.block_key(batch.connection, entry.spki_sha256, owners.get(entry.owner, entry.owner), at=logged.at)
    elif isinstance(entry, entries.OperatorAct) and entry.act == "authority-retired" and entry.subject is not None:
        _set_authority(batch, entry.subject, authority_rows.RETIRED)
    elif isinstance(entry, entries.OperatorAct) and entry.detail_sha256 is not None and (entry.subject or "") in owners:
        device_id = DeviceId(owners[entry.subject or ""].removeprefix("device:"))
        if entry.act == "device-transfer":
            _transfer_device(batch.connection, device_id, entry.detail_sha256, at=logged.at, overlap=overlap)
        else:
            _alter_device(batch, device_id, entry.act, entry.detail_sha256, at=logged.at)


def _transfer_device(
    connection: Connection, device_id: DeviceId, digest: bytes, *, at: int, overlap: timedelta
) -> None:
    """Move a device to its new compartment again, and plan the end of its old certificates.

    The entry has a digest only: the unit is found among those on record; where it is not, the device stays.
    """
    for unit in (one.name for one in list_units(connection)):
        if hashlib.sha256(str(unit).encode()).digest() == digest:
            devices.set_device_unit(connection, device_id, unit, at=at)
            run_after = at + int(overlap.total_seconds())
            add_work(connection, SUPERSEDE, f"{device_id}:{unit}:{at}", run_after=run_after)


def _alter_device(batch: Batch, device_id: DeviceId, act: str, digest: bytes, *, at: int) -> None:
    """Take the profile or the host names away that a device had before the gap; hold it, or end its hold, again.

    The entry has a digest only. Profiles are found among those on record; one that is not leaves the device as it is.
    Host names cannot be found, so the device has none until the next plan gives them again.
    """
    connection = batch.connection
    if act == "device-profile":
        for profile in devices.list_profiles(connection):
            if hashlib.sha256(profile.encode()).digest() == digest:
                devices.set_device_profile(connection, device_id, profile, at=at)
    elif act == "device-hold":
        is_held = digest == devices.hold_digest(is_held=True)
        devices.set_device_hold(connection, device_id, at if is_held else None, at=at)
    elif act == "device-host-names":
        device = devices.find_device(connection, device_id)
        if device is not None and devices.host_names_digest(device.host_names) != digest:
            devices.set_device_host_names(connection, device_id, (), at=at)


def _set_authority(batch: Batch, owner: str, state: str) -> None:
    authority_id = _find_authority(batch.connection, owner.removeprefix("authority:"))
    if authority_id is not None:
        authority_rows.set_authority_state(batch.connection, authority_id, state)


def _insert_certificate(
    batch: Batch, index: int, logged: LoggedEntry, entry: entries.IssuanceRecorded, owners: Mapping[str, str]
) -> None:
    authority_id = _find_authority(batch.connection, entry.authority)
    if authority_id is None:
        # The authority was made in the gap too, and its key is lost: its certificates cannot be used, so the log entry
        # alone remains.
        return
    owner = owners.get(entry.owner, entry.owner)
    shard = entry.shard
    if shard is None:  # an early entry has no shard, and an offline authority has only one
        authority = authority_rows.find_by_id(batch.connection, authority_id)
        shard = 0 if authority is not None and authority.is_offline else EVERY_SHARD
    row = CertificateRow(
        leaf_index=index,
        authority_id=authority_id,
        serial=entry.serial,
        owner=owner,
        device_id=owner.removeprefix("device:") if owner.startswith("device:") else None,
        profile=entry.profile,
        spki_sha256=entry.spki_sha256,
        request_id=f"lost:{index}",
        not_before=logged.at,
        not_after=NO_EXPIRY,  # the certificate's expiry is lost, so once revoked it stays in every CRL
        shard=shard,
        state=certificate_rows.ISSUED,
        fingerprint=LOST,  # not an open intent: nothing here could sign this certificate again
    )
    insert_lost_certificate(batch.connection, row)
    if key_rows.find_key(batch.connection, entry.spki_sha256) is None:
        key_rows.insert_key(batch.connection, entry.spki_sha256, owner, at=logged.at)


def _insert_step(
    batch: Batch, index: int, logged: LoggedEntry, entry: entries.Revocation | entries.Hold | entries.Release
) -> None:
    sequence = batch.next_revocation()
    authority_id = _find_authority(batch.connection, entry.authority)
    if sequence != entry.sequence or authority_id is None:
        msg = f"published leaf {index} is step {entry.sequence} of {entry.authority}, not the step after the last"
        raise IntegrityFailure(Reason.LOG_TAMPERED, msg, index=index)
    act, state, reason = _STEPS[type(entry)]
    if isinstance(entry, entries.Revocation):
        reason = RevocationReason(entry.reason)
    dated_at = None if isinstance(entry, entries.Release) else entry.dated_at
    event = RevocationEvent(sequence, authority_id, entry.serial, act, int(reason), logged.at, dated_at)
    rows.insert_event(batch.connection, event)
    certificate = certificate_rows.find_certificate(batch.connection, authority_id, entry.serial)
    if certificate is None:
        raise IntegrityFailure(
            Reason.LOG_TAMPERED, f"published leaf {index} revokes a certificate that the log never issued"
        )
    if reason.is_compromise:
        key_rows.block_key(batch.connection, certificate.spki_sha256, certificate.owner, at=logged.at)
    certificate_rows.set_state(batch.connection, certificate.leaf_index, state)
    if act == REVOKE and certificate.owner.startswith("authority:"):
        _set_authority(batch, certificate.owner, authority_rows.REVOKED)
    if act == RELEASE:
        rows.delete_revocation(batch.connection, certificate.leaf_index)
        return
    rows.put_revocation(
        batch.connection,
        RevocationRow(
            leaf_index=certificate.leaf_index,
            sequence=sequence,
            authority_id=authority_id,
            serial=entry.serial,
            shard=certificate.shard,
            reason=int(reason),
            revoked_at=logged.at,
            not_after=certificate.not_after,
            entry_der=encode_crl_entry(entry.serial, datetime.fromtimestamp(event.date, UTC), reason),
        ),
    )


_STEPS = {
    entries.Revocation: (REVOKE, certificate_rows.REVOKED, RevocationReason.UNSPECIFIED),
    entries.Hold: (HOLD, certificate_rows.HELD, RevocationReason.CERTIFICATE_HOLD),
    entries.Release: (RELEASE, certificate_rows.ISSUED, RevocationReason.REMOVE_FROM_CRL),
}


def _find_authority(connection: Connection, reference: str) -> int | None:
    name, _, generation = reference.partition("#")
    found = authority_rows.find_generation(connection, name, int(generation))
    return None if found is None else found.id
