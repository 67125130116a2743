"""The databases that a bench can stand on, and rows written past the writer to fill them quickly; measures nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import make_url

if TYPE_CHECKING:
    import psycopg

SQLITE = "SQLite"
POSTGRESQL = "PostgreSQL"
WANTED = tuple(os.environ.get("BENCH_DATABASES", f"{SQLITE},{POSTGRESQL}").split(","))
"""On which of them a bench runs that knows both."""

_OWN_FILE = "sqlite:///vagus.sqlite3"
_CHUNK = 50_000


class NoServerError(RuntimeError):
    """There is no PostgreSQL on this machine."""


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The url of an empty database, for `vagus init --database`; a PostgreSQL server is our own and goes again."""
    if kind == SQLITE:
        yield _OWN_FILE
        return
    import pytest
    from tests.postgres import fresh_database, postgres_server

    try:
        with postgres_server() as server, fresh_database(server) as url:
            yield url
    except pytest.skip.Exception as missing:
        raise NoServerError(str(missing)) from missing


class Bulk(Protocol):
    """Writes many rows past the writer."""

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Append rows; the columns that are not named stay empty."""

    def ask(self, query: str) -> int:
        """One number."""

    def say(self, statement: str) -> None:
        """A statement without parameters."""


@contextmanager
def bulk(url: str) -> Iterator[Bulk]:
    """Quick rows for the database at `url`; all are there at the end of the block."""
    if url.startswith("sqlite:///"):
        connection = connect(Path(url.removeprefix("sqlite:///")))
        try:
            yield _SqliteBulk(connection)
        finally:
            connection.close()
        return
    import psycopg

    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as opened:
        opened.execute("SET synchronous_commit = off")
        yield _PostgresBulk(opened)


def connect(file: Path) -> sqlite3.Connection:
    """The file through the bare driver, without foreign keys or syncs."""
    connection = sqlite3.connect(file, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = OFF", "foreign_keys = OFF", "cache_size = -200000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class _SqliteBulk:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        places = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
        left = iter(rows)
        while chunk := list(islice(left, _CHUNK)):  # one transaction of all would stand twice on the disk
            self._connection.execute("BEGIN")
            self._connection.executemany(statement, chunk)
            self._connection.execute("COMMIT")

    def ask(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])

    def say(self, statement: str) -> None:
        self._connection.execute(statement)


class _PostgresBulk:
    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)
        self._connection.commit()

    def ask(self, query: str) -> int:
        found = self._connection.execute(query).fetchone()
        assert found is not None
        return int(found[0])

    def say(self, statement: str) -> None:
        self._connection.execute(statement)
        self._connection.commit()
