"""Rows for certificates that a restore has lost and the log still names; decides nothing about them."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from vagus.records.certificates import EVERY_SHARD, CertificateRow, insert_row, take_place_everywhere, take_places
from vagus.records.engine.tables import certificates, devices, revocations

LOST = b""
"""The fingerprint of a certificate whose bytes are lost: not NULL, so it is no open intent, and equal to no digest."""


def insert_lost_certificate(connection: Connection, row: CertificateRow) -> None:
    """A certificate of which only the ledger's entry is left: it has no bytes, and can be revoked like any other.

    It takes its place in its shard as when it was issued.
    """
    insert_row(connection, row)
    take_place(connection, row.authority_id, row.shard)


def take_place(connection: Connection, authority_id: int, shard: int) -> None:
    """One place in a shard, or in each for `EVERY_SHARD`."""
    if shard == EVERY_SHARD:
        take_place_everywhere(connection, authority_id)
    else:
        take_places(connection, authority_id, shard, 1)


def set_known_shard(connection: Connection, row: CertificateRow, shard: int) -> None:
    """Move a certificate from every shard to the one whose CRL names it."""
    take_place(connection, row.authority_id, shard)
    for table in (certificates, revocations):
        connection.execute(update(table).where(table.c.leaf_index == row.leaf_index).values(shard=shard))


def list_device_ids(connection: Connection) -> tuple[str, ...]:
    """Every device of the inventory."""
    return tuple(connection.execute(select(devices.c.id).order_by(devices.c.id)).scalars())
