"""The gapless sequence of device changes: numbers and reads its rows; `events` follows them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select

from vagus.errors import Misconfigured
from vagus.identifiers import DeviceId
from vagus.reasons import Reason
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import device_changes, log_head
from vagus.records.engine.writer import Batch

PAGE = 5_000
"""How many rows one query reads."""

_AT = Statement(
    select(log_head.c.device_sequence.label("end"), device_changes.c.device_id, device_changes.c.at)
    .select_from(log_head.outerjoin(device_changes, device_changes.c.sequence == bindparam("position")))
    .where(log_head.c.id == 1)
)


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """One step of the sequence."""

    sequence: int
    device_id: str
    at: int


def note_device_change(batch: Batch, device_id: DeviceId) -> int:
    """Number a change of a device's rights, in the transaction that makes it; gives its place in the sequence."""
    sequence = batch.next_device_change()
    row = {"sequence": sequence, "device_id": str(device_id), "at": batch.at}
    batch.connection.execute(insert(device_changes), row)
    return sequence


def read_changes(connection: Connection, after: int, limit: int = PAGE) -> list[DeviceChange]:
    """At most `limit` changes after number `after`, in order."""
    table = device_changes.c
    rows = connection.execute(
        select(table.sequence, table.device_id, table.at)
        .where(table.sequence > after)
        .order_by(table.sequence)
        .limit(limit)
    )
    return [DeviceChange(*row) for row in rows]


def find_change(connection: Connection, position: int) -> tuple[int, DeviceChange | None]:
    """The number at which the sequence ends, and the change at `position`, None where there is none.

    Raises Misconfigured(SCHEMA_MISMATCH).
    """
    row = _AT.find(connection, position=position)
    if row is None:
        raise Misconfigured(Reason.SCHEMA_MISMATCH, "the database has no log head; run: vagus init")
    return row.end, None if row.device_id is None else DeviceChange(position, row.device_id, row.at)
