"""Keeps a query's plan the same whatever the planner believes about the size of a table; knows no table.

Statistics are stale after every bulk load and restore. PostgreSQL then takes a table of a million rows for nearly
empty, finds every index as good as every other (or a scan of the table as good as an index), and a lookup of a
millisecond takes seconds. Three ways hold with any statistics:

1. `hidden`: the query names one indexed condition; all others are written so that no index can serve them.
2. `rows_after`: a page is named by the columns of one index, in that index's order.
3. `stream`: all rows of a table come from one statement. A bad plan (a scan, a sort) then costs its price once, where
   paging would pay it with each page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import ARRAY, ColumnElement, Connection, Select, TableClause, and_, any_, case, column, literal, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal

T = TypeVar("T")

PAGE = 1000
"""Devices or certificates that one statement looks up."""

_AT_ONCE = 2_000


def hidden(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """All of `conditions`, written so that the planner has no index for any of them.

    `CASE WHEN a AND b THEN 1 ELSE 0 END = 1` is true where both are, and no planner looks into a CASE for an index.
    Without it, a device's certificates "that are held" could be looked up by the index of states, through everybody's.
    """
    return case((and_(*conditions), 1), else_=0) == 1


def rows_after(
    connection: Connection, place: Sequence[ColumnElement[Any]], values: Sequence[object]
) -> tuple[ColumnElement[bool], ...]:
    """The condition of a page: rows equal to `values` in all columns but the last, and greater in the last.

    `place` names the columns of one index, in its order; order the page by them too. Example: the certificates of
    authority 7 after leaf 500 are `place = (authority_id, leaf_index)`, `values = (7, 500)`.

    PostgreSQL gets it as row comparisons, `(authority_id, leaf_index) > (7, 500) AND (authority_id) <= (7)`, which
    only the index of both columns serves. Written as `authority_id = 7 AND leaf_index > 500 ORDER BY leaf_index`, it
    may walk the primary key through the certificates of every authority, if statistics say that 7 has many.

    SQLite keeps no such statistics and gets the plain form: it does not use an index for a row comparison that ends
    with the primary key.
    """
    *fixed, last = place
    if connection.dialect.name == "sqlite":
        return (*(one == value for one, value in zip(fixed, values, strict=False)), last > values[-1])
    return tuple_(*place) > tuple(values), tuple_(*fixed) <= tuple(values[:-1])


def stream(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    """The rows of one statement, some thousands in memory at a time."""
    with connection.execute(query, execution_options={"yield_per": _AT_ONCE}) as rows:
        yield from rows


class IndexedTable(TableClause):
    """A table that a query enters by the named index alone.

    SQLite has `INDEXED BY` for this and fails where the index cannot serve. PostgreSQL has nothing like it: run the
    query within `by_index` and hide its other conditions. SQLAlchemy has no public way to add text after a table's
    name, so this is a TableClause with a compile rule of its own; `_traverse_internals` makes the index a part of the
    key under which compiled queries are cached.
    """

    _traverse_internals = [*TableClause._traverse_internals, ("index", InternalTraversal.dp_string)]  # noqa: RUF012, SLF001
    inherit_cache = True

    def __init__(self, name: str, index: str, columns: Iterable[ColumnElement[Any]]) -> None:
        super().__init__(name, *(column(str(one.key), one.type) for one in columns))
        self.index = index


@compiles(IndexedTable)
def _compile_indexed(table: IndexedTable, compiler: Any, **named: Any) -> str:
    text = str(compiler.visit_table(table, **named))
    is_led = compiler.dialect.name == "sqlite" and named.get("asfrom")
    return f"{text} INDEXED BY {table.index}" if is_led else text


_NO_SCAN = "SET LOCAL enable_seqscan = off"
_SCAN_AGAIN = "SET LOCAL enable_seqscan TO DEFAULT"


@contextmanager
def by_index(connection: Connection) -> Iterator[None]:
    """Within, PostgreSQL uses an index wherever one fits, also in plans that it has cached.

    `enable_seqscan = off` makes a scan look very expensive to the planner. Do not ORDER or GROUP within by columns that
    another index begins with: a walk through all of that index would then look cheap.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.exec_driver_sql(_NO_SCAN)
    yield
    # after an error this is not needed: SET LOCAL ends with its savepoint or transaction
    connection.exec_driver_sql(_SCAN_AGAIN)


def is_among(connection: Connection, own: ColumnElement[Any], page: Sequence[object]) -> ColumnElement[bool]:
    """`own` is one of `page`. PostgreSQL gets one array: a thousand parameters would cost more than the rows."""
    if connection.dialect.name == "sqlite":
        return own.in_(page)
    return own == any_(literal(list(page), ARRAY(own.type)))


def paged(found: Sequence[T]) -> Iterator[Sequence[T]]:
    """`found` in pages that one statement looks up."""
    return (found[at : at + PAGE] for at in range(0, len(found), PAGE))
