"""The gapless sequence of device changes, as every gate follows it; what a change means is told in fleet.

A verdict on a connection rests on the state and the unit of its device. Both change in the inventory, often from
another process, and an open connection must hear of it as soon as of a revocation (design section 6.3). A follower
holds no states: it tells which devices changed, and whoever let them in asks again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select

from vagus.errors import IntegrityFailure, VagusError
from vagus.identifiers import DeviceId
from vagus.reasons import Reason
from vagus.records.engine.database import Database
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import device_changes, log_head
from vagus.records.engine.writer import Batch, CommitFacts, Writer

_LOG = logging.getLogger(__name__)

MAX_POLL_SECONDS = 0.5
_POLL_SECONDS = 0.25
_ROWS = 5_000
_PATIENCE_SECONDS = 10.0
_AT = Statement(select(device_changes.c.device_id).where(device_changes.c.sequence == bindparam("position")))
_END = select(log_head.c.device_sequence).where(log_head.c.id == 1)


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """One step of the sequence."""

    sequence: int
    device_id: str
    at: int


def note_device_change(batch: Batch, device_id: DeviceId) -> int:
    """Number a change of a device's rights, in the transaction that makes it; gives its place in the sequence."""
    sequence = batch.next_device_change()
    row = {"sequence": sequence, "device_id": str(device_id), "at": batch.at}
    batch.connection.execute(insert(device_changes), row)
    return sequence


def read_changes(connection: Connection, after: int, limit: int = _ROWS) -> list[DeviceChange]:
    """At most `limit` changes behind number `after`, in order."""
    table = device_changes.c
    rows = connection.execute(
        select(table.sequence, table.device_id, table.at)
        .where(table.sequence > after)
        .order_by(table.sequence)
        .limit(limit)
    )
    return [DeviceChange(*row) for row in rows]


def _find_device(connection: Connection, sequence: int) -> str | None:
    row = _AT.find(connection, position=sequence)
    return None if row is None else str(row.device_id)


class DeviceFollower:
    """Tells which devices changed: in this process within the commit, elsewhere by polling at most every 500 ms.

    Safe to ask from every thread. Whether the database is in sight is the revocation follower's to say.
    """

    def __init__(self, database: Database) -> None:
        """Begin at the end of the sequence. Raises Unavailable(DATABASE_UNAVAILABLE)."""
        self._database = database
        self._skipped = 0  # places that `position` is ahead of the database
        self._turn = threading.Lock()
        self._subscribers: tuple[Callable[[Sequence[DeviceChange]], None], ...] = ()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        with database.reading() as connection:
            self._position = int(connection.execute(_END).scalar_one())
            self._newest = _find_device(connection, self._position)

    @property
    def position(self) -> int:
        """How far this is: a verdict reached elsewhere may be out of date. It grows, whatever the database does."""
        return self._position + self._skipped

    def subscribe(self, callback: Callable[[Sequence[DeviceChange]], None]) -> None:
        """Call `callback` with each run of new changes; keep it short, it must not raise."""
        self._subscribers = (*self._subscribers, callback)

    def follow(self, writer: Writer) -> None:
        """Catch up within each commit of this process that changed a device, before its futures resolve."""
        writer.on_commit(self._on_commit)

    def start(self, poll_seconds: float = _POLL_SECONDS) -> None:
        """Poll on a thread of its own for what other processes change; end it with `close`."""
        seconds = min(poll_seconds, MAX_POLL_SECONDS)
        self._thread = threading.Thread(target=self._poll, args=(seconds,), name="vagus-devices", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop polling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def catch_up(self) -> int:
        """Read what is new and give the position. Raises Unavailable, IntegrityFailure on a gap or a step back."""
        with self._turn:
            changes: list[DeviceChange] = []
            try:
                self._read_new(changes)
            finally:  # what was read before a failure is passed by and not read again
                if changes:
                    for subscriber in self._subscribers:
                        subscriber(changes)
            return self.position

    def _read_new(self, new: list[DeviceChange]) -> None:
        with self._database.reading(patience=_PATIENCE_SECONDS) as connection:
            end = int(connection.execute(_END).scalar_one())
            before = self._position
            if end < before or _find_device(connection, before) != self._newest:
                # another, older database under the same name: every verdict that rests on what it lost is old now, and
                # what it gave anew under numbers that were passed is told with what stood there
                self._skipped += before + 1 - end
                self._position = max(0, min(before, end) - _ROWS)
                self._read_until(connection, end, new)
                self._newest = _find_device(connection, end)
                msg = f"device change {before} is not what was read there before, the sequence ends at {end}; restart"
                raise IntegrityFailure(Reason.LOG_TRUNCATED, msg, position=before, found=end)
            self._read_until(connection, end, new)

    def _read_until(self, connection: Connection, end: int, new: list[DeviceChange]) -> None:
        while self._position < end:
            changes = read_changes(connection, self._position)
            expected = range(self._position + 1, self._position + 1 + len(changes))
            if not changes or [one.sequence for one in changes] != list(expected):
                msg = f"the sequence of device changes has a gap behind {self._position}; see vagus audit verify"
                raise IntegrityFailure(Reason.LOG_TAMPERED, msg, position=self._position, end=end)
            self._position, self._newest = changes[-1].sequence, changes[-1].device_id
            new += changes

    def _on_commit(self, facts: CommitFacts) -> None:
        if facts.device_sequence != self._position:
            self.catch_up()

    def _poll(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.catch_up()
            except VagusError as error:
                _LOG.warning("the inventory cannot be followed: %s", error.message)
            except Exception:  # noqa: BLE001  this thread must not end
                _LOG.exception("the inventory cannot be followed")
