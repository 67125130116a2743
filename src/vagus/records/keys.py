"""The one owner of each public key, for ever: rows in and out; `authority.issuance` decides who may certify a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import is_among
from vagus.records.engine.row_forms import RowForm
from vagus.records.engine.statements import Statement, Write, write_together
from vagus.records.engine.tables import keys

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


_KEY = RowForm(KeyRow)
_FIND = Statement(select(keys).where(keys.c.spki_sha256 == bindparam("spki")))
_BLOCK = Statement(
    update(keys)
    .where(keys.c.spki_sha256 == bindparam("spki"), keys.c.state != BLOCKED)
    .values(state=BLOCKED, since=bindparam("at"))
)
_INSERT = Statement(insert(keys), *_KEY.names)


def find_key(connection: Connection, spki_sha256: bytes) -> KeyRow | None:
    """The key of this hash, if one was ever presented."""
    return _KEY.read_optional(_FIND.find(connection, spki=spki_sha256))


def list_owners(connection: Connection, hashes: Sequence[bytes]) -> dict[bytes, str]:
    """The owners of those of some hundred keys that were ever presented, by the hash of the key."""
    query = select(keys.c.spki_sha256, keys.c.owner).where(is_among(connection, keys.c.spki_sha256, hashes))
    return {bytes(row.spki_sha256): row.owner for row in connection.execute(query)}


def insert_key(connection: Connection, spki_sha256: bytes, owner: str, *, at: int) -> None:
    """Write down the owner of a key that had none."""
    write_together(connection, _insert_write(spki_sha256, owner, at=at, state=ACTIVE))


def block_key(connection: Connection, spki_sha256: bytes, owner: str, *, at: int) -> bool:
    """Issue no certificate for this key from now on; an unknown key is stored with `owner`.

    True where the key was not blocked before.
    """
    known = find_key(connection, spki_sha256)
    news = block_writes(spki_sha256, owner, at=at, state=None if known is None else known.state)
    if news:
        write_together(connection, *news)
    return bool(news)


def block_writes(spki_sha256: bytes, owner: str, *, at: int, state: str | None) -> tuple[Write, ...]:
    """The writes of `block_key`, given the key's state (None: the key is unknown); none where it is blocked already."""
    if state == BLOCKED:
        return ()
    if state is None:
        return (_insert_write(spki_sha256, owner, at=at, state=BLOCKED),)
    return (_BLOCK.write(spki=spki_sha256, at=at),)


def _insert_write(spki_sha256: bytes, owner: str, *, at: int, state: str) -> Write:
    return _INSERT.write(spki_sha256=spki_sha256, owner=owner, state=state, since=at)
