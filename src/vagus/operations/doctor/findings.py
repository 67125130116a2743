"""What the doctor's checks find, and how they spell it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class State(StrEnum):
    """How a check came out. The word for healthy is `well` in JSON."""

    WELL = "well"
    WARNING = "warning"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table; `remedy` is empty where all is healthy."""

    check: str
    state: State
    finding: str
    remedy: str = ""


def spell_time(seconds: int) -> str:
    """Seconds since 1970 UTC, to the minute."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}Z"


def some_of(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
