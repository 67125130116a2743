"""Durable jobs: rows that business code inserts in its own transaction, taken under a lease; knows no kind of job.

A job runs at least once. Its effects on the database count once, if its last act calls `finish` in the same
transaction: a runner that lost its lease has that act undone (docs/adr/0004-durable-work.md).
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import KW_ONLY, dataclass, replace

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select, update

from vagus.errors import Conflict
from vagus.reasons import Reason
from vagus.records.engine.query_hints import hidden
from vagus.records.engine.tables import work
from vagus.records.engine.writer import Batch, Writer

LEASE_SECONDS = 60
MAX_ATTEMPTS = 8
_FIRST_PAUSE_SECONDS = 5
_MAX_PAUSE_SECONDS = 3_600
_MAX_ERROR = 500
_LONGEST_SECONDS = LEASE_SECONDS + 300
"""No lease ends later than this from now, by clocks that may differ by five minutes: one that does was taken by a clock
that ran ahead, maybe for years, and holds no job."""
KEPT_SECONDS = 28 * 86_400
"""How long a job that is over stays, for people who ask what became of it."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job under lease to one runner; `attempts` counts this run and distinguishes a lost lease from a held one."""

    id: int
    kind: str
    key: str
    payload: str
    attempts: int
    leased_by: str
    leased_until: int


def add_work(connection: Connection, kind: str, key: str, payload: str = "{}", *, run_after: int = 0) -> int:
    """Add a job inside the caller's transaction; gives its id. `run_after` in seconds since 1970 UTC.

    An unfinished job of the same kind and key counts for both: its id is given and nothing changes.
    """
    there = connection.execute(
        select(work.c.id).where(work.c.kind == kind, work.c.key == key, hidden(work.c.done_at.is_(None))).limit(1)
    ).scalar_one_or_none()
    if there is not None:
        return int(there)
    row = {"kind": kind, "key": key, "payload": payload, "run_after": run_after, "attempts": 0}
    return int(connection.execute(insert(work).returning(work.c.id), row).scalar_one())


