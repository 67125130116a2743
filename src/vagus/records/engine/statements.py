"""Runs statements with a fixed text on the driver itself; SQLAlchemy writes the text once for each dialect.

For paths that run for each certificate. A statement through SQLAlchemy costs ten times what SQLite needs for it:
building the query, its cache key, parameter processing, result rows. Here the compiler runs once, and afterwards the
driver gets the text with its values. All other queries use `connection.execute` (docs/adr/0012).

What SQLAlchemy does otherwise, and this module therefore does itself:

- begin a transaction before the first statement (`Statement.ready`), except in `query`, which needs none;
- order the values as the driver wants them, by position (SQLite) or by name (psycopg);
- give rows by column name (a named tuple);
- turn the driver's errors into SQLAlchemy's, so that callers catch one kind.

It converts no value. `_check_plain` refuses statements whose types would need that.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ClauseElement, Connection, Dialect, Insert, Integer, LargeBinary, String
from sqlalchemy.exc import DBAPIError

from vagus.records.engine.database import Database

_PLAIN = (Integer, String, LargeBinary)
"""The types whose values both drivers take and return unchanged."""

Values = Mapping[str, object]


class Statement:
    """One statement for both databases. Its parameters are `bindparam`s, those of an insert the named `columns`.

    Raises TypeError at its first use where a value would need a conversion by SQLAlchemy: a list, or a type other than
    integer, string or bytes.
    """

    __slots__ = ("_clause", "_columns", "_compiled")

    def __init__(self, clause: ClauseElement, *columns: str) -> None:
        self._clause = clause.inline() if isinstance(clause, Insert) else clause
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def find(self, connection: Connection, **values: object) -> Any | None:
        """The first row, a named tuple of what the statement selects; None when there is none."""
        return self.ready(connection).find(connection, values)

    def query(self, database: Database, **values: object) -> Any | None:
        """`find` with a connection of its own: one statement is one snapshot and needs no transaction around it."""
        with database.single_statement() as connection:
            return self._compile(connection).find(connection, values)

    def find_locked(self, connection: Connection, lock: Statement, further: str) -> Any | None:
        """`lock`, then `find`, then the command `further`, in one round trip; none of them takes values.

        Two statements, since one would read too early: a PostgreSQL statement that waits for a locked row sees the new
        version of that row and the old versions of all others (section 13.2.1 of its manual). A second statement under
        the lock sees all that was committed before. SQLite has the lock since the transaction began.
        """
        return self.ready(connection).find_locked(connection, lock.ready(connection).text, further)

    def change(self, connection: Connection, **values: object) -> int:
        """Run it; gives how many rows it wrote."""
        return int(self.ready(connection).run(connection, values).rowcount)

    def write(self, **values: object) -> Write:
        """The change as a value, for `write_together`."""
        return Write(self, values)

    def change_many(self, connection: Connection, many: Sequence[Values]) -> None:
        """The statement once for each of `many`, in order."""
        if many:
            self.ready(connection).run_many(connection, many)

    def ready(self, connection: Connection) -> _Compiled:
        """The compiled form for the connection's database; begins a transaction where there is none."""
        if not connection.in_transaction():  # begin a transaction, as SQLAlchemy does for its own statements
            connection.begin()
        return self._compile(connection)

    def _compile(self, connection: Connection) -> _Compiled:
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _Compiled(self._clause, self._columns, dialect)
        return compiled


class Write(NamedTuple):
    """One change that waits to be made: a statement and its values."""

    statement: Statement
    values: Values


def write_together(connection: Connection, *writes: Write) -> None:
    """Make changes of different rows, none of which needs to see another: on PostgreSQL in one round trip.

    PostgreSQL gets `WITH part_0_ AS (INSERT ...), part_1_ AS (UPDATE ...) UPDATE ...`. It runs the parts in any order
    over one snapshot (section 7.8.2 of its manual), so two parts must not touch one row. SQLite gets them in turn. The
    caller does not learn which part wrote how many rows.
    """
    ready = [one.statement.ready(connection) for one in writes]
    if len(ready) <= 1 or connection.dialect.name == "sqlite":
        for compiled, one in zip(ready, writes, strict=True):
            compiled.run(connection, one.values)
        return
    ready[0].run_joined(connection, ready, [one.values for one in writes])


