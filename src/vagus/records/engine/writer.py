"""The one thread that writes: it gathers acts into batches, numbers their ledger entries, commits, then answers.

Who submits an act gets a future. It resolves only after the commit that covers the act has reached the disk, so
whatever was answered is there after a power cut. The act itself decides what is written; nothing here does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from vagus.clock import Clock
from vagus.errors import Conflict, IntegrityFailure, LimitExceeded, Malformed, Misconfigured, Unavailable, VagusError
from vagus.reasons import Reason
from vagus.records.engine.conflicts import as_conflict
from vagus.records.engine.database import Database
from vagus.records.engine.log_continuity import LogContinuity
from vagus.records.engine.outages import explain, first_line, is_outage
from vagus.records.engine.statements import Statement, write_together
from vagus.records.engine.tables import installation, log_head, log_leaves
from vagus.records.revocation.revocations import RevocationEvent
from vagus.tlog.merkle import Frontier, leaf_hash

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

MAX_ENTRY_BYTES = 65_535
"""A C2SP entry bundle gives each entry a 16-bit length."""

_MAX_QUEUED = 20_000
_LINGER_SECONDS = 0.0005
_PATIENCE_SECONDS = 0.005
_IDLE_SECONDS = 1.0
"""A connection that was not used for longer is looked at first: its server may have ended it meanwhile."""
_SQLITE_BATCH = 256
_POSTGRES_BATCH = 60  # PostgreSQL keeps 64 subtransactions a transaction in memory; more would slow its readers

_FEW_LEAVES = 8  # so many are written in one statement with the head
_OPEN = "SAVEPOINT act"
_NEXT = "RELEASE SAVEPOINT act; SAVEPOINT act"  # the commit releases the last
_UNDO = "ROLLBACK TO SAVEPOINT act"


@dataclass(frozen=True, slots=True)
class CommitFacts:
    """What a commit has made durable: the new size of the log and the new ends of the two sequences."""

    size: int
    revocation_sequence: int
    acts: int
    device_sequence: int = 0
    steps: tuple[RevocationEvent, ...] = ()
    """Those of the revocation sequence that the acts told of, in order."""
    entries: tuple[bytes, ...] = ()
    """The ledger entries of the batch, in order; the last has index `size` - 1."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The locked head as a batch finds it."""

    frontier: Frontier
    revocation_sequence: int
    device_sequence: int
    is_unsettled: bool
    """Whether a restore waits to be settled: what is appended then may contradict what was published."""


class Batch:
    """What an act may do while its batch is open. An act must not keep it, nor commit or roll back by itself."""

    def __init__(self, connection: Connection, at: int, head: _Head) -> None:
        self.connection = connection
        """The connection of the transaction; every act of the batch sees what those before it wrote."""
        self.at = at
        """The moment of the batch, seconds since 1970 UTC: all its rows and entries carry the same."""
        self._head = head
        self._entries: list[bytes] = []
        self._steps: list[RevocationEvent] = []
        self._sequence = head.revocation_sequence
        self._device_sequence = head.device_sequence
        self._is_closed = head.is_unsettled
        self.tip: tuple[bytes, bytes] | None = None
        """Root and hash of the last leaf, once sealed, if it appended any."""

    def append(self, entry: bytes) -> int:
        """Add `entry` to the log and give its leaf index, the only order there is (design section 6.2).

        Raises Malformed(TOO_LARGE) above 65,535 bytes, the most that an entry bundle can hold, and
        Conflict(RESTORE_UNSETTLED) while the gap behind a restore is open: on whatever road it comes, an entry that
        takes the place of one already published would fork the log.
        """
        if self._is_closed:
            msg = (
                "this system was restored and does not know what was issued since its backup; close the gap with "
                "`vagus restore-gap` before anything is issued or changed"
            )
            raise Conflict(Reason.RESTORE_UNSETTLED, msg)
        if len(entry) > MAX_ENTRY_BYTES:
            msg = f"a ledger entry of {len(entry)} bytes exceeds the {MAX_ENTRY_BYTES} of a bundle; refer by hash"
            raise Malformed(Reason.TOO_LARGE, msg, size=len(entry), limit=MAX_ENTRY_BYTES)
        self._entries.append(entry)
        return self._head.frontier.size + len(self._entries) - 1

    def begin_settling(self) -> None:
        """Let this one act append although a restore is unsettled: for recovery and settlement, and nobody else."""
        self._is_closed = False

    def next_revocation(self) -> int:
        """The next number of the gapless revocation sequence; the act writes a `revocation_events` row with it."""
        self._sequence += 1
        return self._sequence

    def note_step(self, step: RevocationEvent) -> None:
        """Let whoever follows the sequence in this process have a numbered step without reading it back."""
        self._steps.append(step)

    def next_device_change(self) -> int:
        """The next number of the gapless sequence of device changes; the act writes a `device_changes` row with it."""
        self._device_sequence += 1
        return self._device_sequence

    def mark(self) -> tuple[int, int, int, int]:
        """Where an act begins, for `undo`."""
        self._is_closed = self._head.is_unsettled
        return len(self._entries), len(self._steps), self._sequence, self._device_sequence

    def undo(self, mark: tuple[int, int, int, int]) -> None:
        """Forget the entries, steps and numbers taken since `mark`; the savepoint forgets the rows."""
        entries, steps, self._sequence, self._device_sequence = mark
        del self._entries[entries:], self._steps[steps:]

    def seal(self, acts: int) -> CommitFacts:
        """Write leaves and head, after `acts` acts; gives what the commit will make durable."""
        frontier, entries = self._head.frontier, self._entries
        numbers = (self._sequence, self._device_sequence)
        hashes = [leaf_hash(entry) for entry in entries]
        pairs = enumerate(zip(entries, hashes, strict=True), frontier.size)
        rows = [{"leaf_index": leaf, "entry": entry, "leaf_hash": hashed} for leaf, (entry, hashed) in pairs]
        frontier = frontier.extend(hashes)
        if entries or numbers != (self._head.revocation_sequence, self._head.device_sequence):
            head = _UPDATE_HEAD.write(
                new_size=frontier.size,
                new_frontier=frontier.encode(),
                new_root=frontier.root,
                revocations=self._sequence,
                device_changes=self._device_sequence,
            )
            if len(rows) > _FEW_LEAVES:
                _INSERT_LEAVES.change_many(self.connection, rows)
                rows = []
            write_together(self.connection, *(_INSERT_LEAVES.write(**row) for row in rows), head)
            self.tip = (frontier.root, hashes[-1]) if hashes else None
        return CommitFacts(
            frontier.size, self._sequence, acts, self._device_sequence, tuple(self._steps), tuple(entries)
        )


