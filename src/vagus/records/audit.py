"""The rows that an audit compares with the log, in the log's order; compares nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, select

from vagus.records.tables import authorities, certificate_bytes, certificates, revocation_events

_CHUNK = 2_000


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
    tbs_der: bytes | None


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A step of the revocation sequence as the tables have it."""

    sequence: int
    authority: str
    serial: int
    act: str
    reason: int


def iterate_recorded_certificates(connection: Connection) -> Iterator[RecordedCertificate]:
    """Every certificate by its leaf index."""
    table = certificates.c
    query = (
        select(
            table.leaf_index,
            authorities.c.name,
            authorities.c.generation,
            table.serial,
            table.owner,
            table.profile,
            table.spki_sha256,
            table.request_id,
            certificate_bytes.c.tbs_der,
        )
        .select_from(
            certificates.join(authorities, authorities.c.id == table.authority_id).outerjoin(
                certificate_bytes, certificate_bytes.c.leaf_index == table.leaf_index
            )
        )
        .order_by(table.leaf_index)
        .limit(_CHUNK)
    )
    after = -1
    while rows := connection.execute(query.where(table.leaf_index > after)).all():
        for index, name, generation, serial, *rest in rows:
            yield RecordedCertificate(index, f"{name}#{generation}", int.from_bytes(serial, "big"), *rest)
        after = rows[-1].leaf_index


def iterate_recorded_events(connection: Connection) -> Iterator[RecordedEvent]:
    """Every step of the revocation sequence by its number."""
    table = revocation_events.c
    query = (
        select(table.sequence, authorities.c.name, authorities.c.generation, table.serial, table.act, table.reason)
        .select_from(revocation_events.join(authorities, authorities.c.id == table.authority_id))
        .order_by(table.sequence)
        .limit(_CHUNK)
    )
    after = 0
    while rows := connection.execute(query.where(table.sequence > after)).all():
        for sequence, name, generation, serial, act, reason in rows:
            yield RecordedEvent(sequence, f"{name}#{generation}", int.from_bytes(serial, "big"), act, reason)
        after = rows[-1].sequence
