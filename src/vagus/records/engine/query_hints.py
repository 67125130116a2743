"""Leaves a planner nothing to guess: which index is entered, and that a long look is one look; knows no table.

Statistics are stale after every bulk load and restore. Three ways hold whatever they say: conditions beside the
index that was meant are hidden, a page is told by the order of its index, and all of a table is streamed from one
statement, for a plan that goes through everything costs that once and not with each page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, tuple_

_AT_ONCE = 2_000


def hidden(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """All of these, so that no index is chosen for one of them."""
    return case((and_(*conditions), 1), else_=0) == 1


def rows_after(
    connection: Connection, place: Sequence[ColumnElement[Any]], values: Sequence[object]
) -> tuple[ColumnElement[bool], ...]:
    """Rows that have all `values` but the last, which theirs is behind; order them by `place`, the columns of an index.

    PostgreSQL is told it by the order of the index, which no other has: equal to one value and in the order of the
    last, they would be looked for among everybody's where the statistics call them many. SQLite, which believes
    nothing, finds no place by an order that ends with a primary key.
    """
    *fixed, last = place
    if connection.dialect.name == "sqlite":
        return (*(one == value for one, value in zip(fixed, values, strict=False)), last > values[-1])
    return tuple_(*place) > tuple(values), tuple_(*fixed) <= tuple(values[:-1])


def stream(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    """The rows of one statement, some thousands in memory at a time."""
    with connection.execute(query, execution_options={"yield_per": _AT_ONCE}) as rows:
        yield from rows
