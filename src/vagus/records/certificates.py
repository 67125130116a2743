"""Certificates as rows, from the intent on: in, out and counted; `authority.issuance` decides what may be issued."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import CompoundSelect, bindparam, func, insert, literal_column, select, union_all, update

from vagus.identifiers import serial_bytes
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.query_hints import hidden, rows_after
from vagus.records.engine.row_forms import SERIAL, RowForm
from vagus.records.engine.statements import Statement, Write, write_together
from vagus.records.engine.tables import (
    authorities,
    certificate_bytes,
    certificate_names,
    certificates,
    crl_publications,
    crl_shards,
    devices,
    keys,
    models,
    revocations,
)

INTENDED = "intended"
ISSUED = "issued"
REVOKED = "revoked"
HELD = "held"

SERVER_PROFILE = "tls-server"
"""Certificates of this profile are what a gateway or station shows as a server, beside its device certificate."""

BY_OPERATOR = "operator-"
"""How the request ids of certificates begin that an operator approved: their devices do not renew by themselves."""

NO_EXPIRY = 253402300799
"""99991231235959Z (RFC 5280 4.1.2.5) in seconds since 1970."""

EVERY_SHARD = -2
"""The shard of a certificate whose CDP is unknown (a restore lost its bytes): every CRL names it once it is revoked."""

EARLIER = "elsewhere:"
"""How the request ids of certificates begin that their authority issued before it came here."""

IS_BIRTH = literal_column("profile || ''") == literal_column("'idevid'")
"""Written like the condition of the index `certificates_by_birth`, so that no index of profiles serves it.

A literal and no parameter: a partial index holds these rows alone, and a planner uses it only for the literal.
"""

_BIRTHS = Statement(
    select(func.count()).select_from(certificates).where(IS_BIRTH, certificates.c.owner == bindparam("owner"))
)
_OWNERS = 500
_MOST_EVERYWHERE = 9_000
"""How many places of a new shard such certificates take at most: half of it, or no others would have room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRow:
    """A certificate without its bytes; `leaf_index` is that of its issuance entry in the ledger."""

    leaf_index: int
    authority_id: int
    serial: int
    owner: str
    device_id: str | None
    profile: str
    spki_sha256: bytes
    request_id: str
    not_before: int
    not_after: int
    shard: int
    state: str = INTENDED
    fingerprint: bytes | None = None
    key_algorithm: str | None = None


CERTIFICATE = RowForm(CertificateRow, serial=SERIAL)


@dataclass(frozen=True, slots=True)
class BeforeIntent:
    """What an intent depends on: the state of authority and key, and an earlier use of the request id."""

    authority_state: str | None
    key_owner: str | None
    is_key_blocked: bool
    leaf_index: int | None  # the certificate that this request id has obtained already; None: none


_BEFORE = Statement(
    select(
        authorities.c.state.label("authority_state"),
        keys.c.owner.label("key_owner"),
        keys.c.state.label("key_state"),
        certificates.c.leaf_index,
    )
    .select_from(
        authorities.outerjoin(keys, keys.c.spki_sha256 == bindparam("spki")).outerjoin(
            certificates, certificates.c.request_id == bindparam("request")
        )
    )
    .where(authorities.c.id == bindparam("authority"))
)
_ITS_DEVICE = devices.c.id == bindparam("of_device")
_INSERT = Statement(
    insert(certificates).values(
        unit=select(devices.c.unit).where(_ITS_DEVICE).scalar_subquery(),
        category=select(models.c.category).where(_ITS_DEVICE, models.c.name == devices.c.model).scalar_subquery(),
    ),
    *CERTIFICATE.names,
)
_INSERT_NAME = Statement(insert(certificate_names), "name", "leaf_index")
_INSERT_BYTES = Statement(insert(certificate_bytes), "leaf_index", "tbs_der", "certificate_der")
_BY_LEAF = Statement(select(certificates).where(certificates.c.leaf_index == bindparam("leaf")))
_BY_SERIAL = Statement(
    select(certificates).where(
        certificates.c.serial == bindparam("number"), hidden(certificates.c.authority_id == bindparam("authority"))
    )
)
_BYTES = Statement(
    select(certificate_bytes.c.tbs_der, certificate_bytes.c.certificate_der).where(
        certificate_bytes.c.leaf_index == bindparam("leaf")
    )
)
_SIGNED = Statement(
    update(certificates)
    .where(certificates.c.leaf_index == bindparam("leaf"), certificates.c.fingerprint.is_(None))
    .values(fingerprint=bindparam("hash"))
)
_SETTLED = Statement(
    update(certificates)
    .where(certificates.c.leaf_index == bindparam("leaf"), certificates.c.state == INTENDED)
    .values(state=ISSUED)
)
_MOVED = Statement(
    update(certificates).where(certificates.c.leaf_index == bindparam("leaf")).values(state=bindparam("new_state"))
)
_SIGNED_BYTES = Statement(
    update(certificate_bytes)
    .where(certificate_bytes.c.leaf_index == bindparam("leaf"), certificate_bytes.c.certificate_der.is_(None))
    .values(certificate_der=bindparam("der"))
)
_PLACES = Statement(
    select(crl_shards.c.places_taken).where(
        crl_shards.c.authority_id == bindparam("authority"), crl_shards.c.shard == bindparam("which")
    )
)


