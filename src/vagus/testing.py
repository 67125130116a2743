"""A clock that is set by hand and entropy that repeats, for tests and simulations; never used to serve."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

NOON = datetime(2027, 3, 1, 12, 0, 0, tzinfo=UTC)


class FrozenClock:
    """A clock that moves only when `advance` or `set` is called."""

    def __init__(self, at: datetime = NOON) -> None:
        self._at = at

    def now(self) -> datetime:
        """The time that was set last."""
        return self._at

    def advance(self, **by: float) -> datetime:
        """Move on by a timedelta's keywords (`days=60`) and return the new time."""
        self._at += timedelta(**by)
        return self._at

    def set(self, at: datetime) -> None:
        """Jump, also backwards."""
        self._at = at


class SeededEntropy:
    """Bytes that repeat from a seed: two runs of a test draw the same serials. Never for real keys."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def __call__(self, count: int) -> bytes:
        """The next `count` bytes."""
        return self._random.randbytes(count)
