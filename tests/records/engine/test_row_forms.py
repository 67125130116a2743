"""Row forms: a value comes back from the columns that it gave."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import MultipleResultsFound

from vagus.records.engine.database import Database
from vagus.records.engine.row_forms import ITEMS, ITEMS_OR_NULL, SERIAL, RowForm
from vagus.records.engine.tables import leases


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    serial: int
    items: tuple[str, ...]
    names: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    name: str
    holder: str
    until: int


SAMPLES = RowForm(Sample, serial=SERIAL, items=ITEMS, names=ITEMS_OR_NULL)
LEASES = RowForm(Lease)


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_value_is_written_by_its_codecs_and_comes_back(names: tuple[str, ...]) -> None:
    value = Sample(serial=7, items=("x",), names=names)
    columns = SAMPLES.values(value)
    assert (columns["items"], columns["names"]) == ('["x"]', '["a", "b"]' if names else None)
    assert SAMPLES.read(SimpleNamespace(**columns, another_column=1)) == value


def test_rows_are_found_and_listed(database: Database) -> None:
    first, second = Lease("a", "one", 1), Lease("b", "one", 2)
    query = select(leases).order_by(leases.c.name)
    with database.writing() as connection:
        assert LEASES.find(connection, query) is None
        connection.execute(insert(leases), [LEASES.values(one) for one in (first, second)])
        assert LEASES.find(connection, query.where(leases.c.name == "b")) == second
        assert LEASES.list(connection, query) == (first, second)
        with pytest.raises(MultipleResultsFound):
            LEASES.find(connection, query)
