"""The runner of durable jobs: what is due is run once, errors are stored in the job's row, leases are held or lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select

from tests.simulator.installation import memory_database
from tests.simulator.jobs import run_due
from tests.simulator.queries import count_open
from vagus.errors import Conflict, Unavailable
from vagus.jobs.runner import LastAct, Lease, WorkAct, WorkRunner, no_last_act
from vagus.reasons import Reason
from vagus.records.engine.database import Database
from vagus.records.engine.tables import work
from vagus.records.engine.writer import Batch, Writer
from vagus.records.verifier_memory import find_remembered, remember
from vagus.records.work import Job, WorkQueue, add_work
from vagus.testing import FrozenClock


@dataclass
class Bench:
    database: Database
    clock: FrozenClock
    writer: Writer
    ran: list[str] = field(default_factory=list)

    def add(self, key: str, kind: str = "count") -> None:
        self.writer.submit(lambda batch: add_work(batch.connection, kind, key)).result(10)

    def runner(self, node: str = "one", *, lease_seconds: int = 60, **kinds: WorkAct) -> WorkRunner:
        known = kinds or {"count": self.count}
        return WorkRunner(self.database, self.writer, self.clock, node, known, lease_seconds=lease_seconds)

    def count(self, job: Job, _lease: Lease) -> LastAct:
        self.ran.append(job.key)

        def last(batch: Batch) -> None:
            remember(batch.connection, f"done:{job.key}", job.attempts, batch.at)

        return last

    def open(self) -> int:
        with self.database.reading() as connection:
            return count_open(connection)

    def attempts_when_done(self, key: str) -> int | None:
        with self.database.reading() as connection:
            found = find_remembered(connection, f"done:{key}")
        return None if found is None else found.number

    def error(self) -> str | None:
        with self.database.reading() as connection:
            found: str | None = connection.execute(select(work.c.last_error)).scalar_one()
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    clock = FrozenClock()
    with memory_database() as database, Writer(database, clock) as writer:
        yield Bench(database, clock, writer)


def test_what_is_due_is_run_with_its_last_act(bench: Bench) -> None:
    for key in ("a", "b"):
        bench.add(key)
    assert run_due(bench.runner()) == 2
    assert (bench.ran, bench.open()) == (["a", "b"], 0)
    assert bench.attempts_when_done("a") == 1
    assert bench.runner().run_next() is None


def test_a_runner_with_nothing_to_do_deletes_jobs_that_ended_four_weeks_ago(bench: Bench) -> None:
    def rows() -> int:
        with bench.database.reading() as connection:
            return len(connection.execute(select(work.c.id)).all())

    bench.add("a")
    runner = bench.runner()
    run_due(runner)
    bench.clock.advance(days=28)
    run_due(runner)
    assert rows() == 1
    bench.clock.advance(minutes=61)
    bench.add("b")
    run_due(runner)
    assert rows() == 1, "b, which was done a moment ago"


def test_jobs_of_a_kind_of_another_release_are_left_to_it(bench: Bench) -> None:
    bench.add("a", "newer")
    assert run_due(bench.runner()) == 0
    assert bench.open() == 1
    assert run_due(bench.runner(newer=bench.count)) == 1


def test_an_error_is_stored_with_the_job_which_is_tried_again(bench: Bench) -> None:
    failing = [True]

    def act(job: Job, lease: Lease) -> LastAct:
        if failing.pop():
            failing.append(False)
            raise Unavailable(Reason.UPSTREAM_UNREACHABLE, "nobody there")
        return bench.count(job, lease)

    runner = bench.runner(count=act)
    bench.add("a")
    assert run_due(runner) == 1
    assert (bench.error(), bench.open()) == ("UPSTREAM_UNREACHABLE: nobody there", 1)
    assert run_due(runner) == 0, "it waits"
    bench.clock.advance(seconds=5)
    assert run_due(runner) == 1
    assert (bench.attempts_when_done("a"), bench.error(), bench.open()) == (2, None, 0)


def test_a_defect_of_the_program_delays_no_other_job(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def act(job: Job, lease: Lease) -> LastAct:
        if job.key == "bad":
            raise ZeroDivisionError
        return bench.count(job, lease)

    bench.add("bad")
    bench.add("good")
    with caplog.at_level(logging.ERROR):
        assert run_due(bench.runner(count=act)) == 2
    assert bench.attempts_when_done("good") == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_last_act_that_fails_undoes_itself(bench: Bench) -> None:
    def act(job: Job, _lease: Lease) -> LastAct:
        def last(batch: Batch) -> None:
            remember(batch.connection, "half", 1, batch.at)
            raise Conflict(Reason.DEVICE_STATE, "not now")

        return last

    bench.add("a")
    run_due(bench.runner(count=act))
    with bench.database.reading() as connection:
        assert find_remembered(connection, "half") is None
    assert bench.error() == "DEVICE_STATE: not now"


def test_a_job_is_given_up_after_its_attempts(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def act(job: Job, lease: Lease) -> LastAct:
        raise Unavailable(Reason.TIME_OUT, "again nothing")

    bench.add("a")
    runner = bench.runner(count=act)
    for _ in range(8):
        assert run_due(runner) == 1
        bench.clock.advance(hours=1)
    assert run_due(runner) == 0
    assert (bench.open(), bench.error()) == (0, "TIME_OUT: again nothing")
    assert "given up after 8 attempts" in caplog.text


def test_a_runner_that_lost_the_lease_leaves_no_trace(bench: Bench) -> None:
    other = WorkQueue(bench.writer, "two")
    taken: list[Job] = []

    def act(job: Job, lease: Lease) -> LastAct:
        bench.clock.advance(seconds=61)  # this process stood still, and another took the job
        taken.extend(other.take(["count"]).result(10))
        return bench.count(job, lease)

    bench.add("a")
    run_due(bench.runner(count=act))
    assert [job.attempts for job in taken] == [2]
    assert (bench.attempts_when_done("a"), bench.open()) == (None, 1)
    bench.writer.submit(lambda batch: other.finish(batch, taken[0])).result(10)


def test_a_long_job_learns_between_its_steps_that_its_lease_is_lost(bench: Bench) -> None:
    other = WorkQueue(bench.writer, "two")
    reason: list[Reason] = []

    def act(job: Job, lease: Lease) -> LastAct:
        lease.check()
        bench.clock.advance(seconds=2)
        assert other.take(["count"]).result(10)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                lease.check()
            except Conflict as lost:
                reason.append(lost.reason)
                raise
            time.sleep(0.02)
        return no_last_act

    bench.add("a")
    run_due(bench.runner(count=act, lease_seconds=1))
    assert reason == [Reason.LEASE_LOST]
    assert bench.error() is None, "the error is not written over what the other runner does"


def test_a_process_that_ends_gives_its_job_to_the_next_at_once(bench: Bench) -> None:
    runner: list[WorkRunner] = []

    def act(job: Job, lease: Lease) -> LastAct:
        runner[0].stop()
        lease.check()
        return bench.count(job, lease)

    bench.add("a")
    runner.append(bench.runner(count=act))
    assert run_due(runner[0]) == 1
    assert run_due(runner[0]) == 0, "a stopped runner takes nothing"
    assert bench.attempts_when_done("a") is None
    assert run_due(bench.runner("two")) == 1
    assert bench.attempts_when_done("a") == 1, "an orderly end is no failed attempt"