_INSERT_LEAVES = Statement(insert(log_leaves), "leaf_index", "entry", "leaf_hash")
_UPDATE_HEAD = Statement(
    update(log_head)
    .where(log_head.c.id == 1)
    .values(
        size=bindparam("new_size"),
        frontier=bindparam("new_frontier"),
        root=bindparam("new_root"),
        revocation_sequence=bindparam("revocations"),
        device_sequence=bindparam("device_changes"),
    )
)
_LOCK = Statement(select(log_head.c.id).with_for_update())
_HEAD = Statement(
    select(
        log_head.c.size,
        log_head.c.frontier,
        log_head.c.root,
        log_head.c.revocation_sequence,
        log_head.c.device_sequence,
        installation.c.restored_at,
    ).select_from(log_head.outerjoin(installation, installation.c.id == log_head.c.id))
)


class _Pending(Generic[T]):
    """An act in the queue with the future that waits for it."""

    __slots__ = ("act", "future", "is_patient")

    def __init__(self, act: Callable[[Batch], T], *, is_patient: bool) -> None:
        self.act = act
        self.is_patient = is_patient
        self.future: Future[T] = Future()


class Writer:
    """Group commit over one database; several processes may each have one on the same PostgreSQL database.

    `kill_points` is called with "before-commit" and "after-commit" on the writing thread: durability tests end the
    process there.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        kill_points: Callable[[str], None] | None = None,
        max_batch: int | None = None,
        max_queued: int = _MAX_QUEUED,
        linger_seconds: float = _LINGER_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self.database = database
        self._clock = clock
        self._kill_points = kill_points if kill_points is not None else _pass_by
        self._max_batch = max_batch or (_SQLITE_BATCH if database.is_sqlite else _POSTGRES_BATCH)
        self._max_queued = max_queued
        self._linger_seconds = linger_seconds
        self._patience_seconds = patience_seconds
        self._queue: deque[_Pending[Any]] = deque()
        self._urgent = 0  # how many in the queue are not patient
        self._enough = 1  # how many of those wake the thread: each wake costs as much as a small act
        self._is_asleep = False  # without a time to wake by itself
        self._changed = threading.Condition()
        self._is_closing = False
        self._callbacks: tuple[Callable[[CommitFacts], None], ...] = ()
        self._connection: Connection | None = None
        self._used_at = 0.0  # of the monotonic clock
        self._is_committing = False
        self._continuity = LogContinuity()
        self._thread = threading.Thread(target=self._run, name="vagus-writer", daemon=True)
        self._thread.start()

    def submit(self, act: Callable[[Batch], T], *, is_patient: bool = False) -> Future[T]:
        """Run `act` in the next batch; the future resolves to its result once the commit is on the disk.

        A patient act makes no batch of its own while others may still come, and waits for them at most 5 ms: for what
        nobody waits for, and for whoever submits several and calls `hurry` behind the last.

        An error that `act` raises undoes that act alone and reaches only its own future; a constraint that it
        broke arrives as Conflict(ALREADY_EXISTS). Each act runs once: nothing is replayed. When the commit fails,
        every future of the batch gets Unavailable(DATABASE_UNAVAILABLE); on a lost connection the commit may still
        have happened, so repeat with the same request id.

        Raises LimitExceeded(OVERLOADED) when too many acts wait, Unavailable(DATABASE_UNAVAILABLE) once closed.
        """
        pending = _Pending(act, is_patient=is_patient)
        with self._changed:
            if self._is_closing:
                msg = "the writer is closed: this process is about to end; try again"
                raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
            if len(self._queue) >= self._max_queued:
                msg = f"{len(self._queue)} acts wait for the disk, at most {self._max_queued} may; try again later"
                raise LimitExceeded(Reason.OVERLOADED, msg, limit=self._max_queued)
            self._queue.append(pending)
            self._urgent += not is_patient
            if self._urgent >= self._enough or self._is_asleep:
                self._changed.notify()
        return pending.future

    def hurry(self) -> None:
        """Let patient acts wait no longer."""
        with self._changed:
            for pending in self._queue:
                if pending.is_patient:
                    pending.is_patient = False
                    self._urgent += 1
            if self._urgent >= self._enough:
                self._changed.notify()

    def on_commit(self, callback: Callable[[CommitFacts], None]) -> None:
        """Call `callback` on the writing thread after each commit and before its futures resolve; keep it short."""
        self._callbacks = (*self._callbacks, callback)

    def close(self) -> None:
        """Commit what waits, then stop. Further acts are refused."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # the writing thread

    def _run(self) -> None:
        last = 0
        try:
            while batch := self._gather(last):
                last = sum(not pending.is_patient for pending in batch)
                self._write(batch)
        finally:
            self._drop_connection()
            with self._changed:  # only a death of this thread leaves acts behind
                self._is_closing = True
                left = list(self._queue)
                self._queue.clear()
            _fail(left, Unavailable(Reason.DATABASE_UNAVAILABLE, "the writer ended before this act; try again"))

    def _gather(self, last: int) -> list[_Pending[Any]]:
        """The next batch; empty when closed and drained.

        After a batch of several, its submitters are just waking up: wait a moment for half of them, so that one
        does not take the disk alone. A single submitter never waits.
        """
        with self._changed:
            self._wait_for_act()
            if self._urgent < last // 2 and not self._is_closing:
                self._enough = last // 2
                self._changed.wait(self._linger_seconds)
                self._enough = 1
            count = min(len(self._queue), self._max_batch)
            batch = [self._queue.popleft() for _ in range(count)]
            self._urgent -= sum(not pending.is_patient for pending in batch)
            return batch

    def _wait_for_act(self) -> None:
        """Until somebody waits, or patient acts have waited long enough."""
        may_come = True  # the patient acts that follow from what was just committed
        while not self._urgent and not self._is_closing:
            if self._queue or may_come:
                self._changed.wait(self._patience_seconds)
                if self._queue:
                    return
                may_come = False
            else:
                self._is_asleep = True
                self._changed.wait()
                self._is_asleep = False

    def _write(self, batch: Sequence[_Pending[Any]]) -> None:
        running = [pending for pending in batch if pending.future.set_running_or_notify_cancel()]
        try:
            with self.database.exclusive_memory():
                done, facts = self._commit(running)
        except VagusError as error:
            self._drop_connection()
            _fail(running, error)
            return
        except Exception as error:  # noqa: BLE001  whatever broke the batch, the thread lives on for the next
            self._drop_connection()
            told = "may be committed or not" if self._is_committing else "was not committed"
            msg = f"the batch {told} {explain(error.__cause__ or error, self.database.path, 'try again')}"
            failure = Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
            failure.__cause__ = error
            _fail(running, failure)
            return
        except BaseException:
            _fail(running, Unavailable(Reason.DATABASE_UNAVAILABLE, "the writer ended in the middle of a batch"))
            raise
        for callback in self._callbacks:
            try:
                callback(facts)
            except Exception:  # noqa: BLE001  a follower's fault must not stop the writer
                _LOG.exception("a follower of commits failed")
        for pending, result in done:
            pending.future.set_result(result)

    def _commit(self, running: Sequence[_Pending[Any]]) -> tuple[list[tuple[_Pending[Any], Any]], CommitFacts]:
        """Steps of a batch; what is returned is on the disk."""
        self._is_committing = False
        connection = self._connect()
        refused: list[tuple[_Pending[Any], Exception]] = []
        with connection.begin():
            # 1. Lock the head: from here on no other process numbers leaves or revocations. Open the first savepoint.
            batch = self._open_batch(connection)
            # 2. Run each act in its own savepoint.
            done = self._run_acts(connection, batch, running, refused)
            # 3. Write leaves, frontier, root and sequence beside the acts' own rows.
            facts = batch.seal(len(done))
            self._kill_points("before-commit")
            # 4. Leaving the block commits; the engine returns after its log is on the disk (synchronous = FULL).
            #    Both drivers take a commit without a sound transaction for a success, so ask first.
            if not _is_sound(connection):
                raise _TransactionLost("the transaction ended before its commit")
            self._is_committing = True
        self._used_at = time.monotonic()
        if batch.tip is not None:
            self._continuity.note(facts.size, *batch.tip)
        self._kill_points("after-commit")
        # 5. Only now may anyone be told.
        for pending, error in refused:
            pending.future.set_exception(error)
        return done, facts

    def _connect(self) -> Connection:
        """The connection that is kept; behind a pause one that the pool has looked at: an outage past fails no act."""
        is_resting = time.monotonic() - self._used_at > _IDLE_SECONDS
        if self._connection is not None and is_resting and not self.database.is_sqlite:
            self._connection.close()
        if self._connection is None or self._connection.closed:
            self._connection = self.database.open_writer()
        return self._connection

    def _open_batch(self, connection: Connection) -> Batch:
        if (head := _HEAD.find_locked(connection, _LOCK, _OPEN)) is None:
            raise Misconfigured(Reason.SCHEMA_MISMATCH, "the database has no log head; run: vagus init")
        frontier = Frontier.decode(head.size, head.frontier)
        if frontier.root != head.root:
            msg = f"the stored root of the log of {head.size} leaves does not fit its frontier; run: vagus audit verify"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, size=head.size)
        self._continuity.check(connection, head.size, bytes(head.root))
        locked = _Head(frontier, head.revocation_sequence, head.device_sequence, head.restored_at is not None)
        return Batch(connection, int(self._clock.now().timestamp()), locked)

    @staticmethod
    def _run_acts(
        connection: Connection,
        batch: Batch,
        running: Sequence[_Pending[Any]],
        refused: list[tuple[_Pending[Any], Exception]],
    ) -> list[tuple[_Pending[Any], Any]]:
        savepoint = _savepoints(connection)
        done: list[tuple[_Pending[Any], Any]] = []
        for place, pending in enumerate(running, 1):
            mark = batch.mark()
            try:
                result = pending.act(batch)
                if place < len(running):
                    savepoint(_NEXT)
                elif not _is_sound(connection):
                    raise _TransactionLost("the last act left the transaction failed")
            except SQLAlchemyError as error:
                if is_outage(error) or not _is_open(connection):
                    raise
                refused.append((pending, as_conflict(error)))
            except Exception as error:  # noqa: BLE001  whatever an act raises belongs to whoever submitted it
                refused.append((pending, error))
            else:
                done.append((pending, result))
                continue
            savepoint(_UNDO)
            batch.undo(mark)
        return done

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                if not self.database.is_memory:  # a database in memory ends with its connection
                    connection.invalidate()
            with suppress(SQLAlchemyError):
                connection.close()


