"""The one way to ask for time and randomness; the real sources are made in `components.py`, never here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeAlias

Entropy: TypeAlias = Callable[[int], bytes]
"""Gives the asked-for number of unpredictable bytes (NIST SP 800-90A strength)."""


class Clock(Protocol):
    """A source of the present time."""

    def now(self) -> datetime:
        """The present moment, timezone-aware, in UTC."""
        ...
