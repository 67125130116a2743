"""Connections to PostgreSQL that wait for a bounded time; knows no table and decides on no transaction.

A server that accepts and says nothing, a host that is gone and a lock that is never given back all look alike from
here: silence. TCP ends the second (keepalives, TCP_USER_TIMEOUT), the server the third (statement_timeout,
lock_timeout), and a bound on silence all three, for neither TCP nor a server that stands still does anything about
the first. Silence, not length: a statement whose rows keep coming may take hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.abc import RV, PQGen
    from sqlalchemy import Connection, Dialect, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

_TCP = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds; libpq ignores all of these over a Unix socket
}
_WHICH = {"target_session_attrs": "primary"}
"""A standby takes no write and says nothing of what it has not heard: a reading there would take old for current."""
_GRACE_SECONDS = 5
"""By how much the server is more patient than this side: it ends what was left behind, not what is waited for."""


class _Silence(psycopg.OperationalError):
    """The server said nothing for longer than this connection waits."""


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when its server says nothing for `patience` seconds; None waits for ever."""

    patience: float | None = None

    def wait(self, gen: PQGen[RV], *arguments: Any, **named: Any) -> RV:
        """As the driver's own: everything that waits for the server comes by here. Raises OperationalError."""
        if self.patience is not None:
            gen = _until_silent(gen, self.patience)
        try:
            return super().wait(gen, *arguments, **named)
        except _Silence:
            self.close()  # what it still says belongs to nobody; closed, it is also known for lost
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
    """How long what is waited for, in seconds."""

    connect_seconds: int
    patience: float
    """For a silent server, also between transactions: looking whether the connection still stands."""
    setting: str
    """The server's own that ends what an abandoned connection left: statement_timeout, or lock_timeout for a writer."""
    setting_seconds: float


def bound_connections(engine: Engine, bounds: Bounds) -> None:
    """Make the engine's connections so. What its url says of TCP and connect_timeout is left as it is."""
    defaults: Mapping[str, object] = {**_TCP, **_WHICH, "connect_timeout": bounds.connect_seconds}
    setting = f"SET {bounds.setting} = {int((bounds.setting_seconds + _GRACE_SECONDS) * 1000)}".encode("ascii")

    @event.listens_for(engine, "do_connect")
    def connect(
        _dialect: Dialect, _entry: ConnectionPoolEntry, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> PatientConnection:
        made = PatientConnection.connect(*arguments, **{**defaults, **named})
        made.patience = bounds.patience
        made.autocommit = True  # set within a transaction, it would be undone with it
        made.execute(setting)
        made.autocommit = False
        return made


@contextmanager
def patient(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Wait so long within the block; None: for ever, and the server for its part too."""
    driver: Any = connection.connection.driver_connection
    before, driver.patience = driver.patience, seconds
    try:
        if seconds is None:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        yield
    finally:
        driver.patience = before
