"""Reads rows into values and writes values as rows, by the names of a dataclass' fields; knows no table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar, cast

from sqlalchemy import Connection
from sqlalchemy.sql.base import Executable

from vagus.identifiers import DeviceId, UnitName, serial_bytes

T = TypeVar("T")


class Codec(NamedTuple):
    """How a column stores a field: `read` takes what the driver gives, `write` gives what the driver takes."""

    read: Callable[[Any], object]
    write: Callable[[Any], object]


SERIAL = Codec(lambda stored: int.from_bytes(stored, "big"), serial_bytes)
DEVICE_ID = Codec(DeviceId, str)
UNIT = Codec(UnitName.parse, str)
ITEMS = Codec(lambda stored: tuple(json.loads(stored)), json.dumps)
"""A tuple as a JSON list."""
ITEMS_OR_NULL = Codec(
    lambda stored: tuple(json.loads(stored)) if stored else (), lambda items: json.dumps(items) if items else None
)
"""`ITEMS`, with NULL for the empty tuple."""


class RowForm(Generic[T]):
    """The dataclass `form`, whose fields are named like columns, as rows.

    A field is stored as it is, except where `codecs` names one: both drivers take and return int, str and bytes
    unchanged, and SQLAlchemy converts Booleans.
    """

    __slots__ = ("_form", "_get", "_readers", "_writers", "names")

    def __init__(self, form: type[T], **codecs: Codec) -> None:
        self._form = form
        self._readers = tuple((name, codec.read) for name, codec in codecs.items())
        self._writers = tuple((name, codec.write) for name, codec in codecs.items())
        self.names = tuple(field.name for field in fields(cast("Any", form)))
        self._get: Callable[[object], tuple[Any, ...]] = attrgetter(*self.names)

    def read(self, found: Any) -> T:
        """A row that has at least the columns of the form, as a value."""
        values = dict(zip(self.names, self._get(found), strict=True))
        for name, read in self._readers:
            values[name] = read(values[name])
        return self._form(**values)

    def read_optional(self, found: Any | None) -> T | None:
        """`read`, or None where there is no row."""
        return None if found is None else self.read(found)

    def read_all(self, rows: Iterable[Any]) -> tuple[T, ...]:
        """`read` for each of `rows`, in order."""
        return tuple(self.read(found) for found in rows)

    def find(self, connection: Connection, query: Executable, values: Mapping[str, object] | None = None) -> T | None:
        """The one row of `query`, None where it has none. Raises MultipleResultsFound for more."""
        return self.read_optional(connection.execute(query, values).one_or_none())

    def list(self, connection: Connection, query: Executable) -> tuple[T, ...]:
        """Every row of `query`, in order."""
        return self.read_all(connection.execute(query))

    def values(self, row: T) -> dict[str, object]:
        """The columns of a value, by name, as an insert or update takes them."""
        values = dict(zip(self.names, self._get(row), strict=True))
        for name, write in self._writers:
            values[name] = write(values[name])
        return values