class _Compiled:
    """A statement for one dialect: its text, the order of its values, the form of its rows."""

    __slots__ = ("_dialect", "_form", "_order", "fixed", "text")

    def __init__(self, clause: ClauseElement, columns: Sequence[str], dialect: Dialect) -> None:
        made: Any = clause.compile(dialect=dialect, column_keys=list(columns) or None)
        self._dialect = dialect
        self.text: str = made.string
        # SQLAlchemy has no public name for the columns of a compiled statement.
        found: Any = made._result_columns  # noqa: SLF001
        for value in (*made.binds.values(), *found):
            _check_plain(value, self.text)
        form: Any = namedtuple("Found", [column.keyname for column in found])  # type: ignore[misc]  # noqa: PYI024
        self._form: Callable[[Iterable[object]], Any] = form._make
        self.fixed = {name: bind.value for name, bind in made.binds.items() if not bind.required}
        self._order = tuple(made.positiontup) if made.positional else None

    def find(self, connection: Connection, values: Values) -> Any | None:
        found = self.run(connection, values).fetchone()
        return None if found is None else self._form(found)

    def find_locked(self, connection: Connection, lock: str, further: str) -> Any | None:
        if self._order is not None:
            found = self.find(connection, {})
            self._execute(connection, further, None)
            return found
        cursor = self._execute(connection, f"{lock}; {self.text}; {further}", None)
        cursor.nextset()  # skip the result of the locking statement
        row = cursor.fetchone()
        return None if row is None else self._form(row)

    def run(self, connection: Connection, values: Values) -> Any:
        """Run it; gives the driver's cursor."""
        return self._execute(connection, self.text, self._arranged(values))

    def run_joined(self, connection: Connection, parts: Sequence[_Compiled], many: Sequence[Values]) -> None:
        """All parts as one statement; for databases that take values by name."""
        text = _joined(tuple(part.text for part in parts))
        values = {
            f"{_prefix(place)}{name}": value
            for place, (part, own) in enumerate(zip(parts, many, strict=True))
            for name, value in {**part.fixed, **own}.items()
        }
        self._execute(connection, text, values)

    def _execute(self, connection: Connection, text: str, values: object) -> Any:
        driver: Any = connection.connection.driver_connection
        try:
            return driver.execute(text) if values is None else driver.execute(text, values)
        except self._dialect.loaded_dbapi.Error as error:
            raise self._as_sqlalchemy(connection, error, text) from error

    def run_many(self, connection: Connection, many: Sequence[Values]) -> None:
        driver: Any = connection.connection.driver_connection
        cursor = driver.cursor()
        try:
            cursor.executemany(self.text, [self._arranged(values) for values in many])
        except self._dialect.loaded_dbapi.Error as error:
            raise self._as_sqlalchemy(connection, error, self.text) from error
        finally:
            cursor.close()

    def _arranged(self, values: Values) -> object:
        """The values as the driver wants them: in the order of the text, or by name."""
        if self.fixed:
            values = {**self.fixed, **values}
        return values if self._order is None else [values[name] for name in self._order]

    def _as_sqlalchemy(self, connection: Connection, error: Any, text: str) -> Exception:
        """The driver's error as SQLAlchemy would raise it, without the values, which name devices."""
        module = self._dialect.loaded_dbapi
        is_lost = self._dialect.is_disconnect(error, connection.connection.dbapi_connection, None)
        wrapped: Exception = DBAPIError.instance(
            text, None, error, module.Error, hide_parameters=True, connection_invalidated=is_lost, dialect=self._dialect
        )
        return wrapped


@lru_cache(maxsize=64)
def _joined(texts: tuple[str, ...]) -> str:
    """Changes as one: `WITH a AS (first), b AS (second) last`, the values of each under a prefix of its own."""
    *first, last = (text.replace("%(", f"%({_prefix(place)}") for place, text in enumerate(texts))
    return f"WITH {', '.join(f'{_prefix(place)} AS ({text})' for place, text in enumerate(first))} {last}"


def _prefix(place: int) -> str:
    return f"part_{place}_"


def _check_plain(value: Any, text: str) -> None:
    """Raises TypeError for a value that a driver does not take or return unchanged."""
    form = getattr(value, "type", value)
    if not isinstance(form, _PLAIN) or getattr(value, "expanding", False):
        msg = f"{form!r} needs SQLAlchemy for its conversion; use connection.execute for: {text}"
        raise TypeError(msg)
