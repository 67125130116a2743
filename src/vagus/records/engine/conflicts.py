"""What two honest callers can do to each other in the tables, as a conflict; knows no table and undoes nothing."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from vagus.errors import Conflict
from vagus.reasons import Reason
from vagus.records.engine.outages import first_line


def as_conflict(error: SQLAlchemyError) -> Exception:
    """What two honest callers can do to each other (a key taken, a row gone) as a conflict.

    A missing value or a broken check is a mistake of ours, like every other statement error, and stays what it is.
    """
    if not isinstance(error, IntegrityError) or _broken_constraint(error.orig) not in _CONFLICTS:
        return error
    msg = f"this is already recorded or refers to nothing ({first_line(error.orig)})"
    conflict = Conflict(Reason.ALREADY_EXISTS, msg)
    conflict.__cause__ = error
    return conflict


_CONFLICTS = frozenset(
    {
        # PostgreSQL, appendix A, class 23
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
