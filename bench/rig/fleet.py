"""Synthetic fleets: rows of devices, certificates and revocations written past the writer, to fill tables quickly.

Only the tables that are measured get rows; the ledger does not, so such a database is good for measuring alone.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from tests.simulator.orders import new_key, order_for, spki

from bench.rig.databases import Bulk, bulk, connect
from bench.rig.installation import MODEL, UNIT
from vagus.authority.issuance import IssuanceOrder, IssuanceToken
from vagus.authority.issuers import Issuer
from vagus.authority.shards import SHARD_PLACES, ShardPlan
from vagus.identifiers import DeviceId, serial_bytes
from vagus.keystore.signing import Purpose
from vagus.testing import SeededEntropy
from vagus.wiring import Installation
from vagus.x509.crls.building import RevocationReason, encode_crl_entry
from vagus.x509.keys import decode_public_key
from vagus.x509.names.distinguished import SubjectFields
from vagus.x509.templates import assemble

SIZE = int(os.environ.get("BENCH_FLEET", "100000"))
"""How many devices or certificates a fleet has; BENCH_FLEET=1000000 for the size that the bars speak of."""

UNITS = tuple(f"h{hospital}/u{unit}" for hospital in range(1, 6) for unit in range(8))
MODELS = tuple((f"Model {number}", profile) for number, profile in enumerate(("bedside", "implant", "wearable") * 8))
CATEGORIES = (*["pump"] * 7, "ventilator")
STATES = (("in_service", 900), ("commissioned", 50), ("in_repair", 20), ("quarantined", 5), ("recalled", 1))
FIRST_LEAF = 1_000_000_000
_ENDS = 4_000_000_000
_NOW = datetime(2026, 11, 22, tzinfo=UTC)


def fill_devices(file: Path, count: int) -> None:
    """A fleet of `count` devices in 40 units of five hospitals, of 24 models, nine in ten in service."""
    connection = connect(file)
    connection.execute("BEGIN")
    words = [(unit, unit.split("/", maxsplit=1)[0], "Hospital", "Unit") for unit in UNITS]
    connection.executemany("INSERT INTO units (name, hospital, organisation, title) VALUES (?, ?, ?, ?)", words)
    models = [(model, "Maker", CATEGORIES[place % 8], profile) for place, (model, profile) in enumerate(MODELS)]
    connection.executemany("INSERT INTO models (name, maker, category, profile) VALUES (?, ?, ?, ?)", models)
    connection.executemany(
        "INSERT INTO devices (id, unit, model, profile, maker_serial, state, added_at, changed_at)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, 0)",
        _devices(count),
    )
    _finish(connection)


@dataclass(frozen=True, slots=True)
class Certificates:
    """What was made: (serial, shard) of the really issued ones that are good, and how many of which kind there are."""

    authority_id: int
    good: list[tuple[int, int]]
    real: int
    shards: int


def fill_certificates(
    installation: Installation, *, certificates: int, revoked: int, real: int, of_model: int
) -> Certificates:
    """Certificates of one authority in full shards, so many of them revoked; some are really issued, over all shards.

    The devices of `of_model` others, next to each other in the middle, stand in the inventory, all of one model.
    The rest are rows whose leaves begin far after what the ledger has numbered and will number. Each has the bytes of
    a certificate that names its serial and its shard's list, under a signature that was made for another serial.
    """
    issuer, drawn = installation.open_issuers([UNIT])[UNIT], random.Random(7)
    shards = (certificates + SHARD_PLACES - 1) // SHARD_PLACES
    every = certificates // revoked
    # 1. issued and revoked as everywhere else
    issued = _issue(installation, issuer, real, shards)
    for serial, _ in issued[::every]:
        installation.revocations.revoke(
            issuer.authority_id, serial, RevocationReason.SUPERSEDED, by="operator:bench"
        ).result()
    good = [one for number, one in enumerate(issued) if number % every]
    # 2. the rest
    moulds = [_mould(installation, issuer, shard) for shard in range(shards)]
    serials = [drawn.getrandbits(158) | 1 << 157 for _ in range(certificates - real)]
    filled = SHARD_PLACES - (real + shards - 1) // shards
    with bulk(installation.settings.database_url) as rows:
        rows.insert("certificates", _CERTIFICATE, _certificates(issuer.authority_id, serials, filled, every))
        rows.insert(
            "certificate_bytes",
            ("leaf_index", "tbs_der", "certificate_der"),
            (
                (FIRST_LEAF + number, *(part.join(mould) for mould in moulds[min(number // filled, shards - 1)]))
                for number, part in enumerate(map(serial_bytes, serials))
            ),
        )
        fill_revocations(
            rows,
            issuer.authority_id,
            (
                (FIRST_LEAF + number, min(number // filled, shards - 1), serials[number])
                for number in range(0, len(serials), every)
            ),
        )
        rows.say(f"DELETE FROM crl_shards WHERE authority_id = {issuer.authority_id}")
        places = [(issuer.authority_id, shard, SHARD_PLACES) for shard in range(shards)]
        rows.insert("crl_shards", ("authority_id", "shard", "places_taken"), places)
        first = len(serials) // 2
        rows.insert("devices", _DEVICE, (_device(number) for number in range(first, first + of_model)))
    return Certificates(issuer.authority_id, good, real, shards)


_DEVICE = ("id", "unit", "model", "profile", "maker_serial", "state", "added_at", "changed_at")
_CERTIFICATE = (
    "leaf_index",
    "authority_id",
    "serial",
    "owner",
    "device_id",
    "profile",
    "spki_sha256",
    "request_id",
    "not_before",
    "not_after",
    "shard",
    "state",
    "fingerprint",
)


def _certificates(authority_id: int, serials: Sequence[int], filled: int, every: int) -> Iterator[tuple[object, ...]]:
    last = (len(serials) - 1) // filled
    for number, serial in enumerate(serials):
        yield (
            FIRST_LEAF + number,
            authority_id,
            serial_bytes(serial),
            f"device:{number:026d}",
            f"{number:026d}",
            "bedside",
            number.to_bytes(32, "big"),
            f"synthetic-{number}",
            0,
            _ENDS,
            min(number // filled, last),
            "revoked" if number % every == 0 else "issued",
            number.to_bytes(32, "little"),
        )


def _device(number: int) -> tuple[object, ...]:
    return (f"{number:026d}", UNIT, MODEL, "bedside", f"AIP3-{number:06d}", "in_service", 0, 0)


def _issue(installation: Installation, issuer: Issuer, count: int, shards: int) -> list[tuple[int, int]]:
    """Certificates of devices that the inventory need not know, each shard in turn; (serial, shard) in order."""
    places = [replace(issuer, shards=ShardPlan(issuer.authority_id, shard)) for shard in range(shards)]
    committed = []
    for number in range(count):
        order = _order(installation, f"real-{number}", spki(new_key()))
        committed.append(installation.issuance.commit(installation.issuance.prepare(order, places[number % shards])))
    issued = []
    for number, future in enumerate(committed):
        token = future.result()
        assert isinstance(token, IssuanceToken)
        issued.append((installation.issuance.issue(token).serial, number % shards))
    return issued


def fill_revocations(rows: Bulk, authority_id: int, gone: Iterable[tuple[int, int, int]]) -> None:
    """Revocations (leaf, shard, serial) with their steps of the sequence, after what the database has."""
    sequence = rows.ask("SELECT revocation_sequence FROM log_head")
    at, mark = int(_NOW.timestamp()), 1 << 157
    before, after = encode_crl_entry(mark, _NOW, RevocationReason.SUPERSEDED).split(serial_bytes(mark))
    left = iter(gone)
    while page := list(islice(left, 20_000)):
        numbered = [(sequence + place, *one) for place, one in enumerate(page, 1)]
        sequence += len(page)
        rows.insert(
            "revocations",
            _REVOCATION,
            (
                (
                    leaf,
                    number,
                    authority_id,
                    encoded := serial_bytes(serial),
                    shard,
                    4,
                    at,
                    _ENDS,
                    before + encoded + after,
                )
                for number, leaf, shard, serial in numbered
            ),
        )
        rows.insert(
            "revocation_events",
            ("sequence", "authority_id", "serial", "act", "reason", "at"),
            ((number, authority_id, serial_bytes(serial), "revoke", 4, at) for number, _, _, serial in numbered),
        )
    rows.say(f"UPDATE log_head SET revocation_sequence = {sequence}")


_REVOCATION = (
    "leaf_index",
    "sequence",
    "authority_id",
    "serial",
    "shard",
    "reason",
    "revoked_at",
    "not_after",
    "entry_der",
)


def _mould(installation: Installation, issuer: Issuer, shard: int) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """The bytes before and after the serial in a TBS and in a certificate of a shard, both as really issued."""
    order = _order(installation, f"mould-{shard}", issuer.facts.spki_der)
    prepared = installation.issuance.prepare(order, replace(issuer, shards=ShardPlan(issuer.authority_id, shard)))
    signature = issuer.key.sign(Purpose.CERTIFICATE, prepared.tbs_der)
    whole = assemble(prepared.tbs_der, issuer.facts.signature_algorithm, signature)
    before, after = prepared.tbs_der.split(serial_bytes(prepared.serial))
    return (before, after), tuple(whole.split(serial_bytes(prepared.serial)))  # type: ignore[return-value]


def _order(installation: Installation, request_id: str, spki_der: bytes) -> IssuanceOrder:
    device = DeviceId.draw(installation.entropy)
    return order_for(
        device,
        request_id,
        public_key=decode_public_key(spki_der),
        subject=SubjectFields("Bench Hospital", "Intensive Care", str(device)),
        dns_names=(f"{device}.icu.h1.bench.example",),
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
