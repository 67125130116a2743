"""Closes the gap between a restored database and what was published since its backup; recovers no private key.

What a restored house cannot know is what it issued and revoked after the backup. Three things kept elsewhere tell: the
newest checkpoint (how far the log had come), the published log (its entries, byte for byte), the newest CRLs (what
relying parties were told). With the published log the house goes on under the same name, behind the last entry that
anybody has seen. Without it the log cannot be continued: a second entry at a place that was published is a fork, so
the log begins anew under another name, or not at all.
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
from vagus.ledger.append import append
from vagus.ledger.entries import (
    CrlPublished,
    GapAccepted,
    Hold,
    IssuanceRecorded,
    Release,
    Restored,
    Revocation,
    decode_entry,
)
from vagus.ledger.publish import load_published
from vagus.ledger.recover import RecoveredGap, recover_leaves
from vagus.ledger.verify import verify_log, verify_published
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
    """What was published behind the backup. Certificates are named by (authority's reference, serial)."""

    start: int
    end: int
    can_continue: bool
    """Whether, as far as anybody knows, every published entry is here, so that the log goes on under its name."""
    newest_at: int
    """The newest moment that the published entries and lists speak of, seconds since 1970 UTC."""
    issued: list[tuple[str, int]] = field(default_factory=list)
    revoked: int = 0
    """How many steps of the revocation sequence came back with the log."""
    signed: dict[tuple[str, int], int] = field(default_factory=dict)
    """The greatest number of the lists that were signed in the gap, by authority and shard, as the log tells."""
    lists: list[ForeignCrl] = field(default_factory=list)
    homes: dict[tuple[str, int], int] = field(default_factory=dict)
    """The shard of each certificate that the lists hold, where it is known."""

    @property
    def lost_leaves(self) -> int:
        """How many entries the log had behind the backup."""
        return max(0, self.end - self.start)

    @property
    def said(self) -> dict[tuple[str, int], CombinedEntry]:
        """What the lists name, with the reason, and the shard where they tell."""
        return combine_crls(self.lists, lambda authority, serial: self.homes.get((authority.reference, serial)))

    @property
    def listed(self) -> dict[tuple[str, int], int]:
        """What the lists name, with the reason code."""
        return {name: int(one.reason) for name, one in self.said.items()}


def note_key(installation: Installation) -> NoteKey:
    """The key and present name of the log."""
    return NoteKey(installation.row.origin, NoteKey.decode(installation.log_verifier).public_key)


def take_log_back(
    installation: Installation, published: Path, checkpoint: Checkpoint | None, *, goes_on: bool = True
) -> RecoveredGap:
    """Append what the published log has behind the backup; decides nothing.

    `checkpoint` is the newest one that was kept elsewhere, verified by the caller. Where the log `goes_on`, its tiles
    become those of this installation. Safe to repeat. Raises
    IntegrityFailure(LOG_TRUNCATED) when the published log ends before it, IntegrityFailure(LOG_TAMPERED) when the two
    are not of one history, and what `recover_leaves` raises.
    """
    key = note_key(installation)
    # 1. It is sound, and as long as the newest checkpoint says.
    try:
        verify_log(published, public_key=key.public_key, against=checkpoint)
    except IntegrityFailure as fault:
        if fault.reason is not Reason.LOG_TRUNCATED:
            raise
        msg = f"{published} is not the newest published log: {fault.message}; find a newer copy of it"
        raise IntegrityFailure(Reason.LOG_TRUNCATED, msg, **fault.facts) from fault
    # 2. Its entries are ours again, from the end of the backup on.
    recovered = recover_leaves(installation.writer, published, key, overlap=installation.pack.renewal.transfer_overlap)
    # 3. What was published is the beginning of what is here, also where the backup was the longer one.
    verify_published(installation.database, published, public_key=key.public_key)
    # 4. The tiles that the next publication goes on from.
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
    *,
    checkpoint: Checkpoint | None,
    published: Path | None,
    lists: Sequence[bytes],
    is_new_log: bool = False,
) -> Gap:
    """What stands between the backup and what was published; a published log is taken back on the way.

    `checkpoint` is verified by the caller. For a log that begins anew (`is_new_log`) an older copy of the published
    one is good enough: it tells less, and contradicts nothing. Lists in this installation's own folder that are newer
    than the database's, and those that were adopted at the restore, count among `lists`. Raises
    Conflict(ALREADY_EXISTS) when there is no gap to close, NotTrusted(CRL_INVALID) for a list that no authority here
    signed, and as `take_log_back`.
    """
    own = _find_newer_lists(installation)
    if installation.row.restored_at is None:
        _mark_if_behind(installation, published or installation.settings.log, is_behind=bool(own))
    row = installation.row
    if row.restored_at is None or row.restored_size is None:
        raise Conflict(Reason.ALREADY_EXISTS, "this system is not waiting for a gap to be closed; nothing to do")
    start, key = row.restored_size, note_key(installation)
    # 1. The published log, wherever it is: given now, or at the restore.
    if published is None and load_published(installation.settings.log, key) is not None:
        published = installation.settings.log
    if published is not None:
        take_log_back(installation, published, None if is_new_log else checkpoint, goes_on=not is_new_log)
    # 2. Whether what is here reaches as far as what was seen.
    with installation.database.reading() as connection:
        end = load_head(connection).size
        authorities = list_authorities(connection)
    if checkpoint is not None and checkpoint.size <= end and published is None:
        verify_log(installation.database, public_key=key.public_key, against=checkpoint)
    can_continue = published is not None if checkpoint is None else checkpoint.size <= end
    gap = Gap(start, max(end, 0 if checkpoint is None else checkpoint.size), can_continue, row.restored_at)
    with installation.database.reading() as connection:
        _read_gap(connection, gap, end)
    # 3. The newest lists tell what relying parties were told.
    with installation.database.reading() as connection:
        adopted = [one for row in authorities for one in _adopted_lists(connection, row.id)]
    for der in (*lists, *own, *adopted):
        _read_list(der, authorities, gap)
    with installation.database.reading() as connection:
        _find_homes(connection, gap)
    return gap