class _TransactionLost(SQLAlchemyError):
    """The transaction is not what the batch takes it for."""


def _savepoints(connection: Connection) -> Callable[[str], None]:
    """Runs savepoint statements straight on the driver: a tenth of the cost of SQLAlchemy's nested transactions."""
    driver: Any = connection.connection.driver_connection
    is_sqlite = connection.dialect.name == "sqlite"

    def run(statement: str) -> None:
        try:
            # psycopg sends several statements in one round trip; sqlite3 takes one at a time
            for part in statement.split("; ") if is_sqlite else (statement,):
                driver.execute(part)
        except Exception as error:
            raise _TransactionLost(first_line(error)) from error

    return run


def _is_open(connection: Connection) -> bool:
    """Whether the transaction is still there: SQLite ends it by itself when the disk is full or fails."""
    driver: Any = connection.connection.driver_connection
    return bool(driver.in_transaction) if connection.dialect.name == "sqlite" else not driver.broken


def _is_sound(connection: Connection) -> bool:
    """Whether the transaction is there and a commit would keep it: PostgreSQL turns that of a failed one around."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return bool(driver.in_transaction)
    return str(driver.info.transaction_status.name) == "INTRANS"


def _fail(pendings: Sequence[_Pending[Any]], error: Exception) -> None:
    for pending in pendings:
        future = pending.future
        if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
            future.set_exception(error)


def _pass_by(_point: str) -> None:
    """The kill point of a server that is not under test."""
