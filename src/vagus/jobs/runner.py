"""Runs durable jobs: takes what is due under a lease, keeps the lease alive, finishes or gives back; knows no kind.

A job runs at least once, on whichever process is there: one that dies loses its lease, and another begins it again.
What a job does must therefore be repeatable, but for its last act, which counts once (docs/adr/0004-durable-work.md).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from vagus.errors import Conflict, VagusError
from vagus.reasons import Reason
from vagus.records.work import KEPT_SECONDS, LEASE_SECONDS, Job, WorkQueue, delete_done, has_due

if TYPE_CHECKING:
    from vagus.clock import Clock
    from vagus.records.engine.database import Database
    from vagus.records.engine.writer import Batch, Writer

_LOG = logging.getLogger(__name__)
_TIDIED_EVERY_SECONDS = 3_600

LastAct = Callable[["Batch"], object]
"""What a job's end writes, in the transaction that marks it done."""


class Lease:
    """A running job's hold on itself, prolonged by a thread of its own until the job ends."""

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

        So it does when this process is about to end.
        """
        if self._is_lost or self._is_broken_off:
            msg = f"job {self.job.id} ({self.job.kind} {self.job.key}) belongs to another runner now; stop"
            raise Conflict(Reason.LEASE_LOST, msg, job=self.job.id)

    def break_off(self) -> None:
        """Let the job end at its next check; from any thread."""
        self._is_broken_off = True

    def end(self) -> None:
        """Prolong it no more."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._every_seconds):
            try:
                self._queue.heartbeat(self.job).result()
            except Conflict:
                self._is_lost = True
                return
            except VagusError as error:  # a database that comes back in time keeps the lease
                _LOG.warning("the lease on job %d was not prolonged: %s", self.job.id, error.message)


WorkAct = Callable[[Job, Lease], LastAct]
"""Does a job and gives its last act. Raises VagusError to have it tried again later."""


class WorkRunner:
    """Runs jobs of the kinds that this process knows, one at a time; others are left to processes that know them.

    `node` must differ between processes, also after a restart.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        clock: Clock,
        node: str,
        kinds: Mapping[str, WorkAct],
        *,
        lease_seconds: int = LEASE_SECONDS,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._kinds = dict(kinds)
        self._queue = WorkQueue(writer, node, lease_seconds=lease_seconds)
        self._every_seconds = lease_seconds / 3
        self._lease: Lease | None = None
        self._is_stopping = False
        self._tidied_at = 0

    def run_next(self) -> float | None:
        """Run the job that is longest due, if any; as a task: 0.0 while there may be more, None for its rhythm.

        A job's own errors are written beside it, and it comes again later. Raises what the database raises.
        When nothing is due, jobs that were over weeks ago are let go, once an hour.
        """
        if self._is_stopping:
            return None
        now = int(self._clock.now().timestamp())
        with self._database.reading() as connection:
            is_due = has_due(connection, self._kinds, now)
        if not is_due:
            self._tidy(now)
            return None
        jobs = self._queue.take(self._kinds).result()
        for job in jobs:
            self._run(job)
        return 0.0 if jobs else None

    def run_due(self) -> int:
        """Run what is due until nothing is; how many turns that took."""
        turns = 0
        while self.run_next() is not None:
            turns += 1
        return turns

    def stop(self) -> None:
        """Take nothing more and break off what runs: others go on with it at once. From another thread."""
        self._is_stopping = True
        lease = self._lease
        if lease is not None:
            lease.break_off()

    def _tidy(self, now: int) -> None:
        if now < self._tidied_at + _TIDIED_EVERY_SECONDS:
            return
        self._tidied_at = now
        self._writer.submit(lambda batch: delete_done(batch.connection, before=batch.at - KEPT_SECONDS)).result()

    def _run(self, job: Job) -> None:
        lease = self._lease = Lease(self._queue, job, self._every_seconds)
        if self._is_stopping:
            lease.break_off()
        try:
            last_act = self._kinds[job.kind](job, lease)
            lease.end()  # a heartbeat behind the end would find no job
            self._writer.submit(lambda batch: self._finish(batch, job, last_act)).result()
        except Exception as error:  # noqa: BLE001  one bad job must not hold up the others
            lease.end()
            self._give_back(job, error)

    def _finish(self, batch: Batch, job: Job, last_act: LastAct) -> None:
        last_act(batch)
        self._queue.finish(batch, job)

    def _give_back(self, job: Job, error: Exception) -> None:
        if isinstance(error, Conflict) and error.reason is Reason.LEASE_LOST:
            _LOG.warning("%s", error.message)
            with suppress(VagusError):  # it is ours to give only where this process was told to stop
                self._queue.give_back(job).result()
            return
        said = f"{error.reason.value}: {error.message}" if isinstance(error, VagusError) else type(error).__name__
        _LOG.error("job %d (%s %s) failed: %s", job.id, job.kind, job.key, said, exc_info=_defect(error))
        try:
            again_at = self._queue.fail(job, said).result()
        except Conflict:
            return  # it took too long to fail: another runner has it
        if again_at is None:
            _LOG.error("job %d (%s %s) is given up after %d attempts", job.id, job.kind, job.key, job.attempts)


def _defect(error: Exception) -> Exception | None:
    """A traceback is for errors of the program; the house's own say where they come from."""
    return None if isinstance(error, VagusError) else error


def nothing_more(_batch: Batch) -> None:
    """The last act of a job whose steps are all committed."""
