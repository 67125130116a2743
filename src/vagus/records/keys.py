"""Whose each public key is, for ever: rows in and out; who may certify a key is told in authority/issuance."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from vagus.records.database import Connection
from vagus.records.statements import Statement
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


_FIND = Statement(select(keys).where(keys.c.spki_sha256 == bindparam("spki")))
_INSERT = Statement(insert(keys), "spki_sha256", "owner", "state", "since")


def find_key(connection: Connection, spki_sha256: bytes) -> KeyRow | None:
    """The key of this hash, if anyone ever showed it."""
    row = _FIND.find(connection, spki=spki_sha256)
    return None if row is None else KeyRow(bytes(row.spki_sha256), row.owner, row.state, row.since)


def insert_key(connection: Connection, spki_sha256: bytes, owner: str, *, at: int, state: str = ACTIVE) -> None:
    """Write down the owner of a key that had none."""
    _INSERT.change(connection, spki_sha256=spki_sha256, owner=owner, state=state, since=at)


def block_key(connection: Connection, spki_sha256: bytes, owner: str, *, at: int) -> bool:
    """No certificate for this key from now on, whoever brings it; an unknown key is written down with `owner`.

    Whether it was news.
    """
    blocked = update(keys).where(keys.c.spki_sha256 == spki_sha256, keys.c.state != BLOCKED)
    if connection.execute(blocked.values(state=BLOCKED, since=at)).rowcount:
        return True
    is_unknown = find_key(connection, spki_sha256) is None
    if is_unknown:
        insert_key(connection, spki_sha256, owner, at=at, state=BLOCKED)
    return is_unknown
