"""Waits until a condition holds, for tests of what happens in another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 20.0


def wait_until(is_so: Callable[[], bool], what: str = "what was awaited", seconds: float = PATIENCE) -> None:
    """Ask again and again until it holds; fail with `what` when it never does."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