def _every_shard() -> CompoundSelect[tuple[int]]:
    """The shards that an authority has: with places taken, with a published CRL, or with a revoked certificate.

    The last are found by a "loose index scan": the recursive part asks for the least shard above the one before, which
    is one index lookup for each shard. SELECT DISTINCT would read a million revoked rows.
    """
    table = revocations.c
    mine = table.authority_id == bindparam("authority")
    steps = select(func.min(table.shard).label("shard")).where(mine).cte("steps", recursive=True)
    further = select(func.min(table.shard)).where(mine, table.shard > steps.c.shard).correlate(steps).scalar_subquery()
    steps = steps.union_all(select(further).select_from(steps).where(steps.c.shard.is_not(None)))
    revoked = select(steps.c.shard).where(steps.c.shard.is_not(None))
    taken = select(crl_shards.c.shard).where(crl_shards.c.authority_id == bindparam("authority"))
    handed_out = select(crl_publications.c.shard).where(crl_publications.c.authority_id == bindparam("authority"))
    return union_all(taken, handed_out, revoked)


_SHARDS = _every_shard()


def read_before_intent(connection: Connection, authority_id: int, spki_sha256: bytes, request_id: str) -> BeforeIntent:
    """Everything that the intent's own transaction must check, in one statement."""
    row = _BEFORE.find(connection, authority=authority_id, spki=spki_sha256, request=request_id)
    if row is None:
        return BeforeIntent(None, None, is_key_blocked=False, leaf_index=None)
    return BeforeIntent(row.authority_state, row.key_owner, row.key_state == "blocked", row.leaf_index)


def insert_row(connection: Connection, row: CertificateRow) -> None:
    """Write the row of a certificate, with the unit and category that its device has now."""
    _INSERT.change(connection, **CERTIFICATE.values(row), of_device=row.device_id)


def insert_intent(connection: Connection, row: CertificateRow, tbs_der: bytes, names: Iterable[str] = ()) -> None:
    """Write a certificate down before it is signed; `names` find it beside those that begin with its device's id."""
    insert_row(connection, row)
    _INSERT_NAME.change_many(connection, [{"name": one, "leaf_index": row.leaf_index} for one in names])
    _INSERT_BYTES.change(connection, leaf_index=row.leaf_index, tbs_der=tbs_der, certificate_der=None)


def note_signature(connection: Connection, leaf_index: int, certificate_der: bytes, fingerprint: bytes) -> bool:
    """Store the signed bytes unless some are stored already: the first signature of a TBS is the one that counts.

    The state moves from intended to issued; one that was revoked meanwhile stays revoked. False: others were first.
    """
    _SETTLED.change(connection, leaf=leaf_index)
    if not _SIGNED.change(connection, leaf=leaf_index, hash=fingerprint):
        return False
    _SIGNED_BYTES.change(connection, leaf=leaf_index, der=certificate_der)
    return True


def note_signatures(connection: Connection, signed: Sequence[tuple[int, bytes, bytes]]) -> None:
    """`note_signature` for many reproducible signatures (leaf, DER, SHA-256) at once: others' would be the same."""
    _SETTLED.change_many(connection, [{"leaf": leaf} for leaf, _, _ in signed])
    _SIGNED.change_many(connection, [{"leaf": leaf, "hash": fingerprint} for leaf, _, fingerprint in signed])
    _SIGNED_BYTES.change_many(connection, [{"leaf": leaf, "der": signed_der} for leaf, signed_der, _ in signed])


