"""Closes the gap between a restored database and what was published since its backup; recovers no private key.

A restored database lacks what was issued and revoked after its backup: the gap. Three things outside it show the gap:
the newest checkpoint (how many entries the log had), the published log (those entries, byte for byte), and the newest
CRLs (what relying parties know to be revoked).

With the published log, the entries are appended again, and the log goes on after the last published one under its name.
Without it the log cannot go on under its name: the next entry would take the place of a published one, and devices that
remember a checkpoint would see a fork. Then the log begins anew under another name, or the gap stays open.

`measure_gap` takes entries back and collects what is known; it may be repeated. `close_gap` writes all conclusions in
one transaction. Until then the installation issues nothing and signs no CRL.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from vagus.authority.crls.files import CrlFiles
from vagus.authority.crls.foreign import CombinedEntry, ForeignCrl, combine_crls, read_foreign_crl
from vagus.authority.earlier_revocations import LOST, adopt_crl, find_known_shard, record_combined
from vagus.authority.revocation import revoke_row
from vagus.durable_files import GROUP_FILE, replace_durably
from vagus.errors import Conflict, IntegrityFailure, Malformed, Unavailable
from vagus.ledger import entries
from vagus.ledger.append import append
from vagus.ledger.publish import load_published
from vagus.ledger.recover import RecoveredGap, recover_leaves
from vagus.ledger.verify import verify_log, verify_published
from vagus.operations.actor import Actor
from vagus.operations.roles import Act, check_may
from vagus.reasons import Reason
from vagus.records.authorities import AuthorityRow, list_authorities
from vagus.records.certificates import find_certificate
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch
from vagus.records.installation import load_installation, mark_set_back, set_origin, set_settled
from vagus.records.log import iterate_leaves, load_head
from vagus.records.publications import ADOPTED, find_publication, list_facts, outdate_crl
from vagus.records.revocation.revocations import find_revocation
from vagus.settings import rename_log
from vagus.tlog.checkpoint import Checkpoint, NoteKey
from vagus.wiring import Installation
from vagus.x509.crls.building import RevocationReason


@dataclass(slots=True)
class Gap:
    """What was published after the backup. Certificates are named by (authority's reference, serial)."""

    start: int
    """Entries of the log in the backup."""
    end: int
    """Entries that the log is known to have had."""
    can_continue: bool
    """Whether every entry that is known to be published is here, so that the log goes on under its name."""
    newest_at: int
    """The newest moment in published entries and CRLs, seconds since 1970 UTC."""
    issued: list[tuple[str, int]] = field(default_factory=list)
    revoked: int = 0
    """How many steps of the revocation sequence came back with the log."""
    signed: dict[tuple[str, int], int] = field(default_factory=dict)
    """The greatest CRL number that was signed in the gap, by authority and shard, from the log's entries."""
    crls: list[ForeignCrl] = field(default_factory=list)
    shards: dict[tuple[str, int], int | None] = field(default_factory=dict)
    """The shard of each certificate that is on hold by the CRLs, None where it is unknown."""

    @property
    def lost_leaves(self) -> int:
        """How many entries the log had after the backup."""
        return max(0, self.end - self.start)

    @property
    def combined(self) -> dict[tuple[str, int], CombinedEntry]:
        """What the CRLs contain, with the reason, and the shard where it is known."""
        return combine_crls(self.crls, lambda authority, serial: self.shards.get((authority.reference, serial)))


def note_key(installation: Installation) -> NoteKey:
    """The key and present name of the log."""
    return NoteKey(installation.row.origin, NoteKey.decode(installation.log_verifier).public_key)


def take_log_back(
    installation: Installation, published: Path, checkpoint: Checkpoint | None, *, goes_on: bool = True
) -> RecoveredGap:
    """Append what the published log has after the backup; decides nothing.

    `checkpoint` is the newest one that was stored elsewhere, verified by the caller. Where the log `goes_on`, its tiles
    become those of this installation. Safe to repeat. Raises IntegrityFailure(LOG_TRUNCATED) when the published log has
    fewer entries than the checkpoint, IntegrityFailure(LOG_TAMPERED) when the two do not agree, and what
    `recover_leaves` raises.
    """
    key = note_key(installation)
    # 1. Verify the published log, and that it contains all entries of the newest checkpoint.
    try:
        verify_log(published, public_key=key.public_key, against=checkpoint)
    except IntegrityFailure as fault:
        if fault.reason is not Reason.LOG_TRUNCATED:
            raise
        msg = f"log {published} is not the newest published log: {fault.message}; find a newer copy of it"
        raise IntegrityFailure(Reason.LOG_TRUNCATED, msg, **fault.facts) from fault
    # 2. Append its entries after the end of the backup to the log here.
    recovered = recover_leaves(installation.writer, published, key, overlap=installation.pack.renewal.transfer_overlap)
    # 3. The published log is now the beginning of the log here, also where the backup had more entries.
    verify_published(installation.database, published, public_key=key.public_key)
    # 4. Adopt the published tiles, so that the next publication continues them.
    target = installation.settings.log
    if goes_on and published.resolve() != target.resolve():
        scratch = target.with_name(f".{target.name}.taken-back")
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(published, scratch)
        os.sync()
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    return recovered


def measure_gap(
    installation: Installation,
    actor: Actor,
    *,
    checkpoint: Checkpoint | None,
    published: Path | None,
    crls: Sequence[bytes],
    is_new_log: bool = False,
) -> Gap:
    """What was published and is not in the backup; a published log is taken back on the way.

    `checkpoint` is verified by the caller. For a log that begins anew (`is_new_log`) an older copy of the published
    one is good enough: it contains less, and contradicts nothing. CRLs in this installation's own folder that are newer
    than the database's, and those that were adopted at the restore, are added to `crls`. Raises
    Conflict(ALREADY_EXISTS) when there is no gap to close, NotTrusted(CRL_INVALID) for a CRL that no authority here
    signed, and as `take_log_back`.
    """
    check_may(actor, Act.CLOSE_GAP)
    own = _find_newer_crls(installation)
    if installation.row.restored_at is None:
        _mark_if_behind(installation, published or installation.settings.log, is_behind=bool(own))
    row = installation.row
    if row.restored_at is None or row.restored_size is None:
        msg = "this installation has no open gap after a restore, so there is nothing to close"
        raise Conflict(Reason.ALREADY_EXISTS, msg)
    start, key = row.restored_size, note_key(installation)
    # 1. Find the published log: given by the operator now, or stored at the restore.
    if published is None and load_published(installation.settings.log, key) is not None:
        published = installation.settings.log
    if published is not None:
        take_log_back(installation, published, None if is_new_log else checkpoint, goes_on=not is_new_log)
    # 2. Check that the log here has as many entries as the newest checkpoint.
    with installation.database.reading() as connection:
        end = load_head(connection).size
        authorities = list_authorities(connection)
    if checkpoint is not None and checkpoint.size <= end and published is None:
        verify_log(installation.database, public_key=key.public_key, against=checkpoint)
    can_continue = published is not None if checkpoint is None else checkpoint.size <= end
    gap = Gap(start, max(end, 0 if checkpoint is None else checkpoint.size), can_continue, row.restored_at)
    with installation.database.reading() as connection:
        _read_gap(connection, gap, end)
        # 3. Read the newest CRLs, which say what relying parties know to be revoked.
        adopted = [one for row in authorities for one in _adopted_crls(connection, row.id)]
        for der in (*crls, *own, *adopted):
            _read_crl(der, authorities, gap)
        _find_shards(connection, gap)
    return gap


def _find_newer_crls(installation: Installation) -> list[bytes]:
    """CRLs in the folder that are newer than the database: it was set back, the folder was not."""
    files = CrlFiles(installation.database, installation.settings.published)
    with installation.database.reading() as connection:
        signers = {row.id: row.certificate_der for row in list_authorities(connection)}
    found = (files.load(one, signers[one.authority_id] or b"") for one in files.find_newer())
    return [one.crl_der for one in found if one is not None]


def _adopted_crls(connection: Connection, authority_id: int) -> list[bytes]:
    """CRLs that the restore was given: handed out since, and their entries not yet in rows."""
    adopted = [one.shard for one in list_facts(connection, authority_id) if one.sequence == ADOPTED]
    found = (find_publication(connection, authority_id, shard) for shard in adopted)
    return [one.crl_der for one in found if one is not None]


def _mark_if_behind(installation: Installation, published: Path, *, is_behind: bool) -> None:
    """A database that other tools set back carries no mark; the published log and newer CRLs show it."""
    if is_behind or installation.set_backs.is_behind(published):
        installation.writer.submit(lambda batch: mark_set_back(batch.connection, batch.at)).result()


def adopt_crls(installation: Installation, crls: Sequence[bytes]) -> int:
    """Hand out CRLs that are newer than the backup's, before the gap is closed; returns how many there were.

    Only the CRLs become rows here; `close_gap` records the revocations in them. Raises NotTrusted(CRL_INVALID).
    """
    with installation.database.reading() as connection:
        authorities = list_authorities(connection)
    gap = Gap(0, 0, can_continue=False, newest_at=0)
    for der in crls:
        _read_crl(der, authorities, gap)
    return installation.writer.submit(lambda batch: sum(adopt_crl(batch, one) for one in gap.crls)).result()


def close_gap(
    installation: Installation, actor: Actor, gap: Gap, *, is_revoking: bool, new_origin: str | None = None
) -> int:
    """Record everything in the gap: revoke what was revoked and, if asked, all that was issued; returns how many.

    One transaction: afterwards the installation may issue again. CRLs that are newer than its own become its own, so
    that numbers and dates go on from them.

    Raises Conflict(LOG_TRUNCATED) where the log cannot be continued and has no new name, Malformed(BAD_ARGUMENT) for a
    name that is not new, Unavailable(CLOCK_ROLLBACK) while the clock is before what was published.
    """
    check_may(actor, Act.CLOSE_GAP)
    # 1. No CRL number and no date may go back. Both follow the clock, so the clock must have passed the newest
    # published date.
    if installation.clock.now().timestamp() < gap.newest_at:
        until = datetime.fromtimestamp(gap.newest_at, UTC)
        msg = f"a CRL or checkpoint was dated {until:%Y-%m-%dT%H:%M:%SZ}, later than this clock; set the clock first"
        raise Unavailable(Reason.CLOCK_ROLLBACK, msg)
    # 2. The log must never get two entries at one index: that would be a fork.
    if new_origin is None:
        _check_continues(gap)
    else:
        _prepare_new_log(installation, new_origin)

    # 3. Close the gap in one transaction: all of it, or nothing.
    def act(batch: Batch) -> int:
        if new_origin is not None:
            set_origin(batch.connection, new_origin)
        return _settle(batch, gap, is_revoking=is_revoking, by=actor.id)

    return installation.writer.submit(act).result()


def _check_continues(gap: Gap) -> None:
    if not gap.can_continue:
        known = (
            f"the log had at least {gap.end} entries" if gap.end > gap.start else "how far the log had come is unknown"
        )
        msg = (
            f"the backup's log has {gap.start} entries and {known}: to go on under its name would put other entries in "
            f"the places of published ones, and every device that remembers a checkpoint would report a fork. Give the "
            f"published log with --published; if it is lost, begin another log with --new-origin NAME and give devices "
            f"and auditors its new verifier key"
        )
        raise Conflict(Reason.LOG_TRUNCATED, msg, start=gap.start, end=gap.end)


def _prepare_new_log(installation: Installation, new_origin: str) -> None:
    """The files first: until the database has the name too, the same command can be repeated."""
    key, log = note_key(installation), installation.settings.log
    if new_origin == key.name:
        msg = f"log origin {new_origin} is the name of the lost log; choose another with --new-origin"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    if log.exists():
        aside = log.with_name(f"{log.name}.before-restore")
        shutil.rmtree(aside, ignore_errors=True)
        log.rename(aside)
    verifier_key = NoteKey(new_origin, key.public_key).encode() + "\n"
    replace_durably(installation.settings.log_key, verifier_key.encode(), GROUP_FILE)
    rename_log(installation.settings, new_origin)


def _settle(batch: Batch, gap: Gap, *, is_revoking: bool, by: str) -> int:
    batch.begin_settling()
    connection = batch.connection
    by_reference = {row.reference: row for row in list_authorities(connection)}
    restored = load_installation(connection)
    append(batch, entries.Restored(restored.restored_from or bytes(32), gap.start, by))
    # 1. Record every revocation and hold of the CRLs, whether its certificate is known here or not.
    revoked = record_combined(batch, by_reference, gap.combined, since=LOST, by=by, is_of_ours=True)
    # 2. Revoke what was issued in the gap, if the operator does not trust it.
    for reference, serial in gap.issued if is_revoking else ():
        authority = by_reference.get(reference)
        row = None if authority is None else find_certificate(connection, authority.id, serial)
        if row is not None and find_revocation(connection, row.leaf_index) is None:
            revoke_row(batch, row, RevocationReason.UNSPECIFIED, by=by)
            revoked += 1
    # 3. Note the highest published CRL numbers and dates, so that the next CRLs exceed them.
    for one in gap.crls:
        adopt_crl(batch, one)
    for authority in by_reference.values():
        _outdate_crls(connection, authority, gap)
    # 4. Record the operator's decision in the ledger and clear the mark of the restore: from here on the writer appends
    # again.
    append(batch, entries.GapAccepted(gap.start, gap.end, "revoked" if is_revoking else "accepted", by))
    set_settled(connection)
    return revoked


def _outdate_crls(connection: Connection, authority: AuthorityRow, gap: Gap) -> None:
    """Withdraw the backup's CRLs where newer ones are published, until they are signed anew.

    Without the log, any CRL may have a newer one. Those of offline authorities stay all the same: the next ceremony may
    be weeks away, and without them every certificate below is refused.
    """
    for one in list_facts(connection, authority.id):
        number = gap.signed.get((authority.reference, one.shard), 0)
        may_be_old = not gap.can_continue and not authority.is_offline
        if one.sequence != ADOPTED and (number > one.number or may_be_old):
            outdate_crl(connection, authority.id, one.shard, max(number, one.number))


def _read_gap(connection: Connection, gap: Gap, end: int) -> None:
    for leaf in iterate_leaves(connection, gap.start, end):
        logged = entries.decode_entry(leaf.entry)
        gap.newest_at = max(gap.newest_at, logged.at)
        if isinstance(logged.entry, entries.IssuanceRecorded):
            gap.issued.append((logged.entry.authority, logged.entry.serial))
        elif isinstance(logged.entry, entries.Revocation | entries.Hold | entries.Release):
            gap.revoked += 1
        elif isinstance(logged.entry, entries.CrlPublished):
            name = logged.entry.authority, logged.entry.shard
            gap.signed[name] = max(logged.entry.number, gap.signed.get(name, 0))


def _read_crl(der: bytes, authorities: Sequence[AuthorityRow], gap: Gap) -> None:
    found = read_foreign_crl(der, authorities)
    if found is not None:
        gap.crls.append(found)
        gap.newest_at = max(gap.newest_at, int(found.crl.this_update.timestamp()))


def _find_shards(connection: Connection, gap: Gap) -> None:
    gap.shards = {
        (one.authority.reference, serial): find_known_shard(connection, one.authority, serial)
        for one in gap.crls
        for serial, reason in one.entries.items()
        if reason == RevocationReason.CERTIFICATE_HOLD
    }
