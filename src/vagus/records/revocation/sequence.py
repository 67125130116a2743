"""The gapless revocation sequence: as every gate follows it; rows are written in `revocations`, decided in authority.

A follower holds what is revoked or held in memory. In the process that writes it is up to date before the
revocation's future resolves; other processes poll at most every 500 ms (design section 6.3).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, select

from vagus.clock import Clock
from vagus.errors import IntegrityFailure, Misconfigured, VagusError
from vagus.reasons import Reason
from vagus.records.engine.database import Database
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import log_head, revocation_events
from vagus.records.engine.writer import CommitFacts, Writer
from vagus.records.revocation.revocations import HOLD, RELEASE, RevocationEvent

_LOG = logging.getLogger(__name__)

MAX_POLL_SECONDS = 0.5
_POLL_SECONDS = 0.25
_ROWS = 5_000
_PATIENCE_SECONDS = 10.0
"""Whoever hangs longer is asked anew: the connection may be what hangs."""


@dataclass(frozen=True, slots=True)
class RevokedEntry:
    """Why a certificate does not count now."""

    authority_id: int
    serial: int
    is_hold: bool
    reason: int
    at: int
    sequence: int


def read_events(connection: Connection, after: int, limit: int = _ROWS) -> list[RevocationEvent]:
    """At most `limit` events behind number `after`, in order."""
    table = revocation_events.c
    rows = connection.execute(
        select(table.sequence, table.authority_id, table.serial, table.act, table.reason, table.at)
        .where(table.sequence > after)
        .order_by(table.sequence)
        .limit(limit)
    )
    return [
        RevocationEvent(sequence, authority_id, int.from_bytes(serial, "big"), act, reason, at)
        for sequence, authority_id, serial, act, reason, at in rows
    ]


_LOOK = Statement(
    select(
        log_head.c.revocation_sequence.label("end"),
        revocation_events.c.authority_id,
        revocation_events.c.serial,
        revocation_events.c.act,
        revocation_events.c.reason,
        revocation_events.c.at,
    )
    .select_from(log_head.outerjoin(revocation_events, revocation_events.c.sequence == bindparam("position")))
    .where(log_head.c.id == 1)
)


def _look(connection: Connection, position: int) -> tuple[int, RevocationEvent | None]:
    """Where the sequence ends, and what stands at `position`."""
    row = _LOOK.find(connection, position=position)
    if row is None:
        raise Misconfigured(Reason.SCHEMA_MISMATCH, "the database has no log head; run: vagus init")
    if row.serial is None:
        return row.end, None
    serial = int.from_bytes(row.serial, "big")
    return row.end, RevocationEvent(position, row.authority_id, serial, row.act, row.reason, row.at)


_SEQUENCE_BITS = 64
_REASON_BITS = 8


def _pack(event: RevocationEvent) -> int:
    """Moment, step, reason and hold in one number."""
    return ((event.at << _SEQUENCE_BITS | event.sequence) << _REASON_BITS | event.reason) << 1 | (event.act == HOLD)


def _unpack(authority_id: int, serial: int, packed: int) -> RevokedEntry:
    reason = packed >> 1 & (1 << _REASON_BITS) - 1
    left = packed >> 1 + _REASON_BITS
    at, sequence = left >> _SEQUENCE_BITS, left & (1 << _SEQUENCE_BITS) - 1
    return RevokedEntry(authority_id, serial, bool(packed & 1), reason, at, sequence)


def _gap(position: int, end: int) -> IntegrityFailure:
    msg = f"the revocation sequence has a gap behind {position} (it should reach {end}); see vagus audit"
    return IntegrityFailure(Reason.LOG_TAMPERED, msg, position=position, end=end)


def _other_database(position: int) -> IntegrityFailure:
    msg = (
        f"step {position} of the revocation sequence is not what was read there before: another, older database under "
        "the same name; close the gap with `vagus restore-gap` and restart"
    )
    return IntegrityFailure(Reason.LOG_TRUNCATED, msg, position=position)


class RevocationFollower:
    """What is revoked or held, in memory and never far behind the database. Safe to ask from every thread.

    `find` costs a dictionary look-up, so it can be asked for every request of every open connection.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        """Load the whole sequence. Raises Unavailable(DATABASE_UNAVAILABLE), IntegrityFailure(LOG_TAMPERED)."""
        self._database = database
        self._clock = clock
        self._turn = threading.Lock()
        self._revoked: dict[int, dict[int, int]] = {}  # authority, serial, entry: numbers alone, a million have room
        self._position = 0
        self._newest: RevocationEvent | None = None  # what was read at the position
        self._is_beside = False
        self._current_at = clock.now()
        self._subscribers: tuple[Callable[[Sequence[RevocationEvent]], None], ...] = ()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.catch_up()

    @property
    def position(self) -> int:
        """The number of the newest event that is held here; 0 before the first."""
        return self._position

    @property
    def current_at(self) -> datetime:
        """When this follower last knew that it was up to date."""
        return self._current_at

    def is_lost(self, at: datetime, bound: timedelta) -> bool:
        """Whether at `at` it has not known itself up to date for longer than `bound`: apply the fail mode.

        A clock that was set back by more than `bound` tells no age, and counts as one that is too high.
        """
        return self._is_beside or abs(at - self._current_at) > bound

    def find(self, authority_id: int, serial: int) -> RevokedEntry | None:
        """Why the certificate does not count now, or None. Equal while nothing happened to it, not the same object."""
        listed = self._revoked.get(authority_id)
        packed = None if listed is None else listed.get(serial)
        return None if packed is None else _unpack(authority_id, serial, packed)

    def subscribe(self, callback: Callable[[Sequence[RevocationEvent]], None]) -> None:
        """Call `callback` with each run of new events, after `find` knows them; keep it short, it must not raise."""
        self._subscribers = (*self._subscribers, callback)

    def follow(self, writer: Writer) -> None:
        """Catch up within each commit of this process that moved the sequence, before its futures resolve."""
        writer.on_commit(self._on_commit)

    def start(self, poll_seconds: float = _POLL_SECONDS) -> None:
        """Poll on a thread of its own, at most every 500 ms, for what other processes revoke; end it with `close`."""
        self._thread = threading.Thread(
            target=self._poll, args=(min(poll_seconds, MAX_POLL_SECONDS),), name="vagus-revocations", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop polling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def catch_up(self) -> int:
        """Read what is new and give the position.

        Raises Unavailable, IntegrityFailure(LOG_TAMPERED) on a gap, IntegrityFailure(LOG_TRUNCATED) from then on when
        the database is not the one that was followed: its sequence ends before, or says something else at, the
        position, as behind a failover that lost commits. Such a follower stays lost, for what stands under numbers that
        it has passed already it would never read.
        """
        if self._is_beside:
            raise _other_database(self._position)
        with self._turn:
            asked_at, position, newest = self._clock.now(), self._position, self._newest
        # Read without the turn: a commit of this process has its step applied meanwhile, and waits for no reading.
        with self._database.reading(patience=_PATIENCE_SECONDS) as connection:
            end, there = _look(connection, position)
            if end < position or there != newest:
                self._is_beside = True
                raise _other_database(position)
            while position < end:
                events = read_events(connection, position)
                if not events:
                    raise _gap(position, end)
                with self._turn:
                    self._apply([event for event in events if event.sequence > self._position], end)
                position = events[-1].sequence
        with self._turn:
            self._current_at = asked_at
            return self._position

    def _apply(self, events: Sequence[RevocationEvent], end: int) -> None:
        numbers = [event.sequence for event in events]
        if numbers != list(range(self._position + 1, self._position + 1 + len(events))):
            raise _gap(self._position, end)
        for event in events:
            listed = self._revoked.setdefault(event.authority_id, {})
            if event.act == RELEASE:
                listed.pop(event.serial, None)
            else:
                listed[event.serial] = _pack(event)
        if events:
            self._position, self._newest = events[-1].sequence, events[-1]
            for subscriber in self._subscribers:
                subscriber(events)

    def _on_commit(self, facts: CommitFacts) -> None:
        """What this process has just written needs not be read back, if nothing of others lies before it."""
        with self._turn:
            if facts.steps and (facts.steps[0].sequence, facts.steps[-1].sequence) == (
                self._position + 1,
                facts.revocation_sequence,
            ):
                self._apply(facts.steps, facts.revocation_sequence)
            if facts.revocation_sequence == self._position:
                self._current_at = self._clock.now()
                return
        self.catch_up()

    def _poll(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.catch_up()
            except VagusError as error:  # `is_lost` tells; the next poll may find the database again
                _LOG.warning("the revocation sequence cannot be followed: %s", error.message)
            except Exception:  # noqa: BLE001  this thread must not end: every gate would stay shut
                _LOG.exception("the revocation sequence cannot be followed")
