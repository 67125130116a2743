"""The databases that followers are tested on: those of records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.records.conftest import database, database_url, postgres
from vagus.records.engine.database import Database
from vagus.records.engine.writer import Writer
from vagus.testing import FrozenClock

__all__ = ["database", "database_url", "postgres", "writer"]


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    """The writer of this process."""
    with Writer(database, FrozenClock()) as made:
        yield made
