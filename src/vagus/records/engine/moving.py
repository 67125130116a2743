"""Copies every table of a database into an empty one, SQLite or PostgreSQL, in one transaction; decides nothing.

Rows are read and written in parts, so that a million certificates need no memory. While `exclusive_source` is open no
other process can write the source, and for SQLite none can even open it: what is copied is what there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import NullPool, create_engine, func, insert, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from vagus.errors import Conflict, Misconfigured, Unavailable
from vagus.reasons import Reason
from vagus.records.engine.database import Connection, Database, create_tables
from vagus.records.engine.outages import unavailable_as_ours
from vagus.records.engine.tables import leases, log_head, metadata, work

if TYPE_CHECKING:
    from sqlalchemy import Row, Table

_PART: Final = 2_000
"""Rows that are read at once."""
_LONGEST_LEASE: Final = 3_600
"""Seconds. A lease that ends later was taken by a clock that ran ahead, and counts as ended."""
_OTHERS = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
AND backend_type = 'client backend'"""


def check_not_empty(database: Database) -> None:
    """Refuse a database without tables or without an installation, which settings name by mistake.

    A database that does not respond passes: its user reports that. Raises Misconfigured(SCHEMA_MISMATCH).
    """
    try:
        with database.reading() as connection:
            tables = inspect(connection).get_table_names()
            if "installation" in tables and connection.execute(text("SELECT id FROM installation")).first() is not None:
                return
    except (Unavailable, SQLAlchemyError):
        return
    msg = (
        f"the database {name_of(database)} is empty, so it is not this installation's: correct installation.database "
        "in vagus.toml; to move there, name the old database in vagus.toml and run: vagus move-database URL"
    )
    raise Misconfigured(Reason.SCHEMA_MISMATCH, msg)


def name_of(database: Database) -> str:
    """The URL of a database, without its password."""
    return database.url.render_as_string(hide_password=True)


@contextmanager
def exclusive_source(database: Database, now: int) -> Iterator[Connection]:
    """A connection that reads all of `database` while no other process writes it; the caller has closed its own.

    Raises Conflict(DATABASE_IN_USE) while another process has it open, or holds a lease at `now` (seconds since 1970).
    """
    with unavailable_as_ours(database.path):
        if database.is_sqlite:
            engine = create_engine(database.url, poolclass=NullPool, connect_args={"timeout": 1.0})
            with engine.connect() as connection:
                # In this mode the first statement takes the lock that no other open connection allows.
                connection.exec_driver_sql("PRAGMA locking_mode = EXCLUSIVE")
                try:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                except SQLAlchemyError as error:
                    raise _in_use("another process has it open") from error
                _check_leases(connection, now)
                yield connection
            return
        with database.writing() as connection:
            # A process that connects from here on waits for this table first, and then reads its settings again.
            connection.exec_driver_sql("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
            connection.execute(select(log_head.c.id).with_for_update())
            if connection.execute(text(_OTHERS)).scalar_one():
                raise _in_use("other sessions are connected to it")
            _check_leases(connection, now)
            yield connection


def count_rows(source: Connection) -> int:
    """How many rows `copy_tables` will copy."""
    return sum(source.execute(select(func.count()).select_from(table)).scalar_one() for table in metadata.sorted_tables)


def copy_tables(source: Connection, target: Database, advance: Callable[[int], None]) -> None:
    """Make every table in the empty `target` and fill it from `source`, in one transaction of the target.

    `advance` gets how many rows were copied since the last call. Raises Conflict(ALREADY_EXISTS) for a target that
    holds a table, Unavailable(DATABASE_UNAVAILABLE); then the target holds nothing new.
    """
    with target.writing() as connection:
        if held := inspect(connection).get_table_names():
            msg = (
                f"the database {name_of(target)} is not empty: it holds {len(held)} tables, {held[0]} among them; "
                "name an empty one, or drop this one and create it again"
            )
            raise Conflict(Reason.ALREADY_EXISTS, msg)
        create_tables(connection)
        for table in metadata.sorted_tables:
            copied = 0
            for part in _parts(source, table):
                copied += _write(connection, table, part, is_sqlite=target.is_sqlite)
                advance(len(part))
            if not target.is_sqlite:
                _set_identity(connection, table)
            found = connection.execute(select(func.count()).select_from(table)).scalar_one()
            if found != copied:
                msg = f"{found} of {copied} rows of table {table.name} are in {name_of(target)}; try again"
                raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
    if not target.is_sqlite:
        with target.writing() as connection:
            connection.exec_driver_sql(f"ANALYZE {', '.join(metadata.tables)}")


def drop_tables(target: Database) -> None:
    """Take back what `copy_tables` made."""
    with target.writing() as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def _parts(source: Connection, table: Table) -> Iterator[Sequence[Row[Any]]]:
    order = list(table.primary_key)  # a row of an authority comes after that of the authority above it
    rows = source.execution_options(yield_per=_PART).execute(select(table).order_by(*order))
    yield from rows.partitions(_PART)


def _write(connection: Connection, table: Table, rows: Sequence[Row[Any]], *, is_sqlite: bool) -> int:
    if is_sqlite:
        connection.execute(insert(table), [dict(row._mapping) for row in rows])  # noqa: SLF001 its public name
        return len(rows)
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({columns}) FROM STDIN') as copy:
        for row in rows:
            copy.write_row(tuple(row))
    return len(rows)


def _set_identity(connection: Connection, table: Table) -> None:
    """The next id that PostgreSQL gives follows the highest that was copied."""
    column = table.autoincrement_column
    if column is None:
        return
    sequence = connection.execute(
        text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
    ).scalar_one()
    highest = connection.execute(select(func.max(column))).scalar_one()
    if sequence is not None and highest is not None:
        connection.execute(text("SELECT setval(:sequence, :highest)"), {"sequence": sequence, "highest": highest})


def _check_leases(connection: Connection, now: int) -> None:
    bounds = leases.c.until.between(now + 1, now + _LONGEST_LEASE)
    held = connection.execute(select(leases.c.holder, leases.c.until).where(bounds)).first()
    if held is None:
        at_work = work.c.leased_until.between(now + 1, now + _LONGEST_LEASE)
        held = connection.execute(select(work.c.leased_by, work.c.leased_until).where(at_work)).first()
    if held is not None:
        until = time.strftime("%H:%M:%SZ", time.gmtime(held[1]))
        raise _in_use(f"{held[0]} has a lease of it until {until}; after a crash, wait until then")


def _in_use(why: str) -> Conflict:
    msg = f"the database is in use: {why}; stop every `vagus serve` and every other program that uses it, then repeat"
    return Conflict(Reason.DATABASE_IN_USE, msg)
