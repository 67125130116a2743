"""Queues acts from many threads for the one thread that writes; it groups them and runs none.

Why group: a commit costs one fsync (1 to 5 ms), whatever number of acts it holds. The larger the batch, the more acts
a second. The longer an act waits for others, the slower its own response. This queue makes batches large without
keeping an act that could be served now.

Two kinds of acts:

- An *urgent* act has a thread that waits for its future. It may start a batch at once.
- A *patient* act has none (a signature row that follows an issuance), or its submitter will submit more and then call
  `hurry`. It rides with the next batch, and starts one of its own only after `patience_seconds` (5 ms).

How the writing thread takes a batch (`take`):

1. It waits for an urgent act. While patient acts are queued it waits `patience_seconds` at most, then takes them.
   After a batch it waits that time once even for an empty queue, since patient acts follow from what was committed.
   With nothing to expect it sleeps without a limit, and `is_asleep` says so.
2. It lingers. After a batch of N urgent acts their N submitters wake up one after the other, and most of them submit
   again. If the first took the disk alone, the others would wait a whole fsync. So the thread waits until half of N are
   back, `linger_seconds` (0.5 ms) at most. N is 0 or 1 for a single submitter: it never waits here.
3. It takes the oldest acts, `max_batch` at most.

Example with clients A, B, C, each of which submits again as soon as it has a result. The queue is empty and the thread
sleeps. A submits, the thread wakes and writes {A}. B and C submit during that commit; the next batch is {B, C}, N = 2.
A submits meanwhile, and half of 2 is 1, so the thread goes on without a pause with {A}, or {A, B} if B was quick.

When a submitter wakes the thread: a wake costs as much as a small act (a switch of threads and of the interpreter's
lock), so most submitters only append. `put` notifies when the thread sleeps without a limit, or when the number of
urgent acts reaches `enough`: 1 while it waits in step 1, half of N while it lingers.

Why no act is forgotten: every field below is read and written under one lock, and a wait gives that lock up and tests
its condition again afterwards. A wait without a limit happens only while the queue is empty, and then `is_asleep` makes
every `put` notify. Every other wait ends by its time limit. So the oldest act is taken after at most the running
batch, `patience_seconds` and `linger_seconds`, and acts are taken in the order of `put`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from vagus.errors import LimitExceeded, Unavailable
from vagus.reasons import Reason

T = TypeVar("T")
B = TypeVar("B")


class QueuedAct(Generic[B, T]):
    """An act in the queue with the future that waits for it; `B` is what the writer hands to each act."""

    __slots__ = ("act", "future", "is_patient")

    def __init__(self, act: Callable[[B], T], *, is_patient: bool) -> None:
        self.act = act
        self.is_patient = is_patient
        self.future: Future[T] = Future()


class ActQueue(Generic[B]):
    """Acts in the order in which they came. One thread calls `take`; every thread may call the rest."""

    def __init__(self, *, max_batch: int, max_queued: int, linger_seconds: float, patience_seconds: float) -> None:
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._linger_seconds = linger_seconds
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        # All fields below belong to the lock of `_changed`: read and write them only while holding it.
        self._queue: deque[QueuedAct[B, Any]] = deque()
        self._urgent = 0  # how many acts of the queue are urgent (not patient)
        self._enough = 1  # `put` wakes the writing thread once so many acts are urgent
        # the writing thread waits without a time limit, so that even a patient act must wake it
        self._is_asleep = False
        self._is_closed = False

    def put(self, act: Callable[[B], T], *, is_patient: bool) -> Future[T]:
        """Append an act. Raises LimitExceeded(OVERLOADED), Unavailable(DATABASE_UNAVAILABLE) once closed."""
        queued: QueuedAct[B, T] = QueuedAct(act, is_patient=is_patient)
        with self._changed:
            if self._is_closed:
                msg = "the writer is closed: this process is about to end; try again"
                raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)
            if len(self._queue) >= self._max_queued:
                msg = f"{len(self._queue)} acts wait for the disk, at most {self._max_queued} may; try again later"
                raise LimitExceeded(Reason.OVERLOADED, msg, limit=self._max_queued)
            self._queue.append(queued)
            self._urgent += not is_patient
            if self._urgent >= self._enough or self._is_asleep:
                self._changed.notify()
        return queued.future

    def hurry(self) -> None:
        """Make every queued act urgent."""
        with self._changed:
            for queued in self._queue:
                queued.is_patient = False
            self._urgent = len(self._queue)
            if self._urgent >= self._enough:
                self._changed.notify()

    def close(self) -> None:
        """Refuse further acts; `take` gives what is queued without waiting, then nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def take(self, last: int) -> list[QueuedAct[B, Any]]:
        """The next batch, after one with `last` urgent acts; empty once the queue is closed and drained."""
        with self._changed:
            # The writing thread alone runs this method. First it sleeps until an urgent act is queued, or until patient
            # acts have waited long enough.
            self._wait_for_act()
            # Callers of the last batch usually submit their next acts within some hundred microseconds. If fewer than
            # half as many are queued, linger shortly, so that they share one commit and one disk flush. `_enough` makes
            # `put` end the wait once half of them have come.
            if self._urgent < last // 2 and not self._is_closed:
                self._enough = last // 2
                self._changed.wait(self._linger_seconds)
                self._enough = 1
            # Patient acts ride along: a commit costs the same with them.
            count = min(len(self._queue), self._max_batch)
            batch = [self._queue.popleft() for _ in range(count)]
            self._urgent -= sum(not queued.is_patient for queued in batch)
            return batch

    def _wait_for_act(self) -> None:
        # A batch has just ended, and its callers often submit patient acts next: wait once more for these before
        # sleeping.
        may_follow = True
        while not self._urgent and not self._is_closed:
            if self._queue or may_follow:
                self._changed.wait(self._patience_seconds)
                if self._queue:
                    return
                may_follow = False
            else:
                self._is_asleep = True
                self._changed.wait()
                self._is_asleep = False

    def abandon(self) -> list[QueuedAct[B, Any]]:
        """Close, and give what is still queued: for a writing thread that ends early."""
        with self._changed:
            self._is_closed = True
            left = list(self._queue)
            self._queue.clear()
            self._urgent = 0
            return left
