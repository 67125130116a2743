"""Periodic tasks of a serving process: several tasks take turns on one thread; knows no task's meaning.

One thread at a time, so that the tasks need no locks among themselves, and so that signing takes no more than one core
from the event loop. A task that fails is logged, counted, and tried again. A turn that does not end is reported by
`find_hanging`; Python cannot end a thread, so the operator must mend the cause or restart the process. A task that
does the same for several things raises an ExceptionGroup of what failed (`attempt_each`).

Which thread owns what: `_Turn` and `TaskState` are written by the task thread alone, or by the caller of
`take_first_turns` before that thread starts. Any thread may read them: each field is one value, and a reader that sees
a turn half ended reports it a moment early or late. `due_at` alone is written by other threads too (`nudge`). Every
change of it after the start is made under the condition `_changed`, except that the task thread sets it to infinity
when a turn begins. A nudge just before that is satisfied by the turn that begins. A nudge during the turn lowers it
again, and `_schedule` keeps the earlier of the two moments. So no nudge is lost, and several nudges are one turn.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from vagus.errors import VagusError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0
_LONGEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Task:
    """A periodic act. `act` returns the seconds until its next turn, or None for `every_seconds`.

    A turn of more than `longest_seconds` counts as hanging: in a disk, a key's module, a lock. None where a turn may
    take hours. With `runs_first` the task has a turn before the first listener opens.
    """

    name: str
    every_seconds: float
    act: Callable[[], float | None]
    longest_seconds: float | None = _LONGEST_SECONDS
    runs_first: bool = True


@dataclass(slots=True)
class TaskState:
    """The history of a task; times are of the monotonic clock."""

    due_at: float
    runs: int = 0
    failures: int = 0
    in_a_row: int = 0
    """Failures since the last success."""
    last_error: str | None = None
    begun_at: float | None = None
    """When the present turn began; None between turns."""


def attempt_each(what: str, every: Iterable[T], act: Callable[[T], object]) -> None:
    """Call `act` for each of them, also after one has failed; raises an ExceptionGroup of what failed."""
    failures: list[Exception] = []
    for one in every:
        try:
            act(one)
        except Exception as error:  # noqa: BLE001 raised below, after the other tasks had their turn
            failures.append(error)
    if failures:
        raise ExceptionGroup(what, failures)


@dataclass(slots=True)
class _Turn:
    task: Task
    state: TaskState = field(default_factory=lambda: TaskState(time.monotonic()))
    logged: str | None = None
    """The text of the present failure, once it is in the log."""

    def begin(self) -> None:
        self.state.due_at = float("inf")
        self.state.begun_at = time.monotonic()

    def is_hanging(self, now: float) -> bool:
        begun_at, longest = self.state.begun_at, self.task.longest_seconds
        return begun_at is not None and longest is not None and now - begun_at > longest


class TaskThread:
    """One thread and the tasks that take turns on it, from `start` to `stop`."""

    def __init__(self, tasks: Sequence[Task], name: str = "tasks") -> None:
        self._turns = {task.name: _Turn(task) for task in tasks}
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"vagus-{name}", daemon=True)

    def take_first_turns(self) -> None:
        """Give each task with `runs_first` a turn now, on the caller's thread, before the first listener opens.

        Raises what a task raises, except an ExceptionGroup: a failure for some authorities stops no start.
        """
        for turn in self._turns.values():
            if turn.task.runs_first:
                self._take(turn, ExceptionGroup)  # the next turn is due one interval from now, not at once

    def start(self) -> None:
        """Run the tasks in the background from now on."""
        self._thread.start()

    def nudge(self, name: str) -> None:
        """Give a task its turn as soon as possible; a name of another thread's task does nothing. From any thread."""
        with self._changed:
            turn = self._turns.get(name)
            if turn is not None:
                turn.state.due_at = time.monotonic()
                self._changed.notify()

    def stop(self, patience: float = _LONGEST_SECONDS) -> None:
        """End after the present turn. After `patience` seconds a turn that hangs is abandoned, as by a crash."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience)
        if self._thread.is_alive():
            left = ", ".join(name for name, turn in self._turns.items() if turn.state.begun_at is not None)
            _LOG.error("periodic task %s does not end; the process ends without it", left)

    def states(self) -> Mapping[str, TaskState]:
        """The history of each task, for /health and metrics."""
        return {name: turn.state for name, turn in self._turns.items()}

    def find_hanging(self, now: float) -> Mapping[str, str]:
        """Each task whose turn does not end, or whose thread has died, with a sentence; `now`: monotonic seconds."""
        if self._thread.ident is not None and not self._thread.is_alive() and not self._is_stopping:
            return dict.fromkeys(self._turns, "its thread has ended, for a reason that is in the log; restart")
        found = {}
        for name, turn in self._turns.items():
            if turn.is_hanging(now):
                others = ", ".join(other for other in self._turns if other != name)
                waiting = f" (these tasks wait for it: {others})" if others else ""
                longest = f"its turn takes longer than {turn.task.longest_seconds:.0f} s"
                found[name] = f"{longest}: a disk, HSM or lock does not respond; mend that or restart{waiting}"
        return found

    def _run(self) -> None:
        while (turn := self._next()) is not None:
            self._take(turn, Exception)  # one failing task must not end the others

    def _take(self, turn: _Turn, caught: type[Exception]) -> None:
        turn.begin()  # a request during the turn asks for another turn
        try:
            pause = turn.task.act()
        except caught as error:
            self._fail(turn, error)
        else:
            self._succeed(turn, pause)

    def _next(self) -> _Turn | None:
        """Wait for the task that is due first; None once stopping."""
        with self._changed:
            while not self._is_stopping:
                if not self._turns:
                    self._changed.wait()
                    continue
                turn = min(self._turns.values(), key=lambda one: one.state.due_at)
                left = turn.state.due_at - time.monotonic()
                if left <= 0:
                    return turn
                self._changed.wait(min(left, 60.0))
        return None

    def _succeed(self, turn: _Turn, pause: float | None) -> None:
        turn.state.begun_at = None
        turn.state.runs += 1
        turn.state.in_a_row = 0
        turn.state.last_error = turn.logged = None
        self._schedule(turn, turn.task.every_seconds if pause is None else pause)

    def _fail(self, turn: _Turn, error: Exception) -> None:
        turn.state.begun_at = None
        turn.state.runs += 1
        turn.state.failures += 1
        turn.state.in_a_row += 1
        each = list(leaves(error))
        turn.state.last_error = ", ".join(dict.fromkeys(_describe(one) for one in each))
        text = "; ".join(dict.fromkeys(str(one) for one in each))
        if turn.logged != text:  # log a failure once: one that lasts is only counted
            _LOG.error("periodic task %s failed: %s", turn.task.name, text)
        turn.logged = text
        # Retry 5 s after the first failure, doubled with each further one, and never later than the task's own
        # interval.
        self._schedule(turn, min(_RETRY_SECONDS * 2 ** min(turn.state.in_a_row - 1, 6), turn.task.every_seconds))

    def _schedule(self, turn: _Turn, seconds: float) -> None:
        with self._changed:
            turn.state.due_at = min(turn.state.due_at, time.monotonic() + seconds)


def leaves(error: Exception) -> Iterable[Exception]:
    """The error itself, or those that a group holds, at any depth."""
    if isinstance(error, ExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def _describe(error: Exception) -> str:
    if isinstance(error, VagusError):
        return error.reason.value
    if isinstance(error, OSError) and error.filename is not None:
        return f"{type(error).__name__}: {error.filename}: {error.strerror}; check its owner and the space on the disk"
    return type(error).__name__
