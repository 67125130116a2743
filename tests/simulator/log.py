"""A small installation with a log: authorities, certificates and revocations as Vagus writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import select

from tests.simulator import rows
from vagus.authority.revocation import Revocations
from vagus.errors import NotAuthorised
from vagus.fleet.inventory_entries import device_added, record_model
from vagus.identifiers import DeviceId, UnitName, draw_serial
from vagus.keystore.signing import Purpose
from vagus.ledger.append import append
from vagus.ledger.entries import AuthorityCreated, IssuanceRecorded, TokenSpent
from vagus.ledger.publish import LogPublisher
from vagus.reasons import Reason
from vagus.records.certificates import note_signature
from vagus.records.devices import DeviceRow, insert_devices
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.tables import authorities
from vagus.records.engine.writer import Batch, Writer
from vagus.records.installation import InstallationRow, insert_installation
from vagus.records.keys import insert_key
from vagus.records.models import MakerAnchorRow, ModelRow, put_maker_anchor
from vagus.records.units import UnitRow, put_unit
from vagus.testing import FrozenClock, SeededEntropy
from vagus.tlog.checkpoint import NoteKey
from vagus.x509 import der
from vagus.x509.algorithms import SignatureAlgorithm
from vagus.x509.crls.building import RevocationReason

ORIGIN = "log.example.org/vagus"
SALT = b"s" * 32
DEVICE = "a" * 26
VALIDITY = [der.time(datetime.fromtimestamp(moment, UTC)) for moment in (0, 1)]


class CheckpointKey:
    """An Ed25519 key that signs checkpoints only."""

    def __init__(self, seed: int = 1) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.key_id = "log"
        self.purposes = frozenset({Purpose.CHECKPOINT})
        self.algorithm = SignatureAlgorithm("ed25519", "1.3.101.112", bytes.fromhex("300506032b6570"), None)
        self.spki_der = self._private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.is_reproducible = True

    def sign(self, purpose: Purpose, message: bytes) -> bytes:
        if purpose not in self.purposes:
            raise NotAuthorised(Reason.PURPOSE_FORBIDDEN, "this key signs checkpoints")
        return self._private.sign(message)

    @property
    def public_key(self) -> bytes:
        return NoteKey.of_spki(ORIGIN, self.spki_der).public_key


@dataclass
class LogFixture:
    """A database with its writer, one authority, and a published folder."""

    database: Database
    writer: Writer
    clock: FrozenClock
    entropy: SeededEntropy
    folder: Path
    key: CheckpointKey

    @classmethod
    def make(cls, folder: Path, url: str = "sqlite://", *, is_created: bool = True) -> LogFixture:
        database = open_database(url)
        clock = FrozenClock()
        made = cls(database, Writer(database, clock), clock, SeededEntropy(), folder / "log", CheckpointKey())
        if is_created:
            made.begin()
        return made

    def begin(self) -> None:
        """Make the tables and the installation's row."""
        self.database.create()
        with self.database.writing() as connection:
            insert_installation(connection, InstallationRow(ORIGIN, 0, SALT))

    def close(self) -> None:
        self.writer.close()
        self.database.close()

    def publisher(self) -> LogPublisher:
        return LogPublisher(self.database, self.folder, self.key)

    def issue(self, count: int = 1) -> list[int]:
        """Certificates with their entries, the first after their authority's; gives their serials."""
        self.writer.submit(create_authority).result(30)
        serials = [draw_serial(self.entropy) for _ in range(count)]
        for future in [self.writer.submit(self.issuance(serial)) for serial in serials]:
            future.result(30)
        return serials

    def add_device(self, device_id: str = DEVICE, state: str = "in_service") -> None:
        """A device of a model that its maker's anchor vouches for, as the inventory takes it in."""

        def act(batch: Batch) -> None:
            connection, by = batch.connection, "operator:someone"
            anchor = MakerAnchorRow(hashlib.sha256(b"anchor").digest(), "maker", b"anchor", batch.at)
            if put_maker_anchor(connection, anchor):
                put_unit(connection, UnitRow(UnitName("h1", "icu"), "H", "I"))
                record_model(batch, ModelRow("m", "maker", "infusion-pump", "bedside", anchor.sha256), by=by)
            row = DeviceRow(
                id=DeviceId(device_id),
                unit=UnitName("h1", "icu"),
                model="m",
                profile="bedside",
                maker_serial=device_id[:4],
                state=state,
                added_at=batch.at,
                changed_at=batch.at,
            )
            insert_devices(connection, [row])
            append(batch, device_added(row, by=by))

        self.writer.submit(act).result(30)

    def issuance(self, serial: int) -> Callable[[Batch], int]:
        """The act that writes one certificate down; gives its leaf index."""

        def act(batch: Batch) -> int:
            tbs = der.sequence(
                der.integer(2), der.integer(serial), der.sequence(), der.sequence(), der.sequence(*VALIDITY)
            )
            signed = der.sequence(tbs, der.sequence(), der.bit_string(b"s"))
            spki_sha256 = hashlib.sha256(b"key " + tbs).digest()
            request_id = f"request-{serial:x}"
            entry = IssuanceRecorded(
                authority="h1/icu#1",
                serial=serial,
                tbs_sha256=hashlib.sha256(tbs).digest(),
                spki_sha256=spki_sha256,
                profile="bedside",
                owner=f"device:{DEVICE}",
                request_id_hash=hashlib.sha256(request_id.encode()).digest(),
            )
            index = append(batch, entry)
            fields = {"serial": serial, "owner": entry.owner, "spki_sha256": spki_sha256, "request_id": request_id}
            fields |= {"device_id": DEVICE, "not_before": 0, "not_after": 1}
            rows.certificate(batch.connection, 1, index, tbs_der=tbs, **fields)
            note_signature(batch.connection, index, signed, hashlib.sha256(signed).digest())
            insert_key(batch.connection, spki_sha256, entry.owner, at=batch.at)
            return index

        return act

    def change(self, serial: int, act: str = "revoke") -> int:
        """Revoke, hold or release a certificate; gives the number of that step."""
        revocations = Revocations(self.writer)
        match act:
            case "hold":
                changed = revocations.hold(1, serial, by="rule:watch")
            case "release":
                changed = revocations.release(1, serial, by="rule:watch")
            case _:
                changed = revocations.revoke(1, serial, RevocationReason.SUPERSEDED, by="operator:someone")
        return changed.result(30)

    def note(self, count: int = 1) -> None:
        """Entries of another kind."""
        entry = TokenSpent(bytes(32), "device:a", bytes(32))
        for future in [self.writer.submit(lambda batch: append(batch, entry)) for _ in range(count)]:
            future.result(30)


def create_authority(batch: Batch) -> None:
    if batch.connection.execute(select(authorities.c.id)).first() is not None:
        return
    rows.authority(batch.connection, key_id="k", spki_sha256=bytes(32), request_der=None, certified=False)
    append(batch, AuthorityCreated("h1/icu#1", "issuing_ca", bytes(32), None, is_offline=False))
