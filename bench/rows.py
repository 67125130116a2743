"""One measured row, and how to measure CPU rates that other load on the machine hardly moves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure beside the limit or peer that was measured in the same run.

    `ratio` is figure / limit for rates and limit / figure for durations: larger is better. `bar` is the figure that
    design section 9 asks for on its reference machine, None where it asks for a ratio or nothing. The ratio is what is
    judged: where `reference_limit` has the limit of that machine, the bar is scaled by what it is here.
    """

    path: str
    figure: float
    unit: str
    limit_name: str
    limit: float
    is_rate: bool = True
    bar: float | None = None
    bar_ratio: float | None = None
    reference_limit: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """How close to the limit: 1.0 is the limit itself."""
        return self.figure / self.limit if self.is_rate else self.limit / self.figure

    @property
    def bar_here(self) -> float | None:
        """The bar on this machine, which other work may share: scaled as the limit is."""
        if self.bar is None or self.reference_limit is None:
            return self.bar
        return self.bar * self.limit / self.reference_limit

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is met here; None where there is no bar."""
        if self.bar_ratio is not None:
            return self.ratio >= self.bar_ratio
        bar = self.bar_here
        if bar is not None:
            return self.figure >= bar if self.is_rate else self.figure <= bar
        return None

    def as_json(self) -> dict[str, object]:
        """What the result file holds."""
        return {**asdict(self), "ratio": round(self.ratio, 4), "bar_here": self.bar_here, "is_met": self.is_met}


def cpu_rate(act: Callable[[], object], *, seconds: float = 0.6, rounds: int = 5) -> float:
    """How often `act` runs per second of this process's CPU: the median of `rounds` runs of `seconds` each."""
    act()
    rates = []
    for _round in range(rounds):
        count, start = 0, time.process_time()
        while (spent := time.process_time() - start) < seconds:
            act()
            count += 1
        rates.append(count / spent)
    return statistics.median(rates)
