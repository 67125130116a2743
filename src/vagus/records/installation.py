"""The one row that says what this database is: its log's origin, its salt, whether a restore is unsettled."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, insert, select, update

from vagus.errors import Conflict, Malformed, Misconfigured
from vagus.reasons import Reason
from vagus.records.engine.row_forms import RowForm
from vagus.records.engine.tables import installation
from vagus.records.log import load_head

_SALT_BYTES = 32
_SALTS: WeakKeyDictionary[Engine, bytes] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class InstallationRow:
    """What this database is. `salt` hides personal data in the ledger and never leaves the installation."""

    origin: str
    created_at: int
    salt: bytes
    restored_at: int | None = None
    policy_sha256: bytes | None = None
    group_domain: str | None = None
    restored_size: int | None = None
    restored_from: bytes | None = None

    def __repr__(self) -> str:
        return f"InstallationRow(origin={self.origin!r}, group_domain={self.group_domain!r})"


_FORM = RowForm(InstallationRow)


def insert_installation(connection: Connection, new: InstallationRow) -> None:
    """Write the row, once in the life of a database.

    Raises Conflict(ALREADY_EXISTS) when there is one, Malformed(BAD_ARGUMENT) for an origin that no checkpoint can
    carry as its first line and key name (C2SP signed-note) or for a salt that is not 32 bytes.
    """
    if find_installation(connection) is not None:
        raise Conflict(Reason.ALREADY_EXISTS, "this database belongs to an installation already; use an empty database")
    _check_origin(new.origin)
    if len(new.salt) != _SALT_BYTES:
        msg = f"a salt of {len(new.salt)} bytes is not {_SALT_BYTES} bytes long; draw it from the entropy source"
        raise Malformed(Reason.BAD_ARGUMENT, msg, size=len(new.salt))
    connection.execute(insert(installation), {"id": 1, **_FORM.values(new)})


def find_installation(connection: Connection) -> InstallationRow | None:
    """The row, if this database has one."""
    return _FORM.find(connection, select(installation).where(installation.c.id == 1))


def load_installation(connection: Connection) -> InstallationRow:
    """The row. Raises Misconfigured(SCHEMA_MISMATCH) in a database that was never initialised."""
    found = find_installation(connection)
    if found is None:
        raise Misconfigured(Reason.SCHEMA_MISMATCH, "the database belongs to no installation yet; run: vagus init")
    return found


def load_salt(connection: Connection) -> bytes:
    """The salt, remembered for the connection's engine: it never changes in the life of a database."""
    salt = _SALTS.get(connection.engine)
    if salt is None:
        salt = _SALTS[connection.engine] = load_installation(connection).salt
    return salt


def set_restored(connection: Connection, at: int, *, size: int, backup_sha256: bytes) -> None:
    """Note that this database came back at `at` from a backup whose log had `size` leaves: nothing is appended."""
    _change(connection, restored_at=at, restored_size=size, restored_from=backup_sha256)


def mark_set_back(connection: Connection, at: int) -> None:
    """`set_restored` where other tools have brought an older state back; the backup is unknown.

    An existing mark stays as it is.
    """
    if load_installation(connection).restored_at is None:
        set_restored(connection, at, size=load_head(connection).size, backup_sha256=bytes(32))


def set_settled(connection: Connection) -> None:
    """Note that the gap after a restore is settled."""
    _change(connection, restored_at=None, restored_size=None, restored_from=None)


def set_origin(connection: Connection, origin: str) -> None:
    """Give the log another name from here on. Raises Malformed(BAD_ARGUMENT) as `insert_installation`."""
    _check_origin(origin)
    _change(connection, origin=origin)


def set_policy(connection: Connection, sha256: bytes) -> None:
    """Note the policy pack in force."""
    _change(connection, policy_sha256=sha256)


def _change(connection: Connection, **values: object) -> None:
    connection.execute(update(installation).where(installation.c.id == 1).values(**values))


def _check_origin(origin: str) -> None:
    if not origin or any(c.isspace() or c == "+" or not c.isprintable() for c in origin):
        msg = f"log origin {origin!r} is empty or has spaces or '+'; write it like log.example.org/vagus"
        raise Malformed(Reason.BAD_ARGUMENT, msg, origin=origin)
