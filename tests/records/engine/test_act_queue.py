"""The queue of acts: order, batches, patience, and no act that is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.simulator.refusals import refuses
from vagus.errors import LimitExceeded, Unavailable
from vagus.reasons import Reason
from vagus.records.engine.act_queue import ActQueue

LONG = 30.0


def queue(*, max_batch: int = 3, linger: float = 0.0, patience: float = 0.0) -> ActQueue[int]:
    return ActQueue(max_batch=max_batch, max_queued=5, linger_seconds=linger, patience_seconds=patience)


def put(acts: ActQueue[int], number: int, *, is_patient: bool = False) -> None:
    def act(_batch: int) -> int:
        return number

    acts.put(act, is_patient=is_patient)


def numbers(acts: ActQueue[int], last: int = 0) -> list[int]:
    return [queued.act(0) for queued in acts.take(last)]


def taken_meanwhile(acts: ActQueue[int], last: int, then: Callable[[], None]) -> tuple[list[int], float]:
    """What a thread takes that waits already when `then` happens, and after how many seconds."""
    found: list[int] = []
    began = time.monotonic()
    thread = threading.Thread(target=lambda: found.extend(numbers(acts, last)))
    thread.start()
    time.sleep(0.05)
    then()
    thread.join(LONG)
    return found, time.monotonic() - began


def test_acts_are_taken_in_order_and_a_batch_has_its_limit() -> None:
    acts = queue()
    for number in range(5):
        put(acts, number, is_patient=number == 1)
    assert numbers(acts) == [0, 1, 2]
    assert numbers(acts) == [3, 4]


def test_a_full_queue_and_a_closed_one_refuse() -> None:
    acts = queue()
    for number in range(5):
        put(acts, number)
    with refuses(Reason.OVERLOADED, LimitExceeded):
        put(acts, 5)
    acts.close()
    with pytest.raises(Unavailable):
        put(acts, 6)
    assert (numbers(acts), numbers(acts), numbers(acts)) == ([0, 1, 2], [3, 4], [])


def test_a_patient_act_wakes_a_sleeping_thread_and_is_taken_when_its_patience_ends() -> None:
    acts = queue(patience=0.01)
    assert taken_meanwhile(acts, 0, lambda: put(acts, 1, is_patient=True))[0] == [1]


def test_a_patient_act_rides_with_the_next_urgent_one() -> None:
    acts = queue(patience=LONG)
    put(acts, 1, is_patient=True)
    found, seconds = taken_meanwhile(acts, 0, lambda: put(acts, 2))
    assert found == [1, 2]
    assert seconds < LONG / 2


def test_hurry_ends_the_patience_of_every_act() -> None:
    acts = queue(patience=LONG)
    put(acts, 1, is_patient=True)
    put(acts, 2, is_patient=True)
    found, seconds = taken_meanwhile(acts, 0, acts.hurry)
    assert found == [1, 2]
    assert seconds < LONG / 2


def test_after_a_batch_of_many_the_thread_waits_for_half_of_them() -> None:
    acts = queue(linger=LONG)
    put(acts, 1)

    def two_more() -> None:
        put(acts, 2)
        put(acts, 3)

    found, seconds = taken_meanwhile(acts, 6, two_more)
    assert found == [1, 2, 3]
    assert seconds < LONG / 2
    put(acts, 4)
    assert numbers(acts, last=1) == [4]  # a single submitter waits for nobody


def test_a_thread_that_waits_for_others_goes_on_when_the_queue_is_closed() -> None:
    acts = queue(linger=LONG)
    put(acts, 1)
    found, seconds = taken_meanwhile(acts, 6, acts.close)
    assert found == [1]
    assert seconds < LONG / 2


def test_a_dead_writers_acts_are_given_back() -> None:
    acts = queue()
    put(acts, 1)
    assert [queued.act(0) for queued in acts.abandon()] == [1]
    assert numbers(acts) == []
