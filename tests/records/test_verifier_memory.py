"""A verifier's memory: the highest stays, over restarts, and never goes back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.databases import created_database
from tests.simulator.refusals import refuses
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.records.engine.database import Connection, Database
from vagus.records.verifier_memory import Remembered, find_remembered, remember, remember_all

LARGEST = (1 << 160) - 1  # 20 octets, as RFC 5280 5.2.3 allows a CRL number


def test_nothing_is_remembered_at_first(database: Database) -> None:
    with database.reading() as connection:
        assert find_remembered(connection, "crl:a") is None


@pytest.mark.parametrize("number", [0, 1, (1 << 63) - 1, 1 << 63, LARGEST])
def test_a_number_of_up_to_twenty_bytes_comes_back(database: Database, number: int) -> None:
    with database.writing() as connection:
        assert remember(connection, "crl:a", number, 7) == Remembered("crl:a", number, 7)
    with database.reading() as connection:
        assert find_remembered(connection, "crl:a") == Remembered("crl:a", number, 7)


@given(st.lists(st.tuples(st.integers(0, LARGEST) | st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=8))
@settings(max_examples=25)
def test_the_highest_stays_whatever_the_order(seen: list[tuple[int, int]]) -> None:
    """Of numbers and of moments alike: one CRL may have the higher number, another the later date."""
    with created_database() as database, database.writing() as connection:
        for count, (number, at) in enumerate(seen, 1):
            highest = Remembered("crl:a", max(one for one, _ in seen[:count]), max(one for _, one in seen[:count]))
            assert remember(connection, "crl:a", number, at) == highest
            assert find_remembered(connection, "crl:a") == highest


def test_many_are_remembered_as_each_would_be(database: Database) -> None:
    names = [f"crl:{number}" for number in range(1_200)]
    with database.writing() as connection:
        remember(connection, names[0], 9, 20)
        first = remember_all(connection, dict.fromkeys(names, 5), 10)
        again = remember_all(connection, {name: number for number, name in enumerate(names)}, 11)
        assert remember_all(connection, {}, 12) == {}
    assert (first[names[0]], again[names[0]]) == (Remembered(names[0], 9, 20), Remembered(names[0], 9, 20))
    with database.reading() as connection:
        for number, name in list(enumerate(names))[1:]:
            assert first[name] == Remembered(name, 5, 10)
            assert find_remembered(connection, name) == again[name] == Remembered(name, max(number, 5), 11)


def test_of_many_none_is_remembered_where_one_does_not_fit(connection: Connection) -> None:
    with pytest.raises(Malformed):
        remember_all(connection, {"crl:a": 1, "crl:b": -1}, 0)
    assert find_remembered(connection, "crl:a") is None


@pytest.mark.parametrize(("name", "number"), [("a", -1), ("a", LARGEST + 1), ("", 1), ("a" * 121, 1)])
def test_what_does_not_fit_is_refused(database: Database, name: str, number: int) -> None:
    with database.writing() as connection, refuses(Reason.BAD_ARGUMENT, Malformed):
        remember(connection, name, number, 0)
