"""Rows of revoked and held certificates and of each step: written, released, read as CRL entries by shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, delete, exists, func, insert, null, select

from vagus.identifiers import serial_bytes
from vagus.records.certificates import EVERY_SHARD, list_covered_shards, list_shards
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import hidden, rows_after
from vagus.records.engine.row_forms import SERIAL, RowForm
from vagus.records.engine.statements import Statement, Write, write_together
from vagus.records.engine.tables import certificates, revocation_events, revocations

REVOKE = "revoke"
HOLD = "hold"
RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationRow:
    """A certificate that is revoked or on hold now; `entry_der` is its element in every CRL."""

    leaf_index: int
    sequence: int
    authority_id: int
    serial: int
    shard: int
    reason: int
    revoked_at: int
    not_after: int
    entry_der: bytes


_REVOCATION = RowForm(RevocationRow, serial=SERIAL)
_EVENT = RowForm(RevocationEvent, serial=SERIAL)
_INSERT = Statement(insert(revocations), *_REVOCATION.names)
_INSERT_EVENT = Statement(insert(revocation_events), *_EVENT.names)
_DELETE = Statement(delete(revocations).where(revocations.c.leaf_index == bindparam("leaf")))
_BY_LEAF = select(revocations).where(revocations.c.leaf_index == bindparam("leaf"))
_ENTRIES = (
    select(revocations.c.leaf_index, revocations.c.entry_der)
    .where(
        revocations.c.authority_id == bindparam("authority"),
        revocations.c.shard == bindparam("shard"),
        revocations.c.not_after >= bindparam("ends_from"),
        revocations.c.leaf_index > bindparam("position"),
    )
    .order_by(revocations.c.leaf_index)
    .limit(bindparam("count"))
)
_PAGE = 5000
_REVOKED_AFTER = (
    select(
        revocations.c.leaf_index, revocations.c.serial, revocations.c.entry_der, revocations.c.revoked_at.label("at")
    )
    .where(
        revocations.c.authority_id == bindparam("authority"),
        revocations.c.shard == bindparam("shard"),
        revocations.c.sequence > bindparam("after"),
    )
    .limit(bindparam("most"))
)
_STEPS_WITH_CERTIFICATES = revocation_events.join(
    certificates,
    and_(
        hidden(certificates.c.authority_id == revocation_events.c.authority_id),
        certificates.c.serial == revocation_events.c.serial,
    ),
)
_RELEASED_AFTER = (
    select(
        certificates.c.leaf_index,
        certificates.c.serial,
        null().label("entry_der"),
        func.max(revocation_events.c.at).label("at"),
    )
    .select_from(_STEPS_WITH_CERTIFICATES)
    .where(
        revocation_events.c.authority_id == bindparam("authority"),
        revocation_events.c.act == RELEASE,
        revocation_events.c.sequence > bindparam("after"),
        certificates.c.shard == bindparam("shard"),
        ~exists().where(revocations.c.leaf_index == certificates.c.leaf_index),
    )
    .group_by(certificates.c.leaf_index, certificates.c.serial)
    .limit(bindparam("most"))
)


def put_revocation(connection: Connection, row: RevocationRow) -> None:
    """Revoke or hold: replaces an existing row of this certificate."""
    delete_revocation(connection, row.leaf_index)
    write_together(connection, revocation_write(row))


def revocation_write(row: RevocationRow) -> Write:
    """The change that revokes or holds a certificate that has no such row."""
    return _INSERT.write(**_REVOCATION.values(row))


def delete_revocation(connection: Connection, leaf_index: int) -> None:
    """Release from hold: no further CRL names the certificate."""
    write_together(connection, removal_write(leaf_index))


def removal_write(leaf_index: int) -> Write:
    """The change of `delete_revocation`."""
    return _DELETE.write(leaf=leaf_index)


def insert_event(connection: Connection, event: RevocationEvent) -> None:
    """One more step of the sequence, numbered by the batch."""
    write_together(connection, event_write(event))


def event_write(event: RevocationEvent) -> Write:
    """The change of `insert_event`."""
    return _INSERT_EVENT.write(**_EVENT.values(event))


def find_revocation(connection: Connection, leaf_index: int) -> RevocationRow | None:
    """Whether and how a certificate is revoked or on hold."""
    return _REVOCATION.find(connection, _BY_LEAF, {"leaf": leaf_index})


def find_revoked_serial(connection: Connection, authority_id: int, serial: int) -> RevocationRow | None:
    """As `find_revocation`, by (issuer, serial)."""
    query = (  # found by the index on certificates' names, because revocations have none
        select(revocations)
        .join(certificates, certificates.c.leaf_index == revocations.c.leaf_index)
        .where(certificates.c.serial == serial_bytes(serial), hidden(certificates.c.authority_id == authority_id))
    )
    return _REVOCATION.find(connection, query)


def iterate_entries(connection: Connection, authority_id: int, shard: int, *, ends_from: int) -> Iterator[bytes]:
    """The CRL entries of one shard whose certificates end at `ends_from` or later, in the order of their leaves.

    Some thousands at a time, joined as a CRL holds them: a million separate byte strings would need twice the memory.
    """
    position = -1
    values = {"authority": authority_id, "shard": shard, "ends_from": ends_from, "count": _PAGE}
    while True:
        page = connection.execute(_ENTRIES, {**values, "position": position})
        # Keep the tuples of the driver: SQLAlchemy's Row for each of a million entries would cost more than all the
        # rest.
        found = [] if page.cursor is None else page.cursor.fetchall()
        page.close()
        if found:
            yield b"".join([entry for _, entry in found])
        if len(found) < _PAGE:
            return
        position = found[-1][0]


def list_events(connection: Connection, authority_id: int, *, after: int) -> tuple[RevocationEvent, ...]:
    """The steps of one authority after a place in the sequence."""
    table = revocation_events.c
    query = select(revocation_events).where(table.authority_id == authority_id, table.sequence > after)
    return _EVENT.list(connection, query.order_by(table.sequence))


def newest_sequence(connection: Connection) -> int:
    """The end of the sequence; 0 before the first step."""
    return int(connection.execute(select(func.max(revocation_events.c.sequence))).scalar() or 0)


def newest_by_shard(connection: Connection, authority_id: int, *, after: int) -> dict[int, int]:
    """For each shard with a step after `after`: the newest of its steps."""
    query = (
        select(certificates.c.shard, func.max(revocation_events.c.sequence).label("newest"))
        .select_from(_STEPS_WITH_CERTIFICATES)
        .where(revocation_events.c.authority_id == authority_id, revocation_events.c.sequence > after)
        .group_by(certificates.c.shard)
    )
    found = {row.shard: row.newest for row in connection.execute(query)}
    if (everywhere := found.pop(EVERY_SHARD, None)) is not None:
        return {shard: max(everywhere, found.get(shard, 0)) for shard in list_shards(connection, authority_id)}
    return found


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a certificate since a place in the sequence: its entry now, None where it was released."""

    serial: int
    entry_der: bytes | None
    at: int