def set_state(connection: Connection, leaf_index: int, state: str) -> None:
    """Move a certificate to `state`."""
    write_together(connection, state_write(leaf_index, state))


def state_write(leaf_index: int, state: str) -> Write:
    """The write of `set_state`."""
    return _MOVED.write(leaf=leaf_index, new_state=state)


def find_certificate(connection: Connection, authority_id: int, serial: int) -> CertificateRow | None:
    """The certificate that (issuer, serial) names."""
    return CERTIFICATE.read_optional(_BY_SERIAL.find(connection, authority=authority_id, number=serial_bytes(serial)))


def query_certificate(database: Database, authority_id: int, serial: int) -> CertificateRow | None:
    """`find_certificate` with a connection of its own."""
    return CERTIFICATE.read_optional(_BY_SERIAL.query(database, authority=authority_id, number=serial_bytes(serial)))


def find_by_leaf(connection: Connection, leaf_index: int) -> CertificateRow | None:
    """The certificate of this issuance entry."""
    return CERTIFICATE.read_optional(_BY_LEAF.find(connection, leaf=leaf_index))


def find_by_request(connection: Connection, request_id: str) -> CertificateRow | None:
    """The certificate that a request id got."""
    return CERTIFICATE.find(connection, select(certificates).where(certificates.c.request_id == request_id))


def list_of_device(connection: Connection, device_id: str, *, alive_at: int = 0) -> tuple[CertificateRow, ...]:
    """A device's certificates that end after `alive_at`, the one that ends last first."""
    query = (
        select(certificates)
        .where(certificates.c.device_id == device_id, hidden(certificates.c.not_after > alive_at))
        .order_by(certificates.c.not_after.desc(), certificates.c.leaf_index.desc())
    )
    return CERTIFICATE.list(connection, query)


def list_births(connection: Connection, owners: Sequence[str]) -> dict[str, tuple[CertificateRow, ...]]:
    """The makers' birth certificates (802.1AR IDevIDs) of each of these owners that has any, oldest first."""
    found: dict[str, tuple[CertificateRow, ...]] = {}
    for at in range(0, len(owners), _OWNERS):
        query = select(certificates).where(IS_BIRTH, certificates.c.owner.in_(owners[at : at + _OWNERS]))
        for row in sorted(CERTIFICATE.list(connection, query), key=lambda row: row.leaf_index):
            found[row.owner] = (*found.get(row.owner, ()), row)
    return found


def count_births(connection: Connection, owner: str) -> int:
    """How many birth certificates an owner has."""
    found = _BIRTHS.find(connection, owner=owner)
    return 0 if found is None else int(found[0])


def list_born(connection: Connection, *, after: str, limit: int) -> tuple[str, ...]:
    """The next owners of birth certificates after one, in the order of the index; for people: it may read them all."""
    query = select(certificates.c.owner).where(IS_BIRTH, certificates.c.owner > after)
    return tuple(connection.execute(query.distinct().order_by(certificates.c.owner).limit(limit)).scalars())


def list_of_key(connection: Connection, spki_sha256: bytes) -> tuple[CertificateRow, ...]:
    """Every certificate for one key, oldest first."""
    query = select(certificates).where(certificates.c.spki_sha256 == spki_sha256).order_by(certificates.c.leaf_index)
    return CERTIFICATE.list(connection, query)


def list_intended(
    connection: Connection, *, state: str = INTENDED, after: int = -1, count: int = 500
) -> tuple[CertificateRow, ...]:
    """Intents that no signature followed yet, in order; in state `HELD` those that were held before one could."""
    place = (certificates.c.state, certificates.c.leaf_index)
    query = (
        select(certificates)
        .where(*rows_after(connection, place, (state, after)))
        .where(hidden(certificates.c.fingerprint.is_(None)))
        .order_by(*place)
        .limit(count)
    )
    return CERTIFICATE.list(connection, query)


