"""What soaks of several servers share: the database that they stand on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.postgres import database_of_kind


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A database on PostgreSQL where there is one, else a SQLite file."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(database_of_kind("postgresql", tmp_path))
        except pytest.skip.Exception:
            found = stack.enter_context(database_of_kind("sqlite", tmp_path))
        yield found
