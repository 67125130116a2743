"""What a serving process says of itself, on an address for operators; judges nothing else and names no device."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus

from vagus.clock import Clock
from vagus.endpoints.http import ASGIApp, Receive, Scope, Send, send_response
from vagus.errors import Unavailable
from vagus.events.revocations import RevocationFollower
from vagus.jobs.periodic import Jobs, TaskState, leaves
from vagus.monitoring.status_watch import StatusWatch
from vagus.reasons import Reason
from vagus.server.overload import LoadGauge

_LOG = logging.getLogger(__name__)
_DATES = "dates"
_FILES = "files"
_FILES_SECONDS = 10.0

Counts = Callable[[], Mapping[str, tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Health:
    """Sees the parts of a serving process that can fail by themselves."""

    clock: Clock
    follower: RevocationFollower
    jobs: Sequence[Jobs]
    bound: timedelta
    counts: Counts
    watch: StatusWatch | None = None
    load: LoadGauge | None = None
    waits: Mapping[str, str] = field(default_factory=dict)
    """What waits for an operator, by what it is about."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """What this process does not do, for it was not given the means, with the remedy."""
    graces: Mapping[str, tuple[timedelta, timedelta]] = field(default_factory=dict)
    """By function: how long the sequence may be out of sight, and how much longer connections go on by grace."""
    seconds: Callable[[], float] = time.monotonic
    """What turns of tasks are measured by: no clock that anybody sets."""

    def states(self) -> dict[str, TaskState]:
        """How every task fares."""
        return {name: state for jobs in self.jobs for name, state in jobs.states().items()}

    def hanging(self) -> dict[str, str]:
        """The tasks that do not come back, each with a sentence: no failure is counted, and nothing is done."""
        now = self.seconds()
        return {name: said for jobs in self.jobs for name, said in jobs.find_hanging(now).items()}

    def report(self) -> tuple[bool, dict[str, object]]:
        """Whether this process does its work, and the facts as plain values.

        What is wrong with published status, and what this process lacks or nobody has signed (`degraded`), is told and
        leaves the process healthy: others publish the same, and whoever takes unhealthy ones out of service would take
        out all of them.
        """
        now = self.clock.now()
        is_lost = self.follower.is_lost(now, self.bound)
        states = self.states()
        hanging = self.hanging()
        is_degraded = bool(self.lacks) or (self.watch is not None and bool(self.watch.behind))
        is_failing = is_lost or bool(hanging) or any(state.in_a_row for state in states.values())
        facts: dict[str, object] = {
            "status": "failing" if is_failing else "degraded" if is_degraded else "well",
            "sequence": {
                "position": self.follower.position,
                "is_lost": is_lost,
                "bound_seconds": self.bound.total_seconds(),
                "seen_at": int(self.follower.current_at.timestamp()),
            },
            "work": {
                name: {"runs": state.runs, "failures": state.failures, "last_error": state.last_error}
                for name, state in states.items()
            },
            "listeners": {
                name: {"open": open_now, "turned_away": turned_away}
                for name, (open_now, turned_away) in self.counts().items()
            },
        }
        if hanging:
            facts["hangs"] = hanging
        if self.load is not None:
            facts["answers"] = {"is_behind": self.load.is_behind, "turned_away": self.load.turned_away}
        if self.watch is not None:
            facts["published"] = self.watch.facts()
        if self.lacks:
            facts["lacks"] = dict(self.lacks)
        if waits := {**self.waits, **({} if self.watch is None else self.watch.waits())}:
            facts["waits"] = waits
        if on_grace := self._on_grace(now):
            facts["on_grace"] = on_grace
        return not is_failing, facts

    def _on_grace(self, now: datetime) -> dict[str, dict[str, int]]:
        """The functions whose connections pass by grace alone, and for how many seconds more."""
        age = now - self.follower.current_at
        return {
            function: {"seconds_left": int((bound + grace - age).total_seconds())}
            for function, (bound, grace) in self.graces.items()
            if bound < age <= bound + grace
        }


def note_clock(waits: dict[str, str], check: Callable[[], None]) -> None:
    """Say in `waits`, and once in the log, why no list would be dated now; `check` raises Unavailable(CLOCK_AHEAD).

    Told and no failure: where it is the database's clock that is wrong, every process would be taken out of service.
    """
    try:
        check()
    except Unavailable as error:
        if error.reason is not Reason.CLOCK_AHEAD:
            raise
        if _DATES not in waits:
            _LOG.error("no list is dated: %s", error.message)
        waits[_DATES] = f"no list is dated: {error.message}"
    else:
        waits.pop(_DATES, None)


def note_files(lacks: dict[str, str], write: Callable[[], None], *, is_needed: bool) -> float | None:
    """Say in `lacks`, and once in the log, why no list is written into the folder; gives the pause before the next try.

    `write` raises an ExceptionGroup of what failed. Where the files are needed that is a failure, and raised.
    """
    if is_needed:
        lacks.pop(_FILES, None)
        write()
        return None
    try:
        write()
    except* OSError as group:
        first = next(one for one in leaves(group) if isinstance(one, OSError))
        said = (
            f"{first.filename}: {first.strerror or type(first).__name__}; lists go out from memory and are not written "
            "there: give the folder to the user that serves, or make room on its disk"
        )
        if lacks.get(_FILES) != said:
            _LOG.error("lists are not written: %s", said)
        lacks[_FILES] = said
    else:
        lacks.pop(_FILES, None)
    return _FILES_SECONDS if _FILES in lacks else None


def health_app(health: Health) -> ASGIApp:
    """GET /health: 200 when all is well, 503 when something fails, JSON in both cases; 404 for the rest."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != "/health" or scope["method"] not in {"GET", "HEAD"}:
            await send_response(send, HTTPStatus.NOT_FOUND, [(b"content-length", b"0")])
            return
        is_well, facts = health.report()
        body = json.dumps(facts, sort_keys=True).encode("ascii")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
        await send_response(send, status, headers, b"" if scope["method"] == "HEAD" else body)

    return app
