"""One newest CRL per shard, one responder per authority, one holder per lease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import delete

from tests.postgres import fresh_database
from tests.simulator.presence import present
from tests.simulator.rows import authority
from vagus.records import publications as rows
from vagus.records.engine.database import Connection, open_database
from vagus.records.engine.statements import _Compiled
from vagus.records.engine.tables import crl_publications
from vagus.records.publications import COMPLETE, DeltaRow, Publication, ResponderRow


@pytest.fixture(params=["create", "upgrade"])
def postgres_tables(postgres: str, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A connection to an empty database whose tables came on either way."""
    with fresh_database(postgres) as url, closing(open_database(url)) as made:
        getattr(made, request.param)()
        with made.writing() as connection:
            yield connection


def publication(authority_id: int, shard: int = 0, number: int = 7) -> Publication:
    return Publication(
        authority_id=authority_id,
        shard=shard,
        number=number,
        this_update=100,
        next_update=200,
        sequence=3,
        crl_der=b"list",
    )


def delta(authority_id: int, number: int, crl_der: bytes | None = b"delta") -> DeltaRow:
    return DeltaRow(
        authority_id=authority_id,
        shard=0,
        base_number=5,
        base_sequence=2,
        number=number,
        this_update=100,
        next_update=200,
        crl_der=crl_der,
    )


def test_the_newest_crl_replaces_the_one_before(connection: Connection, ca: int) -> None:
    assert rows.find_publication(connection, ca, 0) is None
    for shard in (0, COMPLETE):
        rows.put_publication(connection, publication(ca, shard))
    newer = publication(ca, number=1 << 50)
    rows.put_publication(connection, newer)
    assert rows.find_publication(connection, ca, 0) == newer
    assert rows.find_number(connection, ca, 0, is_delta=False) == 1 << 50
    assert rows.find_number(connection, ca, 5, is_delta=False) is None
    assert rows.list_publications(connection, ca) == (publication(ca, COMPLETE), newer)


def test_a_delta_keeps_its_base(connection: Connection, ca: int) -> None:
    row = delta(ca, 6, None)
    assert rows.find_delta(connection, ca, 0) is None
    rows.keep(connection, rows.find_shard_state(connection, ca, 0), None, row)
    assert rows.find_delta(connection, ca, 0) == row
    newer = replace(row, number=7, crl_der=b"delta")
    rows.keep(connection, rows.find_shard_state(connection, ca, 0), None, newer)
    assert rows.find_delta(connection, ca, 0) == newer
    assert rows.find_number(connection, ca, 0, is_delta=True) == 7


def test_a_crl_and_its_delta_are_stored_together_over_any_state(connection: Connection, ca: int) -> None:
    def keep(made: Publication, beside: DeltaRow | None) -> rows.ShardState:
        standing = rows.find_shard_state(connection, ca, 0)
        rows.keep(connection, standing, made, beside)
        assert rows.find_publication(connection, ca, 0) == made
        return standing

    other = publication(ca, COMPLETE)
    rows.put_publication(connection, other)
    assert keep(publication(ca), None) == rows.ShardState(None, has_delta=False)
    first = replace(publication(ca), crl_der=b"")
    assert keep(publication(ca, number=8), delta(ca, 8, None)) == rows.ShardState(first, has_delta=False)
    assert rows.find_delta(connection, ca, 0) == delta(ca, 8, None)
    keep(publication(ca, number=9), delta(ca, 9))
    assert rows.find_delta(connection, ca, 0) == delta(ca, 9)
    keep(publication(ca, number=10), None)
    assert rows.find_delta(connection, ca, 0) == delta(ca, 9), "as it was"
    connection.execute(delete(crl_publications).where(crl_publications.c.shard == 0))
    assert keep(publication(ca, number=11), delta(ca, 11)) == rows.ShardState(None, has_delta=True)
    assert rows.find_delta(connection, ca, 0) == delta(ca, 11)
    assert rows.find_publication(connection, ca, COMPLETE) == other


