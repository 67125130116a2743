"""PostgreSQL counts a table anew that it takes for nearly empty, and is left alone with the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import fresh_database
from tests.simulator.databases import created_database
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.planner_statistics import TableSizeCheck

_BELIEVED = "SELECT reltuples::bigint FROM pg_class WHERE oid = 'log_leaves'::regclass"
_FILL = "INSERT INTO log_leaves SELECT n, repeat('e', 90)::bytea, '' FROM generate_series({}, {}) n"


@pytest.fixture
def loaded(postgres: str) -> Iterator[Database]:
    """A ledger of many leaves that was empty when PostgreSQL looked."""
    with fresh_database(postgres) as url, created_database(url) as database:
        run(database, "ALTER TABLE log_leaves SET (autovacuum_enabled = false)", "ANALYZE log_leaves")
        run(database, _FILL.format(1, 20_000))
        yield database


def run(database: Database, *statements: str) -> None:
    with database.writing() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def believed(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.exec_driver_sql(_BELIEVED).scalar_one())


@pytest.mark.interop
def test_a_table_that_was_empty_at_its_last_analysis_is_analysed_again(loaded: Database) -> None:
    assert believed(loaded) <= 0
    TableSizeCheck(loaded).analyse_misjudged()
    assert believed(loaded) == 20_000


@pytest.mark.interop
def test_what_is_not_far_off_is_left_to_autovacuum(loaded: Database) -> None:
    sizes = TableSizeCheck(loaded)
    sizes.analyse_misjudged()
    run(loaded, _FILL.format(20_001, 25_000))
    sizes.analyse_misjudged()
    assert believed(loaded) == 20_000


@pytest.mark.interop
def test_many_pages_of_few_rows_are_analysed_once(loaded: Database) -> None:
    sizes = TableSizeCheck(loaded)
    for left in (20, 10):
        run(loaded, f"DELETE FROM log_leaves WHERE leaf_index > {left}")
        sizes.analyse_misjudged()
        assert believed(loaded) == 20


def test_sqlite_is_not_asked(file_database: Database) -> None:
    TableSizeCheck(file_database).analyse_misjudged()
    with file_database.reading() as connection:
        found = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'")
        assert found.scalar_one() == 0, "no table was analysed"


@pytest.mark.interop
def test_an_upgrade_leaves_no_table_uncounted(postgres: str) -> None:
    with fresh_database(postgres) as url:
        database = open_database(url)
        database.upgrade()
        assert believed(database) == 0  # -1: nobody has looked
        database.close()
