"""Dates added up without leaving the calendar: certificates that never end say 99991231235959Z; knows no clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_LAST = datetime.max.replace(tzinfo=UTC)


def later(moment: datetime, span: timedelta) -> datetime:
    """`moment` and `span` more, at most the last moment of year 9999."""
    try:
        return moment + span
    except OverflowError:
        return _LAST
