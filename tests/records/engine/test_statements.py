"""Statements on the driver do what the same statements through SQLAlchemy do, errors and transactions included."""

from __future__ import annotations

import pytest
from sqlalchemy import Select, bindparam, func, insert, null, select, update
from sqlalchemy.exc import IntegrityError

from tests.simulator.presence import present
from tests.simulator.refusals import refuses
from vagus.errors import Unavailable
from vagus.reasons import Reason
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.statements import Statement, write_together
from vagus.records.engine.tables import authorities, keys, leases

_ADD = Statement(insert(keys), "spki_sha256", "owner", "state", "since")
_FIND = Statement(select(keys).where(keys.c.spki_sha256 == bindparam("spki")))
_BLOCK = Statement(
    update(keys)
    .where(keys.c.owner == bindparam("of"), keys.c.state == "active")
    .values(state="blocked", since=bindparam("at"))
)
_LEASE = Statement(insert(leases), "name", "holder", "until")
_COUNT = Statement(select(func.count().label("count")).select_from(keys))
KEY = {"spki_sha256": b"\x00\xffkey", "owner": "device:%s'\"", "state": "active", "since": 1}


def test_what_goes_in_comes_out_the_same(connection: Connection) -> None:
    assert _ADD.change(connection, **KEY) == 1
    found = present(_FIND.find(connection, spki=KEY["spki_sha256"]))
    assert found._asdict() == KEY
    assert _FIND.find(connection, spki=b"other") is None


def test_constants_of_a_statement_need_no_value(connection: Connection) -> None:
    _ADD.change_many(connection, [{**KEY, "spki_sha256": bytes([number])} for number in range(3)])
    assert _BLOCK.change(connection, of=KEY["owner"], at=7) == 3
    assert _BLOCK.change(connection, of=KEY["owner"], at=8) == 0
    found = present(_FIND.find(connection, spki=b"\x01"))
    assert (found.state, found.since) == ("blocked", 7)


def test_many_of_none_is_no_statement(connection: Connection) -> None:
    _ADD.change_many(connection, [])
    assert connection.execute(select(keys)).all() == []


def test_a_statement_is_undone_with_its_transaction(database: Database) -> None:
    with pytest.raises(IntegrityError), database.writing() as connection:
        _ADD.change_many(connection, [{**KEY, "spki_sha256": b"first"}, KEY, KEY])
    with database.reading() as connection:
        assert _FIND.find(connection, spki=b"first") is None


def test_changes_made_together_keep_their_own_values(connection: Connection) -> None:
    _ADD.change(connection, **KEY)
    write_together(
        connection,
        _ADD.write(**{**KEY, "spki_sha256": b"other", "owner": "authority:100%(owner)s"}),
        _BLOCK.write(of=KEY["owner"], at=7),
        _LEASE.write(name="sweep", holder="one", until=9),
    )
    found = connection.execute(select(keys.c.owner, keys.c.state, keys.c.since).order_by(keys.c.since)).all()
    assert found == [("authority:100%(owner)s", "active", 1), (KEY["owner"], "blocked", 7)]
    assert connection.execute(select(leases)).all() == [("sweep", "one", 9)]


def test_one_change_or_none_together_is_that_change_or_none(connection: Connection) -> None:
    write_together(connection)
    write_together(connection, _ADD.write(**KEY))
    assert connection.execute(select(keys.c.owner)).all() == [(KEY["owner"],)]


def test_of_changes_made_together_all_are_undone_where_one_breaks_a_constraint(database: Database) -> None:
    with database.writing() as connection:
        _ADD.change(connection, **KEY)
    with pytest.raises(IntegrityError) as refusal, database.writing() as connection:
        write_together(connection, _LEASE.write(name="sweep", holder="one", until=9), _ADD.write(**KEY))
    assert refusal.value.params is None
    with database.reading() as connection:
        assert connection.execute(select(leases)).all() == []


def test_the_query_and_the_command_run_after_the_lock(database: Database) -> None:
    lock = Statement(select(keys.c.owner).with_for_update())
    with database.writing() as connection:
        _ADD.change(connection, **KEY)
        found = present(_COUNT.find_locked(connection, lock, "SAVEPOINT here"))
        assert found.count == 1
        _ADD.change(connection, **{**KEY, "spki_sha256": b"undone"})
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT here")
        assert _FIND.find(connection, spki=b"undone") is None
        nobody = Statement(select(keys.c.owner).where(keys.c.since == null()))
        assert nobody.find_locked(connection, lock, "SAVEPOINT no") is None


def test_without_a_transaction_it_begins_one_as_sqlalchemy_does(file_database: Database) -> None:
    connection = file_database.open_writer()
    _ADD.change(connection, **KEY)
    assert connection.in_transaction()
    connection.rollback()
    connection.close()
    assert _FIND.query(file_database, spki=KEY["spki_sha256"]) is None


def test_a_single_statement_sees_each_commit_and_nothing_before_it(database: Database) -> None:
    assert _FIND.query(database, spki=KEY["spki_sha256"]) is None
    with database.writing() as connection:
        _ADD.change(connection, **KEY)
        if not database.is_memory:
            assert _FIND.query(database, spki=KEY["spki_sha256"]) is None
    found = present(_FIND.query(database, spki=KEY["spki_sha256"]))
    assert found.owner == KEY["owner"]


def test_a_single_statement_cannot_write(file_database: Database) -> None:
    returning = Statement(insert(keys).returning(keys.c.owner), "spki_sha256", "owner", "state", "since")
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable):
        returning.query(file_database, **KEY)
    assert _FIND.query(file_database, spki=KEY["spki_sha256"]) is None


def test_a_taken_key_is_an_integrity_error_that_shows_no_value(database: Database) -> None:
    with database.writing() as connection:
        _ADD.change(connection, **KEY)
    for act in (lambda c: _ADD.change(c, **KEY), lambda c: _ADD.change_many(c, [KEY])):
        with pytest.raises(IntegrityError) as refusal, database.writing() as connection:
            act(connection)
        assert refusal.value.params is None
        assert not refusal.value.connection_invalidated
    with database.reading() as connection:
        assert connection.execute(select(keys.c.owner)).all() == [(KEY["owner"],)]


def test_a_value_left_out_is_our_mistake(database: Database) -> None:
    with pytest.raises(Exception, match=r"owner|parameter"), database.writing() as connection:
        _ADD.change(connection, spki_sha256=b"key")


@pytest.mark.parametrize(
    "clause",
    [
        pytest.param(select(authorities.c.is_offline), id="a truth value"),
        pytest.param(select(keys).where(keys.c.owner.in_(["one", "two"])), id="a list"),
    ],
)
def test_a_clause_that_needs_sqlalchemy_is_refused(file_database: Database, clause: Select[tuple[object]]) -> None:
    with file_database.reading() as connection, pytest.raises(TypeError, match=r"connection\.execute"):
        Statement(clause).find(connection)
