"""How long the machine itself stood still: what a bound on a delay must leave room for, and no more."""

from __future__ import annotations

import threading
import time
from typing import Self

_NAP = 0.01


class StallMeter:
    """A thread that sleeps 10 ms again and again and notes how late it wakes: what holds it up holds up everybody."""

    def __init__(self) -> None:
        self._naps: list[tuple[float, float]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._nap, name="stall-meter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _nap(self) -> None:
        while not self._is_over.is_set():
            begun = time.monotonic()
            time.sleep(_NAP)
            self._naps.append((begun, time.monotonic()))

    @property
    def worst(self) -> float:
        """By how much the longest sleep was too long."""
        return max((end - begin - _NAP for begin, end in tuple(self._naps)), default=0.0)

    def seconds(self, since: float, until: float) -> float:
        """By how much its sleeps between the two moments of `time.monotonic` were too long, all together."""
        time.sleep(2 * _NAP)  # the sleep that was under way at `until` has ended
        return sum(max(0.0, end - begin - _NAP) for begin, end in tuple(self._naps) if end > since and begin < until)