def _find_newer_lists(installation: Installation) -> list[bytes]:
    """What the folder of lists has that the database has not: it went on while the database was brought back."""
    files = CrlFiles(installation.database, installation.settings.published)
    with installation.database.reading() as connection:
        signers = {row.id: row.certificate_der for row in list_authorities(connection)}
    found = (files.load(one, signers[one.authority_id] or b"") for one in files.find_newer())
    return [one.crl_der for one in found if one is not None]


def _adopted_lists(connection: Connection, authority_id: int) -> list[bytes]:
    """What the restore was given: handed out since, and not yet written down."""
    adopted = [one.shard for one in list_facts(connection, authority_id) if one.sequence == ADOPTED]
    found = (find_publication(connection, authority_id, shard) for shard in adopted)
    return [one.crl_der for one in found if one is not None]


def _mark_if_behind(installation: Installation, published: Path, *, is_behind: bool) -> None:
    """A database that other tools brought back carries no mark; the published log and newer lists tell of it."""
    if is_behind or installation.set_backs.is_behind(published):
        installation.writer.submit(lambda batch: mark_set_back(batch.connection, batch.at)).result()


def adopt_crls(installation: Installation, lists: Sequence[bytes]) -> int:
    """Hand out lists that are newer than the backup's, before anything is settled; gives how many there were.

    Rows alone: what these lists say of certificates is written down when the gap is closed. Raises
    NotTrusted(CRL_INVALID).
    """
    with installation.database.reading() as connection:
        authorities = list_authorities(connection)
    gap = Gap(0, 0, can_continue=False, newest_at=0)
    for der in lists:
        _read_list(der, authorities, gap)
    return installation.writer.submit(lambda batch: sum(adopt_crl(batch, one) for one in gap.lists)).result()


