"""Checks, before a CRL is dated, that the clock is not ahead, by other sources of time; sets no clock.

Relying parties refuse a CRL from the future until its date has come. They then also refuse each CRL that is dated
before it. So one hour of a clock that is a month ahead makes an authority unusable for a month.

Two sources are used. The database server's clock, if there is a server. And `elapsed`, which is a monotonic clock:
since the last check, the clock can have gained no more than what has elapsed, and `LEAP`.
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
"""By how much a clock may jump ahead under a running process, as when a virtual machine was paused."""


class ClockBound:
    """Compares a clock with the database server's and with `elapsed`, monotonic seconds that no operator can set.

    Limit: a process over SQLite that starts with a wrong clock has nothing to compare it with.
    """

    def __init__(self, database: Database, clock: Clock, elapsed: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._elapsed = elapsed
        self._seen = clock.now(), elapsed()

    def check(self) -> None:
        """Raises Unavailable(CLOCK_AHEAD) while the clock is ahead of what it can be; otherwise remembers this reading.

        The database's clock does not excuse a jump: it may run on the same machine, or be set by the same operator.
        """
        self._seen = self._measure()

    def check_only(self) -> None:
        """As `check`, for monitoring: the reading is not remembered, so repeated calls allow no larger jump."""
        self._measure()

    def _measure(self) -> tuple[datetime, float]:
        now, elapsed = self._clock.now(), self._elapsed()
        before, elapsed_before = self._seen
        latest = before + timedelta(seconds=elapsed - elapsed_before)
        if now > latest + LEAP:
            msg = f"the clock shows {now:%Y-%m-%d %H:%M:%S}Z, but by elapsed time it is {latest:%Y-%m-%d %H:%M}Z"
            raise Unavailable(
                Reason.CLOCK_AHEAD,
                f"{msg}, so no CRL is dated; set the clock, or restart this process if the clock is right now",
            )
        with self._database.reading() as connection:
            theirs = read_clock(connection)
        if theirs is not None and now > theirs + SLACK:
            msg = (
                f"the clock here shows {now:%Y-%m-%d %H:%M:%S}Z, the database's "
                f"{theirs.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
            )
            raise Unavailable(Reason.CLOCK_AHEAD, f"{msg}; set the wrong clock, for until then no CRL is dated")
        return now, elapsed
