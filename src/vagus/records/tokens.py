"""One-time enrolment tokens by their hash: rows in and out; `fleet.tokens` decides who may spend one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from vagus.identifiers import DeviceId
from vagus.records.engine.database import Connection
from vagus.records.engine.row_forms import DEVICE_ID, RowForm
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import certificates, tokens


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


TOKEN = RowForm(TokenRow, device_id=DEVICE_ID)
_INSERT = Statement(insert(tokens), *TOKEN.names)
_BIND = Statement(
    update(tokens)
    .where(tokens.c.token_sha256 == bindparam("token"), tokens.c.bound_spki_sha256.is_(None))
    .values(
        bound_spki_sha256=bindparam("key"),
        used_at=bindparam("at"),
        certificate_leaf_index=select(certificates.c.leaf_index)
        .where(certificates.c.request_id == bindparam("request"))
        .scalar_subquery(),
    )
)


def insert_token(connection: Connection, token: TokenRow) -> None:
    """Add a token that is unused."""
    _INSERT.change(connection, **TOKEN.values(token))


def bind_token(
    connection: Connection, token_sha256: bytes, spki_sha256: bytes, *, request_id: str | None, at: int
) -> bool:
    """Bind an unused token to a key, and to the certificate that this request id got; False: it was bound already."""
    return _BIND.change(connection, token=token_sha256, key=spki_sha256, request=request_id, at=at) == 1


def expire_tokens_of(connection: Connection, device_id: DeviceId, *, at: int) -> int:
    """End every unused token of a device now; how many there were."""
    query = tokens.update().where(
        tokens.c.device_id == str(device_id), tokens.c.bound_spki_sha256.is_(None), tokens.c.expires_at > at
    )
    return connection.execute(query.values(expires_at=at)).rowcount
