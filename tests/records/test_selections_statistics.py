"""No question of a mass revocation is quadratic, also where the database believes that its tables are empty."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.postgres import fresh_database
from tests.records.query_plans import statements_of
from tests.simulator.databases import created_database
from tests.simulator.rows import authority
from vagus.records.engine.database import Connection, Database
from vagus.records.revocation import selections as rows
from vagus.records.revocation.selections import Selection

MODEL = "Pump"
FEW, MANY = 1_500, 6_000
OF_MODEL, OTHERS = 10_000, 5_000
AUTHORITIES = 20

UPGRADED = (*rows.LIVE, rows.REVOKED_FOR_LESS)

Question = Callable[[Connection, Selection, int], object]


def _among(connection: Connection, asked: Selection, size: int, states: tuple[str, ...]) -> object:
    return [
        rows.list_among(connection, asked, range(at, at + 200), alive_at=5, states=states) for at in range(0, size, 200)
    ]


QUESTIONS: dict[str, Question] = {
    "count_selected": lambda c, asked, _: rows.count_selected(c, asked, alive_at=5),
    "count_devices": lambda c, asked, _: rows.count_devices(c, asked, alive_at=5),
    "list_leaves": lambda c, asked, size: rows.list_leaves(c, asked, alive_at=5, after=-1, until=size),
    "list_late_profiles": lambda c, asked, _: rows.list_late_profiles(c, asked, alive_at=5, after=-1),
    "count_without_self_issued": lambda c, asked, _: rows.count_without_self_issued(
        c, asked, alive_at=5, states=rows.LIVE, is_of_authorities=True
    ),
    "list_touched": lambda c, asked, _: rows.list_touched(c, asked, range(1, AUTHORITIES + 1), alive_at=5),
    "list_among": lambda c, asked, size: _among(c, asked, size, rows.LIVE),
    "count_selected for a compromise": lambda c, asked, _: rows.count_selected(c, asked, alive_at=5, states=UPGRADED),
    "list_leaves for a compromise": lambda c, asked, size: rows.list_leaves(
        c, asked, alive_at=5, after=-1, until=size, states=UPGRADED
    ),
    "list_among for a compromise": lambda c, asked, size: _among(c, asked, size, UPGRADED),
}
SELECTIONS = {
    "model": Selection(model=MODEL),
    "batch": Selection(model=MODEL, first_serial="00000000", last_serial="99999999"),
    "unit's devices of the model": Selection(model=MODEL, authority_ids=(1,), of_devices=True),
    "authority": Selection(authority_ids=(1,)),
    "profile that nothing has": Selection(profile="nothing"),
    "leaves": Selection(leaves=tuple(range(1_000)), model=MODEL),
}


def _prepare(connection: Connection) -> None:
    """All but devices and certificates, of which there is one each."""
    for number in range(AUTHORITIES):
        authority(connection, f"h1/u{number}")
    connection.execute(text("INSERT INTO units VALUES ('h1/icu', 'h1', 'Hospital', 'ICU')"))
    for model in (MODEL, "Other"):
        connection.execute(
            text("INSERT INTO models (name, maker, category, profile) VALUES (:model, 'Maker', 'pump', 'bedside')"),
            {"model": model},
        )


def _fill(connection: Connection, of_model: int, others: int, *, first: int = 0) -> None:
    """Devices with one certificate each, of the first authority; `others` are of another model and come after them.

    Each second certificate is revoked, which is no compromise.
    """
    is_postgres = connection.dialect.name == "postgresql"
    series = (
        f"generate_series({first}, {first + of_model + others - 1}) AS n"
        if is_postgres
        else f"(WITH RECURSIVE c(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM c LIMIT {of_model + others})"
        " SELECT n FROM c) AS s"
    )
    number = "lpad(n::text, 26, '0')" if is_postgres else "printf('%026d', n)"
    octets = f"decode({number} || '000000', 'hex')" if is_postgres else f"CAST({number} AS BLOB)"
    connection.exec_driver_sql(
        "INSERT INTO devices (id, unit, model, profile, maker_serial, state, added_at, changed_at)"
        f" SELECT {number}, 'h1/icu', CASE WHEN n < {first + of_model} THEN '{MODEL}' ELSE 'Other' END, 'bedside',"
        f" substr({number}, 19), 'in_service', 0, 0 FROM {series}"
    )
    connection.exec_driver_sql(
        "INSERT INTO certificates (leaf_index, authority_id, serial, owner, device_id, profile, spki_sha256,"
        " request_id, not_before, not_after, shard, state)"
        f" SELECT n, 1, {octets}, 'device:' || {number}, {number}, 'bedside', {octets}, 'r' || n, 10, 1000, 0,"
        f" CASE WHEN (n & 1) = 0 THEN 'revoked' ELSE 'issued' END FROM {series}"
    )
    connection.exec_driver_sql(
        "INSERT INTO revocations (leaf_index, sequence, authority_id, serial, shard, reason, revoked_at, not_after,"
        f" entry_der) SELECT n, n + 1, 1, {octets}, 0, 4, 20, 1000, {octets} FROM {series} WHERE (n & 1) = 0"
    )


# PostgreSQL


@dataclass
class Work:
    """What statements did: rows that were looked at, taken or not, and pages."""

    rows: int = 0
    pages: int = 0

    def add(self, explained: dict[str, Any]) -> None:
        self.pages += explained["Shared Hit Blocks"] + explained["Shared Read Blocks"]
        self._walk(explained)

    def _walk(self, node: dict[str, Any]) -> None:
        if "Relation Name" in node or "Join Filter" in node:
            removed = sum(count for kind, count in node.items() if kind.startswith("Rows Removed by"))
            self.rows += (node["Actual Rows"] + removed) * node["Actual Loops"]
        for below in node.get("Plans", ()):
            self._walk(below)


def _work(connection: Connection, act: Callable[[], object]) -> Work:
    """What each statement of `act` did, run once more in its order under the settings that it had."""
    work = Work()
    for statement, values in statements_of(connection, act):
        if statement.startswith("SET LOCAL"):
            connection.exec_driver_sql(statement)
            continue
        asks = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
        found = connection.exec_driver_sql(asks, values).scalar_one()
        told = found if isinstance(found, list) else json.loads(found)
        work.add(told[0]["Plan"])
    return work


@pytest.fixture(scope="module", params=["empty", "of another kind"])
def misled(request: pytest.FixtureRequest, postgres: str) -> Iterator[Database]:
    """A PostgreSQL that took its statistics too early, and takes no others."""
    with fresh_database(postgres) as url, created_database(url) as made:
        with made.writing() as connection:
            for name in ("devices", "certificates", "revocations"):
                connection.exec_driver_sql(f"ALTER TABLE {name} SET (autovacuum_enabled = false)")
            _prepare(connection)
            if request.param == "of another kind":
                _fill(connection, 0, 500, first=1_000_000)
            connection.exec_driver_sql("ANALYZE")
            _fill(connection, OF_MODEL, OTHERS)
        yield made


@pytest.mark.interop
@pytest.mark.parametrize("question", QUESTIONS)
def test_postgresql_reads_each_row_a_few_times_at_most(misled: Database, question: str) -> None:
    each = OF_MODEL + OTHERS
    for name, selection in SELECTIONS.items():
        with misled.reading() as connection:
            work = _work(connection, lambda one=selection: QUESTIONS[question](connection, one, OF_MODEL))  # type: ignore[misc]
        assert 0 < work.rows <= 3 * each, f"each device and each certificate of {name}, and something to spare"
        assert work.pages <= 20 * each, f"an index is some pages deep: {name}"


@pytest.mark.interop
def test_the_measure_detects_a_scan_for_each_device(misled: Database) -> None:
    each = """SELECT count(*) FROM devices, LATERAL (SELECT 1 FROM certificates
        WHERE device_id || '' = devices.id LIMIT 1) AS c WHERE model = 'Pump' AND id < lpad('100', 26, '0')"""
    with misled.reading() as connection:
        work = _work(connection, lambda: connection.execute(text(each)).all())
    assert work.rows > 100 * 40


@pytest.mark.interop
def test_postgresql_plans_as_before_after_a_query(misled: Database) -> None:
    with misled.writing() as connection:
        before = connection.execute(text("SELECT name, setting FROM pg_settings ORDER BY name")).all()
        for question in QUESTIONS.values():
            question(connection, SELECTIONS["model"], 200)
        assert connection.execute(text("SELECT name, setting FROM pg_settings ORDER BY name")).all() == before


# SQLite


@contextmanager
def _misled_file(path: Path, size: int, early: int) -> Iterator[Database]:
    with created_database(f"sqlite:///{path}") as made:
        with made.writing() as connection:
            _prepare(connection)
            _fill(connection, early, 0, first=1_000_000)
            connection.exec_driver_sql("ANALYZE")
            _fill(connection, size, size // 2)
        yield made


def _steps(database: Database, question: str, selection: Selection, size: int) -> int:
    """Hundreds of steps of SQLite's machine."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with database.reading() as connection:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(count, 100)
        try:
            QUESTIONS[question](connection, selection, size)
        finally:
            driver.set_progress_handler(None, 0)
    return steps


@pytest.fixture(scope="module", params=[0, 1], ids=["without statistics", "of one row"])
def sizes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Database]]:
    """Two files, one four times the other, both with statistics of so many rows."""
    folder = tmp_path_factory.mktemp("misled")
    with (
        _misled_file(folder / "few", FEW, request.param) as few,
        _misled_file(folder / "many", MANY, request.param) as many,
    ):
        yield {FEW: few, MANY: many}


@pytest.mark.parametrize("question", QUESTIONS)
def test_sqlite_takes_four_times_the_steps_for_four_times_the_fleet(sizes: dict[int, Database], question: str) -> None:
    for name, selection in SELECTIONS.items():
        few, many = (_steps(made, question, selection, size) for size, made in sizes.items())
        assert many <= 5 * few + 20, f"in hundreds; 16 times would be each device with each certificate: {name}"
