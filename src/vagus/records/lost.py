"""Rows for certificates that a restore has lost and the log gave back; decides nothing about them."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select

from vagus.identifiers import serial_bytes
from vagus.records.certificates import CertificateRow
from vagus.records.tables import certificate_bytes, certificates, devices

LOST = b""
"""The fingerprint of a certificate whose bytes are gone: no open intent, and equal to no digest."""


def insert_lost_certificate(connection: Connection, row: CertificateRow) -> None:
    """A certificate of which only the ledger's entry is left: it has no bytes, and can be revoked like any other."""
    values = {name: getattr(row, name) for name in CertificateRow.__slots__}
    connection.execute(insert(certificates), {**values, "serial": serial_bytes(row.serial)})


def list_device_ids(connection: Connection) -> tuple[str, ...]:
    """Every device of the inventory."""
    return tuple(connection.execute(select(devices.c.id).order_by(devices.c.id)).scalars())


def count_lost(connection: Connection) -> int:
    """How many certificates have no bytes."""
    there = certificate_bytes.c.leaf_index
    joined = certificates.outerjoin(certificate_bytes, there == certificates.c.leaf_index)
    return int(connection.execute(select(func.count()).select_from(joined).where(there.is_(None))).scalar_one())
