"""Synthetic fleets: rows of devices, certificates and revocations written past the writer, to fill tables quickly.

Only the tables that are measured get rows; the ledger does not, so such a database is good for measuring alone.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.rig.installation import UNIT
from vagus.authority.issuance import IssuanceOrder
from vagus.authority.issuers import Issuer
from vagus.authority.shards import ShardPlan
from vagus.identifiers import DeviceId, serial_bytes
from vagus.keystore.signing import Purpose
from vagus.testing import SeededEntropy
from vagus.wiring import House
from vagus.x509.crl_building import RevocationReason, encode_crl_entry
from vagus.x509.keys import decode_public_key
from vagus.x509.names import SubjectFields
from vagus.x509.templates import assemble

SIZE = int(os.environ.get("BENCH_FLEET", "100000"))
"""How many devices or certificates a fleet has; BENCH_FLEET=1000000 for the size that the bars speak of."""

UNITS = tuple(f"h{hospital}/u{unit}" for hospital in range(1, 6) for unit in range(8))
MODELS = tuple((f"Model {number}", profile) for number, profile in enumerate(("bedside", "implant", "wearable") * 8))
STATES = (("in_service", 900), ("commissioned", 50), ("in_repair", 20), ("quarantined", 5), ("recalled", 1))
FIRST_LEAF = 1_000_000_000
_ENDS = 4_000_000_000
_NOW = datetime(2026, 11, 22, tzinfo=UTC)


def connect(file: Path) -> sqlite3.Connection:
    """The file through the bare driver, without foreign keys or syncs."""
    connection = sqlite3.connect(file, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = OFF", "foreign_keys = OFF", "cache_size = -200000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def fill_devices(file: Path, count: int) -> None:
    """A fleet of `count` devices in 40 units of five hospitals, of 24 models, nine in ten in service."""
    connection = connect(file)
    connection.execute("BEGIN")
    words = [(unit, unit.split("/", maxsplit=1)[0], "Hospital", "Unit") for unit in UNITS]
    connection.executemany("INSERT INTO units (name, hospital, organisation, title) VALUES (?, ?, ?, ?)", words)
    models = [(model, "Maker", "pump", profile) for model, profile in MODELS]
    connection.executemany("INSERT INTO models (name, maker, category, profile) VALUES (?, ?, ?, ?)", models)
    connection.executemany(
        "INSERT INTO devices (id, unit, model, profile, maker_serial, state, added_at, changed_at)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, 0)",
        _devices(count),
    )
    _finish(connection)


def fill_certificates(house: House, *, certificates: int, revoked: int, per_shard: int) -> list[tuple[int, int]]:
    """Certificates of one authority in full shards, every so many of them revoked; gives (serial, shard) of the good.

    Their leaves begin far behind what the ledger has numbered and will number. Each has the bytes of a certificate
    that names its serial and its shard's list, under a signature that was made for another serial.
    """
    issuer, drawn = house.open_issuers([UNIT])[UNIT], random.Random(7)
    authority_id, file = issuer.authority_id, house.settings.database_file
    assert file is not None
    moulds = [_mould(house, issuer, shard) for shard in range((certificates + per_shard - 1) // per_shard)]
    connection = connect(file)
    connection.execute("BEGIN")
    serials = [drawn.getrandbits(158) | 1 << 157 for _ in range(certificates)]
    every = certificates // revoked if revoked else certificates + 1
    rows = (
        (
            FIRST_LEAF + number,
            authority_id,
            serial_bytes(serial),
            f"device:{number}",
            f"{number:026d}",
            "bedside",
            number.to_bytes(32, "big"),
            f"synthetic-{number}",
            0,
            _ENDS,
            number // per_shard,
            "revoked" if number % every == 0 else "issued",
            number.to_bytes(32, "little"),
        )
        for number, serial in enumerate(serials)
    )
    connection.executemany(f"INSERT INTO certificates VALUES ({', '.join('?' * 13)})", rows)
    connection.executemany(
        "INSERT INTO certificate_bytes (leaf_index, tbs_der, certificate_der) VALUES (?, ?, ?)",
        (
            (FIRST_LEAF + number, *(part.join(mould) for mould in moulds[number // per_shard]))
            for number, part in enumerate(map(serial_bytes, serials))
        ),
    )
    gone = [(number, serials[number]) for number in range(0, certificates, every)]
    fill_revocations(
        connection, authority_id, ((FIRST_LEAF + number, number // per_shard, serial) for number, serial in gone)
    )
    shards = range((certificates + per_shard - 1) // per_shard)
    connection.execute("DELETE FROM crl_shards WHERE authority_id = ?", (authority_id,))
    places = [(authority_id, shard, per_shard) for shard in shards]
    connection.executemany("INSERT INTO crl_shards (authority_id, shard, places_taken) VALUES (?, ?, ?)", places)
    _finish(connection)
    return [(serial, number // per_shard) for number, serial in enumerate(serials) if number % every]


def fill_revocations(connection: sqlite3.Connection, authority_id: int, gone: Iterator[tuple[int, int, int]]) -> None:
    """Revocations (leaf, shard, serial) with their steps of the sequence, behind what the database has."""
    (sequence,) = connection.execute("SELECT revocation_sequence FROM log_head").fetchone()
    revocations, events = [], []
    at, mark = int(_NOW.timestamp()), 1 << 157
    before, after = encode_crl_entry(mark, _NOW, RevocationReason.SUPERSEDED).split(serial_bytes(mark))
    for leaf, shard, serial in gone:
        sequence += 1
        octets = serial_bytes(serial)
        entry = before + octets + after
        revocations.append((leaf, sequence, authority_id, octets, shard, 4, at, _ENDS, entry))
        events.append((sequence, authority_id, octets, "revoke", 4, at))
        if len(events) == 20_000:
            _insert(connection, revocations, events)
            revocations, events = [], []
    _insert(connection, revocations, events)
    connection.execute("UPDATE log_head SET revocation_sequence = ?", (sequence,))


def _mould(house: House, issuer: Issuer, shard: int) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """What stands before and after the serial in a TBS and in a certificate of a shard, both as really issued."""
    device = DeviceId.draw(house.entropy)
    order = IssuanceOrder(
        request_id=f"mould-{shard}",
        profile="bedside",
        owner=f"device:{device}",
        device_id=str(device),
        public_key=decode_public_key(issuer.facts.spki_der),
        subject=SubjectFields("Bench Hospital", "Intensive Care", str(device)),
        dns_names=(f"{device}.icu.h1.bench.example",),
    )
    prepared = house.issuance.prepare(order, replace(issuer, shards=ShardPlan(issuer.authority_id, shard)))
    signature = issuer.key.sign(Purpose.CERTIFICATE, prepared.tbs_der)
    whole = assemble(prepared.tbs_der, issuer.facts.signature_algorithm, signature)
    before, after = prepared.tbs_der.split(serial_bytes(prepared.serial))
    return (before, after), tuple(whole.split(serial_bytes(prepared.serial)))  # type: ignore[return-value]


def _insert(
    connection: sqlite3.Connection, revocations: Sequence[tuple[object, ...]], events: Sequence[tuple[object, ...]]
) -> None:
    connection.executemany(
        "INSERT INTO revocations (leaf_index, sequence, authority_id, serial, shard, reason, revoked_at, not_after,"
        " entry_der) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        revocations,
    )
    connection.executemany(
        "INSERT INTO revocation_events (sequence, authority_id, serial, act, reason, at) VALUES (?, ?, ?, ?, ?, ?)",
        events,
    )


def _devices(count: int) -> Iterator[tuple[object, ...]]:
    drawn, entropy = random.Random(5), SeededEntropy(6)
    states, weights = [state for state, _ in STATES], [weight for _, weight in STATES]
    for number in range(count):
        model, profile = drawn.choice(MODELS)
        state = drawn.choices(states, weights)[0]
        yield (DeviceId.draw(entropy).text, drawn.choice(UNITS), model, profile, f"SN-{number:08d}", state)


def _finish(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")
    connection.close()