def list_alive(
    connection: Connection, authority_id: int, *, alive_at: int, after: int = -1, count: int = 1000
) -> tuple[CertificateRow, ...]:
    """Signed certificates of an authority that end after `alive_at`, by leaf, those after leaf `after`."""
    place = (certificates.c.authority_id, certificates.c.leaf_index)
    query = (
        select(certificates)
        .where(*rows_after(connection, place, (authority_id, after)))
        .where(hidden(certificates.c.not_after > alive_at, certificates.c.state != INTENDED))
        .order_by(*place)
        .limit(count)
    )
    return CERTIFICATE.list(connection, query)


def count_alive(connection: Connection, authority_id: int, *, alive_at: int) -> int:
    """How many certificates of an authority end after `alive_at` and are not revoked."""
    query = select(func.count()).where(
        certificates.c.authority_id == authority_id,
        certificates.c.not_after > alive_at,
        certificates.c.state != REVOKED,
    )
    return int(connection.execute(query).scalar_one())


def load_bytes(connection: Connection, leaf_index: int) -> tuple[bytes, bytes | None]:
    """TBS and, once it was signed, the whole certificate; empty and None for one whose bytes a restore lost."""
    found = _BYTES.find(connection, leaf=leaf_index)
    if found is None:
        return b"", None
    return bytes(found.tbs_der), None if found.certificate_der is None else bytes(found.certificate_der)


def find_shard(connection: Connection, authority_id: int) -> tuple[int, int] | None:
    """The newest shard of an authority and how many of its places are taken."""
    query = (
        select(crl_shards.c.shard, crl_shards.c.places_taken)
        .where(crl_shards.c.authority_id == authority_id, crl_shards.c.shard >= 0)
        .order_by(crl_shards.c.shard.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else (found.shard, found.places_taken)


def count_places(connection: Connection, authority_id: int, shard: int) -> int:
    """How many places of a shard are taken; 0 where it has no row."""
    found = _PLACES.find(connection, authority=authority_id, which=shard)
    return 0 if found is None else int(found.places_taken)


def take_places(connection: Connection, authority_id: int, shard: int, count: int) -> int:
    """Take `count` places in a shard, which begins with its first; gives how many are taken now.

    A shard that begins also has places for certificates of `EVERY_SHARD`.
    """
    mine = (crl_shards.c.authority_id == authority_id, crl_shards.c.shard == shard)
    taken = connection.execute(select(crl_shards.c.places_taken).where(*mine)).scalar_one_or_none()
    if taken is None:
        if shard >= 0:
            count += min(count_places(connection, authority_id, EVERY_SHARD), _MOST_EVERYWHERE)
        values = {"authority_id": authority_id, "shard": shard, "places_taken": count}
        connection.execute(insert(crl_shards), values)
        return count
    connection.execute(update(crl_shards).where(*mine).values(places_taken=taken + count))
    return int(taken) + count


def take_place_everywhere(connection: Connection, authority_id: int) -> None:
    """Take a place in every shard, also in those to come."""
    every = (crl_shards.c.authority_id == authority_id, crl_shards.c.shard >= 0)
    connection.execute(update(crl_shards).where(*every).values(places_taken=crl_shards.c.places_taken + 1))
    take_places(connection, authority_id, EVERY_SHARD, 1)


def fill_shard(connection: Connection, authority_id: int, shard: int, places: int) -> None:
    """Let a shard have `places` taken at least, so that no new certificate enters it."""
    lacking = places - count_places(connection, authority_id, shard)
    if lacking > 0:
        take_places(connection, authority_id, shard, lacking)


def list_shards(connection: Connection, authority_id: int) -> tuple[int, ...]:
    """Every shard that certificates of an authority point to; a new authority has shard 0.

    Also a shard without a place taken, if it has a revoked certificate or a published CRL. So every revoked certificate
    is in some CRL, and no published CRL expires without a successor.
    """
    found = {row.shard for row in connection.execute(_SHARDS, {"authority": authority_id}) if row.shard >= 0}
    return tuple(sorted(found)) or (0,)


def list_covered_shards(connection: Connection, authority_id: int, shard: int) -> tuple[int, ...]:
    """The shard values of rows that the CRL of `shard` covers; a negative `shard` means the complete CRL."""
    shards = (shard,) if shard >= 0 else list_shards(connection, authority_id)
    return (*shards, EVERY_SHARD) if count_places(connection, authority_id, EVERY_SHARD) else shards
