"""PostgreSQL that hangs: every wait ends in bounded time, and a long statement that does not hang is not cut."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from tests.postgres import fresh_database
from tests.simulator.databases import created_database
from tests.simulator.presence import present
from vagus.clock import Clock
from vagus.errors import Unavailable, VagusError
from vagus.events.revocations import RevocationFollower
from vagus.reasons import Reason
from vagus.records.engine import database as databases
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.writer import Writer
from vagus.testing import FrozenClock

pytestmark = pytest.mark.interop
PATIENCE = 40.0
"""A limit that is reached only where a wait never ends."""


@pytest.fixture
def real(postgres: str) -> Iterator[Database]:
    with fresh_database(postgres) as url, created_database(url) as made:
        yield made


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database whose server accepts and says nothing."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    monkeypatch.setattr(databases, "_CONNECT_SECONDS", 2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        made = open_database(f"postgresql+psycopg://vagus@127.0.0.1:{server.getsockname()[1]}/vagus")
        yield made
        made.close()


@pytest.fixture
def clock() -> Clock:
    return FrozenClock()


def refusal_of(act: Callable[[], object]) -> VagusError:
    """What an act raises that would once have waited for ever."""
    raised: list[VagusError] = []

    def run() -> None:
        with pytest.raises(VagusError) as refusal:
            act()
        raised.append(refusal.value)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert raised, "it still waits"
    return raised[0]


def read(database: Database, statement: str = "SELECT 1", *, patience: float | None = 60.0) -> object:
    with database.reading(patience=patience) as connection:
        return connection.execute(text(statement)).scalar_one()


def ask(database: Database, statement: str = "SELECT 1") -> object:
    with database.bounded_reading() as connection:
        return connection.execute(text(statement)).scalar_one()


def test_a_server_that_says_nothing_is_unavailable(silent: Database, clock: Clock) -> None:
    acts: list[Callable[[], object]] = [
        silent.check_schema,
        lambda: ask(silent),
        silent.check_durability,
        lambda: RevocationFollower(silent, clock),
    ]
    for act in acts:
        error = refusal_of(act)
        assert isinstance(error, Unavailable)
        assert error.reason is Reason.DATABASE_UNAVAILABLE


def test_after_a_failure_bounded_reads_are_refused_at_once(silent: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("vagus.records.engine.database.time.monotonic", lambda: now[0])
    assert "a moment ago" not in refusal_of(lambda: ask(silent)).message
    assert "a moment ago" in refusal_of(lambda: ask(silent)).message
    now[0] += databases.BOUNDED_READ_SECONDS
    assert "a moment ago" not in refusal_of(lambda: ask(silent)).message


def test_bounded_reads_pause_for_nine_tenths_of_the_time(real: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("vagus.records.engine.database.time.monotonic", lambda: now[0])

    def fail() -> None:
        with real.bounded_reading():
            now[0] += 3
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, "it said nothing for 3 s")

    for _ in range(2):
        assert "for 3 s" in refusal_of(fail).message
        now[0] += 26.9
        assert "a moment ago" in refusal_of(fail).message
        now[0] += 0.2
    assert "for 3 s" in refusal_of(fail).message
    assert read(real) == 1
    assert "a moment ago" in refusal_of(fail).message, "what is read may be there where what is asked for hangs"
    now[0] += databases.BOUNDED_READ_SECONDS
    assert ask(real) == 1


def test_a_read_on_an_event_loop_is_bounded(real: Database) -> None:
    async def look() -> object:
        return read(real, "SHOW statement_timeout", patience=None)

    assert asyncio.run(look()) == "6s"


def test_a_bounded_read_that_hangs_ends_and_the_next_one_works(real: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "said nothing for 1 s" in refusal_of(lambda: ask(real, "SELECT 1 FROM pg_sleep(600)")).message
    monkeypatch.setattr(databases, "BOUNDED_READ_SECONDS", 0.0)
    real._paused_until = 0.0
    assert ask(real) == 1


def test_a_reading_waits_for_its_patience_and_an_audit_for_as_long_as_it_takes(real: Database) -> None:
    asleep = "SELECT 1 FROM pg_sleep(1.5)"
    assert "said nothing for 0.5 s" in refusal_of(lambda: read(real, asleep, patience=0.5)).message
    assert read(real, asleep) == 1
    assert read(real, asleep, patience=None) == 1


def test_rows_that_keep_coming_are_waited_for(real: Database) -> None:
    trickle = "SELECT repeat('x', 200000) FROM generate_series(1, 8), pg_sleep(0) WHERE pg_sleep(0.25) IS NOT NULL"
    with real.reading(patience=1.0) as connection:
        assert len(connection.execute(text(trickle)).all()) == 8, "two seconds, none of them silent"


def test_the_server_ends_an_abandoned_statement(real: Database) -> None:
    assert read(real, "SHOW statement_timeout") == "65s"
    assert ask(real, "SHOW statement_timeout") == "6s"
    assert read(real, "SHOW statement_timeout", patience=None) == "0"
    for open_connection, limits in ((real.writing, ["0", "0"]), (real.open_writer, ["0", "65s"])):  # a migration writes
        with open_connection() as connection:
            shown = [connection.execute(text(f"SHOW {one}_timeout")).scalar_one() for one in ("statement", "lock")]
        assert shown == limits


def test_what_the_url_says_of_the_connection_is_left_so(postgres: str) -> None:
    with fresh_database(postgres) as url:
        made = open_database(url + ("&" if "?" in url else "?") + "connect_timeout=7&keepalives_idle=99")
        with made.reading() as connection:
            driver = present(connection.connection.driver_connection)
            told = driver.info.get_parameters()
        made.close()
    assert (told["connect_timeout"], told["keepalives_idle"], told["tcp_user_timeout"]) == ("7", "99", "15000")


@contextmanager
def head_held(database: Database) -> Iterator[None]:
    """Another process's batch that does not end."""
    with database.open_writer() as other, other.begin():
        other.execute(text("SELECT 1 FROM log_head FOR UPDATE"))
        yield


def test_a_writer_reports_a_lock_and_then_writes(postgres: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "_WRITE_SECONDS", 0.5)
    with fresh_database(postgres) as url, created_database(url) as made, Writer(made, clock) as writer:
        with head_held(made):
            error = refusal_of(lambda: writer.submit(lambda _: None).result(PATIENCE))
        assert error.reason is Reason.DATABASE_UNAVAILABLE
        assert writer.submit(lambda batch: batch.append(b"entry")).result(PATIENCE) == 0


def test_a_commit_without_a_response_is_reported_as_committed_or_not(real: Database, clock: Clock) -> None:
    ends = ["after-commit"]  # of the first batch

    def lose(point: str) -> None:
        if point in ends:
            with real.writing() as connection:
                others = "datname = current_database() AND pid <> pg_backend_pid()"
                connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))

    with Writer(real, clock, kill_points=lose) as writer:
        writer.submit(lambda batch: batch.append(b"a")).result(PATIENCE)
        with pytest.raises(Unavailable, match="was not committed"):
            writer.submit(lambda batch: batch.append(b"b")).result(PATIENCE)
        ends[:] = ["before-commit"]
        with pytest.raises(Unavailable, match="may be committed or not"):
            writer.submit(lambda batch: batch.append(b"c")).result(PATIENCE)
