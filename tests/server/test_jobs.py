"""Periodic work: on its rhythm, at once when nudged, and never ended by a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from vagus.errors import Unavailable
from vagus.jobs.periodic import Jobs, Task, do_each
from vagus.reasons import Reason

PATIENCE = 10.0


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_every_task_has_its_turn_before_the_start() -> None:
    ran: list[str] = []
    jobs = Jobs([Task("one", 60, lambda: ran.append("one")), Task("two", 60, lambda: ran.append("two"))])
    jobs.run_all()
    assert ran == ["one", "two"]
    assert jobs.states()["one"].runs == 1


def test_what_had_its_turn_before_the_start_waits_for_its_rhythm() -> None:
    ran: list[str] = []
    jobs = Jobs([Task("long", 60, lambda: ran.append("long"))])
    jobs.run_all()
    jobs.start()
    jobs.nudge("none of that name")
    time.sleep(0.05)
    jobs.stop()
    assert ran == ["long"]


def test_an_error_before_the_start_stops_the_start() -> None:
    def fail() -> None:
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "no")

    with pytest.raises(Unavailable):
        Jobs([Task("one", 60, fail)]).run_all()


def test_what_failed_for_one_of_several_is_told_and_keeps_neither_the_others_nor_the_start_waiting() -> None:
    ran: list[str] = []

    def publish(name: str) -> None:
        if name == "bad":
            raise Unavailable(Reason.KEY_NOT_OPEN, "its module is away")
        if name == "worse":
            raise OSError("no space left")
        ran.append(name)

    def lists() -> None:
        do_each("lists", ["bad", "one", "worse", "other"], publish)

    jobs = Jobs([Task("lists", 60, lists), Task("next", 60, lambda: ran.append("next"))])
    jobs.run_all()
    assert ran == ["one", "other", "next"]
    state = jobs.states()["lists"]
    assert (state.failures, state.in_a_row, state.last_error) == (1, 1, "KEY_NOT_OPEN, OSError")
    assert state.last_success_at is None


def test_a_task_comes_again() -> None:
    ran = threading.Semaphore(0)
    jobs = Jobs([Task("one", 0.01, ran.release)])
    jobs.start()
    for _ in range(3):
        assert ran.acquire(timeout=PATIENCE)
    jobs.stop()


def test_a_task_may_say_when_it_wants_to_come_again() -> None:
    count = [0]

    def act() -> float:
        count[0] += 1
        return 0.01 if count[0] < 3 else 60.0

    jobs = Jobs([Task("one", 60, act)])
    jobs.start()
    wait_for(lambda: count[0] == 3)
    jobs.stop()
    assert count == [3], "the last answer was a minute"


def test_a_nudge_gives_a_turn_at_once_and_an_unknown_one_does_nothing() -> None:
    ran = threading.Semaphore(0)
    jobs = Jobs([Task("slow", 3600, ran.release)])
    jobs.start()
    assert ran.acquire(timeout=PATIENCE)
    jobs.nudge("slow")
    jobs.nudge("nobody")
    assert ran.acquire(timeout=PATIENCE)
    jobs.stop()


def test_a_nudge_while_it_runs_asks_for_another_run() -> None:
    begun, may_end, ran = threading.Event(), threading.Event(), [0]

    def act() -> None:
        ran[0] += 1
        begun.set()
        may_end.wait(PATIENCE)

    jobs = Jobs([Task("one", 3600, act)])
    jobs.start()
    assert begun.wait(PATIENCE)
    jobs.nudge("one")
    may_end.set()
    wait_for(lambda: ran[0] == 2)
    jobs.stop()


def test_a_failure_is_told_and_ends_nothing() -> None:
    ran = threading.Semaphore(0)

    def fail() -> None:
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "the disk is away")

    jobs = Jobs([Task("bad", 0.01, fail), Task("good", 0.01, ran.release)])
    jobs.start()
    for _ in range(3):
        assert ran.acquire(timeout=PATIENCE)
    wait_for(lambda: jobs.states()["bad"].in_a_row >= 2)
    jobs.stop()
    assert jobs.states()["bad"].last_error == "DATABASE_UNAVAILABLE"


def test_a_turn_that_does_not_end_is_told_after_the_longest_that_its_kind_may_take() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        may_end.wait(PATIENCE)

    jobs = Jobs([Task("lists", 3600, hang, longest_seconds=120.0), Task("files", 3600, lambda: None)])
    jobs.start()
    assert begun.wait(PATIENCE)
    begun_at = jobs.states()["lists"].begun_at
    assert begun_at is not None
    assert jobs.find_hanging(begun_at + 119) == {}, "a whole republication takes its time"
    (said,) = jobs.find_hanging(begun_at + 121).values()
    for word in ("longer than 120 s", "restart", "files"):
        assert word in said
    may_end.set()
    wait_for(lambda: jobs.states()["files"].runs == 1)
    assert jobs.states()["lists"].begun_at is None
    assert jobs.find_hanging(begun_at + 3600) == {}
    jobs.stop()


def test_work_of_hours_and_failures_are_not_taken_for_something_that_hangs() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        may_end.wait(PATIENCE)

    def fail() -> None:
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "the disk is away")

    jobs = Jobs([Task("failing", 3600, fail), Task("work", 3600, long, longest_seconds=None)])
    jobs.start()
    assert begun.wait(PATIENCE)
    assert jobs.states()["failing"].in_a_row == 1
    assert jobs.find_hanging(time.monotonic() + 1_000_000) == {}
    may_end.set()
    jobs.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_is_told_for_each_of_its_tasks_and_one_that_was_stopped_is_not() -> None:
    class GoneError(BaseException):
        """What no task should raise, and what nothing here catches."""

    def end() -> None:
        raise GoneError

    jobs = Jobs([Task("lists", 3600, end), Task("files", 3600, lambda: None)])
    assert jobs.find_hanging(time.monotonic()) == {}, "not begun"
    jobs.start()
    wait_for(lambda: set(jobs.find_hanging(time.monotonic())) == {"lists", "files"})
    jobs.stop()
    assert jobs.find_hanging(time.monotonic()) == {}


def test_a_turn_that_does_not_end_keeps_no_process_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        may_end.wait(PATIENCE)

    jobs = Jobs([Task("lists", 3600, hang)])
    jobs.start()
    assert begun.wait(PATIENCE)
    jobs.stop(patience=0.01)
    assert "periodic work lists does not end" in caplog.text
    may_end.set()
    jobs.stop()
    assert caplog.text.count("does not end") == 1


def test_nothing_to_do_can_be_stopped() -> None:
    jobs = Jobs([])
    jobs.start()
    jobs.stop()


def test_a_failure_that_goes_on_stands_in_the_log_once_with_the_path(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[Exception] = [PermissionError(13, "Permission denied", "/lists/.lock")] * 16

    def write() -> None:
        raise ExceptionGroup("files", failures)

    jobs = Jobs([Task("files", 3600, write)])
    jobs.run_all()
    jobs.run_all()
    assert [one.message for one in caplog.records] == [
        "periodic work files failed: [Errno 13] Permission denied: '/lists/.lock'"
    ]
    said = jobs.states()["files"].last_error
    assert said is not None
    assert said.startswith("PermissionError: /lists/.lock: Permission denied; check its owner")
    failures[:] = [OSError(28, "No space left on device", "/lists/.lock")]
    jobs.run_all()
    assert len(caplog.records) == 2
