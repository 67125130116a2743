"""Reads in one query all rows about a device that requests a certificate; `fleet.enrolment` decides."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, select

from vagus.identifiers import DeviceId, serial_bytes
from vagus.records.certificates import HELD, SERVER_PROFILE
from vagus.records.devices import DEVICE, DeviceRow
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.query_hints import hidden
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import certificates, devices, tokens, units
from vagus.records.tokens import TOKEN, TokenRow
from vagus.records.units import UNIT_ROW, UnitRow


@dataclass(frozen=True, slots=True)
class ApplicantRow:
    """A device with its unit and, where it came with one, its token; None for what is not on record."""

    device: DeviceRow | None
    unit: UnitRow | None
    token: TokenRow | None = None


@dataclass(frozen=True, slots=True)
class ApplicantNow:
    """The device as the writer's batch sees it. `shown_state` is that of the certificate that speaks for it."""

    device: DeviceRow | None
    token: TokenRow | None
    is_held: bool
    """Whether a certificate of it that has not ended is on hold."""
    shown_state: str | None


_BY_TOKEN = Statement(
    select(tokens, devices, units)
    .select_from(
        tokens.outerjoin(devices, devices.c.id == tokens.c.device_id).outerjoin(units, units.c.name == devices.c.unit)
    )
    .where(tokens.c.token_sha256 == bindparam("token"))
)
_BY_DEVICE = Statement(
    select(devices, units)
    .select_from(devices.outerjoin(units, units.c.name == devices.c.unit))
    .where(devices.c.id == bindparam("device"))
)
_BY_SERVER_CERTIFICATE = Statement(
    select(devices)
    .select_from(devices.join(certificates, certificates.c.device_id == devices.c.id))
    .where(
        certificates.c.spki_sha256 == bindparam("key"),
        certificates.c.serial == bindparam("number"),
        certificates.c.profile == SERVER_PROFILE,
    )
)
_HELD = (
    select(certificates.c.leaf_index)
    .where(
        certificates.c.device_id == devices.c.id,
        hidden(certificates.c.not_after > bindparam("at"), certificates.c.state == HELD),
    )
    .limit(1)
    .scalar_subquery()
)
_SHOWN = select(certificates.c.state).where(certificates.c.fingerprint == bindparam("shown")).limit(1).scalar_subquery()
_NOW = Statement(
    select(devices, tokens, _HELD.label("held_leaf"), _SHOWN.label("shown_state"))
    .select_from(devices.outerjoin(tokens, tokens.c.token_sha256 == bindparam("token")))
    .where(devices.c.id == bindparam("device"))
)


def find_by_token(database: Database, token_sha256: bytes) -> ApplicantRow | None:
    """The token of this hash and whose it is, with a connection of its own."""
    row = _BY_TOKEN.query(database, token=token_sha256)
    if row is None:
        return None
    device = None if row.id is None else DEVICE.read(row)
    return ApplicantRow(device, None if row.name is None else UNIT_ROW.read(row), TOKEN.read(row))


def find_by_device(database: Database, device_id: DeviceId) -> ApplicantRow:
    """The device of this id, with a connection of its own."""
    row = _BY_DEVICE.query(database, device=device_id.text)
    if row is None:
        return ApplicantRow(None, None)
    return ApplicantRow(DEVICE.read(row), None if row.name is None else UNIT_ROW.read(row))


def find_server(database: Database, spki_sha256: bytes, serial: int) -> DeviceRow | None:
    """The device whose server certificate has this key and serial, with a connection of its own."""
    row = _BY_SERVER_CERTIFICATE.query(database, key=spki_sha256, number=serial_bytes(serial))
    return None if row is None else DEVICE.read(row)


def recheck_applicant(
    connection: Connection, device_id: DeviceId, *, token_sha256: bytes | None, shown_sha256: bytes | None, at: int
) -> ApplicantNow:
    """What may have changed since: device, token, holds, and the certificate that the connection was made with."""
    row = _NOW.find(connection, device=device_id.text, token=token_sha256, shown=shown_sha256, at=at)
    if row is None:
        return ApplicantNow(None, None, is_held=False, shown_state=None)
    token = None if row.token_sha256 is None else TOKEN.read(row)
    return ApplicantNow(DEVICE.read(row), token, row.held_leaf is not None, row.shown_state)
