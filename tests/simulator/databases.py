"""Databases with their tables, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vagus.records.engine.database import Database, open_database


@contextmanager
def created_database(url: str = "sqlite://") -> Iterator[Database]:
    """The database at this url with its tables made; in memory unless another url is given."""
    database = open_database(url)
    database.create()
    try:
        yield database
    finally:
        database.close()
