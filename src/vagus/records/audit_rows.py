"""Reads the rows that an audit in `ledger` compares with the log, in the log's order; compares nothing itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from sqlalchemy import Connection, and_, case, exists, func, or_, select

from vagus.records.engine.query_hints import hidden, stream
from vagus.records.engine.tables import (
    authorities,
    certificate_bytes,
    certificates,
    devices,
    keys,
    revocation_events,
    revocations,
    tokens,
)

_HOLD = 6  # certificateHold, the reason code of a hold (RFC 5280 5.3.1)


@dataclass(frozen=True, slots=True)
class RecordedCertificate:
    """A certificate as the tables have it; `authority` is written name#generation."""

    leaf_index: int
    authority: str
    serial: int
    owner: str
    profile: str
    spki_sha256: bytes
    request_id: str
    device_id: str | None
    not_before: int
    not_after: int
    shard: int
    state: str
    fingerprint: bytes | None
    key_owner: str | None
    tbs_der: bytes | None
    certificate_der: bytes | None


_COPIED = [name for name in RecordedCertificate.__slots__[3:] if name in certificates.c]
"""The fields after `serial` that are columns of `certificates`, in their order."""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A step of the revocation sequence as the tables have it."""

    sequence: int
    authority: str
    serial: int
    act: str
    reason: int
    dated_at: int | None


def iterate_recorded_certificates(connection: Connection) -> Iterator[RecordedCertificate]:
    """Every certificate by its leaf index."""
    table = certificates.c
    query = (
        select(
            table.leaf_index,
            authorities.c.name,
            authorities.c.generation,
            table.serial,
            *(table[name] for name in _COPIED),
            keys.c.owner,
            certificate_bytes.c.tbs_der,
            certificate_bytes.c.certificate_der,
        )
        .select_from(
            certificates.join(authorities, authorities.c.id == table.authority_id)
            .outerjoin(certificate_bytes, certificate_bytes.c.leaf_index == table.leaf_index)
            .outerjoin(keys, keys.c.spki_sha256 == table.spki_sha256)
        )
        .order_by(table.leaf_index)
    )
    for index, name, generation, serial, *rest in stream(connection, query):
        yield RecordedCertificate(index, f"{name}#{generation}", int.from_bytes(serial, "big"), *rest)


def iterate_recorded_events(connection: Connection) -> Iterator[RecordedEvent]:
    """Every step of the revocation sequence by its number."""
    table = revocation_events.c
    query = (
        select(
            table.sequence,
            authorities.c.name,
            authorities.c.generation,
            table.serial,
            table.act,
            table.reason,
            table.dated_at,
        )
        .select_from(revocation_events.join(authorities, authorities.c.id == table.authority_id))
        .order_by(table.sequence)
    )
    for sequence, name, generation, serial, *rest in stream(connection, query):
        yield RecordedEvent(sequence, f"{name}#{generation}", int.from_bytes(serial, "big"), *rest)


@dataclass(frozen=True, slots=True)
class RecordedRevocation:
    """A certificate that is revoked or on hold, with the date and the whole of its element of a CRL."""

    sequence: int
    serial: int
    reason: int
    revoked_at: int
    entry_der: bytes


def iterate_recorded_revocations(connection: Connection) -> Iterator[RecordedRevocation]:
    """Everything that is revoked or on hold now, by its step of the sequence."""
    table = revocations.c
    date = func.coalesce(revocation_events.c.dated_at, table.revoked_at)
    query = select(table.sequence, table.serial, table.reason, date, table.entry_der).select_from(
        revocations.join(revocation_events, revocation_events.c.sequence == table.sequence)
    )
    for sequence, serial, *rest in stream(connection, query.order_by(table.sequence)):
        yield RecordedRevocation(sequence, int.from_bytes(serial, "big"), *rest)


def find_step_without_effect(connection: Connection) -> int | None:
    """A step that is the last of its certificate and has no equal row among the revoked, or the reverse; None: none."""
    for step, row in zip_longest(_iterate_last_steps(connection), _iterate_rows_with_steps(connection)):
        if step != row:
            return min(one for one in (step, row) if one is not None)
    return None


def _iterate_last_steps(connection: Connection) -> Iterator[int]:
    """The last step of every certificate that it leaves revoked or on hold, in order."""
    events = revocation_events.c
    # One integer packs the newest step and what it did, so one scan of the sequence is enough. Joining the sequence
    # with itself took hours.
    last = func.max(events.sequence * 2 + case((events.act == "release", 1), else_=0)).label("last")
    query = select(last).group_by(events.authority_id, events.serial).order_by(last)
    return (found // 2 for (found,) in stream(connection, query) if found % 2 == 0)


def _iterate_rows_with_steps(connection: Connection) -> Iterator[int]:
    """The steps of the rows among the revoked, in order, without rows that differ from their step."""
    events, row = revocation_events.c, revocations.c
    is_same = and_(
        row.authority_id == events.authority_id,
        row.serial == events.serial,
        row.reason == events.reason,
        row.revoked_at == events.at,
    )
    query = (
        select(row.sequence)
        .select_from(revocations.join(revocation_events, events.sequence == row.sequence))
        .where(hidden(is_same))
        .order_by(row.sequence)
    )
    return (found for (found,) in stream(connection, query))


def find_leaf_with_wrong_state(connection: Connection) -> int | None:
    """A certificate whose state contradicts its row among the revoked; None: there is none."""
    table, row = certificates.c, revocations.c
    says_revoked = table.state.in_(("revoked", "held"))
    query = (
        select(table.leaf_index)
        .select_from(certificates.outerjoin(revocations, row.leaf_index == table.leaf_index))
        .where(
            or_(
                and_(says_revoked, row.leaf_index.is_(None)),
                and_(~says_revoked, row.leaf_index.is_not(None)),
                row.serial != table.serial,
                row.shard != table.shard,
                row.authority_id != table.authority_id,
                row.not_after != table.not_after,
                and_(table.state == "held", row.reason != _HOLD),
                and_(table.state == "revoked", row.reason == _HOLD),
            )
        )
        .order_by(table.leaf_index)
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none()


def count_revoked_without_step(connection: Connection) -> int:
    """Rows among the revoked that no step of the sequence speaks of."""
    query = (
        select(func.count())
        .select_from(revocations.outerjoin(revocation_events, revocation_events.c.sequence == revocations.c.sequence))
        .where(revocation_events.c.sequence.is_(None))
    )
    return int(connection.execute(query).scalar_one())


@dataclass(frozen=True, slots=True)
class RecordedKey:
    """A key as the tables have it, and what certificates say of it: whether one carries it, and was compromised."""

    spki_sha256: bytes
    owner: str
    state: str
    is_certified: bool
    is_compromised: bool


def find_compromised_key_in_use(connection: Connection, compromises: tuple[int, ...]) -> int | None:
    """A certificate that was revoked for one of these reasons, and whose key may be certified all the same."""
    query = (
        select(certificates.c.leaf_index)
        .select_from(
            revocations.join(certificates, certificates.c.leaf_index == revocations.c.leaf_index).outerjoin(
                keys, and_(keys.c.spki_sha256 == certificates.c.spki_sha256, keys.c.state == "blocked")
            )
        )
        .where(revocations.c.reason.in_(compromises), keys.c.state.is_(None))
        .order_by(certificates.c.leaf_index)
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none()


def iterate_keys_beside_certificates(connection: Connection, compromises: tuple[int, ...]) -> Iterator[RecordedKey]:
    """The keys of which certificates do not say everything: those that none carries, and those that are blocked."""
    key, carries = keys.c, certificates.c.spki_sha256 == keys.c.spki_sha256
    is_certified = exists(select(1).where(carries).correlate(keys))
    is_compromised = exists(
        select(1)
        .select_from(certificates.join(revocations, revocations.c.leaf_index == certificates.c.leaf_index))
        .where(carries, revocations.c.reason.in_(compromises))
        .correlate(keys)
    )
    query = (
        select(key.spki_sha256, key.owner, key.state, is_certified.label("carried"), is_compromised.label("lost"))
        .where(or_(key.state != "active", ~is_certified))
        .order_by(key.spki_sha256)
    )
    for spki_sha256, owner, state, carried, lost in stream(connection, query):
        yield RecordedKey(bytes(spki_sha256), owner, state, bool(carried), bool(lost))


@dataclass(frozen=True, slots=True)
class RecordedDevice:
    """A device as the tables have it."""

    id: str
    unit: str
    model: str
    profile: str
    maker_serial: str
    state: str
    host_names: tuple[str, ...]
    is_held: bool


def iterate_recorded_devices(connection: Connection) -> Iterator[RecordedDevice]:
    """Every device by its id."""
    table = devices.c
    columns = (table.id, table.unit, table.model, table.profile, table.maker_serial, table.state, table.host_names)
    query = select(*columns, table.held_at).order_by(table.id)
    for row in stream(connection, query):
        names, is_held = tuple(json.loads(row.host_names)) if row.host_names else (), row.held_at is not None
        yield RecordedDevice(row.id, row.unit, row.model, row.profile, row.maker_serial, row.state, names, is_held)


@dataclass(frozen=True, slots=True)
class RecordedToken:
    """A token as the tables have it."""

    token_sha256: bytes
    device_id: str
    expires_at: int
    bound_spki_sha256: bytes | None
    used_at: int | None


def iterate_recorded_tokens(connection: Connection) -> Iterator[RecordedToken]:
    """Every token by its hash."""
    table = tokens.c
    columns = (table.token_sha256, table.device_id, table.expires_at, table.bound_spki_sha256, table.used_at)
    for row in stream(connection, select(*columns).order_by(table.token_sha256)):
        yield RecordedToken(*row)
