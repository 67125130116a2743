"""`vagus move-database`: everything comes along and is proven; after any failure the old one is used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text

from tests.cli.conftest import copied
from tests.postgres import fresh_database, postgres_server
from tests.simulator.issuing import issue
from tests.simulator.refusals import reason_of
from tests.simulator.running import denied, done, run
from vagus.maintenance import database_move
from vagus.reasons import Reason
from vagus.records.engine import moving
from vagus.records.engine.database import open_database
from vagus.records.engine.tables import leases, metadata
from vagus.settings import load_settings
from vagus.wiring import Installation

KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)]


@pytest.fixture(scope="module")
def used_once(hospital_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    hospital = copied(hospital_once, tmp_path_factory.mktemp("used"))
    for number in (1, 2):
        issue(hospital, number)
    done(hospital, "device", "revoke", "Aorta IP3:AIP3-000001", "--reason", "keyCompromise", "--yes")
    done(hospital, "token", "make", "Aorta IP3:AIP3-000002")
    done(hospital, "revoke", "--unit", "h1/icu", "--reason", "superseded", "--yes")
    issue(hospital, 3)
    return hospital


@pytest.fixture
def used(used_once: Path, tmp_path: Path) -> Path:
    """An installation with certificates, a revocation, a plan and a token."""
    return copied(used_once, tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.sqlite3'}"
    else:
        yield request.getfixturevalue("postgres")


@pytest.fixture
def postgres(server: str) -> Iterator[str]:
    with fresh_database(server) as url:
        yield url


def contents(url: str) -> dict[str, set[tuple[object, ...]]]:
    """Every row of every table."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            table.name: {
                tuple(bytes(one) if isinstance(one, memoryview) else one for one in row)
                for row in connection.execute(select(table))
            }
            for table in metadata.sorted_tables
        }
    engine.dispose()
    return found


def url_of(folder: Path) -> str:
    return load_settings(folder).database_url


def test_every_row_comes_along_and_the_installation_goes_on(used: Path, empty: str) -> None:
    old = url_of(used)
    facts = done(used, "move-database", empty, "--json").facts
    assert (url_of(used), "vagus.sqlite3" in facts["old"]) == (empty, True)
    before, after = contents(old), contents(empty)
    assert after == before, "the old one is as it was, and the new one is the same"
    assert facts["rows"] == sum(len(rows) for rows in after.values())
    assert facts["log_size"] == len(after["log_leaves"])
    assert [name for name in ("certificates", "revocations", "tokens", "revocation_plans", "work") if after[name]]
    # new rows get new ids and new places in every sequence
    issue(used, 2, "after the move")
    done(used, "device", "revoke", "Aorta IP3:AIP3-000003", "--reason", "keyCompromise", "--yes")
    done(used, "revoke", "--unit", "h1/icu", "--reason", "superseded", "--yes")
    assert run(used, "ca", "roll", "h1/icu").code == 3
    done(used, "ceremony", "--yes")
    assert done(used, "audit", "verify", "--json").facts["verdict"] == "sound"
    assert run(used, "doctor").code in {0, 1}
    acts = done(used, "audit", "show", "--kind", "operator-act", "--limit", "50", "--json").facts
    assert [one for one in acts if "act=database-moved" in one["facts"]]


@pytest.mark.interop
def test_it_comes_back_from_postgresql(used: Path, postgres: str) -> None:
    done(used, "move-database", postgres)
    done(used, "move-database", "sqlite:///back.sqlite3")
    assert url_of(used).endswith("/back.sqlite3")
    assert contents(url_of(used)) == contents(postgres)
    assert done(used, "audit", "verify", "--json").facts["verdict"] == "sound"


