"""One follower over numbered rows: it knows how far it has read, finds gaps, and gives its subscribers each row once.

The writer numbers rows without a gap, under a lock that spans all processes (`records.engine.writer`). Therefore a
follower that has seen number n has seen every row up to n, and a missing number proves damage.

Two threads bring rows. The writer's thread brings what this process commits, within the commit and before its futures
resolve. The poll thread reads what other processes committed, at most every 500 ms. Each reads from the position that
it found; `_turn` guards the position, the newest row and the calls of subscribers, and a row that the other thread has
brought meanwhile is dropped by its number. No reading of the database happens under `_turn`, so that a commit never
waits for a slow poll.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from vagus.errors import IntegrityFailure, VagusError
from vagus.reasons import Reason
from vagus.records.engine.commit_facts import CommitFacts
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.writer import Writer

_LOG = logging.getLogger(__name__)

MAX_POLL_SECONDS = 0.5
_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 10.0
"""A reading that takes longer is given up and begun anew: its connection may hang."""


class Numbered(Protocol):
    """A row with its place in its sequence; the first has number 1."""

    @property
    def sequence(self) -> int:
        """The number."""


Row = TypeVar("Row", bound=Numbered)


class Follower(ABC, Generic[Row]):
    """The position in one sequence, with its subscribers. Safe to use from every thread."""

    name: ClassVar[str]
    """What messages call the sequence."""

    def __init__(self, database: Database, position: int | None = None) -> None:
        """Begin after number `position`, by default at the end.

        Raises Unavailable(DATABASE_UNAVAILABLE), IntegrityFailure(LOG_TRUNCATED) when the sequence ends before.
        """
        self._database = database
        self._turn = threading.Lock()
        self._is_beside = False
        self._subscribers: tuple[Callable[[Sequence[Row]], None], ...] = ()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._position = 0
        self._newest: Row | None = None  # the row at the position, to notice a database that was replaced
        if position != 0:
            with database.reading(patience=_PATIENCE_SECONDS) as connection:
                end, self._newest = self._find(connection, position or 0)
                if position is None:
                    end, self._newest = self._find(connection, end)
                self._position = end if position is None else position
                if self._position > end:
                    raise self._other_database(self._position)

    @abstractmethod
    def _find(self, connection: Connection, position: int) -> tuple[int, Row | None]:
        """The number at which the sequence ends, and the row at `position`, None where there is none."""

    @abstractmethod
    def _read(self, connection: Connection, after: int) -> Sequence[Row]:
        """The next rows after number `after`, in order; some thousand at most."""

    @abstractmethod
    def _written(self, facts: CommitFacts) -> tuple[Sequence[Row], int]:
        """The rows that a commit of this process brings along, if it does, and the end of the sequence after it."""

    def _take(self, rows: Sequence[Row]) -> None:
        """Hold what the rows say, before subscribers hear of them. Called under the turn."""

    def _note_current(self) -> None:
        """A commit of this process found the follower at the end of the sequence. Called under the turn."""

    def _set_back(self, _connection: Connection, _position: int, _end: int) -> None:
        """The database is not the one that was followed: its row at the position is missing or another one.

        A failover that lost commits does this, and so does a restore. The rows that such a database gave anew under
        numbers that were passed would never be read, so by default the follower stays lost.
        """
        self._is_beside = True

    @property
    def position(self) -> int:
        """The number of the newest row that subscribers have; 0 before the first."""
        return self._position

    def subscribe(self, callback: Callable[[Sequence[Row]], None]) -> None:
        """Call `callback` with each run of new rows, in order; keep it short, it must not raise."""
        self._subscribers = (*self._subscribers, callback)

    def follow(self, writer: Writer) -> None:
        """Catch up within each commit of this process that moved the sequence, before its futures resolve."""
        writer.on_commit(self._on_commit)

    def start(self, poll_seconds: float = _POLL_SECONDS) -> None:
        """Poll on a thread of its own, at most every 500 ms, for what other processes commit; end it with `close`."""
        seconds = min(poll_seconds, MAX_POLL_SECONDS)
        self._thread = threading.Thread(target=self._poll, args=(seconds,), name=f"vagus {self.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop polling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def catch_up(self) -> int:
        """Read what is new and give the position.

        Raises Unavailable, IntegrityFailure(LOG_TAMPERED) on a gap, IntegrityFailure(LOG_TRUNCATED) when the database
        is not the one that was followed (`_set_back`).
        """
        if self._is_beside:
            raise self._other_database(self._position)
        with self._turn:
            position, newest = self._position, self._newest
        with self._database.reading(patience=_PATIENCE_SECONDS) as connection:
            end, found = self._find(connection, position)
            # A database that was restored or failed over may have given numbers anew that were read here before.
            # Comparing the row at the position finds that, also where the sequence has grown past the position since.
            if end < position or found != newest:
                self._set_back(connection, position, end)
                raise self._other_database(position)
            self._read_until(connection, position, end)
        return self.position

    def _read_until(self, connection: Connection, position: int, end: int) -> None:
        while position < end:
            # Read a page without holding the lock: readers of the position must not wait for the database.
            rows = self._read(connection, position)
            if not rows:
                raise self._gap(position, end)
            with self._turn:
                # A commit of this process may have moved the position while these rows were read without the lock: drop
                # what `_on_commit` has applied already, so that each subscriber gets each row once.
                self._apply([row for row in rows if row.sequence > self._position], end)
            position = rows[-1].sequence

    def _apply(self, rows: Sequence[Row], end: int) -> None:
        """Move on by `rows`, which must follow the position without a gap. Called under the turn."""
        if [row.sequence for row in rows] != list(range(self._position + 1, self._position + 1 + len(rows))):
            raise self._gap(self._position, end)
        if rows:
            self._take(rows)
            self._position, self._newest = rows[-1].sequence, rows[-1]
            for subscriber in self._subscribers:
                subscriber(rows)

    def _on_commit(self, facts: CommitFacts) -> None:
        """Rows that this process has just written are not read back, if no row of another process lies before them."""
        rows, end = self._written(facts)
        with self._turn:
            # The usual case: the rows of this commit follow the position directly. If another process committed in
            # between, its rows are missing here, and all are read from the database.
            if rows and (rows[0].sequence, rows[-1].sequence) == (self._position + 1, end):
                self._apply(rows, end)
            if end == self._position:
                self._note_current()
                return
        self.catch_up()

    def _poll(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.catch_up()
            except VagusError as error:  # the database may be back at the next poll
                _LOG.warning("the %s cannot be followed: %s", self.name, error.message)
            # this thread must not end, or every gateway would refuse its peers for good
            except Exception:  # noqa: BLE001
                _LOG.exception("the %s cannot be followed", self.name)

    def _gap(self, position: int, end: int) -> IntegrityFailure:
        msg = f"the {self.name} has a gap after number {position} (it should reach {end}); run: vagus audit verify"
        return IntegrityFailure(Reason.LOG_TAMPERED, msg, position=position, end=end)

    def _other_database(self, position: int) -> IntegrityFailure:
        msg = f"number {position} of the {self.name} differs from what was read before: the database is an older one"
        msg = f"{msg}; close the gap with `vagus restore-gap` and restart this process"
        return IntegrityFailure(Reason.LOG_TRUNCATED, msg, position=position)
