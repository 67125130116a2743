"""Group commit: one thread runs the acts of all others in batches, numbers their ledger entries and commits them.

A caller submits an act (a function of the open batch) and gets a future. The future resolves only after the commit that
covers the act has reached the disk, so a response that rests on it is true after a power cut. The act decides what is
written; nothing here does. `act_queue` says how acts become batches.

A batch, step by step (`_commit`):

1. Begin a transaction and lock the row `log_head`. From here on no other process numbers leaves or revocations.
2. Run each act after a savepoint of its own. An act that raises is undone alone; the others stay.
3. Write the new leaves, the frontier, the root and the ends of the two sequences beside the acts' own rows.
4. Ask the driver whether the transaction is sound, then commit. SQLite and PostgreSQL return after their log is on the
   disk.
5. Call the followers of this process (`on_commit`), then resolve the futures. Never in the other order: a caller that
   sees a result must find the followers up to date.

Why a leaf index is the one order: it is given under the lock of `log_head` and committed in that order. A database
serial or a time could become visible out of order, and a reader that went past it would miss it.

Threads: `submit`, `hurry`, `on_commit` and `close` are for every thread. Everything under "the writing thread" runs on
that thread alone and needs no lock: the connection, the batch, what is known of the log. Savepoints and the hot
statements go straight to the driver, which costs a tenth of the same through SQLAlchemy.

What a failure means for the futures of a batch:

    raised by an act                  that act's future alone; its rows, leaves and numbers are undone
    before the commit was sent        every future: the batch "was not committed"
    while the commit was sent         every future: it "may be committed or not"; repeat with the same request id
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypeVar

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from vagus.clock import Clock
from vagus.errors import Conflict, IntegrityFailure, Malformed, Misconfigured, Unavailable, VagusError
from vagus.reasons import Reason
from vagus.records.engine.act_queue import ActQueue, QueuedAct
from vagus.records.engine.commit_facts import CommitFacts, RevocationEvent
from vagus.records.engine.conflicts import as_conflict
from vagus.records.engine.database import Database
from vagus.records.engine.log_continuity import LogContinuity
from vagus.records.engine.outages import explain, first_line, is_outage
from vagus.records.engine.statements import Statement, write_together
from vagus.records.engine.tables import installation, log_head, log_leaves
from vagus.tlog.merkle import Frontier, leaf_hash

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

MAX_ENTRY_BYTES = 65_535
"""A C2SP entry bundle gives each entry a 16-bit length."""

_MAX_QUEUED = 20_000
_LINGER_SECONDS = 0.0005
_PATIENCE_SECONDS = 0.005
_IDLE_SECONDS = 1.0
"""A connection that was not used for longer is tested first: its server may have ended it meanwhile."""
_SQLITE_BATCH = 256
_POSTGRES_BATCH = 60  # PostgreSQL caches 64 subtransactions a transaction in memory; more would slow its readers

_FEW_LEAVES = 8  # up to so many leaves are written in one statement with the head; more go by executemany
# One savepoint is open at a time. Releasing it and opening the next costs one round trip to PostgreSQL.
_OPEN = "SAVEPOINT act"
_NEXT = "RELEASE SAVEPOINT act; SAVEPOINT act"  # the commit releases the last savepoint
_UNDO = "ROLLBACK TO SAVEPOINT act"


@dataclass(frozen=True, slots=True)
class _Head:
    """The locked head as a batch finds it."""

    frontier: Frontier
    revocation_sequence: int
    device_sequence: int
    is_unsettled: bool
    """Whether a restore waits to be settled: an entry that is appended then may contradict a published one."""


class Batch:
    """What an act may do while its batch is open. An act must not keep it, nor commit or roll back by itself."""

    def __init__(self, connection: Connection, at: int, head: _Head) -> None:
        self.connection = connection
        """The connection of the transaction; every act of the batch sees what those before it wrote."""
        self.at = at
        """The time of the batch, seconds since 1970 UTC: all its rows and entries carry the same."""
        self._head = head
        self._entries: list[bytes] = []
        self._steps: list[RevocationEvent] = []
        self._sequence = head.revocation_sequence
        self._device_sequence = head.device_sequence
        self._is_closed = head.is_unsettled
        self.tip: tuple[bytes, bytes] | None = None
        """Root and hash of the last leaf, once sealed, if it appended any."""

    def append(self, entry: bytes) -> int:
        """Add `entry` to the log and give its leaf index, the only order there is (see the module).

        Raises Malformed(TOO_LARGE) above 65,535 bytes, the most that an entry bundle can hold, and
        Conflict(RESTORE_UNSETTLED) while the gap after a restore is open: an entry that takes the place of a published
        one would fork the log.
        """
        if self._is_closed:
            msg = (
                "this system was restored and does not know what was issued since its backup; close the gap with "
                "`vagus restore-gap` before anything is issued or changed"
            )
            raise Conflict(Reason.RESTORE_UNSETTLED, msg)
        if len(entry) > MAX_ENTRY_BYTES:
            msg = f"a ledger entry of {len(entry)} bytes exceeds {MAX_ENTRY_BYTES} bytes; store a digest instead"
            raise Malformed(Reason.TOO_LARGE, msg, size=len(entry), limit=MAX_ENTRY_BYTES)
        self._entries.append(entry)
        return self._head.frontier.size + len(self._entries) - 1

    def begin_settling(self) -> None:
        """Let this one act append although a restore is unsettled: only for recovery and settlement."""
        self._is_closed = False

    def next_revocation(self) -> int:
        """The next number of the gapless revocation sequence; the act writes a `revocation_events` row with it."""
        self._sequence += 1
        return self._sequence

    def note_step(self, step: RevocationEvent) -> None:
        """Hand a numbered step to the followers in this process, which then need not read it back."""
        self._steps.append(step)

    def next_device_change(self) -> int:
        """The next number of the gapless sequence of device changes; the act writes a `device_changes` row with it."""
        self._device_sequence += 1
        return self._device_sequence

    def mark(self) -> tuple[int, int, int, int]:
        """The state before an act, for `undo`."""
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


_Queued: TypeAlias = "QueuedAct[Batch, Any]"


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
        self._kill_points = kill_points or (lambda _: None)
        self._queue: ActQueue[Batch] = ActQueue(
            max_batch=max_batch or (_SQLITE_BATCH if database.is_sqlite else _POSTGRES_BATCH),
            max_queued=max_queued,
            linger_seconds=linger_seconds,
            patience_seconds=patience_seconds,
        )
        # followers of commits; any thread replaces this tuple as a whole and never changes it, so `_write` reads it
        # without a lock
        self._callbacks: tuple[Callable[[CommitFacts], None], ...] = ()
        # The writing thread alone uses the fields below, so they need no lock.
        self._connection: Connection | None = None
        self._used_at = 0.0  # when the connection was last used, in seconds of the monotonic clock
        self._is_committing = False  # the commit was sent, so if it fails its outcome is unknown
        self._continuity = LogContinuity()
        self._thread = threading.Thread(target=self._run, name="vagus-writer", daemon=True)
        self._thread.start()

    def submit(self, act: Callable[[Batch], T], *, is_patient: bool = False) -> Future[T]:
        """Run `act` in the next batch; the future resolves to its result once the commit is on the disk.

        A patient act starts no batch of its own for 5 ms. It is for an act whose future no thread awaits, and for a
        caller that submits several and calls `hurry` after the last.

        An error that `act` raises undoes that act alone and reaches only its own future; a constraint that it
        broke arrives as Conflict(ALREADY_EXISTS). Each act runs once: nothing is replayed. When the commit fails,
        every future of the batch gets Unavailable(DATABASE_UNAVAILABLE); on a lost connection the commit may still
        have happened, so repeat with the same request id.

        Raises LimitExceeded(OVERLOADED) when too many acts wait, Unavailable(DATABASE_UNAVAILABLE) once closed.
        """
        return self._queue.put(act, is_patient=is_patient)

    def hurry(self) -> None:
        """Let patient acts wait no longer."""
        self._queue.hurry()

    def on_commit(self, callback: Callable[[CommitFacts], None]) -> None:
        """Call `callback` on the writing thread after each commit and before its futures resolve; keep it short."""
        self._callbacks = (*self._callbacks, callback)

    def close(self) -> None:
        """Commit what waits, then stop. Further acts are refused."""
        self._queue.close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The methods below run on the writing thread alone.

    def _run(self) -> None:
        last = 0
        try:
            while batch := self._queue.take(last):
                last = sum(not queued.is_patient for queued in batch)
                self._write(batch)
        finally:
            self._drop_connection()
            left = self._queue.abandon()  # acts are left in the queue only if this thread dies
            _fail(left, Unavailable(Reason.DATABASE_UNAVAILABLE, "the writer ended before this act; try again"))

    def _write(self, batch: Sequence[_Queued]) -> None:
        running = [queued for queued in batch if queued.future.set_running_or_notify_cancel()]
        try:
            with self.database.exclusive_memory():
                done, facts = self._commit(running)
        except VagusError as error:
            self._drop_connection()
            _fail(running, error)
            return
        except Exception as error:  # noqa: BLE001 whatever broke the batch, this thread goes on with the next one
            self._drop_connection()
            outcome = "may be committed or not" if self._is_committing else "was not committed"
            msg = f"the batch of acts {outcome} {explain(error.__cause__ or error, self.database.path, 'try again')}"
            failure = Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
            failure.__cause__ = error
            _fail(running, failure)
            return
        except BaseException:
            _fail(running, Unavailable(Reason.DATABASE_UNAVAILABLE, "the writer ended in the middle of a batch"))
            raise
        for callback in self._callbacks:
            try:
                # The followers run on this thread before the futures resolve. So a caller that sees its revocation
                # committed can rely on every gateway of this process knowing it.
                callback(facts)
            except Exception:  # noqa: BLE001 a fault of a follower must not stop the writer
                _LOG.exception("a follower of commits failed")
        for queued, result in done:
            queued.future.set_result(result)

    def _commit(self, running: Sequence[_Queued]) -> tuple[list[tuple[_Queued, Any]], CommitFacts]:
        """The acts that were done with their results, on the disk; the futures of refused acts are resolved here."""
        self._is_committing = False
        connection = self._connect()
        refused: list[tuple[_Queued, Exception]] = []
        with connection.begin():
            # 1. Lock the row log_head and open the first savepoint.
            batch = self._open_batch(connection)
            # 2. Run each act in a savepoint of its own.
            done = self._run_acts(connection, batch, running, refused)
            # 3. Write log leaves, frontier, root and sequence ends beside the acts' own rows.
            facts = batch.seal(len(done))
            self._kill_points("before-commit")
            # 4. Leaving the block commits, and the engine returns after its log is on the disk (synchronous = FULL).
            # Both drivers report success for a commit without a sound transaction, so check that first.
            if not _is_sound(connection):
                raise _TransactionLost("the database transaction ended before its commit")
            self._is_committing = True
        self._used_at = time.monotonic()
        if batch.tip is not None:
            self._continuity.note(facts.size, *batch.tip)
        self._kill_points("after-commit")
        # 5. Resolve the refused acts after the commit too: a refusal may rest on what an earlier act of this batch
        # wrote.
        for queued, error in refused:
            queued.future.set_exception(error)
        return done, facts

    def _connect(self) -> Connection:
        """The connection of the last batch; after a pause, one that the pool has tested.

        Otherwise the first act after an outage that is over would fail.
        """
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
        # The head is locked now. If the log lacks a leaf that this writer committed, the database was set back, and
        # another leaf under the same index would fork the published log.
        self._continuity.check(connection, head.size, bytes(head.root))
        locked = _Head(frontier, head.revocation_sequence, head.device_sequence, head.restored_at is not None)
        return Batch(connection, int(self._clock.now().timestamp()), locked)

    @staticmethod
    def _run_acts(
        connection: Connection, batch: Batch, running: Sequence[_Queued], refused: list[tuple[_Queued, Exception]]
    ) -> list[tuple[_Queued, Any]]:
        savepoint = _savepoints(connection)
        done: list[tuple[_Queued, Any]] = []
        for place, queued in enumerate(running, 1):
            # The mark pairs the savepoint: `undo` takes back the log entries and sequence numbers that live in memory,
            # and the savepoint takes back the rows. Together an act that raises leaves no trace and no gap in a
            # sequence.
            mark = batch.mark()
            try:
                result = queued.act(batch)
                if place < len(running):
                    savepoint(_NEXT)
                elif not _is_sound(connection):
                    raise _TransactionLost("the last act of the batch left the database transaction failed")
            except SQLAlchemyError as error:
                if is_outage(error) or not _is_open(connection):
                    raise
                refused.append((queued, as_conflict(error)))
            except Exception as error:  # noqa: BLE001 what an act raises belongs to that act's own future
                refused.append((queued, error))
            else:
                done.append((queued, result))
                continue
            savepoint(_UNDO)
            batch.undo(mark)
        return done

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                if not self.database.is_memory:  # closing the connection of a database in memory would delete it
                    connection.invalidate()
            with suppress(SQLAlchemyError):
                connection.close()


class _TransactionLost(SQLAlchemyError):
    """The transaction ended, or failed, without an error that reached the batch."""


def _savepoints(connection: Connection) -> Callable[[str], None]:
    """Runs savepoint statements straight on the driver: a tenth of the cost of SQLAlchemy's nested transactions."""
    driver: Any = connection.connection.driver_connection
    is_sqlite = connection.dialect.name == "sqlite"

    def run(statement: str) -> None:
        try:
            # psycopg sends several statements in one round trip, sqlite3 takes one at a time
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
    """Whether the transaction exists and a commit would keep it: PostgreSQL rolls back where a statement has failed."""
    driver: Any = connection.connection.driver_connection
    # SQLite ends a transaction by itself when the disk is full. PostgreSQL keeps a failed one, and turns its commit
    # into a rollback without an error. Both would make an act look durable that is not.
    if connection.dialect.name == "sqlite":
        return bool(driver.in_transaction)
    return str(driver.info.transaction_status.name) == "INTRANS"


def _fail(acts: Sequence[_Queued], error: Exception) -> None:
    for queued in acts:
        future = queued.future
        if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
            future.set_exception(error)
