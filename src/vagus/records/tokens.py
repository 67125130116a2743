"""One-time enrolment tokens by their hash: rows in and out; who may spend one is told in fleet/tokens."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Row, select

from vagus.identifiers import DeviceId
from vagus.records.database import Connection
from vagus.records.tables import certificates, tokens


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as stored: its hash, whose it is, and the key that it was spent for."""

    token_sha256: bytes
    device_id: DeviceId
    made_at: int
    expires_at: int
    bound_spki_sha256: bytes | None = None
    used_at: int | None = None
    certificate_leaf_index: int | None = None


def insert_token(connection: Connection, token: TokenRow) -> None:
    """Add a token that nobody has used."""
    connection.execute(
        tokens.insert().values(
            token_sha256=token.token_sha256,
            device_id=str(token.device_id),
            made_at=token.made_at,
            expires_at=token.expires_at,
        )
    )


def find_token(connection: Connection, token_sha256: bytes) -> TokenRow | None:
    """The token of this hash."""
    row = connection.execute(select(tokens).where(tokens.c.token_sha256 == token_sha256)).one_or_none()
    return None if row is None else _token(row)


def list_tokens_of(connection: Connection, device_id: DeviceId) -> tuple[TokenRow, ...]:
    """A device's tokens, oldest first."""
    query = select(tokens).where(tokens.c.device_id == str(device_id)).order_by(tokens.c.made_at, tokens.c.token_sha256)
    return tuple(_token(row) for row in connection.execute(query))


def bind_token(connection: Connection, token_sha256: bytes, spki_sha256: bytes, *, at: int) -> bool:
    """Bind an unused token to a key; False when somebody was faster."""
    unused = tokens.update().where(tokens.c.token_sha256 == token_sha256, tokens.c.bound_spki_sha256.is_(None))
    return connection.execute(unused.values(bound_spki_sha256=spki_sha256, used_at=at)).rowcount == 1


def note_certificate(connection: Connection, token_sha256: bytes, request_id: str) -> None:
    """Write down which certificate the token was spent for: the one that this request id got."""
    leaf_index = select(certificates.c.leaf_index).where(certificates.c.request_id == request_id).scalar_subquery()
    query = tokens.update().where(tokens.c.token_sha256 == token_sha256)
    connection.execute(query.values(certificate_leaf_index=leaf_index))


def expire_tokens_of(connection: Connection, device_id: DeviceId, *, at: int) -> int:
    """End every unused token of a device now; how many there were."""
    query = tokens.update().where(
        tokens.c.device_id == str(device_id), tokens.c.bound_spki_sha256.is_(None), tokens.c.expires_at > at
    )
    return connection.execute(query.values(expires_at=at)).rowcount


def _token(row: Row[tuple[object, ...]]) -> TokenRow:
    bound = None if row.bound_spki_sha256 is None else bytes(row.bound_spki_sha256)
    return TokenRow(
        bytes(row.token_sha256),
        DeviceId(row.device_id),
        row.made_at,
        row.expires_at,
        bound,
        row.used_at,
        row.certificate_leaf_index,
    )
