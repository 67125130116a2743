"""Makes the signed snapshot of what is revoked, for verifiers that decide offline; sends it to no one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from vagus.errors import PolicyRefusal
from vagus.identifiers import serial_contents
from vagus.keystore.signing import Purpose, SigningKey
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.reasons import Reason
from vagus.records import verifier_memory
from vagus.records.authorities import list_authorities
from vagus.records.revocation.status_facts import iterate_revoked
from vagus.wire.snapshots import SALT, SnapshotFacts, encode_content, sign_snapshot
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.crls.building import next_crl_number

if TYPE_CHECKING:
    from vagus.clock import Clock, Entropy
    from vagus.keystore.software import SoftwareKeystore
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Batch, Writer

SNAPSHOT_KEYSTORE = "snapshot"
"""The keystore of the one key that signs snapshots; no hospital may have this name."""

_KEY = "snapshot.1"
_NUMBER = "snapshot-number"
LONGEST_LIFETIME = timedelta(days=7)
"""The longest `status_max_age` of the shipped policy: no verifier may decide by an older snapshot."""


@dataclass(frozen=True, slots=True)
class MadeSnapshot:
    """A signed snapshot and what is in it."""

    snapshot_der: bytes
    facts: SnapshotFacts
    revoked: int


def open_snapshot_key(keystore: SoftwareKeystore, origin: str) -> SigningKey:
    """The key that signs this installation's snapshots, made now if there is none. It may sign only data."""
    return keystore.load_or_generate(_KEY, KeyAlgorithm.P256, [Purpose.DATA], f"snapshot:{origin}")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SnapshotMaker:
    """Makes the snapshots of one installation."""

    database: Database
    writer: Writer
    clock: Clock
    entropy: Entropy
    key: SigningKey

    def make(self, *, one_in: int, lifetime: timedelta, by: str) -> MadeSnapshot:
        """Everything that is revoked or held now and has not expired, of every authority; noted in the ledger.

        The numbers grow over restarts. Each snapshot draws its own salt, so that a certificate that is doubtful by
        chance in one is not in the next. Raises PolicyRefusal(POLICY_VIOLATION) for a lifetime of 0 or over 7 days.
        """
        if not timedelta() < lifetime <= LONGEST_LIFETIME:
            msg = f"a snapshot lifetime of {lifetime} is not between 0 and {LONGEST_LIFETIME}; choose a shorter one"
            raise PolicyRefusal(Reason.POLICY_VIOLATION, msg)
        # 1. Read what is revoked in one transaction, so that the snapshot is of one moment.
        made_at = self.clock.now().replace(microsecond=0)
        with self.database.reading() as connection:
            seen = verifier_memory.find_remembered(connection, _NUMBER)
            issuers, revoked = _read_revoked(connection, made_at)
        # 2. Encode the snapshot and sign it.
        facts = SnapshotFacts(
            number=next_crl_number(0 if seen is None else seen.number, self.clock.now()),
            made_at=made_at,
            next_update=made_at + lifetime,
            key_sha256=hashlib.sha256(self.key.spki_der).digest(),
            salt=self.entropy(SALT),
            one_in=one_in,
            issuers=frozenset(issuers),
        )
        content_der = encode_content(facts, revoked)
        whole = sign_snapshot(content_der, self.key.algorithm.identifier_der, partial(self.key.sign, Purpose.DATA))
        # 3. Commit the snapshot's number and ledger entry before the snapshot leaves this process: no number is ever
        # used twice.
        digest = hashlib.sha256(whole).digest()

        def act(batch: Batch) -> None:
            verifier_memory.remember(batch.connection, _NUMBER, facts.number, batch.at)
            append(batch, OperatorAct("snapshot-made", by, detail_sha256=digest))

        self.writer.submit(act).result()
        return MadeSnapshot(whole, facts, len(revoked))


def _read_revoked(connection: Connection, made_at: datetime) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """The hashes of the issuers' keys, and (key hash, serial number) of every certificate that is revoked or held."""
    issuers: list[bytes] = []
    revoked: list[tuple[bytes, bytes]] = []
    at = int(made_at.timestamp())
    for row in list_authorities(connection):
        if row.certificate_der is None:
            continue
        issuers.append(row.spki_sha256)
        revoked += [
            (row.spki_sha256, serial_contents(one.serial))
            for one in iterate_revoked(connection, row.id)
            if one.not_after > at
        ]
    return issuers, revoked
