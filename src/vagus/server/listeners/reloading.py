"""Takes what operators changed into a process that serves: authorities by itself, a plan's listeners at SIGHUP.

Everything runs on the upkeep thread, so nothing else changes listeners and issuers meanwhile; sockets are opened and
closed on the event loop. What cannot be taken in is reported on /health until it can.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vagus.errors import Unavailable, VagusError
from vagus.jobs.part import PartHealth
from vagus.policy.plans import Plan
from vagus.reasons import Reason
from vagus.transport.listeners import SPARE_FILES, ListenerSpec, RunningListeners, raise_file_limit

_LOG = logging.getLogger(__name__)
_LOOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class NextListeners:
    """What another plan opens and closes, and what else happens once that has been done."""

    opened: Sequence[ListenerSpec]
    closed: Sequence[str]
    commit: Callable[[], None]


@dataclass(slots=True)
class Reloading:
    """Watches for another plan and for changed authorities; `ask` is an operator's SIGHUP."""

    file: Path
    """The plan in force."""
    load: Callable[[], Plan]
    """Raises VagusError; Conflict(AUTHORITY_IN_USE) where certificates name another status URL than the plan."""
    prepare: Callable[[Plan], NextListeners]
    """Raises VagusError, and then everything is as it was."""
    refresh_issuers: Callable[[], tuple[str, ...]]
    """Takes in authorities that came or went and returns their references. Raises VagusError."""
    plan: Plan
    """The plan that is served."""
    is_whole: Callable[[], bool] = lambda: True
    """Whether every listener of the plan is open. Else SIGHUP has the same plan taken once more."""
    widen: Callable[[Plan], bool] = lambda _plan: False
    """Lets open listeners take the new units of a plan; whether the plan is served then. Raises as `prepare`."""
    running: RunningListeners | None = None
    lacks: dict[str, str] = field(default_factory=dict)
    """Why the plan in force is not served."""
    waits: dict[str, str] = field(default_factory=dict)
    """What an operator should know, by what it is about."""
    _is_asked: bool = False
    _seen: bytes = b""
    """The digest of the newest plan whose units were taken."""

    def ask(self) -> None:
        """Take the plan in force at the next check. From any thread, from a signal handler too."""
        self._is_asked = True

    def refresh(self) -> None:
        """Take in changed authorities, and another plan where an operator asked for it; for periodic work."""
        try:
            for reference in self.refresh_issuers():
                _LOG.warning("authority %s came or went; taken in", reference)
        except VagusError as error:
            self._note("authorities", error.message)
        else:
            self.waits.pop("authorities", None)
        if (running := self.running) is None:
            return  # what was asked for before the listeners opened stays asked for
        is_asked, self._is_asked = self._is_asked, False
        try:
            self._refresh_plan(running, is_asked=is_asked)
        except Exception:  # a disk, an address or a loop that failed: the next turn tries again
            self._is_asked |= is_asked
            raise

    def _refresh_plan(self, running: RunningListeners, *, is_asked: bool) -> None:
        applied = hashlib.sha256(self.file.read_bytes()).digest()
        if applied == self.plan.sha256 and not (is_asked and not self.is_whole()):
            self.waits.pop("plan", None)
            self.lacks.pop("plan", None)
        elif is_asked:
            self._take(running)
        elif applied != self._seen and self._widen(applied):
            self.waits.pop("plan", None)
            self.lacks.pop("plan", None)
        elif "plan" not in self.waits:
            self._note("plan", "another plan was applied; send SIGHUP to take its listeners, or restart")

    def _widen(self, applied: bytes) -> bool:
        """A new unit of a hospital needs no SIGHUP at the listeners that take every unit of it."""
        try:
            plan = self.load()
            is_served = plan.status_url == self.plan.status_url and self.widen(plan)
        except VagusError as error:
            self._note("plan", f"the plan that was applied is not served: {error.message}")
            self.lacks["plan"] = self.waits["plan"]
            is_served = False
            if error.reason is Reason.DATABASE_UNAVAILABLE:
                return False
        self._seen = applied
        if is_served:
            self.plan = plan
            _LOG.warning("the plan that was applied is served, with its new units; no listener opens or closes")
        return is_served

    def _take(self, running: RunningListeners) -> None:
        try:
            plan = self.load()
            if plan.status_url != self.plan.status_url:
                msg = f"its status_url is {plan.status_url}, and certificates name {self.plan.status_url}; restart"
                raise Unavailable(Reason.BAD_PLAN, msg)
            ready = self.prepare(plan)
            raise_file_limit(sum(spec.limits.connections for spec in ready.opened) + SPARE_FILES)
            change = running.change(ready.opened, ready.closed)
            asyncio.run_coroutine_threadsafe(change, running.loop).result(_LOOP_SECONDS)
        except VagusError as error:
            self._note("plan", f"the plan that was applied is not served: {error.message}")
            self.lacks["plan"] = self.waits["plan"]
            if error.reason is Reason.DATABASE_UNAVAILABLE:  # the database returns by itself, so retry without a SIGHUP
                self._is_asked = True
            return
        ready.commit()
        self.plan = plan
        self.waits.pop("plan", None)
        self.lacks.pop("plan", None)

    def health(self) -> PartHealth:
        """What waits for an operator; a plan in force that is not served makes the process degraded."""
        return PartHealth(waits=dict(self.waits), lacks=dict(self.lacks))

    def _note(self, about: str, what: str) -> None:
        """Report it on /health, and in the log once."""
        if self.waits.get(about) != what:
            _LOG.warning("%s: %s", about, what)
        self.waits[about] = what
