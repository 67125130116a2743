"""Durable jobs: taken once at a time, taken over from the dead, their effects counted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from tests.simulator.presence import present
from tests.simulator.queries import count_open
from tests.simulator.refusals import refuses
from vagus.errors import Conflict
from vagus.reasons import Reason
from vagus.records.engine.database import Database
from vagus.records.engine.tables import work
from vagus.records.engine.writer import Batch, Writer
from vagus.records.verifier_memory import find_remembered, remember
from vagus.records.work import (
    Job,
    WorkQueue,
    add_work,
    bring_forward,
    delete_done,
    has_due,
    list_given_up,
    list_overdue,
)
from vagus.testing import FrozenClock


@dataclass
class Bench:
    database: Database
    clock: FrozenClock
    writer: Writer
    one: WorkQueue
    two: WorkQueue

    def add(self, key: str, run_after: int = 0) -> int:
        return self.writer.submit(
            lambda batch: add_work(batch.connection, "renew", key, '{"n":1}', run_after=run_after)
        ).result(10)

    def finish(self, queue: WorkQueue, job: Job) -> None:
        def act(batch: Batch) -> None:
            remember(batch.connection, f"done:{job.key}", job.attempts, 0)
            queue.finish(batch, job)

        self.writer.submit(act).result(10)


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    clock = FrozenClock()
    with Writer(database, clock) as writer:
        yield Bench(
            database,
            clock,
            writer,
            WorkQueue(writer, "one", lease_seconds=60),
            WorkQueue(writer, "two", max_attempts=2),
        )


def test_a_job_is_taken_by_one_runner_and_finished_once(bench: Bench) -> None:
    job_id = bench.add("a")
    (job,) = bench.one.take(["renew"]).result(10)
    assert (job.id, job.key, job.payload, job.attempts, job.leased_by) == (job_id, "a", '{"n":1}', 1, "one")
    assert bench.two.take(["renew"]).result(10) == []
    bench.finish(bench.one, job)
    bench.clock.advance(hours=1)
    assert bench.two.take(["renew"]).result(10) == []
    with bench.database.reading() as connection:
        assert count_open(connection) == 0


def test_jobs_come_due_in_order_and_only_of_the_kinds_asked_for(bench: Bench) -> None:
    now = int(bench.clock.now().timestamp())
    for key, run_after in [("late", now + 10), ("second", now - 1), ("first", now - 5)]:
        bench.add(key, run_after)
    assert bench.one.take(["other"], 9).result(10) == []
    assert [job.key for job in bench.one.take(["renew"], 9).result(10)] == ["first", "second"]
    bench.clock.advance(seconds=10)
    assert [job.key for job in bench.one.take(["renew"], 9).result(10)] == ["late"]


def test_an_unfinished_job_of_the_same_key_counts_for_both(bench: Bench) -> None:
    first = bench.add("a")
    assert bench.add("a") == first
    (job,) = bench.one.take(["renew"]).result(10)
    assert bench.add("a") == first
    bench.finish(bench.one, job)
    assert bench.add("a") != first
    with bench.database.reading() as connection:
        assert (count_open(connection, "renew"), count_open(connection, "other")) == (1, 0)


def test_a_dead_runners_job_is_taken_over_and_its_late_effects_are_undone(bench: Bench) -> None:
    bench.add("a")
    (dead,) = bench.one.take(["renew"]).result(10)
    bench.clock.advance(seconds=61)
    (taken,) = bench.two.take(["renew"]).result(10)
    assert taken.attempts == 2
    with refuses(Reason.LEASE_LOST, Conflict):
        bench.finish(bench.one, dead)
    with bench.database.reading() as connection:
        assert find_remembered(connection, "done:a") is None
    bench.finish(bench.two, taken)
    with bench.database.reading() as connection:
        assert present(find_remembered(connection, "done:a")).number == 2


def test_the_same_runner_after_its_restart_has_lost_its_old_lease(bench: Bench) -> None:
    bench.add("a")
    (old,) = bench.one.take(["renew"]).result(10)
    bench.clock.advance(seconds=61)
    (new,) = bench.one.take(["renew"]).result(10)
    with pytest.raises(Conflict):
        bench.finish(bench.one, old)
    bench.finish(bench.one, new)


def test_a_heartbeat_keeps_a_long_job(bench: Bench) -> None:
    bench.add("a")
    (job,) = bench.one.take(["renew"]).result(10)
    for _ in range(3):
        bench.clock.advance(seconds=50)
        job = bench.one.heartbeat(job).result(10)
        assert bench.two.take(["renew"]).result(10) == []
    bench.clock.advance(seconds=61)
    bench.two.take(["renew"]).result(10)
    with refuses(Reason.LEASE_LOST, Conflict):
        bench.one.heartbeat(job).result(10)


def test_a_failed_job_waits_longer_each_time_and_is_given_up_with_its_error(bench: Bench) -> None:
    bench.add("a")
    now = int(bench.clock.now().timestamp())
    (job,) = bench.two.take(["renew"]).result(10)
    assert bench.two.fail(job, "the responder did not answer").result(10) == now + 5
    assert bench.two.take(["renew"]).result(10) == []
    bench.clock.advance(seconds=5)
    (job,) = bench.two.take(["renew"]).result(10)
    assert bench.two.fail(job, "x" * 900).result(10) is None
    with bench.database.reading() as connection:
        row = connection.execute(select(work.c.done_at, work.c.last_error)).one()
    assert row.done_at == now + 5
    assert len(row.last_error) == 500


def test_pauses_double_up_to_an_hour(bench: Bench) -> None:
    bench.add("a")
    patient = WorkQueue(bench.writer, "patient", max_attempts=99)
    pauses = []
    for _ in range(13):
        now = int(bench.clock.now().timestamp())
        (job,) = patient.take(["renew"]).result(10)
        next_run = present(patient.fail(job, "no").result(10))
        pauses.append(next_run - now)
        bench.clock.advance(seconds=pauses[-1])
    assert pauses[:4] == [5, 10, 20, 40]
    assert max(pauses) == pauses[-1] == 3600


def test_a_job_that_kills_its_runners_is_given_up(bench: Bench) -> None:
    bench.add("a")
    for _ in range(2):
        assert len(bench.two.take(["renew"]).result(10)) == 1
        bench.clock.advance(seconds=61)
    assert bench.two.take(["renew"]).result(10) == []
    now = int(bench.clock.now().timestamp())
    with bench.database.reading() as connection:
        (gone,) = list_given_up(connection, since=now)
        assert (gone.kind, gone.key, gone.error) == ("renew", "a", "given up: 2 runners died with it")
        assert list_given_up(connection, since=now + 1) == ()


def test_a_lease_that_a_clock_took_which_ran_ahead_holds_no_job(bench: Bench) -> None:
    bench.add("a")
    bench.clock.advance(days=30)
    (ahead,) = bench.one.take(["renew"]).result(10)
    bench.clock.advance(days=-30, hours=1)
    now = int(bench.clock.now().timestamp())
    with bench.database.reading() as connection:
        assert has_due(connection, ["renew"], now)
        assert list_overdue(connection, before=now - 60, at=now) == ("renew a",)
    (taken,) = bench.two.take(["renew"]).result(10)
    with refuses(Reason.LEASE_LOST, Conflict):
        bench.finish(bench.one, ahead)
    bench.finish(bench.two, taken)


def test_clocks_that_differ_by_five_minutes_take_no_job_that_is_run(bench: Bench) -> None:
    bench.add("a")
    bench.clock.advance(minutes=5)
    assert bench.one.take(["renew"]).result(10)
    bench.clock.advance(minutes=-5)
    now = int(bench.clock.now().timestamp())
    assert bench.two.take(["renew"]).result(10) == []
    with bench.database.reading() as connection:
        assert list_overdue(connection, before=now, at=now) == ()


def test_jobs_that_a_clock_put_off_which_ran_ahead_come_when_they_should(bench: Bench) -> None:
    now = int(bench.clock.now().timestamp())
    bench.clock.advance(days=30)
    ahead = int(bench.clock.now().timestamp())
    for key, run_after in (("planned", ahead + 86_400), ("failed", 0)):
        bench.add(key, run_after)
    (failed,) = bench.one.take(["renew"]).result(10)
    bench.one.fail(failed, "no").result(10)
    bench.clock.advance(days=-30)
    bench.add("today", now + 3600)

    def bring(batch: Batch) -> int:
        return bring_forward(batch.connection, at=batch.at, longest_wait=86_400)

    assert bench.writer.submit(bring).result(10) == 2
    assert bench.writer.submit(bring).result(10) == 0
    assert [job.key for job in bench.one.take(["renew"], 9).result(10)] == ["failed"]
    bench.clock.advance(seconds=3600)
    assert [job.key for job in bench.two.take(["renew"], 9).result(10)][-1] == "today"
    bench.clock.advance(seconds=86_400 - 3600)
    assert "planned" in [job.key for job in bench.two.take(["renew"], 9).result(10)]


def test_a_query_for_due_work_finds_what_could_be_taken(bench: Bench) -> None:
    now = int(bench.clock.now().timestamp())

    def is_due(kind: str = "renew") -> bool:
        with bench.database.reading() as connection:
            return has_due(connection, [kind], int(bench.clock.now().timestamp()))

    assert not is_due()
    bench.add("a", now + 10)
    assert not is_due()
    bench.clock.advance(seconds=10)
    assert is_due()
    assert not is_due("other")
    (job,) = bench.one.take(["renew"]).result(10)
    assert not is_due()
    bench.clock.advance(seconds=61)
    assert is_due()
    (job,) = bench.one.take(["renew"]).result(10)
    bench.finish(bench.one, job)
    bench.clock.advance(hours=1)
    assert not is_due()


def test_a_job_that_was_given_back_is_free_at_once(bench: Bench) -> None:
    bench.add("a")
    (job,) = bench.one.take(["renew"]).result(10)
    bench.one.give_back(job).result(10)
    assert len(bench.two.take(["renew"]).result(10)) == 1
    with pytest.raises(Conflict):
        bench.one.give_back(job).result(10)


def test_jobs_that_were_over_long_ago_are_let_go_and_open_ones_never(bench: Bench) -> None:
    for key in ("old", "newer", "failed", "open"):
        bench.add(key)
    (old,) = bench.two.take(["renew"]).result(10)
    bench.finish(bench.two, old)
    for _ in range(2):
        bench.clock.advance(hours=1)
        (failed,) = [job for job in bench.two.take(["renew"], 9).result(10) if job.key == "failed"]
        bench.two.fail(failed, "no").result(10)
    now = int(bench.clock.now().timestamp())

    def let_go(before: int, most: int = 1_000) -> int:
        return bench.writer.submit(lambda batch: delete_done(batch.connection, before=before, most=most)).result(10)

    assert let_go(now - 7_200) == 0
    assert let_go(now) == 1
    assert (let_go(now + 1, most=0), let_go(now + 1)) == (0, 1)
    with bench.database.reading() as connection:
        assert sorted(connection.execute(select(work.c.key)).scalars()) == ["newer", "open"]


def test_giving_back_in_order_uses_no_attempt_up(bench: Bench) -> None:
    bench.add("a")
    for _ in range(5):
        (job,) = bench.two.take(["renew"]).result(10)
        assert job.attempts == 1
        bench.two.give_back(job).result(10)
    (job,) = bench.two.take(["renew"]).result(10)
    assert bench.two.fail(job, "its first failure of two").result(10) is not None
