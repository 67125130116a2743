"""`Part`: what one feature runs in a serving process, as a value: tasks, health facts, metrics, start and stop.

A feature has one function that returns its `Part`. `server.serving` lists those functions; /health, /metrics, the
threads, SIGHUP and the end of the process need no further word about the feature.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vagus.jobs.periodic import Task, TaskState, TaskThread

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from vagus.records.engine.commit_facts import RevocationEvent

UPKEEP = "upkeep"
"""The thread for all that signs and for all that changes listeners or issuers: these tasks must never overlap."""
UPKEEP_SECONDS = 120.0
"""The longest turn there that is no fault: one core signs every CRL of a million certificates within 30 s."""


@dataclass(frozen=True, slots=True)
class PartHealth:
    """The present health of a part.

    A part is failing when this process should be taken out of service. It is degraded when something is wrong that
    other processes show as well: to take all of them out of service would help no relying party.
    """

    facts: Mapping[str, object] = field(default_factory=dict)
    """Members of the JSON object that /health returns, as plain values."""
    is_failing: bool = False
    is_degraded: bool = False
    waits: Mapping[str, str] = field(default_factory=dict)
    """What waits for an operator, by subject: neither a failure nor degraded."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """What this process cannot do, by subject, with the remedy: degraded."""


@dataclass(frozen=True, slots=True)
class Part:
    """One feature. All fields but `name` may be left out."""

    name: str
    tasks: Sequence[Task] = ()
    thread: str = ""
    """Parts that name the same thread share it. The default is a thread of the part's own."""
    health: Callable[[], PartHealth] = PartHealth
    """Called for each request of /health or /metrics, on the event loop: reads what is known, and waits for nothing."""
    metrics: Callable[[], Iterable[Metric]] = tuple
    """As `health`."""
    start: Callable[[], None] = lambda: None
    """Called on the event loop once the listeners are open, before the threads start."""
    wake: Callable[[Sequence[RevocationEvent]], Iterable[str]] = lambda _: ()
    """Given new revocations, on the thread that found them; returns the tasks whose turn must come at once."""
    reload: Callable[[], Iterable[str]] = tuple
    """Called at SIGHUP, on the event loop; returns the tasks whose turn must come at once."""
    stop: Callable[[], None] = lambda: None
    """Asks a turn that runs to end soon. Called on another thread than the tasks', while they may still run."""
    close: Callable[[], None] = lambda: None
    """Gives back what the part used. Called after all threads have ended."""


@dataclass(slots=True)
class Parts:
    """The parts of one serving process, and the threads of their tasks.

    Order matters: first turns and starts go from the first part to the last, ends from the last to the first.
    """

    every: Sequence[Part]
    threads: Sequence[TaskThread] = field(init=False)

    def __post_init__(self) -> None:
        tasks: dict[str, list[Task]] = {}
        for part in self.every:
            if part.tasks:
                tasks.setdefault(part.thread or part.name, []).extend(part.tasks)
        self.threads = [TaskThread(some, name) for name, some in tasks.items()]

    def take_first_turns(self) -> None:
        """Run the tasks that must have run before a listener opens. Raises as `TaskThread.take_first_turns`."""
        for thread in self.threads:
            thread.take_first_turns()

    def start(self) -> None:
        """Start parts, then threads; on the event loop."""
        for part in self.every:
            part.start()
        for thread in self.threads:
            thread.start()

    def wake(self, events: Sequence[RevocationEvent]) -> None:
        """Have the tasks that follow from new revocations run at once; from any thread."""
        self._nudge(name for part in self.every for name in part.wake(events))

    def reload(self) -> None:
        """SIGHUP: have read again what operators change."""
        self._nudge(name for part in self.every for name in part.reload())

    def stop(self) -> None:
        """End the turns that run, then the threads, then what they used."""
        for part in reversed(self.every):
            part.stop()
        for thread in reversed(self.threads):
            thread.stop()
        for part in reversed(self.every):
            part.close()

    def states(self) -> dict[str, TaskState]:
        """The history of every task, by its name."""
        return {name: state for thread in self.threads for name, state in thread.states().items()}

    def find_hanging(self, now: float) -> dict[str, str]:
        """The tasks whose turn does not end, each with a sentence; `now` in monotonic seconds."""
        return {name: sentence for thread in self.threads for name, sentence in thread.find_hanging(now).items()}

    def _nudge(self, names: Iterable[str]) -> None:
        for name in names:
            for thread in self.threads:
                thread.nudge(name)


def replace_notes(notes: dict[str, str], current: Mapping[str, str], log: logging.Logger, *, prefix: str = "") -> None:
    """Make those of `notes` that begin with `prefix` the same as `current`; log what is new or changed, once.

    For `PartHealth.waits` and `lacks`: one thread writes a dict of notes, and others copy it as a whole.
    """
    for subject in [one for one in notes if one.startswith(prefix) and one not in current]:
        del notes[subject]
    for subject, text in current.items():
        if notes.get(subject) != text:
            log.warning("%s: %s", subject, text)
        notes[subject] = text
