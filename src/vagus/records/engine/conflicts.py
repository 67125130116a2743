"""Distinguishes a conflict of two correct callers (a taken key, a missing row) from a mistake of this program."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from vagus.errors import Conflict
from vagus.reasons import Reason
from vagus.records.engine.outages import first_line


def as_conflict(error: SQLAlchemyError) -> Exception:
    """Conflict(ALREADY_EXISTS) for a key that is taken or a row that is gone; every other error as it is.

    Two correct callers can cause the first by racing. A missing value or a failed CHECK is a mistake of this program.
    """
    if not isinstance(error, IntegrityError) or _broken_constraint(error.orig) not in _CONFLICTS:
        return error
    msg = (
        f"a row with this key exists already, or the row that it refers to does not ({first_line(error.orig)}); "
        "read the data again and repeat"
    )
    conflict = Conflict(Reason.ALREADY_EXISTS, msg)
    conflict.__cause__ = error
    return conflict


_CONFLICTS = frozenset(
    {
        # PostgreSQL's codes (appendix A, class 23)
        "23503",  # foreign_key_violation
        "23505",  # unique_violation
        # SQLite's extended result codes
        "SQLITE_CONSTRAINT_FOREIGNKEY",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
        "SQLITE_CONSTRAINT_ROWID",
        "SQLITE_CONSTRAINT_UNIQUE",
    }
)


def _broken_constraint(error: BaseException | None) -> str | None:
    """Which kind of constraint it was, as the engine names it."""
    name = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None)
    return name if isinstance(name, str) else None