def list_changes(connection: Connection, authority_id: int, shard: int, *, after: int, most: int) -> tuple[Change, ...]:
    """Every certificate of a shard with a step after `after`, in the order of leaves; at most `most`."""
    # A revoked or held certificate has its last step in its own row. So only releases, which are few, are read from the
    # sequence. After a mass revocation the base CRL is hours old, a million steps lie after it, and every delta CRL of
    # every shard comes from this query.
    found = []
    for one in list_covered_shards(connection, authority_id, shard):
        values = {"authority": authority_id, "shard": one, "after": after, "most": most}
        found += [*connection.execute(_REVOKED_AFTER, values), *connection.execute(_RELEASED_AFTER, values)]
    found.sort(key=lambda row: row.leaf_index)
    return tuple(
        Change(int.from_bytes(row.serial, "big"), None if row.entry_der is None else bytes(row.entry_der), row.at)
        for row in found[:most]
    )


def oldest_waiting(connection: Connection, authority_id: int, shard: int, *, after: int) -> int | None:
    """The time of a shard's first step after `after` that still counts, seconds since 1970 UTC; None without one.

    "First" is by the sequence, the order in which CRLs take steps. Where a clock was set back between two steps, the
    later one has the earlier time; the time of the first is used all the same.
    """
    table = revocations.c
    place = (table.authority_id, table.shard, table.sequence)
    # one row, however many revocations wait after a mass revocation
    query = select(table.revoked_at).order_by(*place).limit(1)
    found = [
        connection.execute(query.where(*rows_after(connection, place, (authority_id, one, after)))).scalar()
        for one in list_covered_shards(connection, authority_id, shard)
    ]
    return min((int(at) for at in found if at is not None), default=None)
