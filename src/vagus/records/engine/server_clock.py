"""What time it is for the database, where that is a server with a clock of its own; decides nothing."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select


def read_clock(connection: Connection) -> datetime | None:
    """The database server's clock, with its zone; None for SQLite, which asks the same clock as we do."""
    if connection.dialect.name == "sqlite":
        return None
    found: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return found
