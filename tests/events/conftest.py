"""The databases that followers are tested on: those of records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.records.conftest import database, database_url, postgres
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.writer import Writer
from vagus.testing import FrozenClock

__all__ = ["database", "database_url", "elsewhere", "postgres", "writer"]


def add(writer: Writer, *entries: bytes) -> None:
    """Append these entries to the ledger."""
    writer.submit(lambda batch: [batch.append(entry) for entry in entries]).result(10)


@pytest.fixture
def elsewhere(database: Database, database_url: str) -> Iterator[Database]:
    """The database as another process opens it."""
    opened = database if database.is_memory else open_database(database_url)
    yield opened
    if opened is not database:
        opened.close()


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    """The writer of this process."""
    with Writer(database, FrozenClock()) as made:
        yield made
