"""Sums of dates that stay within the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vagus.x509.dates import later

END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_a_sum_within_the_calendar_is_exact_and_beyond_it_ends_with_it() -> None:
    assert later(END - timedelta(days=2), timedelta(days=1)) == END - timedelta(days=1)
    assert later(END, timedelta(minutes=5)) == datetime.max.replace(tzinfo=UTC)
