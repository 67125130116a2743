"""What soaks of several servers share: the database that they stand on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.postgres import fresh_database, postgres_server


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A database on PostgreSQL where there is one, else a SQLite file."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres_server())
        except pytest.skip.Exception:
            yield f"sqlite:///{tmp_path / 'shared.sqlite3'}"
        else:
            yield stack.enter_context(fresh_database(server))
