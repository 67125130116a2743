"""The earliest moment it can be now, remembered over restarts; reads no clock by itself.

A device whose battery died wakes in 1970. Below its floor it believes no certificate's dates, speaks only with the
enrolment listener under its pinned anchors, and takes the time from something signed there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from vagus.clock import Clock
from vagus.durable_files import replace_durably
from vagus.errors import NotTrusted
from vagus.reasons import Reason

if TYPE_CHECKING:
    from pathlib import Path

BUILT: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""When this release was made: no honest clock is earlier."""

_MAX_FILE: Final = 4096
_TOLERANCE: Final = timedelta(minutes=5)
"""How far a signed time may be ahead of us before we call our own clock wrong (two honest clocks differ)."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The earliest moment it can be now, and who said so."""

    at: datetime
    source: str


class ClockFloor:
    """The floor of one device, stored in a file; it never sinks."""

    def __init__(self, path: Path, built: datetime = BUILT) -> None:
        self._path = path
        self.floor = max(self._load(), Floor(built, "the build of this agent"), key=lambda floor: floor.at)

    def raise_to(self, at: datetime, source: str) -> None:
        """Data that others signed was made at `at`. A time below the floor changes nothing."""
        if at > self.floor.at:
            self.floor = Floor(at, source)
            document = {"at": at.isoformat(), "source": source}
            replace_durably(self._path, json.dumps(document).encode("ascii"))

    def check(self, now: datetime) -> None:
        """Raises NotTrusted(CLOCK_ROLLBACK) when `now` cannot be: the clock of this device is wrong."""
        if now + _TOLERANCE < self.floor.at:
            shown, earliest = now.isoformat(timespec="seconds"), self.floor.at.isoformat(timespec="seconds")
            msg = f"the device's clock shows {shown}, and it cannot be before {earliest} ({self.floor.source})"
            msg = f"{msg}; set the clock, or let the device reach its enrolment server for signed time"
            raise NotTrusted(Reason.CLOCK_ROLLBACK, msg, clock=now.isoformat(), floor=self.floor.at.isoformat())

    def _load(self) -> Floor:
        """The floor on disk. A damaged file counts as none: the build time still holds, and signed time heals it."""
        nothing = Floor(datetime.min.replace(tzinfo=UTC), "nothing")
        try:
            content = self._path.read_bytes()
            document = json.loads(content) if len(content) <= _MAX_FILE else None
        except (FileNotFoundError, ValueError, RecursionError):
            return nothing
        match document:
            case {"at": str(text), "source": str(source)}:
                try:
                    at = datetime.fromisoformat(text)
                except ValueError:
                    return nothing
                return nothing if at.tzinfo is None else Floor(at.astimezone(UTC), source)
            case _:
                return nothing


class CorrectedClock:
    """The system's clock, moved by what signed time showed to be missing; only ever forward."""

    def __init__(self, system: Clock) -> None:
        self._system = system
        self._missing = timedelta()

    def now(self) -> datetime:
        """The best knowledge of the present, UTC."""
        return self._system.now() + self._missing

    def is_corrected(self) -> bool:
        """Whether the system's clock was found wrong."""
        return bool(self._missing)

    def learn(self, at: datetime) -> None:
        """Signed time says that it is `at` or later."""
        if at > self.now() + _TOLERANCE:
            self._missing += at - self.now()
