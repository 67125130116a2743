"""Connections to PostgreSQL that wait for a bounded time; knows no table and decides on no transaction.

Three failures look alike from here, since no bytes come: a server that hangs, a host that is gone, and a lock that is
never given back. TCP ends the second (keepalives, TCP_USER_TIMEOUT). The server ends the third (statement_timeout,
lock_timeout). Nothing ends the first, so this module bounds the time without bytes, which covers all three. It does not
bound the length of a statement: one whose rows keep coming may take hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Connection, Dialect, Engine, event

if TYPE_CHECKING:
    from psycopg.abc import RV, PQGen
    from sqlalchemy.pool import ConnectionPoolEntry

_TCP = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds; libpq ignores these settings for a Unix socket
}
_WHICH = {"target_session_attrs": "primary"}
"""A standby takes no write, and it may lag: a read there could return an old state as the current one."""
_GRACE_SECONDS = 5
"""The server's limit is longer by this: it ends statements that this side gave up, not those it still waits for."""


class _Silence(psycopg.OperationalError):
    """The server sent nothing for longer than this connection waits."""


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when its server sends nothing for `patience` seconds; None waits for ever."""

    patience: float | None = None

    def wait(self, gen: PQGen[RV], *arguments: Any, **named: Any) -> RV:
        """As the driver's own, through which every wait for the server passes. Raises OperationalError."""
        if self.patience is not None:
            gen = _until_silent(gen, self.patience)
        try:
            return super().wait(gen, *arguments, **named)
        except _Silence:
            self.close()  # a late reply would be taken for the next statement's, so the connection is closed
            raise


def _until_silent(gen: PQGen[RV], patience: float) -> PQGen[RV]:
    end = monotonic() + patience
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                end = monotonic() + patience
            elif monotonic() >= end:
                msg = f"the server said nothing for {patience:g} s"
                raise _Silence(msg)
            wanted = gen.send(ready)
    except StopIteration as done:
        found: RV = done.value
        return found


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a connection waits, in seconds."""

    connect_seconds: int
    patience: float
    """Without a byte from the server, also for the test whether an idle connection still works."""
    setting: str
    """The server's setting that ends an abandoned statement: statement_timeout, or lock_timeout for a writer."""
    setting_seconds: float


def bound_connections(engine: Engine, bounds: Bounds) -> None:
    """Give the engine's connections these bounds. Its url may set TCP options and connect_timeout otherwise."""
    defaults: Mapping[str, object] = {**_TCP, **_WHICH, "connect_timeout": bounds.connect_seconds}
    setting = f"SET {bounds.setting} = {int((bounds.setting_seconds + _GRACE_SECONDS) * 1000)}".encode("ascii")

    @event.listens_for(engine, "do_connect")
    def connect(
        _dialect: Dialect, _entry: ConnectionPoolEntry, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> PatientConnection:
        made = PatientConnection.connect(*arguments, **{**defaults, **named})
        made.patience = bounds.patience
        made.autocommit = True  # a SET inside a transaction would be undone with it, so it runs outside
        made.execute(setting)
        made.autocommit = False
        return made


@contextmanager
def patient(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Wait for `seconds` within the block; None waits for ever, and so does the server."""
    driver: Any = connection.connection.driver_connection
    before, driver.patience = driver.patience, seconds
    try:
        if seconds is None:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        yield
    finally:
        driver.patience = before
