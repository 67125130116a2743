"""Whether the clock can be right, by what else tells time, before a list is dated; sets no clock.

A list from the future is refused by everybody until then, and so is each one that is dated before it: one hour of a
wrong clock may silence an authority for a month.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vagus.errors import Unavailable
from vagus.reasons import Reason
from vagus.records.engine.server_clock import read_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from vagus.clock import Clock
    from vagus.records.engine.database import Database

SLACK = timedelta(minutes=5)
"""How far two machines' clocks may differ."""
LEAP = timedelta(hours=1)
"""How far a clock may be set ahead under a running process: a virtual machine that was paused finds it so."""


class ClockBound:
    """Compares a clock with the database server's and with `elapsed`, seconds that nobody can set.

    A process that begins with a wrong clock over SQLite has nothing to compare it with.
    """

    def __init__(self, database: Database, clock: Clock, elapsed: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._elapsed = elapsed
        self._seen = clock.now(), elapsed()

    def check(self) -> None:
        """Raises Unavailable(CLOCK_AHEAD) while the clock is ahead of what it can be; the next check goes on from here.

        That the database's clock agrees excuses no leap: it may be the same machine's, or be set by whoever set ours.
        """
        self._seen = self._measure()

    def check_only(self) -> None:
        """As `check`, for those who only tell: however often it is called, no leap more is forgiven."""
        self._measure()

    def _measure(self) -> tuple[datetime, float]:
        now, elapsed = self._clock.now(), self._elapsed()
        before, elapsed_before = self._seen
        latest = before + timedelta(seconds=elapsed - elapsed_before)
        if now > latest + LEAP:
            msg = (
                f"the clock shows {now:%Y-%m-%d %H:%M:%S}Z, but by the time that passed it is {latest:%Y-%m-%d %H:%M}Z"
            )
            raise Unavailable(Reason.CLOCK_AHEAD, f"{msg}; set it, or restart this process if it is right now")
        with self._database.reading() as connection:
            theirs = read_clock(connection)
        if theirs is not None and now > theirs + SLACK:
            msg = (
                f"the clock shows {now:%Y-%m-%d %H:%M:%S}Z, the database's {theirs.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
            )
            raise Unavailable(Reason.CLOCK_AHEAD, f"{msg}; set the one that is wrong, nothing is dated meanwhile")
        return now, elapsed