@pytest.mark.interop
def test_postgresql_stores_crl_and_delta_in_two_trips(
    postgres_tables: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One query and one write: no other act can revoke meanwhile."""
    ca = authority(postgres_tables)
    rows.keep(postgres_tables, rows.find_shard_state(postgres_tables, ca, 0), publication(ca), delta(ca, 7))
    asked: list[str] = []
    whole = _Compiled._execute

    def noting(self: _Compiled, connection: Connection, text: str, values: object) -> object:
        asked.append(text.split(maxsplit=1)[0])
        return whole(self, connection, text, values)

    monkeypatch.setattr(_Compiled, "_execute", noting)
    rows.keep(postgres_tables, rows.find_shard_state(postgres_tables, ca, 0), publication(ca, number=8), delta(ca, 8))
    assert asked == ["SELECT", "WITH"]
    assert rows.find_number(postgres_tables, ca, 0, is_delta=True) == 8


def test_a_responder_is_replaced(connection: Connection, ca: int) -> None:
    row = ResponderRow(authority_id=ca, key_id="k.1", keystore="ocsp", certificate_der=b"der", not_after=9)
    assert rows.find_responder(connection, ca) is None
    rows.put_responder(connection, row)
    rows.put_responder(connection, replace(row, key_id="k.2"))
    assert rows.find_responder(connection, ca) == replace(row, key_id="k.2")


def test_a_lease_has_one_holder_until_it_ends_or_is_given_back(connection: Connection) -> None:
    assert rows.take_lease(connection, "crl:1", "one", at=100, seconds=30)
    assert rows.take_lease(connection, "crl:1", "one", at=110, seconds=30)
    assert not rows.take_lease(connection, "crl:1", "two", at=139, seconds=30)
    assert rows.take_lease(connection, "crl:2", "two", at=139, seconds=30)
    assert rows.take_lease(connection, "crl:1", "two", at=140, seconds=30)
    rows.drop_lease(connection, "crl:1", "one")
    assert not rows.take_lease(connection, "crl:1", "one", at=150, seconds=30)
    rows.drop_lease(connection, "crl:1", "two")
    assert rows.take_lease(connection, "crl:1", "one", at=150, seconds=30)


def test_a_lease_that_a_clock_took_which_ran_ahead_is_past(connection: Connection) -> None:
    assert rows.take_lease(connection, "crl:1", "one", at=86_400, seconds=30)
    assert rows.take_lease(connection, "crl:1", "two", at=100, seconds=30), "the first was a day ahead"
    assert not rows.take_lease(connection, "crl:1", "one", at=71, seconds=30), "29 s apart"
    assert not rows.take_lease(connection, "crl:1", "one", at=70, seconds=30), "30 s apart"
    assert rows.take_lease(connection, "crl:1", "one", at=69, seconds=30)


@pytest.mark.interop
def test_postgresql_does_not_compress_crls(postgres_tables: Connection) -> None:
    query = "SELECT attstorage FROM pg_attribute WHERE attname = 'crl_der' AND attrelid = '{}'::regclass"
    for table in ("crl_publications", "crl_deltas"):
        found = postgres_tables.exec_driver_sql(query.format(table)).scalar_one()
        assert found in {"e", b"e"}, f"{table} would be compressed at each publication"


def test_an_outdated_crl_has_the_greater_number_until_another_replaces_it(connection: Connection, ca: int) -> None:
    for shard in (0, COMPLETE):
        rows.put_publication(connection, publication(ca, shard))
    assert rows.list_outdated(connection) == frozenset()
    rows.outdate_crl(connection, ca, 0, 99)
    assert rows.list_outdated(connection) == {(ca, 0)}
    found = present(rows.find_facts(connection, ca, 0))
    assert (found.number, found.sequence) == (99, rows.OUTDATED)
    rows.put_publication(connection, publication(ca, 0, 100))
    assert rows.list_outdated(connection) == frozenset()
