"""The parts of a serving process start in order, end in reverse, and are woken by name."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import partial

import pytest

from tests.jobs.test_periodic import fail
from tests.jobs.turns import LongTurn
from tests.simulator.waiting import wait_until
from vagus.errors import Unavailable
from vagus.jobs.part import UPKEEP, Part, Parts, replace_notes
from vagus.jobs.periodic import Task
from vagus.records.engine.commit_facts import RevocationEvent


def make(journal: list[str], name: str, tasks: Sequence[Task] = (), thread: str = "") -> Part:
    return Part(
        name,
        tasks,
        thread,
        start=partial(journal.append, f"start {name}"),
        stop=partial(journal.append, f"stop {name}"),
        close=partial(journal.append, f"close {name}"),
    )


def test_first_turns_and_starts_go_in_order_and_ends_in_reverse() -> None:
    journal: list[str] = []

    def task(name: str, *, runs_first: bool = True) -> Task:
        return Task(name, 3600, partial(journal.append, name), runs_first=runs_first)

    parts = Parts(
        [
            make(journal, "crls", [task("lists"), task("files")], UPKEEP),
            make(journal, "ledger", [task("ledger")]),
            make(journal, "plan", [task("plan")], UPKEEP),
            make(journal, "watch", [task("probe", runs_first=False)]),
        ]
    )
    parts.take_first_turns()
    assert journal == ["lists", "files", "plan", "ledger"], "thread by thread; a probe needs open listeners"
    journal.clear()
    parts.start()
    wait_until(lambda: "probe" in journal)
    parts.stop()
    starts = [f"start {name}" for name in ("crls", "ledger", "plan", "watch")]
    stops = [f"stop {name}" for name in ("watch", "plan", "ledger", "crls")]
    closes = [f"close {name}" for name in ("watch", "plan", "ledger", "crls")]
    assert journal == [*starts, "probe", *stops, *closes]


def test_a_first_turn_that_fails_stops_the_start() -> None:
    with pytest.raises(Unavailable):
        Parts([Part("crls", [Task("lists", 60, fail)])]).take_first_turns()


def test_parts_of_one_thread_take_turns_and_others_do_not_wait_for_it() -> None:
    names: dict[str, str] = {}

    def note(task: str) -> None:
        names[task] = threading.current_thread().name

    tasks = {name: Task(name, 3600, partial(note, name)) for name in ("lists", "plan", "ledger")}
    parts = Parts(
        [
            Part("crls", [tasks["lists"]], UPKEEP),
            Part("plan", [tasks["plan"]], UPKEEP),
            Part("ledger", [tasks["ledger"]]),
        ]
    )
    parts.start()
    wait_until(lambda: len(names) == 3)
    parts.stop()
    assert names == {"lists": "vagus-upkeep", "plan": "vagus-upkeep", "ledger": "vagus-ledger"}


def test_a_revocation_and_a_hang_up_wake_the_tasks_that_follow_from_them() -> None:
    ran: list[str] = []
    events: list[Sequence[RevocationEvent]] = []

    def wake(new: Sequence[RevocationEvent]) -> tuple[str, ...]:
        events.append(new)
        return ("lists",)

    def task(name: str) -> Task:
        return Task(name, 3600, partial(ran.append, name))

    parts = Parts(
        [
            Part("crls", [task("lists")], wake=wake),
            Part("plan", [task("plan")], reload=lambda: ("plan", "of no part")),
        ]
    )
    parts.take_first_turns()
    parts.start()
    parts.wake([])
    wait_until(lambda: ran == ["lists", "plan", "lists"])
    assert events == [[]]
    parts.reload()
    wait_until(lambda: ran == ["lists", "plan", "lists", "plan"])
    parts.stop()


def test_a_turn_that_was_asked_to_end_ends_before_what_it_uses_is_closed() -> None:
    journal: list[str] = []
    turn = LongTurn()

    def work() -> None:
        turn()
        journal.append("turn ended")

    parts = Parts([Part("work", [Task("work", 1, work)], stop=turn.end, close=partial(journal.append, "closed"))])
    parts.start()
    turn.wait_begun()
    parts.stop()
    assert journal == ["turn ended", "closed"]


def test_notes_follow_what_is_so_now_and_are_logged_when_they_change(caplog: pytest.LogCaptureFixture) -> None:
    notes = {"clock": "set it", "makers/old.crl": "damaged"}
    for _ in range(2):
        replace_notes(notes, {"makers/new.crl": "expired"}, logging.getLogger(), prefix="makers/")
    assert notes == {"clock": "set it", "makers/new.crl": "expired"}
    replace_notes(notes, {"makers/new.crl": "damaged"}, logging.getLogger(), prefix="makers/")
    assert [one.getMessage() for one in caplog.records] == ["makers/new.crl: expired", "makers/new.crl: damaged"]
    replace_notes(notes, {}, logging.getLogger())
    assert notes == {}
