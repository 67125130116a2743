"""Turns failures of the database into Unavailable, with the driver's first line and a remedy; repairs nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from vagus.errors import Unavailable
from vagus.reasons import Reason

_UNWRITABLE = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
_PRIMARY = 0xFF
"""The part of SQLite's extended codes that names the kind of failure."""


@contextmanager
def unavailable_as_ours(path: Path | None = None) -> Iterator[None]:
    """Within, a lost, locked or full database (in the file `path`) raises Unavailable(DATABASE_UNAVAILABLE)."""
    try:
        yield
    except DBAPIError as error:
        if not is_outage(error):
            raise
        msg = f"the database does not respond {explain(error.orig, path, 'try again, then look at its log')}"
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg) from error
    except PoolTimeoutError as error:
        msg = "every connection to the database is in use and none came back in time; try again, then look at its log"
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg) from error


def is_outage(error: SQLAlchemyError) -> bool:
    """Whether the database failed, not the statement: connection lost, locked, full, unreadable."""
    # SQLAlchemy reports a file that is no database, or a damaged one, as a plain DatabaseError: an outage, not a fault
    # of the statement.
    return (
        isinstance(error, OperationalError | InterfaceError | InternalError)
        or type(error) is DatabaseError
        or (isinstance(error, DBAPIError) and error.connection_invalidated)
    )


def first_line(error: BaseException | None) -> str:
    """The driver's own first line, without the statement and its parameters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def explain(error: BaseException | None, path: Path | None, otherwise: str) -> str:
    """The driver's first line and a remedy: `otherwise`, or another where SQLite may not write the file `path`."""
    remedy = otherwise
    if path is not None and getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _UNWRITABLE:
        remedy = (
            f"SQLite writes beside {path} even to read: give {path.parent} and the files in it to the user that runs "
            "this, on a disk that can be written"
        )
    return f"({first_line(error)}); {remedy}"
