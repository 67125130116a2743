"""Tracks each open connection's right to stay open, and closes it after a revocation; makes no verdict itself.

A verdict is good for one position of the sequences of revocations and device changes, and for a bounded time. It is
asked for again

- by a request on a kept-alive connection, when the position has moved or the time is over;
- after a revocation, for every connection whose path holds the serial number;
- after a change of a device, for every connection of that device;
- by a slow sweep over all connections, which is how the expiry of a certificate reaches an idle stream.

Everything here belongs to the thread of the event loop. The callbacks of feeds alone come from other threads, and they
do nothing but hand their marks to the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from vagus.endpoints.gateway.decisions import Outcome, Record, decide, device_of, path_serials
from vagus.errors import Unavailable, VagusError
from vagus.fleet.admission import Admitted
from vagus.policy.values import SessionOnRevocation
from vagus.reasons import Reason
from vagus.records.device_changes import DeviceChange
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.tls import Peer

Admit = Callable[[Peer, str], Admitted]
"""The verdict on a peer from a source address; raises VagusError. Runs on the event loop: well under a millisecond."""
QuickCheck = Callable[[Admitted], None]
"""Raises VagusError for what memory alone knows against an admitted peer. That it raises nothing admits no peer."""
RevocationFeed = Callable[[Callable[[Sequence[RevocationEvent]], None]], None]
"""Subscribes a callback, called from any thread, to revocations: `RevocationFollower.subscribe`."""
DeviceFeed = Callable[[Callable[[Sequence[DeviceChange]], None]], None]
"""Subscribes a callback, called from any thread, to changes of devices: `DeviceFollower.subscribe`."""

_log = logging.getLogger(__name__)
_SLICE_SECONDS = 0.005
VERDICT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Rules:
    """How one listener judges. `admit` is None where it judges no peer."""

    listener: str
    admit: Admit | None
    record: Record
    position: Callable[[], object]
    """Moves whenever a verdict may have changed: the positions of both sequences, at least."""
    quick_check: QuickCheck | None = None
    verdict_seconds: float = VERDICT_SECONDS


class ConnectionRight:
    """The right of one peer to one connection: the newest verdict, and whether it still holds.

    `refusal` is the newest verdict, None where it admits. `admitted` is what the last verdict that admitted found; it
    stays after a later refusal, since its policy decides what becomes of the open session. `degraded` is the refusal
    that this policy passes over.
    """

    __slots__ = ("_judged_at", "_position", "admitted", "degraded", "peer", "refusal", "rules", "source")

    def __init__(self, rules: Rules, peer: Peer, source: str) -> None:
        self.rules = rules
        self.peer = peer
        self.source = source
        self.admitted: Admitted | None = None
        self.refusal: VagusError | None = None
        self.degraded: VagusError | None = None
        self._position: object = None
        self._judged_at = 0.0
        self.judge()

    def judge(self) -> None:
        """Ask for the verdict anew. An exception that is not a VagusError is a fault of ours, and refuses too."""
        # Read the position in the revocation sequence before the verdict is made. A revocation in between moves the
        # position, so the verdict is out of date at once and is asked for again. Read after the verdict, the position
        # would hide that revocation.
        self._position, self._judged_at = self.rules.position(), time.monotonic()
        if self.rules.admit is None:
            return
        refusal = self._find_quick_refusal()
        if refusal is not None:
            self.refusal = refusal
            return
        try:
            self.admitted = self.rules.admit(self.peer, self.source)
        except VagusError as error:
            self.refusal = error
        except Exception:  # noqa: BLE001 a failure of any kind must refuse the peer, not admit it
            _log.exception("the verdict on a peer failed; it is refused")
            self.refusal = Unavailable(Reason.STATUS_UNAVAILABLE, "no verdict could be reached; try again later")
        else:
            self.refusal = None

    def _find_quick_refusal(self) -> VagusError | None:
        """What the quick check has against a peer that was admitted and is not refused yet."""
        if self.rules.quick_check is None or self.admitted is None or self.refusal is not None:
            return None
        try:
            self.rules.quick_check(self.admitted)
        except VagusError as error:
            return error
        except Exception:  # noqa: BLE001 ask for a whole verdict again, and go on with the other connections
            _log.exception("the quick check of an admitted peer failed")
        return None

    def fails_quick_check(self) -> bool:
        """Whether the quick check alone ends this connection; the caller cuts it and records the end.

        False says nothing new: only the quick check was asked, so the time of the last whole verdict stays as it was,
        and the next request or sweep still asks for a whole one.
        """
        if self.rules.admit is None or self.is_current():
            return False
        # Position and time are read before the check, as in `judge`, and stored only with a refusal.
        position, at = self.rules.position(), time.monotonic()
        refusal = self._find_quick_refusal()
        if refusal is None or self._is_degradable():
            return False
        self.refusal, self._position, self._judged_at = refusal, position, at
        return True

    def _is_degradable(self) -> bool:
        """Whether the policy of the peer's function lets an open session go on when its verdict no longer holds."""
        return self.admitted is not None and self.admitted.session_on_revocation is SessionOnRevocation.DEGRADE

    def is_current(self) -> bool:
        """Whether nothing has happened since the verdict that could change it."""
        return (
            self._position == self.rules.position() and time.monotonic() - self._judged_at < self.rules.verdict_seconds
        )

    def find_objection(self) -> VagusError | None:
        """Why this connection may not go on now, or None; `degraded` says why a connection goes on by policy alone.

        Each change of the verdict is recorded once.
        """
        if self.rules.admit is None or self.is_current():
            return None if self.degraded is not None else self.refusal
        was_admitted, was_on_grace = self.refusal is None, self._is_on_grace()
        self.judge()
        if self.refusal is None:
            self.degraded = None
            if self._is_on_grace() and not was_on_grace:
                self.record(Outcome.DEGRADED)
            return None
        if self._is_degradable():
            if self.degraded is None:
                self.record(Outcome.DEGRADED, self.refusal)
            self.degraded = self.refusal
            return None
        if was_admitted or self.degraded is not None:
            self.degraded = None
            self.record(Outcome.CLOSED, self.refusal)
        return self.refusal

    def _is_on_grace(self) -> bool:
        return self.admitted is not None and self.admitted.on_grace is not None

    def record(self, outcome: Outcome, error: VagusError | None = None) -> None:
        """Record a decision about this peer."""
        rules, peer, admitted = self.rules, self.peer, self.admitted
        rules.record(decide(rules.listener, self.source, outcome, peer=peer, admitted=admitted, error=error))


