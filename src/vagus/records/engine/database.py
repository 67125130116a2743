"""Opens the database, SQLite or PostgreSQL, gives consistent reads and checks that its settings are durable.

Ways to a connection, by purpose:

    reading()            a snapshot: everything read in the block fits together; for worker threads
    bounded_reading()    a snapshot on the thread that serves connections: fails fast, then backs off
    single_statement()   no transaction at all, for one statement, which is its own snapshot; the cheapest
    open_writer()        for `Writer` alone, which writes every row of daily work together with its ledger entry
    writing()            a transaction of its own: creation, migrations, restore

The first three cannot write: SQLite connections have `query_only`, PostgreSQL transactions are READ ONLY.

A database in memory (for tests) has one connection for all of them, which serves one thread at a time
(`exclusive_memory`). Reads may be nested within a thread there; a write inside a read is refused, since it would wait
for itself.
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

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from vagus.durable_files import sync_folder
from vagus.errors import Misconfigured, Unavailable
from vagus.reasons import Reason
from vagus.records.engine.outages import unavailable_as_ours
from vagus.records.engine.tables import log_head, metadata
from vagus.records.engine.temporary_files import has_temporary_folder
from vagus.tlog.merkle import Frontier

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

__all__ = ["SCHEMA", "Connection", "Database", "open_database"]

SCHEMA = "0007"
"""The newest migration: the one that `create` makes and `check_schema` requires."""

_VERSION_TABLE = """CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)"""  # the table as alembic itself would create it

_BUSY_SECONDS = 10
_MEMORY_SECONDS = 30
_READERS = 8
_MORE_READERS = 24
_BOUNDED = 2
_MORE_BOUNDED = 14

READ_SECONDS = 60.0
"""How long a reading waits for a PostgreSQL that sends nothing."""
_WRITE_SECONDS = 60.0
_CONNECT_SECONDS = 5
_PING_SECONDS = 5.0

BOUNDED_READ_SECONDS = 1.0
"""How long `bounded_reading` waits for a PostgreSQL that sends nothing, and its shortest pause after a failure."""
_PAUSE_FACTOR = 9
"""The pause after a failed bounded read, in multiples of the time that the failure took."""
_BOUNDED_CONNECT_SECONDS = 2  # the shortest connect_timeout that libpq accepts

# with these values of synchronous_commit, a commit waits for the local flush
_DURABLE_COMMITS = frozenset({"on", "local", "remote_write", "remote_apply"})


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
            Reason.BAD_SETTINGS,
            "database url is not written sqlite:///path or postgresql+psycopg://host/name; correct "
            "installation.database",
        ) from error
    if parsed.drivername in {"sqlite", "postgresql+psycopg"}:
        return Database(parsed)
    msg = f"database driver {parsed.drivername!r} is none of sqlite, postgresql+psycopg; change installation.database"
    raise Misconfigured(Reason.BAD_SETTINGS, msg, kind=parsed.drivername)


class Database:
    """One database, many readers, one writing connection at a time."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.path = Path(url.database) if self.is_sqlite and url.database not in {None, "", ":memory:"} else None
        self.is_memory = self.is_sqlite and self.path is None
        # The lock for a database in memory, whose one connection serves one thread at a time.
        self._memory_turn = threading.RLock()
        self._memory_reading: Connection | None = None
        # Idle connections on which no transaction was ever begun: any thread appends and pops, both are atomic.
        self._single_statement: deque[Connection] = deque()
        if self.path is not None:
            _check_file(self.path)
        self._writers = self._engine(is_writing=True)
        self._readers = self._writers if self.is_memory else self._engine(is_writing=False)
        self._bounded_readers = self._readers if self.is_sqlite else self._engine(is_writing=False, is_bounded=True)
        # The pause of `bounded_reading`, by the monotonic clock. Any thread writes these without a lock: a lost update
        # makes one pause longer or shorter, and no result depends on it.
        self._paused_until = self._shortest_pause_until = 0.0

    def close(self) -> None:
        """Close every idle connection."""
        while self._single_statement:
            self._single_statement.pop().close()
        self._bounded_readers.dispose()
        self._readers.dispose()
        self._writers.dispose()

    @contextmanager
    def reading(self, *, patience: float | None = READ_SECONDS) -> Iterator[Connection]:
        """A connection that sees one snapshot and cannot write.

        A PostgreSQL that sends nothing for `patience` seconds is unavailable; None waits for as long as it takes, for
        an audit. On a thread that runs an event loop this is `bounded_reading`, whatever the caller asked for: every
        connection of the process waits on that thread.

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
        self._paused_until = min(self._paused_until, self._shortest_pause_until)

    @contextmanager
    def bounded_reading(self) -> Iterator[Connection]:
        """A short read on the thread that serves connections, where all others wait until it ends.

        Raises Unavailable(DATABASE_UNAVAILABLE) within about five seconds (a free connection, a lost one, a new one
        and the statement each have a bound), and then at once during a pause.

        The pause is nine times as long as the failure took, and BOUNDED_READ_SECONDS at least. So a database that
        hangs costs the thread a tenth of its time, and requests that need no database go on. A `reading` that works on
        another thread (a follower polls every 250 ms) ends the pause, but never before its first BOUNDED_READ_SECONDS.
        """
        if self.is_sqlite:
            with self.reading() as connection:
                yield connection
            return
        began = time.monotonic()
        if began < self._paused_until:
            msg = "the database did not respond a moment ago, so it is not asked again yet; try later, or see its log"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
        try:
            with unavailable_as_ours(self.path), self._bounded_readers.connect() as connection, connection.begin():
                yield connection
        except Unavailable as error:
            if error.reason is Reason.DATABASE_UNAVAILABLE:
                now = time.monotonic()
                self._shortest_pause_until = now + BOUNDED_READ_SECONDS
                self._paused_until = max(self._shortest_pause_until, now + _PAUSE_FACTOR * (now - began))
            raise

    @contextmanager
    def single_statement(self) -> Iterator[Connection]:
        """A connection for one statement, which without a transaction around it is a snapshot of its own.

        On SQLite this saves the BEGIN and ROLLBACK around it. For `statements` alone, which begins no transaction.
        Raises Unavailable(DATABASE_UNAVAILABLE).
        """
        if self.path is None:
            with self.bounded_reading() as connection:
                yield connection
            return
        with unavailable_as_ours(self.path):
            try:
                connection = self._single_statement.pop()
            except IndexError:
                connection = self._readers.connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._single_statement.append(connection)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction that holds the write lock; commits at the end, rolls back on an error.

        Only for creation, migrations and restore: a row that is written here has no ledger entry. It waits for its
        statements without a bound, since a migration may take hours.
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

        A PostgreSQL that sends nothing for 60 s, even because another holds a lock, is unavailable.
        """
        return self._writers.connect()

    @contextmanager
    def exclusive_memory(self) -> Iterator[None]:
        """For a database in memory, keep its only connection for this thread; for others nothing."""
        if not self.is_memory:
            yield
            return
        with self._holding_memory():
            if self._memory_reading is not None:
                msg = (
                    "this thread reads the database in memory and would wait for itself; end that reading before "
                    "writing"
                )
                raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
            yield

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
        # imported late: alembic loads slowly and is rarely needed
        from vagus.records.engine.migrations.run import upgrade

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
            msg = f"the database has {state}, and this program needs schema {SCHEMA}; run: vagus upgrade"
            raise Misconfigured(Reason.SCHEMA_MISMATCH, msg, found=found, needed=SCHEMA)

    def check_durability(self) -> None:
        """Read the settings back from the engine, over the connection that commits: a setting may not take effect.

        Raises Misconfigured(DURABILITY_WEAK): a response must not leave before its intent is on the disk.
        """
        with unavailable_as_ours(self.path), self.exclusive_memory(), self.open_writer() as connection:
            for name, value, is_strong, remedy in _durability(connection, is_sqlite=self.is_sqlite):
                if not is_strong:
                    msg = f"database setting {name} is {value}, so a power cut could undo a commit; set it to {remedy}"
                    raise Misconfigured(Reason.DURABILITY_WEAK, msg, setting=name, value=value)

    def describe_durability(self) -> tuple[tuple[str, str], ...]:
        """Each setting that durability rests on with its value, for doctor and reports."""
        with unavailable_as_ours(self.path), self.exclusive_memory(), self.open_writer() as connection:
            rows = _durability(connection, is_sqlite=self.is_sqlite)
            return tuple((name, value) for name, value, _, _ in rows)

    def _create_if_empty(self) -> None:
        with self.writing() as connection:
            if self._read_schema(connection) is None:
                create_tables(connection)
                insert_empty_head(connection)

    def _read_schema(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        return None if found is None else str(found)

    @contextmanager
    def _holding_memory(self) -> Iterator[None]:
        if not self._memory_turn.acquire(timeout=_MEMORY_SECONDS):
            msg = f"another thread held the database in memory for {_MEMORY_SECONDS} s; do not wait inside a reading"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
        try:
            yield
        finally:
            self._memory_turn.release()

    @contextmanager
    def _memory_connection(self) -> Iterator[Connection]:
        with self._holding_memory():
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

    @contextmanager
    def _patient(self, connection: Connection, seconds: float | None) -> Iterator[None]:
        if self.is_sqlite:
            yield
            return
        # imported late: the driver is installed only where PostgreSQL is used
        from vagus.records.engine.postgres import patient

        with patient(connection, seconds):
            yield

    def _engine(self, *, is_writing: bool, is_bounded: bool = False) -> Engine:
        try:
            if not self.is_sqlite:
                return _postgres_engine(self.url, is_writing=is_writing, is_bounded=is_bounded)
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


def create_tables(connection: Connection) -> None:
    """Every table of `tables.py` without a row, and the schema version."""
    metadata.create_all(connection)
    connection.execute(text(_VERSION_TABLE))
    connection.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": SCHEMA})


def insert_empty_head(connection: Connection) -> None:
    """The head of the log before its first leaf."""
    empty = Frontier()
    head = {"id": 1, "size": 0, "frontier": empty.encode(), "root": empty.root}
    connection.execute(log_head.insert(), {**head, "revocation_sequence": 0, "device_sequence": 0})


def _check_file(path: Path) -> None:
    """Create `path` for its owner alone, or refuse one that others can read: it holds names of devices and keys."""
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


def _postgres_engine(url: URL, *, is_writing: bool, is_bounded: bool) -> Engine:
    from vagus.records.engine.postgres import Bounds, bound_connections

    if is_writing:
        # READ COMMITTED: a batch that waited for log_head must see what the batch before it committed.
        engine = create_engine(url, isolation_level="READ COMMITTED", pool_size=1, max_overflow=4, pool_pre_ping=True)
        writing = Bounds(_CONNECT_SECONDS, _WRITE_SECONDS, "lock_timeout", _WRITE_SECONDS)
        bound_connections(engine, writing)
        return engine
    if is_bounded:
        size = {"pool_size": _BOUNDED, "max_overflow": _MORE_BOUNDED, "pool_timeout": BOUNDED_READ_SECONDS}
        bounds = Bounds(_BOUNDED_CONNECT_SECONDS, BOUNDED_READ_SECONDS, "statement_timeout", BOUNDED_READ_SECONDS)
    else:
        size, bounds = _pool_size(), Bounds(_CONNECT_SECONDS, _PING_SECONDS, "statement_timeout", READ_SECONDS)
    engine = create_engine(url, isolation_level="REPEATABLE READ", pool_pre_ping=True, **size)
    bound_connections(engine, bounds)
    return engine.execution_options(postgresql_readonly=True)


def _prepare_sqlite(engine: Engine, *, is_writing: bool, is_memory: bool) -> None:
    """Take transaction control from the driver and set the pragmas on each new connection."""

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # sqlite3 would begin late and deferred, so this program begins transactions itself
        connection.isolation_level = None
        cursor = connection.cursor()
        pragmas = ["foreign_keys = ON", f"busy_timeout = {_BUSY_SECONDS * 1000}", "trusted_schema = OFF"]
        if not is_memory:
            pragmas += ["journal_mode = WAL", "synchronous = FULL", "cache_size = -32000"]
        if not has_temporary_folder():
            pragmas.append("temp_store = MEMORY")
        if not is_writing:
            pragmas.append("query_only = ON")
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    # BEGIN IMMEDIATE: a writer that begins deferred and then finds the database changed can never get its lock.
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
