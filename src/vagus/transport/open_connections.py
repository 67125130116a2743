"""Open connections and the right each one has to stay open; decides no right itself, it asks for the verdict again.

A verdict is good for one position of the sequences of revocations and device changes, and for a bounded time. A
request on a kept-alive connection asks again when either has moved on; a revocation asks again for every connection
whose path holds the serial, a change of a device for every connection of that device; a slow sweep asks for all of
them, which is how expiry reaches an idle stream.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from vagus.endpoints.gateway.decisions import Guest, Outcome, Record, decide, device_of, path_serials
from vagus.errors import Unavailable, VagusError
from vagus.reasons import Reason
from vagus.tls import Peer

Admit = Callable[[Peer, str], Guest]
"""The verdict on a peer from a source address; raises VagusError. Runs on the event loop: well under a millisecond."""
Look = Callable[[Guest], None]
"""What is known at sight against somebody who was let in; raises VagusError. That it raises nothing admits nobody."""
Lost = Callable[[Guest, VagusError], Literal["close", "degrade"]]

_log = logging.getLogger(__name__)
_SLICE_SECONDS = 0.005
VERDICT_SECONDS = 30.0


def as_the_guest_says(guest: Guest, _error: VagusError) -> Literal["close", "degrade"]:
    """What the policy of the guest's own function wants when its verdict no longer holds."""
    return "degrade" if guest.session_on_revocation == "degrade" else "close"


def see_nothing(_guest: Guest) -> None:
    """Where nothing is known at sight, the whole verdict is asked for."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How one listener judges."""

    listener: str
    admit: Admit | None
    record: Record
    position: Callable[[], object]
    """Moves whenever a verdict may have changed: the positions of both sequences, at least."""
    look: Look = see_nothing
    lost: Lost = as_the_guest_says
    verdict_seconds: float = VERDICT_SECONDS


class Standing:
    """The right of one peer on one connection: its latest verdict and whether that still holds."""

    __slots__ = ("_judged_at", "_position", "degraded", "guest", "peer", "refusal", "rules", "source")

    def __init__(self, rules: Rules, peer: Peer, source: str) -> None:
        self.rules = rules
        self.peer = peer
        self.source = source
        self.guest: Guest | None = None
        self.refusal: VagusError | None = None
        self.degraded: VagusError | None = None
        self._position: object = None
        self._judged_at = 0.0
        self.judge()

    def judge(self) -> None:
        """Ask for the verdict anew. What is not one of our errors is a fault of ours, and lets nobody in."""
        # The position comes first: a revocation that lands while the verdict is made leaves it looking old.
        self._position, self._judged_at = self.rules.position(), time.monotonic()
        if self.rules.admit is None:
            return
        at_sight = self._look()
        if at_sight is not None:
            self.refusal = at_sight
            return
        try:
            self.guest = self.rules.admit(self.peer, self.source)
        except VagusError as error:
            self.refusal = error
        except Exception:  # noqa: BLE001  whatever fails here must refuse, not admit
            _log.exception("the verdict on a peer failed; it is refused")
            self.refusal = Unavailable(Reason.STATUS_UNAVAILABLE, "no verdict could be reached; try again later")
        else:
            self.refusal = None

    def _look(self) -> VagusError | None:
        """What is known at sight against somebody who was let in and is not refused yet."""
        if self.guest is None or self.refusal is not None:
            return None
        try:
            self.rules.look(self.guest)
        except VagusError as error:
            return error
        except Exception:  # noqa: BLE001  the whole verdict is asked for, and the other connections are looked at
            _log.exception("the look at a guest failed")
        return None

    def is_lost_at_sight(self) -> bool:
        """Whether this connection is to be cut for what is known at sight; whoever does so tells of it.

        No is no verdict: the one that stands grows no younger by it.
        """
        if self.rules.admit is None or self.is_current():
            return False
        position, at = self.rules.position(), time.monotonic()
        refusal = self._look()
        if refusal is None or self.guest is None or self.rules.lost(self.guest, refusal) == "degrade":
            return False
        self.refusal, self._position, self._judged_at = refusal, position, at
        return True

    def is_current(self) -> bool:
        """Whether nothing has happened since the verdict that could change it."""
        return (
            self._position == self.rules.position() and time.monotonic() - self._judged_at < self.rules.verdict_seconds
        )

    def find_objection(self) -> VagusError | None:
        """Why this connection may not go on now, or None; a degraded one may, and says so in `degraded`.

        Changes of mind are recorded once each.
        """
        if self.rules.admit is None or self.is_current():
            return None if self.degraded is not None else self.refusal
        was_admitted, was_on_grace = self.refusal is None, self._is_on_grace()
        self.judge()
        if self.refusal is None:
            self.degraded = None
            if self._is_on_grace() and not was_on_grace:
                self.tell(Outcome.DEGRADED)
            return None
        if self.guest is not None and self.rules.lost(self.guest, self.refusal) == "degrade":
            if self.degraded is None:
                self.tell(Outcome.DEGRADED, self.refusal)
            self.degraded = self.refusal
            return None
        if was_admitted or self.degraded is not None:
            self.degraded = None
            self.tell(Outcome.CLOSED, self.refusal)
        return self.refusal

    def _is_on_grace(self) -> bool:
        return self.guest is not None and self.guest.on_grace is not None

    def tell(self, outcome: Outcome, error: VagusError | None = None, detail: str = "") -> None:
        """Record a decision about this peer."""
        self.rules.record(
            decide(
                self.rules.listener,
                self.source,
                outcome,
                peer=self.peer,
                guest=self.guest,
                error=error,
                detail=detail,
            )
        )


