"""Periodic work of a serving process, each task on its own rhythm; knows none of the tasks' sense.

Tasks run one at a time on one thread: signing lists must not compete with the event loop for more than one core. A
task that fails is told of, counted, and tried again at its next turn; one that does not come back is told of, and
nothing else can be done about it here. One that does the same for several, of which some failed, raises an
ExceptionGroup.
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
    """Something to do every so often. `act` gives how many seconds until its next turn, or None for `every_seconds`.

    A turn of more than `longest_seconds` hangs: in a disk, a key's module, a lock. None where a turn may take hours.
    """

    name: str
    every_seconds: float
    act: Callable[[], float | None]
    longest_seconds: float | None = _LONGEST_SECONDS


@dataclass(slots=True)
class TaskState:
    """How a task has fared; times are of the monotonic clock."""

    due_at: float
    runs: int = 0
    failures: int = 0
    in_a_row: int = 0
    last_error: str | None = None
    last_success_at: float | None = None
    begun_at: float | None = None
    """When the turn began that it has now; None between turns."""


def do_each(what: str, every: Iterable[T], act: Callable[[T], object]) -> None:
    """`act` for each of them, whatever becomes of the others; raises an ExceptionGroup of what failed."""
    failures: list[Exception] = []
    for one in every:
        try:
            act(one)
        except Exception as error:  # noqa: BLE001  raised below, once the others had their turn
            failures.append(error)
    if failures:
        raise ExceptionGroup(what, failures)


@dataclass(slots=True)
class _Turn:
    task: Task
    state: TaskState = field(default_factory=lambda: TaskState(time.monotonic()))
    said: str | None = None
    """What the log has of the failure that goes on."""

    def begin(self) -> None:
        self.state.due_at = float("inf")
        self.state.begun_at = time.monotonic()

    def is_hanging(self, now: float) -> bool:
        begun_at, longest = self.state.begun_at, self.task.longest_seconds
        return begun_at is not None and longest is not None and now - begun_at > longest


class Jobs:
    """The tasks of one process, from `start` to `stop`."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._turns = {task.name: _Turn(task) for task in tasks}
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="vagus-jobs", daemon=True)

    def run_all(self) -> None:
        """Give every task its turn now, on this thread, before the first listener opens.

        Raises what a task raises, except an ExceptionGroup: for what failed for some, the others are not kept waiting.
        """
        for turn in self._turns.values():
            turn.begin()  # its next turn is a rhythm from now, not at once again
            try:
                pause = turn.task.act()
            except ExceptionGroup as error:
                self._fail(turn, error)
            else:
                self._succeed(turn, pause)

    def start(self) -> None:
        """Go on in the background."""
        self._thread.start()

    def nudge(self, name: str) -> None:
        """Give a task its turn as soon as possible: a revocation must not wait for the rhythm. From any thread."""
        with self._changed:
            turn = self._turns.get(name)
            if turn is not None:
                turn.state.due_at = time.monotonic()
                self._changed.notify()

    def stop(self, patience: float = _LONGEST_SECONDS) -> None:
        """End after the task that runs now; one that hangs is left behind, and the process ends as by a crash."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience)
        if self._thread.is_alive():
            left = ", ".join(name for name, turn in self._turns.items() if turn.state.begun_at is not None)
            _LOG.error("periodic work %s does not end; the process ends without it", left)

    def states(self) -> Mapping[str, TaskState]:
        """How each task fares, for /health and metrics."""
        return {name: turn.state for name, turn in self._turns.items()}

    def find_hanging(self, now: float) -> Mapping[str, str]:
        """Each task that does not come back, or no more, with a sentence; `now` is of the monotonic clock."""
        if self._thread.ident is not None and not self._thread.is_alive() and not self._is_stopping:
            return dict.fromkeys(self._turns, "its thread has ended, for a reason that is in the log; restart")
        found = {}
        for name, turn in self._turns.items():
            if turn.is_hanging(now):
                waiting = ", ".join(other for other in self._turns if other != name)
                found[name] = (
                    f"its turn takes longer than {turn.task.longest_seconds:.0f} s: a disk, a key's module or a lock "
                    f"does not answer; mend that or restart{f' (behind it wait {waiting})' if waiting else ''}"
                )
        return found

    def _run(self) -> None:
        while (turn := self._next()) is not None:
            turn.begin()  # a nudge during the run asks for another one
            try:
                pause = turn.task.act()
            except Exception as error:  # noqa: BLE001  one failing task must not end the others
                self._fail(turn, error)
            else:
                self._succeed(turn, pause)

    def _next(self) -> _Turn | None:
        """The task whose turn it is, waiting for it; None once stopping."""
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
        now = time.monotonic()
        turn.state.begun_at = None
        turn.state.runs += 1
        turn.state.in_a_row = 0
        turn.state.last_error = turn.said = None
        turn.state.last_success_at = now
        self._schedule(turn, turn.task.every_seconds if pause is None else pause)

    def _fail(self, turn: _Turn, error: Exception) -> None:
        turn.state.begun_at = None
        turn.state.runs += 1
        turn.state.failures += 1
        turn.state.in_a_row += 1
        each = list(leaves(error))
        turn.state.last_error = ", ".join(dict.fromkeys(_name(one) for one in each))
        said = "; ".join(dict.fromkeys(str(one) for one in each))
        if turn.said != said:  # once for each change: what goes on is counted
            _LOG.error("periodic work %s failed: %s", turn.task.name, said)
        turn.said = said
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


def _name(error: Exception) -> str:
    if isinstance(error, VagusError):
        return error.reason.value
    if isinstance(error, OSError) and error.filename is not None:
        return f"{type(error).__name__}: {error.filename}: {error.strerror}; check its owner and the space on the disk"
    return type(error).__name__
