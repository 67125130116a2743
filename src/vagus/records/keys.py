"""Whose each public key is, for ever: rows in and out; who may certify a key is told in authority/issuance."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from vagus.records.database import Connection
from vagus.records.tables import keys

ACTIVE = "active"
BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A public key by its hash, its one owner, and whether it may still be certified."""

    spki_sha256: bytes
    owner: str
    state: str
    since: int

    @property
    def is_blocked(self) -> bool:
        """Whether no certificate may carry it any more: compromised, leaked, or an authority's own."""
        return self.state == BLOCKED


_FIND = select(keys).where(keys.c.spki_sha256 == bindparam("spki"))
_INSERT = insert(keys)


def find_key(connection: Connection, spki_sha256: bytes) -> KeyRow | None:
    """The key of this hash, if anyone ever showed it."""
    row = connection.execute(_FIND, {"spki": spki_sha256}).one_or_none()
    return None if row is None else KeyRow(bytes(row.spki_sha256), row.owner, row.state, row.since)


def insert_key(connection: Connection, spki_sha256: bytes, owner: str, *, at: int, state: str = ACTIVE) -> None:
    """Write down the owner of a key that had none."""
    connection.execute(_INSERT, {"spki_sha256": spki_sha256, "owner": owner, "state": state, "since": at})


def block_key(connection: Connection, spki_sha256: bytes, owner: str, *, at: int) -> None:
    """No certificate for this key from now on, whoever brings it; an unknown key is written down with `owner`."""
    blocked = update(keys).where(keys.c.spki_sha256 == spki_sha256, keys.c.state != BLOCKED)
    if not connection.execute(blocked.values(state=BLOCKED, since=at)).rowcount and not find_key(
        connection, spki_sha256
    ):
        insert_key(connection, spki_sha256, owner, at=at, state=BLOCKED)
