"""Periodic tasks: on their rhythm, at once when nudged, and never ended by a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.jobs.turns import LongTurn
from tests.simulator.waiting import wait_until
from vagus.errors import Unavailable
from vagus.jobs.periodic import Task, TaskThread, attempt_each
from vagus.reasons import Reason


def fail() -> None:
    raise Unavailable(Reason.DATABASE_UNAVAILABLE, "the disk is away")


@contextmanager
def started(*tasks: Task) -> Iterator[TaskThread]:
    """A thread that runs these tasks until the block ends."""
    thread = TaskThread(tasks)
    thread.start()
    yield thread
    thread.stop()


def test_every_task_has_its_turn_before_the_start() -> None:
    ran: list[str] = []
    thread = TaskThread([Task("one", 60, lambda: ran.append("one")), Task("two", 60, lambda: ran.append("two"))])
    thread.take_first_turns()
    assert ran == ["one", "two"]
    assert thread.states()["one"].runs == 1


def test_a_task_that_had_its_turn_before_the_start_waits_for_its_rhythm() -> None:
    ran: list[str] = []
    thread = TaskThread([Task("long", 60, lambda: ran.append("long"))])
    thread.take_first_turns()
    thread.start()
    thread.nudge("none of that name")
    time.sleep(0.05)
    thread.stop()
    assert ran == ["long"]


def test_an_error_before_the_start_stops_the_start() -> None:
    with pytest.raises(Unavailable):
        TaskThread([Task("one", 60, fail)]).take_first_turns()


def test_a_failure_for_one_of_several_is_reported_and_delays_neither_the_others_nor_the_start() -> None:
    ran: list[str] = []

    def publish(name: str) -> None:
        if name == "bad":
            raise Unavailable(Reason.KEY_NOT_OPEN, "its module is away")
        if name == "worse":
            raise OSError("no space left")
        ran.append(name)

    def lists() -> None:
        attempt_each("lists", ["bad", "one", "worse", "other"], publish)

    thread = TaskThread([Task("lists", 60, lists), Task("next", 60, lambda: ran.append("next"))])
    thread.take_first_turns()
    assert ran == ["one", "other", "next"]
    state = thread.states()["lists"]
    assert (state.failures, state.in_a_row, state.last_error) == (1, 1, "KEY_NOT_OPEN, OSError")


def test_a_task_is_repeated() -> None:
    ran = threading.Semaphore(0)
    with started(Task("one", 0.01, ran.release)):
        for _ in range(3):
            assert ran.acquire(timeout=10.0)


def test_a_task_may_return_the_pause_until_its_next_turn() -> None:
    count = [0]

    def act() -> float:
        count[0] += 1
        return 0.01 if count[0] < 3 else 60.0

    with started(Task("one", 60, act)):
        wait_until(lambda: count[0] == 3)
    assert count == [3], "the last answer was a minute"


def test_a_nudge_gives_a_turn_at_once_and_an_unknown_one_does_nothing() -> None:
    ran = threading.Semaphore(0)
    with started(Task("slow", 3600, ran.release)) as thread:
        assert ran.acquire(timeout=10.0)
        thread.nudge("slow")
        thread.nudge("unknown")
        assert ran.acquire(timeout=10.0)


def test_a_nudge_while_it_runs_asks_for_another_run() -> None:
    turn = LongTurn()
    with started(Task("one", 3600, turn)) as thread:
        turn.wait_begun()
        thread.nudge("one")
        turn.end()
        wait_until(lambda: turn.turns == 2)


def test_a_failure_is_reported_and_ends_nothing() -> None:
    ran = threading.Semaphore(0)

    with started(Task("bad", 0.01, fail), Task("good", 0.01, ran.release)) as thread:
        for _ in range(3):
            assert ran.acquire(timeout=10.0)
        wait_until(lambda: thread.states()["bad"].in_a_row >= 2)
    assert thread.states()["bad"].last_error == "DATABASE_UNAVAILABLE"


def test_a_turn_that_does_not_end_is_reported_after_its_longest_time() -> None:
    hang = LongTurn()
    tasks = Task("lists", 3600, hang, longest_seconds=120.0), Task("files", 3600, lambda: None)
    with started(*tasks) as thread:
        hang.wait_begun()
        begun_at = thread.states()["lists"].begun_at
        assert begun_at is not None
        assert thread.find_hanging(begun_at + 119) == {}, "a whole republication takes its time"
        (said,) = thread.find_hanging(begun_at + 121).values()
        for word in ("longer than 120 s", "restart", "files"):
            assert word in said
        hang.end()
        wait_until(lambda: thread.states()["files"].runs == 1)
        assert thread.states()["lists"].begun_at is None
        assert thread.find_hanging(begun_at + 3600) == {}


def test_a_task_of_hours_and_a_failing_task_do_not_count_as_hanging() -> None:
    long = LongTurn()

    with started(Task("failing", 3600, fail), Task("work", 3600, long, longest_seconds=None)) as thread:
        long.wait_begun()
        assert thread.states()["failing"].in_a_row == 1
        assert thread.find_hanging(time.monotonic() + 1_000_000) == {}
        long.end()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_reported_for_each_of_its_tasks_and_one_that_was_stopped_is_not() -> None:
    class GoneError(BaseException):
        """What no task should raise, and what nothing here catches."""

    def end() -> None:
        raise GoneError

    thread = TaskThread([Task("lists", 3600, end), Task("files", 3600, lambda: None)])
    assert thread.find_hanging(time.monotonic()) == {}, "not begun"
    thread.start()
    wait_until(lambda: set(thread.find_hanging(time.monotonic())) == {"lists", "files"})
    thread.stop()
    assert thread.find_hanging(time.monotonic()) == {}


def test_a_turn_that_does_not_end_does_not_keep_the_process_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    hang = LongTurn()
    with started(Task("lists", 3600, hang)) as thread:
        hang.wait_begun()
        thread.stop(patience=0.01)
        assert "periodic task lists does not end" in caplog.text
        hang.end()
    assert caplog.text.count("does not end") == 1


def test_a_thread_without_tasks_can_be_stopped() -> None:
    with started():
        pass


def test_a_failure_that_lasts_is_logged_once_with_the_path(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[Exception] = [PermissionError(13, "Permission denied", "/lists/.lock")] * 16

    def write() -> None:
        raise ExceptionGroup("files", failures)

    thread = TaskThread([Task("files", 3600, write)])
    thread.take_first_turns()
    thread.take_first_turns()
    assert [one.message for one in caplog.records] == [
        "periodic task files failed: [Errno 13] Permission denied: '/lists/.lock'"
    ]
    said = thread.states()["files"].last_error
    assert said is not None
    assert said.startswith("PermissionError: /lists/.lock: Permission denied; check its owner")
    failures[:] = [OSError(28, "No space left on device", "/lists/.lock")]
    thread.take_first_turns()
    assert len(caplog.records) == 2
