"""Opens the database, SQLite or PostgreSQL, gives consistent readings and proves its settings durable; writes no row.

All writing goes through `records.writer`. A reading is one snapshot: everything read inside one `reading()` block
fits together. Readings cannot write.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from vagus.durable_files import sync_folder
from vagus.errors import Misconfigured, Unavailable
from vagus.reasons import Reason
from vagus.records.engine.outages import unavailable_as_ours
from vagus.records.engine.tables import log_head, metadata
from vagus.tlog.merkle import Frontier

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["SCHEMA", "Connection", "Database", "open_database"]

SCHEMA = "0001"
"""The newest migration: what `create` makes and `check_schema` asks for."""

_VERSION_TABLE = """CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)"""  # as alembic itself makes it

_BUSY_SECONDS = 10
_MEMORY_SECONDS = 30
_READERS = 8
_MORE_READERS = 24
_ASKERS = 2
_MORE_ASKERS = 14

READ_SECONDS = 60.0
"""How long a reading waits for a PostgreSQL that says nothing."""
_WRITE_SECONDS = 60.0
_CONNECT_SECONDS = 5
_PING_SECONDS = 5.0

BOUNDED_READ_SECONDS = 1.0
"""How long `asking` waits for a PostgreSQL that says nothing, and how long it then leaves it alone at least."""
_SPARED = 9
"""How many times as long as a failure took nobody asks again, unless somebody else has read meanwhile."""
_ASK_CONNECT_SECONDS = 2  # libpq's least

LONGEST_ASK_SECONDS = _ASK_CONNECT_SECONDS + 3 * BOUNDED_READ_SECONDS
"""The bound on all of an `asking` that fails: its turn, a lost connection, another one, the statement."""

_DURABLE_COMMITS = frozenset({"on", "local", "remote_write", "remote_apply"})  # each waits for the local flush


def open_database(url: str) -> Database:
    """The database at `url`: `sqlite:///path`, `sqlite://` (memory, for tests) or `postgresql+psycopg://...`.

    A SQLite file is created (mode 0600) when it is missing; its tables are not, see `create` and `upgrade`.
    Raises Misconfigured(BAD_SETTINGS) for another kind of database, Misconfigured(PERMISSIONS_TOO_OPEN) when others
    could read the file, Unavailable(DATABASE_UNAVAILABLE) when it cannot be opened.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Misconfigured(
            Reason.BAD_SETTINGS, "the database url is not written sqlite:///path or postgresql+psycopg://…"
        ) from error
    if parsed.drivername == "sqlite":
        return Database(parsed)
    if parsed.drivername == "postgresql+psycopg":
        return Database(parsed)
    msg = f"database {parsed.drivername!r} is not one of sqlite, postgresql+psycopg; change the url"
    raise Misconfigured(Reason.BAD_SETTINGS, msg, kind=parsed.drivername)


