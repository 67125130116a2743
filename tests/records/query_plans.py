"""How SQLite means to run what code asks: for laws about indices, which no small table would show by time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from vagus.records.engine.database import Connection


def statements_of(connection: Connection, act: Callable[[], object]) -> list[tuple[str, Any]]:
    """Every statement that `act` runs on `connection`, with its values."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        asked.append((statement, values))

    event.listen(connection, "before_cursor_execute", note)
    try:
        act()
    finally:
        event.remove(connection, "before_cursor_execute", note)
    return asked


def plans(connection: Connection, act: Callable[[], object]) -> str:
    """The steps of every statement that `act` runs on `connection`, one a line."""
    return "\n".join(
        row[-1]
        for statement, values in statements_of(connection, act)
        for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
    )