def test_a_database_that_holds_something_is_refused_and_left_as_it_is(used: Path, empty: str) -> None:
    open_database(empty).close()  # a file for its owner alone
    engine = create_engine(empty)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE somebody (name VARCHAR(9))"))
    denied(used, 3, "ALREADY_EXISTS", "move-database", empty, says=("somebody", "empty"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM somebody")).scalar_one() == 0
    engine.dispose()
    assert url_of(used).endswith("vagus.sqlite3")


def test_a_database_that_another_process_has_open_is_refused(used: Path, empty: str) -> None:
    other = sqlite3.connect(used / "vagus.sqlite3")
    other.execute("SELECT count(*) FROM devices").fetchone()  # open, and idle since
    denied(used, 3, "DATABASE_IN_USE", "move-database", empty, says=("another process", "vagus serve"))
    other.close()
    done(used, "move-database", empty)


def test_a_process_that_waits_for_the_old_database_writes_nothing_into_it_after_the_move(
    used: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its act would end well, and be nowhere in the new one: a revocation that no gateway learns of."""
    early, prove, found = Installation.open(used), database_move._prove, list[Reason]()
    waiting = Thread(target=lambda: found.append(reason_of(lambda: early.writer)))

    def prove_late(*given: Any) -> int | None:
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive(), "it has settings of before, and waits for the database"
        return prove(*given)

    monkeypatch.setattr(database_move, "_prove", prove_late)
    done(used, "move-database", empty)
    waiting.join(15)
    early.close()
    assert found == [Reason.DATABASE_UNAVAILABLE]
    assert url_of(used) != early.settings.database_url
    with Installation.open(used) as later:
        assert later.writer is not None


def test_a_lease_of_a_server_refuses_it_until_the_lease_ends(used: Path, empty: str) -> None:
    with Installation.open(used) as opened, opened.database.writing() as connection:
        now = int(opened.clock.now().timestamp())
        far = {"name": "crl:2", "holder": "serve-of-a-clock-ahead", "until": now + 9_000_000}
        connection.execute(leases.insert(), [{"name": "crl:1", "holder": "serve-x", "until": now + 9}, far])
    denied(used, 3, "DATABASE_IN_USE", "move-database", empty, says=("serve-x",))
    with Installation.open(used) as opened, opened.database.writing() as connection:
        connection.execute(leases.delete().where(leases.c.name == "crl:1"))
    done(used, "move-database", empty)


class Crash(Exception):
    """Something fails."""


@pytest.mark.parametrize("place", ["_set_identity", "_write", "_prove", "replace_durably", "load_head"])
def test_a_failure_at_any_place_leaves_the_old_one_in_use_and_the_new_one_empty(
    used: Path, empty: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "_set_identity" and empty.startswith("sqlite"):
        pytest.skip("SQLite has no sequences")
    before, calls = url_of(used), 0

    def fail(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if place == "load_head" and calls == 1:
            return original(*given, **named)
        raise Crash

    where = database_move if hasattr(database_move, place) else moving
    original = getattr(where, place)
    with monkeypatch.context() as patch:
        patch.setattr(where, place, fail)
        assert run(used, "move-database", empty).code != 0
    assert url_of(used) == before
    assert done(used, "audit", "verify", "--json").facts["verdict"] == "sound"
    done(used, "move-database", empty)  # nothing was left there


def test_a_copy_that_differs_is_found_and_not_used(used: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte of one certificate: the proof is that of `audit verify`."""
    copy = moving.copy_tables

    def corrupt(*given: object) -> None:
        copy(*given)  # type: ignore[arg-type]
        target = given[1]
        with target.writing() as connection:  # type: ignore[attr-defined]
            connection.execute(text("UPDATE revocations SET reason = 4 WHERE reason = 1"))

    with monkeypatch.context() as patch:
        patch.setattr(database_move, "copy_tables", corrupt)
        assert run(used, "move-database", empty).code == 5
    assert url_of(used).endswith("vagus.sqlite3")
    done(used, "move-database", empty)


@pytest.mark.parametrize(
    ("url", "reason", "says"),
    [
        ("mysql://db/vagus", "BAD_SETTINGS", "installation.database"),
        ("sqlite://", "BAD_SETTINGS", "installation.database"),
        ("sqlite:///vagus.sqlite3", "BAD_ARGUMENT", "already"),
        ("", "BAD_SETTINGS", "installation.database"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(hospital: Path, url: str, reason: str, says: str) -> None:
    denied(hospital, 2, reason, "move-database", url, says=(says,))


@pytest.mark.parametrize(
    "command",
    [
        ("serve", "--issue-for", "all"),
        ("doctor",),
        ("upgrade",),
        ("device", "list"),
        ("audit", "verify"),
        ("plan", "check", "plan.toml"),
        ("backup",),
        ("move-database", "sqlite:///other.sqlite3"),
    ],
)
@pytest.mark.parametrize("has_tables", [False, True])
def test_an_empty_database_in_the_settings_is_refused_with_a_remedy_by_every_command(
    hospital: Path, empty: str, command: tuple[str, ...], has_tables: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hospital.parent)
    database = open_database(empty)
    if has_tables:
        database.create()
    database.close()
    settings = hospital / "vagus.toml"
    settings.write_text(settings.read_text().replace("sqlite:///vagus.sqlite3", empty))
    denied(hospital, 2, "SCHEMA_MISMATCH", *command, says=("is empty", "move-database URL"))
    if not has_tables:
        engine = create_engine(empty)
        with engine.connect() as connection:
            assert connection.execute(text(_TABLES[engine.dialect.name])).scalar_one() == 0, "nothing was made there"
        engine.dispose()


_TABLES = {
    "sqlite": "SELECT count(*) FROM sqlite_master",
    "postgresql": "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'",
}
