"""Opening a database: who may read it, what survives a power cut, which schema, one snapshot a reading."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from tests.simulator.databases import created_database
from tests.simulator.refusals import refuses
from tests.upgrade.history import old_sources
from vagus.errors import Conflict, Misconfigured, Unavailable
from vagus.reasons import Reason
from vagus.records.engine.database import SCHEMA, Database, open_database
from vagus.records.engine.migrations.run import newest
from vagus.records.engine.tables import log_head, metadata, verifier_memory

ROW = {"name": "a", "number": 1, "octets": bytes(20), "at": 0}


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    with created_database(f"sqlite:///{tmp_path}/vagus.sqlite3"):
        for file in tmp_path.iterdir():  # the write-ahead log and its index too
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "vagus.sqlite3"
    path.touch()
    path.chmod(mode)
    with refuses(Reason.PERMISSIONS_TOO_OPEN, Misconfigured, match=f"{mode:04o}"):
        open_database(f"sqlite:///{path}")


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable):
        open_database(f"sqlite:///{tmp_path / 'missing' / 'vagus.sqlite3'}")


@pytest.mark.parametrize("url", ["mysql://localhost/vagus", "nonsense", "sqlite+aiosqlite://", "postgresql://h/db"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    with refuses(Reason.BAD_SETTINGS, Misconfigured):
        open_database(url)


def test_a_database_on_disk_is_durable(file_database: Database) -> None:
    file_database.check_durability()
    assert dict(file_database.describe_durability()) == {"journal_mode": "wal", "synchronous": "2"}


def test_a_database_in_memory_is_not_durable_and_says_so() -> None:
    with refuses(Reason.DURABILITY_WEAK, Misconfigured) as caught:
        open_database("sqlite://").check_durability()
    assert caught.value.facts["setting"] == "journal_mode"


@pytest.mark.parametrize("pragma", ["synchronous = NORMAL", "synchronous = OFF"])
def test_a_weaker_setting_is_read_back_and_refused(file_database: Database, pragma: str) -> None:
    @event.listens_for(file_database._writers, "connect")
    def weaken(connection: object, _: object) -> None:
        connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]

    file_database._writers.dispose()
    with refuses(Reason.DURABILITY_WEAK, Misconfigured):
        file_database.check_durability()


def test_create_makes_every_table_and_the_empty_head_once(database: Database) -> None:
    database.create()
    with database.reading() as connection:
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
        assert connection.execute(select(log_head.c.size, log_head.c.revocation_sequence)).all() == [(0, 0)]


def test_a_database_of_v0_1_0_is_upgraded_to_the_schema_that_create_makes(tmp_path: Path) -> None:
    """A change of tables.py needs a migration."""
    assert _upgraded(f"sqlite:///{tmp_path / 'old.sqlite3'}") == _created(f"sqlite:///{tmp_path / 'new.sqlite3'}")


@pytest.mark.interop
def test_on_postgresql_too_a_database_of_v0_1_0_is_upgraded(postgres: str) -> None:
    from tests.postgres import fresh_database

    with fresh_database(postgres) as old, fresh_database(postgres) as new:
        assert _upgraded(old) == _created(new)


def test_an_empty_database_may_be_upgraded_and_again(database_url: str) -> None:
    with closing(open_database(database_url)) as opened:
        opened.upgrade()
        opened.upgrade()
        with opened.reading() as connection:
            assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
            assert connection.execute(select(log_head.c.size)).all() == [(0,)]


def _created(url: str) -> dict[str, object]:
    with created_database(url) as database:
        return _describe(database)


def _upgraded(url: str) -> dict[str, object]:
    """The schema of a database that v0.1.0 made, once this version has upgraded it."""
    with old_sources() as sources:
        make = f"from vagus.records.database import open_database; open_database({url!r}).create()"
        environment = {**os.environ, "PYTHONPATH": str(sources)}
        subprocess.run([sys.executable, "-c", make], check=True, timeout=60, env=environment)
    with closing(open_database(url)) as database:
        database.upgrade()
        return _describe(database)


def _describe(database: Database) -> dict[str, object]:
    with database.reading() as connection:
        see = inspect(connection)
        return {
            name: (
                sorted((c["name"], str(c["type"]), c["nullable"], str(c["default"])) for c in see.get_columns(name)),
                see.get_pk_constraint(name)["constrained_columns"],
                sorted((str(i["name"]), i["column_names"], i["unique"]) for i in see.get_indexes(name)),
                sorted((str(f["constrained_columns"]), f["referred_table"]) for f in see.get_foreign_keys(name)),
                sorted(str(u["column_names"]) for u in see.get_unique_constraints(name)),
            )
            for name in sorted(see.get_table_names())
        }


def test_the_newest_migration_is_the_version_that_the_code_asks_for() -> None:
    assert newest() == SCHEMA


def test_an_empty_or_older_database_is_refused(database_url: str) -> None:
    database = open_database(database_url)
    with refuses(Reason.SCHEMA_MISMATCH, Misconfigured):
        database.check_schema()
    database.create()
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(Misconfigured) as caught:
        database.create()
    assert caught.value.facts["found"] == "0000"
    database.close()


def test_a_reading_cannot_write(database: Database) -> None:
    with pytest.raises((DBAPIError, Unavailable)), database.reading() as connection:
        connection.execute(insert(verifier_memory).values(ROW))
    with database.writing() as connection:
        connection.execute(insert(verifier_memory).values(ROW))
    with database.reading() as connection:
        assert connection.execute(select(verifier_memory.c.name)).all() == [("a",)]


def test_a_reading_sees_one_snapshot(file_database: Database) -> None:
    with file_database.reading() as connection:
        assert connection.execute(select(verifier_memory.c.name)).all() == []
        with file_database.writing() as writing:
            writing.execute(insert(verifier_memory).values(ROW))
        assert connection.execute(select(verifier_memory.c.name)).all() == []
    with file_database.reading() as connection:
        assert connection.execute(select(verifier_memory.c.name)).all() == [("a",)]


def test_what_fails_in_writing_is_undone(database: Database) -> None:
    def write_and_fail() -> None:
        with database.writing() as connection:
            connection.execute(insert(verifier_memory).values(ROW))
            raise Conflict(Reason.ALREADY_EXISTS, "no")

    with pytest.raises(Conflict):
        write_and_fail()
    with database.reading() as connection:
        assert connection.execute(select(verifier_memory.c.name)).all() == []


def test_readings_nest_and_threads_take_turns_in_memory() -> None:
    found: list[object] = []

    def read() -> None:
        with database.reading() as connection:
            found.append(connection.execute(select(log_head.c.size)).scalar_one())

    with created_database() as database:
        with database.reading() as outer, database.reading() as inner:
            assert outer is inner
            thread = threading.Thread(target=read)
            thread.start()
        thread.join()
    assert found == [0]


def test_writing_inside_a_reading_in_memory_is_refused_at_once() -> None:
    with created_database() as database, pytest.raises(Unavailable), database.reading(), database.writing():
        pass


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    database = open_database(f"postgresql+psycopg://vagus@/vagus?host={tmp_path}")
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable), database.reading():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Unavailable):
        open_database(f"sqlite:///{tmp_path / 'vagus.sqlite3'}")


@pytest.mark.interop
@pytest.mark.parametrize("setting", ["synchronous_commit"])
def test_postgresql_settings_are_read_back(postgres: str, setting: str) -> None:
    from tests.postgres import fresh_database

    with fresh_database(postgres) as url:
        with closing(open_database(url)) as database:
            database.check_durability()
            assert dict(database.describe_durability())["fsync"] == "on"
            with database.writing() as connection:
                name = connection.execute(text("SELECT current_database()")).scalar_one()
            with database._writers.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text(f"ALTER DATABASE {name} SET {setting} = off"))
        with closing(open_database(url)) as weak, refuses(Reason.DURABILITY_WEAK, Misconfigured):
            weak.check_durability()
