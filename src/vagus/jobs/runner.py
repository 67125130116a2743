"""Runs durable jobs: takes what is due under a lease, keeps the lease alive, finishes or gives back; knows no kind.

A job runs at least once, on any process. A process that dies loses its lease, and another one begins the job again.
What a job does must therefore be repeatable. Only its last act counts once: it is written in the transaction that
marks the job done, and that transaction fails if the lease is lost (docs/adr/0004-durable-work.md).

Three threads take part. The work thread takes jobs and runs them. Each running job has a heartbeat thread, which
prolongs the lease every third of its length, so that one that fails can be repeated in time. The main thread calls
`WorkRunner.stop`. The flags `_is_lost`, `_is_broken_off` and `_is_stopping` only ever become true, so the work thread
needs no lock to read them: it sees a change at its next `Lease.check`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vagus.errors import Conflict, VagusError
from vagus.reasons import Reason
from vagus.records.work import KEPT_SECONDS, LEASE_SECONDS, Job, WorkQueue, delete_done, has_due

if TYPE_CHECKING:
    from vagus.clock import Clock
    from vagus.records.engine.database import Database
    from vagus.records.engine.writer import Batch, Writer

_LOG = logging.getLogger(__name__)
_DELETED_EVERY_SECONDS = 3_600

LastAct = Callable[["Batch"], object]
"""What a job's end writes, in the transaction that marks it done."""


class Lease:
    """The right of this process to run a job, prolonged by a thread of its own until the job ends."""

    def __init__(self, queue: WorkQueue, job: Job, every_seconds: float) -> None:
        self.job = job
        self._queue = queue
        self._every_seconds = every_seconds
        self._ended = threading.Event()
        self._is_lost = False
        self._is_broken_off = False
        self._thread = threading.Thread(target=self._beat, name=f"vagus-lease-{job.id}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """For long jobs, between their steps. Raises Conflict(LEASE_LOST) once another runner may have the job.

        Raises the same when this process is about to end.
        """
        if self._is_lost or self._is_broken_off:
            msg = f"job {self.job.id} ({self.job.kind} {self.job.key}) is leased by another runner now; stop this run"
            raise Conflict(Reason.LEASE_LOST, msg, job=self.job.id)

    def break_off(self) -> None:
        """Have the job end at its next check; from any thread."""
        self._is_broken_off = True

    def end(self) -> None:
        """Prolong it no more, and wait for a heartbeat that is under way."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._every_seconds):
            try:
                self._queue.heartbeat(self.job).result()
            except Conflict:
                self._is_lost = True
                return
            except VagusError as error:  # if the database returns before the lease ends, the lease is kept
                _LOG.warning("the lease on job %d was not prolonged: %s", self.job.id, error.message)


WorkAct = Callable[[Job, Lease], LastAct]
"""Does a job and gives its last act. Raises VagusError to have it tried again later."""


@dataclass(slots=True)
class WorkRunner:
    """Runs jobs of the kinds that this process knows, one at a time; others are left to processes that know them.

    `node` must differ between processes, also after a restart.
    """

    database: Database
    writer: Writer
    clock: Clock
    node: str
    kinds: Mapping[str, WorkAct]
    lease_seconds: int = field(default=LEASE_SECONDS, kw_only=True)
    _queue: WorkQueue = field(init=False)
    _lease: Lease | None = None
    _is_stopping: bool = False
    _deleted_at: int = 0

    def __post_init__(self) -> None:
        self._queue = WorkQueue(self.writer, self.node, lease_seconds=self.lease_seconds)

    def run_next(self) -> float | None:
        """Run the job that was due first, if any. As a task it returns 0.0 while there may be more, else None.

        A job's own error is written into its row, and the job is due again later. Raises what the database raises.
        When nothing is due, rows of jobs that ended weeks ago are deleted, once an hour.
        """
        if self._is_stopping:
            return None
        now = int(self.clock.now().timestamp())
        with self.database.reading() as connection:
            is_due = has_due(connection, self.kinds, now)
        if not is_due:
            self._delete_old(now)
            return None
        jobs = self._queue.take(self.kinds).result()
        for job in jobs:
            self._run(job)
        return 0.0 if jobs else None

    def stop(self) -> None:
        """Take nothing more and break off what runs: another process goes on with it at once. From another thread."""
        # Set the flag first, then read the lease. `_run` publishes the lease first, then reads the flag. So whichever
        # comes second sees the other, and a job that begins now is stopped by one of them.
        self._is_stopping = True
        lease = self._lease
        if lease is not None:
            lease.break_off()

    def _delete_old(self, now: int) -> None:
        if now < self._deleted_at + _DELETED_EVERY_SECONDS:
            return
        self._deleted_at = now
        self.writer.submit(lambda batch: delete_done(batch.connection, before=batch.at - KEPT_SECONDS)).result()

    def _run(self, job: Job) -> None:
        # A third of the lease between heartbeats leaves two more tries before the lease ends.
        lease = self._lease = Lease(self._queue, job, self.lease_seconds / 3)
        if self._is_stopping:
            lease.break_off()
        try:
            last_act = self.kinds[job.kind](job, lease)
            lease.end()  # end the heartbeat first: after the job's end its row is gone
            # The job's last act and the end of its row are one commit: after a crash the job either is done, or is run
            # again from its last commit.
            self.writer.submit(lambda batch: self._finish(batch, job, last_act)).result()
        except Exception as error:  # noqa: BLE001 one failing job must not stop the others
            lease.end()
            self._give_back(job, error)

    def _finish(self, batch: Batch, job: Job, last_act: LastAct) -> None:
        last_act(batch)
        self._queue.finish(batch, job)

    def _give_back(self, job: Job, error: Exception) -> None:
        if isinstance(error, Conflict) and error.reason is Reason.LEASE_LOST:
            _LOG.warning("%s", error.message)
            with suppress(VagusError):  # the job can be given back only while this process still holds its lease
                self._queue.give_back(job).result()
            return
        text = f"{error.reason.value}: {error.message}" if isinstance(error, VagusError) else type(error).__name__
        trace = None if isinstance(error, VagusError) else error  # log a traceback for defects of the program alone
        _LOG.error("job %d (%s %s) failed: %s", job.id, job.kind, job.key, text, exc_info=trace)
        try:
            again_at = self._queue.fail(job, text).result()
        except Conflict:
            return  # the job took longer than its lease, so another runner has it
        if again_at is None:
            _LOG.error("job %d (%s %s) is given up after %d attempts", job.id, job.kind, job.key, job.attempts)


def no_last_act(_batch: Batch) -> None:
    """The last act of a job whose steps are all committed."""
