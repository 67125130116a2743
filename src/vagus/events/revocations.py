"""Follows the revocation sequence and holds in memory what is revoked or on hold; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from vagus.clock import Clock
from vagus.events.follower import Follower
from vagus.records.engine.commit_facts import CommitFacts, RevocationEvent
from vagus.records.engine.database import Connection, Database
from vagus.records.revocation.revocations import HOLD, RELEASE
from vagus.records.revocation.sequence import find_event, read_events

_SEQUENCE_BITS = 64
_REASON_BITS = 8


@dataclass(frozen=True, slots=True)
class RevokedEntry:
    """Why a certificate is not valid now."""

    authority_id: int
    serial: int
    is_hold: bool
    reason: int
    at: int
    sequence: int


class RevocationFollower(Follower[RevocationEvent]):
    """What is revoked or on hold, in memory, at most one poll older than the database.

    `find` costs a dictionary look-up, so it can be called for every request of every open connection. A database that
    was set back leaves the follower lost until a restart, for then `find` may lack revocations.
    """

    name: ClassVar[str] = "revocation sequence"

    def __init__(self, database: Database, clock: Clock) -> None:
        """Load the whole sequence. Raises Unavailable(DATABASE_UNAVAILABLE), IntegrityFailure(LOG_TAMPERED)."""
        super().__init__(database, 0)
        self._clock = clock
        # Authority id -> serial -> one integer that packs the whole entry, so that a million revocations fit into
        # memory. Only `_take` writes to it, under the lock `_turn` of Follower. `find` reads without the lock: look-ups
        # in a dictionary are atomic, and a reader sees an entry whole or not at all.
        self._revoked: dict[int, dict[int, int]] = {}
        self._current_at = clock.now()
        self.catch_up()

    @property
    def current_at(self) -> datetime:
        """When this follower last knew that it was up to date."""
        return self._current_at

    def is_lost(self, at: datetime, bound: timedelta) -> bool:
        """Whether at `at` it has not known itself up to date for longer than `bound`: apply the fail mode.

        A clock that was set back by more than `bound` gives no age. It counts as an age that is too high.
        """
        return self._is_beside or abs(at - self._current_at) > bound

    def find(self, authority_id: int, serial: int) -> RevokedEntry | None:
        """Why the certificate is not valid now, or None. Equal while nothing happened to it, not the same object."""
        entries = self._revoked.get(authority_id)
        packed = None if entries is None else entries.get(serial)
        return None if packed is None else _unpack(authority_id, serial, packed)

    def catch_up(self) -> int:
        """As `Follower.catch_up`. The follower was up to date when the reading began, so that is the time it notes."""
        began_at = self._clock.now()
        position = super().catch_up()
        with self._turn:
            self._current_at = began_at
        return position

    def _find(self, connection: Connection, position: int) -> tuple[int, RevocationEvent | None]:
        return find_event(connection, position)

    def _read(self, connection: Connection, after: int) -> Sequence[RevocationEvent]:
        return read_events(connection, after)

    def _written(self, facts: CommitFacts) -> tuple[Sequence[RevocationEvent], int]:
        return facts.steps, facts.revocation_sequence

    def _take(self, rows: Sequence[RevocationEvent]) -> None:
        for event in rows:
            entries = self._revoked.setdefault(event.authority_id, {})
            if event.act == RELEASE:
                entries.pop(event.serial, None)
            else:
                entries[event.serial] = _pack(event)

    def _note_current(self) -> None:
        self._current_at = self._clock.now()


def _pack(event: RevocationEvent) -> int:
    """Time, sequence, reason and hold in one number."""
    return ((event.date << _SEQUENCE_BITS | event.sequence) << _REASON_BITS | event.reason) << 1 | (event.act == HOLD)


def _unpack(authority_id: int, serial: int, packed: int) -> RevokedEntry:
    reason = packed >> 1 & (1 << _REASON_BITS) - 1
    left = packed >> 1 + _REASON_BITS
    at, sequence = left >> _SEQUENCE_BITS, left & (1 << _SEQUENCE_BITS) - 1
    return RevokedEntry(authority_id, serial, bool(packed & 1), reason, at, sequence)
