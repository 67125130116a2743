"""How SQLite means to run what code asks: for laws about indices, which no small table would show by time."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import event

from vagus.records.engine.database import Connection


def plans(connection: Connection, act: Callable[[], object]) -> str:
    """The steps of every statement that `act` runs on `connection`, one a line."""
    asked: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        asked.append((statement, values))

    event.listen(connection, "before_cursor_execute", note)
    try:
        act()
    finally:
        event.remove(connection, "before_cursor_execute", note)
    return "\n".join(
        row[-1]
        for statement, values in asked
        for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)  # type: ignore[arg-type]
    )