class OpenConnection(Protocol):
    """What the registry can do with a connection."""

    @property
    def standing(self) -> Standing | None:
        """Its right to be open; None before the handshake is through."""
        ...

    def cut(self) -> None:
        """End it now, with a reset."""
        ...


class Revocation(Protocol):
    """One event of the revocation sequence."""

    @property
    def serial(self) -> int:
        """The certificate it is about; the issuer is the verdict's affair."""
        ...


class RevocationFeed(Protocol):
    """Who tells of revocations, from any thread: `events.revocations.RevocationFollower` is one."""

    def subscribe(self, callback: Callable[[Sequence[Revocation]], None]) -> None:
        """Have `callback` called with each run of new events."""
        ...


class Change(Protocol):
    """One change in the inventory."""

    @property
    def device_id(self) -> str:
        """The device whose rights may be others now."""
        ...


class DeviceFeed(Protocol):
    """Who tells of device changes, from any thread: `events.devices.DeviceFollower` is one."""

    def subscribe(self, callback: Callable[[Sequence[Change]], None]) -> None:
        """Have `callback` called with each run of new changes."""
        ...


Mark = int | str
"""A serial number of a path, or the id of a device."""


@dataclass(slots=True)
class OpenConnections:
    """Every open connection that was admitted, found by the serials of its path and by its device."""

    _by_mark: dict[Mark, set[OpenConnection]] = field(default_factory=dict)
    _marks: dict[OpenConnection, Collection[Mark]] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, connection: OpenConnection) -> None:
        """Hold `connection` to both sequences until it is discarded."""
        standing = connection.standing
        if standing is None or standing.rules.admit is None:
            return
        marks: set[Mark] = set()
        if standing.guest is not None:
            marks.update(path_serials(standing.guest))
            device = device_of(standing.guest)
            marks.update(() if device is None else (device,))
        self._marks[connection] = marks
        for mark in marks:
            self._by_mark.setdefault(mark, set()).add(connection)

    def discard(self, connection: OpenConnection) -> None:
        """Forget a connection that has ended."""
        for mark in self._marks.pop(connection, ()):
            holders = self._by_mark[mark]
            holders.discard(connection)
            if not holders:
                del self._by_mark[mark]

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work on `loop`: the one that owns the connections."""
        self._loop = loop

    def follow(self, feed: RevocationFeed) -> None:
        """Hold every open connection to `feed` from now on; its callbacks may come from any thread."""
        feed.subscribe(lambda events: self._tell([event.serial for event in events]))

    def follow_devices(self, feed: DeviceFeed) -> None:
        """Hold every open connection to what becomes of its device, in the same way."""
        feed.subscribe(lambda changes: self._tell([change.device_id for change in changes]))

    def _tell(self, marks: Sequence[Mark]) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return  # nothing is open yet, or any more: new connections are judged at their handshake
        with suppress(RuntimeError):  # closed just now
            loop.call_soon_threadsafe(self.notify, marks)

    def notify(self, marks: Iterable[Mark]) -> None:
        """Ask again for every connection with one of these certificates in its path, or of one of these devices.

        On the loop's thread.
        """
        found: dict[OpenConnection, None] = {}
        for mark in marks:
            found.update(dict.fromkeys(self._by_mark.get(mark, ())))
        if found:
            task = asyncio.get_running_loop().create_task(self._ask_again(list(found)))
            self._tasks.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(self._tasks.discard)

    async def sweep(self, every_seconds: float) -> None:
        """Ask for all of them again and again, a pass in about `every_seconds`; ends by cancellation."""
        while True:
            await asyncio.sleep(every_seconds)
            await self._ask_again(list(self._marks))

    async def _ask_again(self, connections: list[OpenConnection]) -> None:
        """Whoever is revoked is cut first, and told of then: whole verdicts and records of thousands take seconds."""
        untold: deque[Standing] = deque()
        try:
            async for connection in _in_slices(connections):
                standing = self._standing_of(connection)
                if standing is not None and standing.is_lost_at_sight():
                    untold.append(standing)
                    self._cut(connection)
            async for _ in _in_slices(range(len(untold))):
                _tell_end(untold.popleft())
        finally:  # a loop that ends waits for nobody
            for standing in untold:
                _tell_end(standing)
        async for connection in _in_slices(connections):
            standing = self._standing_of(connection)
            if standing is not None and standing.find_objection() is not None:
                self._cut(connection)

    def _standing_of(self, connection: OpenConnection) -> Standing | None:
        return connection.standing if connection in self._marks else None

    def _cut(self, connection: OpenConnection) -> None:
        self.discard(connection)
        connection.cut()


def _tell_end(standing: Standing) -> None:
    standing.tell(Outcome.CLOSED, standing.refusal)


_Item = TypeVar("_Item")


async def _in_slices(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """The items one by one; others are served in between."""
    until = time.monotonic() + _SLICE_SECONDS
    for item in items:
        yield item
        if time.monotonic() > until:
            await asyncio.sleep(0)
            until = time.monotonic() + _SLICE_SECONDS