def has_due(connection: Connection, kinds: Collection[str], at: int) -> bool:
    """Whether `WorkQueue.take` would find anything at `at`; locks nothing, for runners that poll."""
    query = select(work.c.id).where(work.c.kind.in_(kinds), *_due_and_free(at, at=at)).order_by(*_DUE_FIRST).limit(1)
    return connection.execute(query).one_or_none() is not None


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A job whose attempts were used up, and its last error."""

    id: int
    kind: str
    key: str
    done_at: int
    error: str


def list_given_up(connection: Connection, *, since: int) -> tuple[GivenUp, ...]:
    """The jobs that were given up at `since` or later, the newest first."""
    query = select(work.c.id, work.c.kind, work.c.key, work.c.done_at, work.c.last_error).where(
        work.c.done_at >= since, work.c.last_error.is_not(None)
    )
    return tuple(GivenUp(*row) for row in connection.execute(query.order_by(work.c.done_at.desc(), work.c.id.desc())))


def list_overdue(connection: Connection, *, before: int, at: int) -> tuple[str, ...]:
    """The jobs, as `kind key`, that were due `before`, and that were under no lease from then to `at`."""
    query = select(work.c.kind, work.c.key).where(*_due_and_free(before, at=at))
    rows = connection.execute(query.order_by(*_DUE_FIRST).limit(1_000))
    return tuple(f"{row.kind} {row.key}" for row in rows)


def bring_forward(connection: Connection, *, at: int, longest_wait: int) -> int:
    """Let open jobs begin that a clock which ran ahead has put off, now that it shows `at`; how many.

    None is planned further ahead than `longest_wait` seconds, and one that failed waits an hour at most.
    """
    is_open = work.c.done_at.is_(None)
    first = (work.c.attempts == 0, work.c.run_after > at + longest_wait)
    again = (work.c.attempts > 0, work.c.run_after > at + _MAX_PAUSE_SECONDS)
    count = connection.execute(update(work).where(is_open, *first).values(run_after=at + longest_wait)).rowcount
    return count + connection.execute(update(work).where(is_open, *again).values(run_after=at)).rowcount


def delete_done(connection: Connection, *, before: int, most: int = 1_000) -> int:
    """Let jobs go that were done or given up `before`, the longest ago first, at most `most`; how many."""
    old = select(work.c.id).where(work.c.done_at < before).order_by(work.c.done_at).limit(most)
    return connection.execute(delete(work).where(work.c.id.in_(old))).rowcount


_DUE_FIRST = (work.c.done_at, work.c.run_after, work.c.id)
"""The order of the index, given in full even to find out whether there is a job. Without it, a planner that
believes most jobs to be due would scan all that are due tomorrow."""


def _due_and_free(before: int, *, at: int) -> tuple[ColumnElement[bool], ...]:
    is_over = (work.c.leased_until < before, work.c.leased_until > at + _LONGEST_SECONDS)
    is_free = or_(work.c.leased_until.is_(None), *is_over)
    return work.c.done_at.is_(None), work.c.run_after <= before, is_free


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class WorkQueue:
    """Takes, keeps and finishes jobs for one runner. `node` must differ between runners, also after a restart.

    `lease_seconds` is `LEASE_SECONDS` at most.
    """

    writer: Writer
    node: str
    _: KW_ONLY
    lease_seconds: int = LEASE_SECONDS
    max_attempts: int = MAX_ATTEMPTS

    def take(self, kinds: Collection[str], limit: int = 1) -> Future[list[Job]]:
        """Lease up to `limit` jobs that are due and free, the longest due first: never run, or whose lease ran out.

        A job that took every one of its runners with it is given up where its turn comes, before it takes another.
        """

        def act(batch: Batch) -> list[Job]:
            front = (
                select(work.c.id, work.c.kind, work.c.key, work.c.payload, work.c.attempts, work.c.leased_by)
                .where(work.c.kind.in_(kinds), *_due_and_free(batch.at, at=batch.at))
                .order_by(*_DUE_FIRST)
                .limit(limit)
            )
            jobs: list[Job] = []
            while not jobs and (rows := batch.connection.execute(front).all()):
                for row in rows:
                    if row.attempts >= self.max_attempts and row.leased_by is not None:
                        self._give_up(batch, row.id)
                    else:
                        jobs.append(self._lease(batch, row))
            return jobs

        return self.writer.submit(act)

    def _give_up(self, batch: Batch, job_id: int) -> None:
        error = f"given up: {self.max_attempts} runners died with it"
        values = {"done_at": batch.at, "leased_by": None, "leased_until": None, "last_error": error}
        batch.connection.execute(update(work).where(work.c.id == job_id).values(**values))

    def _lease(self, batch: Batch, row: Row[int, str, str, str, int, str | None]) -> Job:
        until = batch.at + self.lease_seconds
        job = Job(row.id, row.kind, row.key, row.payload, row.attempts + 1, self.node, until)
        values = {"leased_by": job.leased_by, "leased_until": until, "attempts": job.attempts}
        batch.connection.execute(update(work).where(work.c.id == job.id).values(**values))
        return job

    def heartbeat(self, job: Job) -> Future[Job]:
        """Prolong the lease of a long job; the future raises Conflict(LEASE_LOST) when another runner has it."""

        def act(batch: Batch) -> Job:
            until = batch.at + self.lease_seconds
            _change(batch, job, leased_until=until)
            return replace(job, leased_until=until)

        return self.writer.submit(act)

    def finish(self, batch: Batch, job: Job) -> None:
        """Mark the job done inside the act that holds its effects. Raises Conflict(LEASE_LOST), which undoes them."""
        _change(batch, job, done_at=batch.at, leased_by=None, leased_until=None, last_error=None)

    def give_back(self, job: Job) -> Future[None]:
        """Free a job that was broken off, for another runner; raises Conflict(LEASE_LOST) as `heartbeat`.

        An orderly end is no failure: the attempt does not count, or eight restarts would give a long job up. The runner
        takes nothing more, for its next lease on the job would look like this one.
        """
        freed = {"leased_by": None, "leased_until": None, "attempts": job.attempts - 1}
        return self.writer.submit(lambda batch: _change(batch, job, **freed))

    def fail(self, job: Job, error: str) -> Future[int | None]:
        """Give the job back after an error; gives when it runs next, None when its attempts are used up.

        The pause doubles from 5 s to at most an hour. A job that is given up is marked done with its error.
        `error` is for operators: at most 500 characters are kept.
        """

        def act(batch: Batch) -> int | None:
            freed = {"leased_by": None, "leased_until": None, "last_error": error[:_MAX_ERROR]}
            if job.attempts >= self.max_attempts:
                _change(batch, job, done_at=batch.at, **freed)
                return None
            pause = min(_FIRST_PAUSE_SECONDS << (job.attempts - 1), _MAX_PAUSE_SECONDS)
            _change(batch, job, run_after=batch.at + pause, **freed)
            return batch.at + pause

        return self.writer.submit(act)


def _change(batch: Batch, job: Job, **values: int | str | None) -> None:
    """Change the row of `job` while its lease holds: the same runner and the same attempt."""
    is_ours: ColumnElement[bool] = (
        (work.c.id == job.id)
        & (work.c.leased_by == job.leased_by)
        & (work.c.attempts == job.attempts)
        & work.c.done_at.is_(None)
    )
    if batch.connection.execute(update(work).where(is_ours).values(**values)).rowcount != 1:
        msg = f"job {job.id} ({job.kind} {job.key}) outlived its lease, and another runner has it; discard this result"
        raise Conflict(Reason.LEASE_LOST, msg, job=job.id, attempts=job.attempts)
