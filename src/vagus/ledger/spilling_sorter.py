"""Sorts more lines than memory holds, by subject and place, in a private temporary file; does not interpret them.

SQLite's own sorter spills to where SQLITE_TMPDIR or TMPDIR points: about 100 bytes a line, gone when closed. Where no
such folder can be written, the lines stay in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from vagus.records.engine.temporary_files import has_temporary_folder

_AT_ONCE = 2_000
_CACHE_KIB = 16_384


class SpillingSorter:
    """Lines under subjects; what `groups` gives is in order, however the lines came."""

    def __init__(self) -> None:
        in_file = has_temporary_folder()
        # the empty name makes SQLite use a private temporary file
        self._file = sqlite3.connect("" if in_file else ":memory:", isolation_level=None)
        self._file.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._file.execute(f"PRAGMA temp_store={'FILE' if in_file else 'MEMORY'}")
        self._file.execute("PRAGMA journal_mode=OFF")
        self._file.execute("CREATE TABLE lines (subject BLOB, place INTEGER, line TEXT)")
        self._file.execute("BEGIN")
        self._waiting: list[tuple[bytes, int, str]] = []

    def add(self, subject: bytes, place: int, line: str) -> None:
        """One line under `subject`, to come after those of smaller places."""
        self._waiting.append((subject, place, line))
        if len(self._waiting) >= _AT_ONCE:
            self._write()

    def groups(self) -> Iterator[tuple[bytes, list[tuple[int, str]]]]:
        """Each subject with its lines by place."""
        self._write()
        rows = self._file.execute("SELECT subject, place, line FROM lines ORDER BY subject, place, line")
        for subject, lines in groupby(rows, key=itemgetter(0)):
            yield subject, [(place, line) for _, place, line in lines]

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _write(self) -> None:
        self._file.executemany("INSERT INTO lines VALUES (?, ?, ?)", self._waiting)
        self._waiting.clear()
