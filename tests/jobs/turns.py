"""A turn of a periodic task that lasts until a test ends it."""

from __future__ import annotations

import threading

PATIENCE = 10.0


class LongTurn:
    """An act that counts its turns; each lasts until `end` was called."""

    def __init__(self) -> None:
        self.turns = 0
        self._begun, self._may_end = threading.Event(), threading.Event()
        self.end = self._may_end.set

    def __call__(self) -> None:
        self.turns += 1
        self._begun.set()
        self._may_end.wait(PATIENCE)

    def wait_begun(self) -> None:
        assert self._begun.wait(PATIENCE)
