"""What tests ask of tables and keystores and the product never does."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import func, select

from vagus.identifiers import DeviceId
from vagus.records.engine.database import Connection
from vagus.records.engine.tables import certificate_bytes, certificates, devices, revocations, tokens, work
from vagus.records.tokens import TOKEN, TokenRow


def count_open(connection: Connection, kind: str | None = None) -> int:
    """How many jobs are not finished."""
    query = select(func.count()).select_from(work).where(work.c.done_at.is_(None))
    return int(connection.execute(query if kind is None else query.where(work.c.kind == kind)).scalar_one())


def count_revoked(connection: Connection, authority_id: int) -> int:
    """How many certificates of an authority are revoked or on hold."""
    query = select(func.count()).where(revocations.c.authority_id == authority_id)
    return int(connection.execute(query).scalar_one())


def count_lost(connection: Connection) -> int:
    """How many certificates have no bytes."""
    without = ~select(1).where(certificate_bytes.c.leaf_index == certificates.c.leaf_index).exists()
    return int(connection.execute(select(func.count()).select_from(certificates).where(without)).scalar_one())


def find_token(connection: Connection, token_sha256: bytes) -> TokenRow | None:
    """The token of this hash."""
    row = connection.execute(select(tokens).where(tokens.c.token_sha256 == token_sha256)).one_or_none()
    return None if row is None else TOKEN.read(row)


def list_tokens_of(connection: Connection, device_id: DeviceId) -> tuple[TokenRow, ...]:
    """A device's tokens, oldest first."""
    query = select(tokens).where(tokens.c.device_id == str(device_id)).order_by(tokens.c.made_at, tokens.c.token_sha256)
    return tuple(TOKEN.read(row) for row in connection.execute(query))


def count_devices_by_state(connection: Connection, hospital: str = "") -> dict[str, int]:
    """How many devices (of a hospital) are in each state."""
    query = select(devices.c.state, func.count()).where(devices.c.unit.startswith(f"{hospital}/" if hospital else ""))
    return {row[0]: row[1] for row in connection.execute(query.group_by(devices.c.state))}


def list_key_ids(keystore: Path) -> list[str]:
    """The keys in a keystore's folder."""
    return sorted(path.name.removesuffix(".key") for path in keystore.glob("[!.]*.key"))