class Database:
    """One database, many readers, one writing connection at a time."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.path = Path(url.database) if self.is_sqlite and url.database not in {None, "", ":memory:"} else None
        self.is_memory = self.is_sqlite and self.path is None
        self._memory_turn = threading.RLock()  # the one connection of a database in memory serves one thread at a time
        self._memory_reading: Connection | None = None
        self._glasses: deque[Connection] = deque()  # connections that no transaction was ever begun on
        if self.path is not None:
            _check_file(self.path)
        self._writers = self._engine(is_writing=True)
        self._readers = self._writers if self.is_memory else self._engine(is_writing=False)
        self._askers = self._readers if self.is_sqlite else self._engine(is_writing=False, is_asking=True)
        # Of the monotonic clock: until when nobody asks, and until when not even behind a reading that went well.
        self._away_until = self._doubted_until = 0.0

    def close(self) -> None:
        """Close every idle connection."""
        while self._glasses:
            self._glasses.pop().close()
        self._askers.dispose()
        self._readers.dispose()
        self._writers.dispose()

    @contextmanager
    def reading(self, *, patience: float | None = READ_SECONDS) -> Iterator[Connection]:
        """A connection that sees one snapshot and cannot write.

        A PostgreSQL that says nothing for `patience` seconds is away; None: whatever it takes, for an audit. On a
        thread that runs an event loop this is `asking`, whoever calls: every connection waits there.

        Raises Unavailable(DATABASE_UNAVAILABLE). Don't wait for the writer inside: a database in memory serves one
        thread at a time, and an open snapshot keeps SQLite's write-ahead log from being reused.
        """
        if self.is_memory:
            with self._memory_connection() as connection:
                yield connection
            return
        if not self.is_sqlite and _is_event_loop():
            with self.bounded_reading() as connection:
                yield connection
            return
        with (
            unavailable_as_ours(self.path),
            self._readers.connect() as connection,
            connection.begin(),
            self._patient(connection, patience),
        ):
            yield connection
        self._away_until = min(self._away_until, self._doubted_until)

    @contextmanager
    def bounded_reading(self) -> Iterator[Connection]:
        """A short reading for the thread that serves connections: others wait behind it.

        Raises Unavailable(DATABASE_UNAVAILABLE) within about five seconds, and then at once for a while.
        """
        if self.is_sqlite:
            with self.reading() as connection:
                yield connection
            return
        began = time.monotonic()
        if began < self._away_until:
            msg = "the database did not answer a moment ago; try again, then look at its log"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
        try:
            with unavailable_as_ours(self.path), self._askers.connect() as connection, connection.begin():
                yield connection
        except Unavailable as error:
            if error.reason is Reason.DATABASE_UNAVAILABLE:
                now = time.monotonic()
                self._doubted_until = now + BOUNDED_READ_SECONDS
                self._away_until = max(self._doubted_until, now + _SPARED * (now - began))
            raise

    @contextmanager
    def single_statement(self) -> Iterator[Connection]:
        """A connection that reads one statement: each has a snapshot of its own where there is no transaction.

        For `statements` alone, which begins none. Raises Unavailable(DATABASE_UNAVAILABLE).
        """
        if self.path is None:
            with self.bounded_reading() as connection:
                yield connection
            return
        with unavailable_as_ours(self.path):
            try:
                connection = self._glasses.pop()
            except IndexError:
                connection = self._readers.connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._glasses.append(connection)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction that holds the write lock; commits at the end, rolls back on an error.

        Only for `writer`, `create` and restore: rows written elsewhere would pass by the ledger. It waits for its
        statements without a bound, for a migration may take hours.
        """
        with (
            unavailable_as_ours(self.path),
            self.exclusive_memory(),
            self.open_writer() as connection,
            connection.begin(),
            self._patient(connection, None),
        ):
            yield connection

    def open_writer(self) -> Connection:
        """A connection whose transactions take the write lock at their start.

        A PostgreSQL that says nothing for 60 s, be it for another's lock, is away.
        """
        return self._writers.connect()

    @contextmanager
    def exclusive_memory(self) -> Iterator[None]:
        """Nothing for a database on disk; for one in memory, its only connection to oneself."""
        if not self.is_memory:
            yield
            return
        if not self._memory_turn.acquire(timeout=_MEMORY_SECONDS):
            msg = f"another thread held the database in memory for {_MEMORY_SECONDS} s; don't wait inside a reading"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
        try:
            if self._memory_reading is not None:
                msg = "this thread is inside a reading of the database in memory; leave it before writing"
                raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
            yield
        finally:
            self._memory_turn.release()

    def create(self) -> None:
        """Make every table of `tables.py` in an empty database, the empty log's head, and note the schema version.

        Does nothing to a database that has tables of this version. Raises Misconfigured(SCHEMA_MISMATCH).
        """
        self._create_if_empty()
        self.check_schema()
        self._sync_folder()

    def upgrade(self) -> None:
        """Bring the tables to this version: by the migrations, in one transaction, or by `create` in an empty database.

        Rewritten tables have no statistics, and PostgreSQL plans by them: all tables are analysed afterwards.
        """
        from vagus.records.engine.migrations.run import upgrade  # alembic is slow to import and rarely needed

        self._create_if_empty()
        with self.writing() as connection:
            upgrade(connection)
            if not self.is_sqlite:
                connection.exec_driver_sql(f"ANALYZE {', '.join(metadata.tables)}")
        self.check_schema()
        self._sync_folder()

    def check_schema(self) -> None:
        """Raises Misconfigured(SCHEMA_MISMATCH) unless the tables are of this version."""
        with self.reading() as connection:
            found = self._read_schema(connection)
        if found != SCHEMA:
            state = "no tables" if found is None else f"schema {found}"
            msg = f"the database has {state}, this program needs schema {SCHEMA}; run: vagus upgrade"
            raise Misconfigured(Reason.SCHEMA_MISMATCH, msg, found=found, needed=SCHEMA)

    def check_durability(self) -> None:
        """Read the settings back from the engine, over the connection that commits; what is set is not what holds.

        Raises Misconfigured(DURABILITY_WEAK): an answer must not leave before its intent is on the disk.
        """
        with unavailable_as_ours(self.path), self.exclusive_memory(), self.open_writer() as connection:
            for name, value, is_strong, remedy in _durability(connection, is_sqlite=self.is_sqlite):
                if not is_strong:
                    msg = f"the database's {name} is {value}, answers could be lost in a power cut; set it to {remedy}"
                    raise Misconfigured(Reason.DURABILITY_WEAK, msg, setting=name, value=value)

    def describe_durability(self) -> tuple[tuple[str, str], ...]:
        """Each setting that durability rests on with its value, for doctor and reports."""
        with unavailable_as_ours(self.path), self.exclusive_memory(), self.open_writer() as connection:
            rows = _durability(connection, is_sqlite=self.is_sqlite)
            return tuple((name, value) for name, value, _, _ in rows)

    def _create_if_empty(self) -> None:
        with self.writing() as connection:
            if self._read_schema(connection) is None:
                metadata.create_all(connection)
                connection.execute(text(_VERSION_TABLE))
                connection.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": SCHEMA})
                insert_empty_head(connection)

    def _read_schema(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        return None if found is None else str(found)

    @contextmanager
    def _memory_connection(self) -> Iterator[Connection]:
        if not self._memory_turn.acquire(timeout=_MEMORY_SECONDS):
            msg = f"another thread held the database in memory for {_MEMORY_SECONDS} s; don't wait inside a reading"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
        try:
            if self._memory_reading is not None:
                yield self._memory_reading
                return
            with unavailable_as_ours(self.path), self._readers.connect() as connection, connection.begin():
                connection.exec_driver_sql("PRAGMA query_only = ON")
                self._memory_reading = connection
                try:
                    yield connection
                finally:
                    self._memory_reading = None
                    connection.exec_driver_sql("PRAGMA query_only = OFF")
        finally:
            self._memory_turn.release()

    @contextmanager
    def _patient(self, connection: Connection, seconds: float | None) -> Iterator[None]:
        if self.is_sqlite:
            yield
            return
        from vagus.records.engine.postgres import patient  # the driver is there only where PostgreSQL is used

        with patient(connection, seconds):
            yield

    def _engine(self, *, is_writing: bool, is_asking: bool = False) -> Engine:
        try:
            if not self.is_sqlite:
                return _postgres_engine(self.url, is_writing=is_writing, is_asking=is_asking)
        except (ImportError, NoSuchModuleError) as error:
            msg = "PostgreSQL needs the driver psycopg; install vagus[postgres]"
            raise Misconfigured(Reason.BAD_SETTINGS, msg) from error
        if self.is_memory:
            engine = create_engine(
                self.url, poolclass=StaticPool, pool_reset_on_return=None, connect_args={"check_same_thread": False}
            )
        else:
            size = {"pool_size": 1, "max_overflow": 4} if is_writing else _pool_size()
            arguments = {"check_same_thread": False, "timeout": _BUSY_SECONDS}
            engine = create_engine(self.url, connect_args=arguments, **size)
        _prepare_sqlite(engine, is_writing=is_writing, is_memory=self.is_memory)
        return engine

    def _sync_folder(self) -> None:
        """Make the directory entry of a new file durable: fsync of the file alone does not."""
        if self.path is not None:
            sync_folder(self.path.parent)


def _is_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def insert_empty_head(connection: Connection) -> None:
    """The head of the log before its first leaf."""
    empty = Frontier()
    head = {"id": 1, "size": 0, "frontier": empty.encode(), "root": empty.root}
    connection.execute(log_head.insert(), {**head, "revocation_sequence": 0, "device_sequence": 0})


def _check_file(path: Path) -> None:
    """Create `path` for its owner alone, or refuse one that others can read: it names devices and keys."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        msg = f"database file {path} cannot be opened: {error.strerror}; check the folder and its owner"
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg, path=str(path)) from error
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    if mode & 0o077:
        msg = f"database file {path} has mode {mode:04o}, at most 0600 is allowed; run: chmod 600 {path}"
        raise Misconfigured(Reason.PERMISSIONS_TOO_OPEN, msg, path=str(path), mode=f"{mode:04o}")


def _pool_size() -> dict[str, float]:
    return {"pool_size": _READERS, "max_overflow": _MORE_READERS, "pool_timeout": _BUSY_SECONDS}


def _postgres_engine(url: URL, *, is_writing: bool, is_asking: bool) -> Engine:
    from vagus.records.engine.postgres import Bounds, bound_connections

    if is_writing:
        # READ COMMITTED: after waiting for log_head, a batch must see what the batch before it committed.
        engine = create_engine(url, isolation_level="READ COMMITTED", pool_size=1, max_overflow=4, pool_pre_ping=True)
        writing = Bounds(_CONNECT_SECONDS, _WRITE_SECONDS, "lock_timeout", _WRITE_SECONDS)
        bound_connections(engine, writing)
        return engine
    if is_asking:
        size = {"pool_size": _ASKERS, "max_overflow": _MORE_ASKERS, "pool_timeout": BOUNDED_READ_SECONDS}
        bounds = Bounds(_ASK_CONNECT_SECONDS, BOUNDED_READ_SECONDS, "statement_timeout", BOUNDED_READ_SECONDS)
    else:
        size, bounds = _pool_size(), Bounds(_CONNECT_SECONDS, _PING_SECONDS, "statement_timeout", READ_SECONDS)
    engine = create_engine(url, isolation_level="REPEATABLE READ", pool_pre_ping=True, **size)
    bound_connections(engine, bounds)
    return engine.execution_options(postgresql_readonly=True)


def _prepare_sqlite(engine: Engine, *, is_writing: bool, is_memory: bool) -> None:
    """Take transaction control from the driver and set the pragmas on each new connection."""

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver would begin late and deferred; we begin ourselves
        cursor = connection.cursor()
        pragmas = ["foreign_keys = ON", f"busy_timeout = {_BUSY_SECONDS * 1000}", "trusted_schema = OFF"]
        if not is_memory:
            pragmas += ["journal_mode = WAL", "synchronous = FULL", "cache_size = -32000"]
        if not is_writing:
            pragmas.append("query_only = ON")
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    # IMMEDIATE: a writer that begins deferred and finds the database changed can never get its lock.
    begin = "BEGIN IMMEDIATE" if is_writing and not is_memory else "BEGIN"

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _durability(connection: Connection, *, is_sqlite: bool) -> list[tuple[str, str, bool, str]]:
    """(setting, value, is it strong enough, what it should be)."""

    def ask(statement: str) -> str:
        return str(connection.exec_driver_sql(statement).scalar_one())

    if is_sqlite:
        journal = ask("PRAGMA journal_mode")
        synchronous = ask("PRAGMA synchronous")
        return [
            ("journal_mode", journal, journal == "wal", "wal, in a file on a local disk"),
            ("synchronous", synchronous, synchronous in {"2", "3"}, "2 (FULL)"),
        ]
    commit = ask("SHOW synchronous_commit")
    return [
        ("fsync", ask("SHOW fsync"), ask("SHOW fsync") == "on", "on"),
        ("full_page_writes", ask("SHOW full_page_writes"), ask("SHOW full_page_writes") == "on", "on"),
        ("synchronous_commit", commit, commit in _DURABLE_COMMITS, "on"),
    ]