Mark = int | str
"""A serial number of a path, or the id of a device."""


@dataclass(slots=True)
class OpenConnections:
    """Every open connection that was admitted, found by the serial numbers of its path and by its device."""

    _by_mark: dict[Mark, set[ConnectionRight]] = field(default_factory=dict)
    _open: dict[ConnectionRight, tuple[Callable[[], None], Collection[Mark]]] = field(default_factory=dict)
    """How to cut each connection, and the marks under which it is found."""
    _loop: asyncio.AbstractEventLoop | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, right: ConnectionRight, cut: Callable[[], None]) -> None:
        """Hold a connection to both sequences until it is discarded; `cut` ends it at once, with a reset."""
        if right.rules.admit is None:
            return
        marks: set[Mark] = set()
        if right.admitted is not None:
            marks.update(path_serials(right.admitted))
            device = device_of(right.admitted)
            marks.update(() if device is None else (device,))
        self._open[right] = cut, marks
        for mark in marks:
            self._by_mark.setdefault(mark, set()).add(right)

    def discard(self, right: ConnectionRight) -> None:
        """Forget a connection that has ended."""
        _, marks = self._open.pop(right, (None, ()))
        for mark in marks:
            holders = self._by_mark[mark]
            holders.discard(right)
            if not holders:
                del self._by_mark[mark]

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work on `loop`: the one that owns the connections."""
        self._loop = loop

    def follow(self, subscribe: RevocationFeed) -> None:
        """Hold every open connection to a sequence of revocations from now on."""
        subscribe(lambda events: self._notify_from_any_thread([event.serial for event in events]))

    def follow_devices(self, subscribe: DeviceFeed) -> None:
        """Hold every open connection to the changes of its device from now on."""
        subscribe(lambda changes: self._notify_from_any_thread([change.device_id for change in changes]))

    def _notify_from_any_thread(self, marks: Sequence[Mark]) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return  # no connection is open: a new one is judged at its handshake
        with suppress(RuntimeError):  # the event loop was closed just now
            loop.call_soon_threadsafe(self.notify, marks)

    def notify(self, marks: Iterable[Mark]) -> None:
        """Ask again for every connection with one of these certificates in its path, or of one of these devices.

        On the loop's thread.
        """
        found: dict[ConnectionRight, None] = {}
        for mark in marks:
            found.update(dict.fromkeys(self._by_mark.get(mark, ())))
        if found:
            task = asyncio.get_running_loop().create_task(self._ask_again(list(found)))
            self._tasks.add(task)  # the event loop holds tasks only weakly
            task.add_done_callback(self._tasks.discard)

    async def sweep(self, every_seconds: float) -> None:
        """Ask for all of them again and again, a pass in about `every_seconds`; ends by cancellation."""
        while True:
            await asyncio.sleep(every_seconds)
            await self._ask_again(list(self._open))

    async def _ask_again(self, rights: list[ConnectionRight]) -> None:
        """Three passes, so that a revoked peer is cut as soon as possible.

        1. The quick check costs microseconds. Each connection that fails it is cut at once.
        2. The ends of pass 1 are recorded. A record takes longer than a cut; those of thousands take seconds, so no
           other revoked peer may wait for them.
        3. Whole verdicts for the rest.
        """
        unrecorded: deque[ConnectionRight] = deque()
        try:
            async for right in _in_slices(rights):
                if right in self._open and right.fails_quick_check():
                    unrecorded.append(right)
                    self._cut(right)
            async for _ in _in_slices(range(len(unrecorded))):
                _record_end(unrecorded.popleft())
        finally:  # if the loop ends, this task is cancelled, and what it cut is still recorded
            for right in unrecorded:
                _record_end(right)
        async for right in _in_slices(rights):
            if right in self._open and right.find_objection() is not None:
                self._cut(right)

    def _cut(self, right: ConnectionRight) -> None:
        cut, _ = self._open[right]
        self.discard(right)
        cut()


def _record_end(right: ConnectionRight) -> None:
    right.record(Outcome.CLOSED, right.refusal)


_Item = TypeVar("_Item")


async def _in_slices(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """The items one by one; after each slice of time the loop serves others."""
    until = time.monotonic() + _SLICE_SECONDS
    for item in items:
        yield item
        if time.monotonic() > until:
            await asyncio.sleep(0)
            until = time.monotonic() + _SLICE_SECONDS