def close_gap(
    installation: Installation, gap: Gap, *, is_revoking: bool, by: str, new_origin: str | None = None
) -> int:
    """Write everything in the gap down, revoke what was revoked and, if asked, all that was issued; gives how many.

    One transaction: afterwards the house may issue again. Lists that are newer than ours become ours, so that numbers
    and dates go on from them.

    Raises Conflict(LOG_TRUNCATED) where the log cannot be continued and has no new name, Malformed(BAD_ARGUMENT) for a
    name that is not new, Unavailable(CLOCK_ROLLBACK) while the clock is behind what was published.
    """
    # 1. No number and no date goes back: those of lists follow the clock, so the clock must have passed what is out.
    if installation.clock.now().timestamp() < gap.newest_at:
        until = datetime.fromtimestamp(gap.newest_at, UTC)
        msg = f"something of {until:%Y-%m-%dT%H:%M:%SZ} was published, later than this clock; set the clock first"
        raise Unavailable(Reason.CLOCK_ROLLBACK, msg)
    # 2. Never two entries at one place of one log.
    if new_origin is None:
        _check_continues(gap)
    else:
        _prepare_new_log(installation, new_origin)

    # 3. All of it, or nothing.
    def act(batch: Batch) -> int:
        if new_origin is not None:
            set_origin(batch.connection, new_origin)
        return _settle(batch, gap, is_revoking=is_revoking, by=by)

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
    """The files first: until the database has the name too, the same command can be given again."""
    key, log = note_key(installation), installation.settings.log
    if new_origin == key.name:
        msg = f"{new_origin} is the name that the lost log had; choose another"
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
    append(batch, Restored(restored.restored_from or bytes(32), gap.start, by))
    # 1. What the lists name was revoked or held, whether its certificate is known here or not.
    revoked = record_combined(batch, by_reference, gap.said, since=LOST, by=by, is_of_ours=True)
    # 2. What was issued in the gap, if its operator wants no trust in it.
    for reference, serial in gap.issued if is_revoking else ():
        authority = by_reference.get(reference)
        row = None if authority is None else find_certificate(connection, authority.id, serial)
        if row is not None and find_revocation(connection, row.leaf_index) is None:
            revoke_row(batch, row, RevocationReason.UNSPECIFIED, by=by)
            revoked += 1
    # 3. Lists that are newer than ours are the floor of the next ones.
    for one in gap.lists:
        adopt_crl(batch, one)
    for authority in by_reference.values():
        _outdate_crls(connection, authority, gap)
    # 4. The operator's word, and the end of the gap.
    append(batch, GapAccepted(gap.start, gap.end, "revoked" if is_revoking else "accepted", by))
    set_settled(connection)
    return revoked


def _outdate_crls(connection: Connection, authority: AuthorityRow, gap: Gap) -> None:
    """Nobody is handed the backup's list where a newer one is out, before it is signed anew.

    Without the log every list may be such a one. Those of offline authorities go on all the same: the next ceremony may
    be weeks away, and without them nobody is let in anywhere.
    """
    for one in list_facts(connection, authority.id):
        number = gap.signed.get((authority.reference, one.shard), 0)
        may_be_old = not gap.can_continue and not authority.is_offline
        if one.sequence != ADOPTED and (number > one.number or may_be_old):
            outdate_crl(connection, authority.id, one.shard, max(number, one.number))


def _read_gap(connection: Connection, gap: Gap, end: int) -> None:
    for leaf in iterate_leaves(connection, gap.start, end):
        logged = decode_entry(leaf.entry)
        gap.newest_at = max(gap.newest_at, logged.at)
        if isinstance(logged.entry, IssuanceRecorded):
            gap.issued.append((logged.entry.authority, logged.entry.serial))
        elif isinstance(logged.entry, Revocation | Hold | Release):
            gap.revoked += 1
        elif isinstance(logged.entry, CrlPublished):
            name = logged.entry.authority, logged.entry.shard
            gap.signed[name] = max(logged.entry.number, gap.signed.get(name, 0))


def _read_list(der: bytes, authorities: Sequence[AuthorityRow], gap: Gap) -> None:
    found = read_foreign_crl(der, authorities)
    if found is not None:
        gap.lists.append(found)
        gap.newest_at = max(gap.newest_at, int(found.crl.this_update.timestamp()))


def _find_homes(connection: Connection, gap: Gap) -> None:
    for one in gap.lists:
        for serial, reason in one.entries.items():
            if reason == RevocationReason.CERTIFICATE_HOLD:
                home = find_known_shard(connection, one.authority, serial)
                if home is not None:
                    gap.homes[one.authority.reference, serial] = home
