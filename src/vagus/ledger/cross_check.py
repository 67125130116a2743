"""Compares the tables of certificates and revocations with the log while it is read; changes neither.

A merge of two sorted streams. The rows of certificates come by leaf index, those of the revocation sequence by number,
and both orders are the order of the log. So one row of each is in memory, and the comparison is one pass:

- A certificate row whose leaf index the log has passed has no issuance entry: a finding at once.
- An issuance entry without the row is remembered. It is a finding at the end, unless a later GapAccepted covers it.
- Each revocation entry takes the next row of the sequence, which must have the next number and the same contents.

At the end nothing may be left in either stream. Then the rows from which CRLs are made are compared with the sequence,
since a CRL that is made from other rows could omit a revocation.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from vagus.errors import IntegrityFailure
from vagus.ledger.certificate_check import find_fault
from vagus.ledger.entries import GapAccepted, Hold, IssuanceRecorded, LoggedEntry, Release, Revocation, conceal
from vagus.ledger.rights_check import RightsCheck, contradiction
from vagus.reasons import Reason
from vagus.records import audit_rows
from vagus.records.engine.database import Connection
from vagus.records.installation import load_salt
from vagus.x509.crls.building import RevocationReason, encode_crl_entry

_ACTS = {Revocation: "revoke", Hold: "hold", Release: "release"}


class CrossCheck:
    """One pass: `take` each leaf in order, `finish` after the last, `close` always."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._salt = load_salt(connection)
        self._certificates = audit_rows.iterate_recorded_certificates(connection)
        self._events = audit_rows.iterate_recorded_events(connection)
        self._next = next(self._certificates, None)
        self._rights = RightsCheck(connection, self._salt)
        # issuance entries whose certificate bytes a restore lost, by leaf, and what is missing
        self._lost: dict[int, str] = {}
        self.certificates = 0
        self.revocations = 0

    def take(self, index: int, logged: LoggedEntry) -> None:
        """The next leaf. Raises IntegrityFailure(LOG_TAMPERED)."""
        entry = logged.entry
        self._rights.take(index, logged)
        if self._next is not None and self._next.leaf_index < index:
            raise contradiction(
                "a row of the table certificates has no issuance entry in the log", self._next.leaf_index
            )
        if isinstance(entry, IssuanceRecorded):
            self._take_issuance(index, entry)
        elif isinstance(entry, Revocation | Hold | Release):
            self._take_revocation(index, entry)
        elif isinstance(entry, GapAccepted):
            self._lost = {at: what for at, what in self._lost.items() if not entry.start <= at < min(entry.end, index)}

    def finish(self, revocation_sequence: int) -> None:
        """After the last leaf: nothing may be left over. Raises IntegrityFailure(LOG_TAMPERED)."""
        if self._next is not None:
            raise contradiction(
                "a row of the table certificates has no issuance entry in the log", self._next.leaf_index
            )
        for index, what in self._lost.items():
            raise contradiction(what, index)
        left = next(self._events, None)
        if left is not None:
            msg = f"revocation step {left.sequence} has no entry in the log; stop serving and compare with a backup"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, sequence=left.sequence)
        if self.revocations != revocation_sequence:
            msg = f"the log holds {self.revocations} revocation steps, and the table log_head {revocation_sequence}"
            msg = f"{msg}; stop serving and compare with a backup"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, sequence=revocation_sequence)
        self._check_what_is_published()
        self._rights.finish()

    def close(self) -> None:
        """Remove temporary files."""
        self._rights.close()

    def _check_what_is_published(self) -> None:
        """Compare the rows from which CRLs are made with the revocation sequence. Raises as `finish`."""
        step = audit_rows.find_step_without_effect(self._connection)
        if step is not None:
            msg = f"step {step} of the revocation sequence is not what the tables publish of its certificate"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, sequence=step)
        if audit_rows.count_revoked_without_step(self._connection):
            msg = "the tables have a revoked or held certificate without a step in the revocation sequence"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg)
        leaf = audit_rows.find_leaf_with_wrong_state(self._connection)
        if leaf is not None:
            raise contradiction("the state of its certificate is not what the tables publish of it", leaf)
        for row in audit_rows.iterate_recorded_revocations(self._connection):
            at = datetime.fromtimestamp(row.revoked_at, UTC)
            if encode_crl_entry(row.serial, at, RevocationReason(row.reason)) != row.entry_der:
                msg = f"the CRL entry of step {row.sequence} of the revocation sequence was changed in the tables"
                raise IntegrityFailure(Reason.LOG_TAMPERED, msg, sequence=row.sequence)

    def _take_issuance(self, index: int, entry: IssuanceRecorded) -> None:
        row = self._next
        if row is None or row.leaf_index != index:
            self._lost[index] = "an issuance entry has no certificate row"
            return
        if row.tbs_der is None:
            self._lost[index] = "a certificate row has lost its bytes"
        is_lost = row.tbs_der is None
        recorded = IssuanceRecorded(
            authority=row.authority,
            serial=row.serial,
            tbs_sha256=entry.tbs_sha256 if row.tbs_der is None else hashlib.sha256(row.tbs_der).digest(),
            spki_sha256=row.spki_sha256,
            profile=row.profile,
            owner=conceal(self._salt, row.owner),
            request_id_hash=entry.request_id_hash if is_lost else hashlib.sha256(row.request_id.encode()).digest(),
            # a CRL file may show the shard of a certificate that a restore lost
            shard=entry.shard if is_lost or entry.shard is None else row.shard,
        )
        if recorded != entry:
            names = [name for name in IssuanceRecorded.__slots__ if getattr(recorded, name) != getattr(entry, name)]
            raise contradiction(f"the certificate row differs from its issuance entry in {', '.join(names)}", index)
        what = find_fault(row, self._salt)
        if what is not None:
            raise contradiction(what, index)
        self.certificates += 1
        self._next = next(self._certificates, None)

    def _take_revocation(self, index: int, entry: Revocation | Hold | Release) -> None:
        row = next(self._events, None)
        reason = entry.reason if isinstance(entry, Revocation) else None
        dated_at = None if isinstance(entry, Release) else entry.dated_at
        if row is None:
            raise contradiction(f"its revocation step {entry.sequence} is missing from the tables", index)
        if (row.sequence, row.authority, row.serial, row.act, row.dated_at) != (
            entry.sequence,
            entry.authority,
            entry.serial,
            _ACTS[type(entry)],
            dated_at,
        ) or (reason is not None and row.reason != reason):
            raise contradiction(f"it differs from step {row.sequence} of the revocation sequence in the tables", index)
        if row.sequence != self.revocations + 1:
            raise contradiction(f"the revocation sequence jumps from {self.revocations} to {row.sequence}", index)
        self.revocations += 1
