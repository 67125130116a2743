"""Reads the rows of the gapless revocation sequence for followers; `revocations` writes them, `events` follows them."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from vagus.errors import Misconfigured
from vagus.reasons import Reason
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import log_head, revocation_events

PAGE = 5_000
"""How many rows one query reads."""


def read_events(connection: Connection, after: int, limit: int = PAGE) -> list[RevocationEvent]:
    """At most `limit` events after number `after`, in order."""
    table = revocation_events.c
    rows = connection.execute(
        select(table.sequence, table.authority_id, table.serial, table.act, table.reason, table.at, table.dated_at)
        .where(table.sequence > after)
        .order_by(table.sequence)
        .limit(limit)
    )
    return [
        RevocationEvent(sequence, authority_id, int.from_bytes(serial, "big"), act, reason, at, dated_at)
        for sequence, authority_id, serial, act, reason, at, dated_at in rows
    ]


_AT = Statement(
    select(
        log_head.c.revocation_sequence.label("end"),
        revocation_events.c.authority_id,
        revocation_events.c.serial,
        revocation_events.c.act,
        revocation_events.c.reason,
        revocation_events.c.at,
        revocation_events.c.dated_at,
    )
    .select_from(log_head.outerjoin(revocation_events, revocation_events.c.sequence == bindparam("position")))
    .where(log_head.c.id == 1)
)


def find_event(connection: Connection, position: int) -> tuple[int, RevocationEvent | None]:
    """The number at which the sequence ends, and the event at `position`, None where there is none.

    Raises Misconfigured(SCHEMA_MISMATCH).
    """
    row = _AT.find(connection, position=position)
    if row is None:
        raise Misconfigured(Reason.SCHEMA_MISMATCH, "the database has no log head; run: vagus init")
    if row.serial is None:
        return row.end, None
    serial = int.from_bytes(row.serial, "big")
    return row.end, RevocationEvent(position, row.authority_id, serial, row.act, row.reason, row.at, row.dated_at)
