"""The databases that records are tested on: SQLite always, PostgreSQL where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import fresh_database, postgres_server
from tests.simulator.databases import created_database
from tests.simulator.rows import authority
from vagus.records.engine.database import Connection, Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The url of a server of our own, or a skip with its reason."""
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["memory", "file", pytest.param("postgres", marks=pytest.mark.interop)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The url of an empty database of each kind."""
    if request.param == "memory":
        yield "sqlite://"
    elif request.param == "file":
        yield f"sqlite:///{tmp_path / 'vagus.sqlite3'}"
    else:
        with fresh_database(request.getfixturevalue("postgres")) as url:
            yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of each kind with its tables."""
    with created_database(database_url) as made:
        yield made


@pytest.fixture
def file_database(tmp_path: Path) -> Iterator[Database]:
    """A SQLite database in a file."""
    with created_database(f"sqlite:///{tmp_path / 'vagus.sqlite3'}") as made:
        yield made


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A transaction that writes to `database` and is committed after the test."""
    with database.writing() as writing:
        yield writing


@pytest.fixture
def ca(connection: Connection) -> int:
    """The authority h1/icu."""
    return authority(connection)


@pytest.fixture
def other(connection: Connection, ca: int) -> int:
    """The authority h1/er, made after h1/icu."""
    return authority(connection, "h1/er")
