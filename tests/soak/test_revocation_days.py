"""A simulated day of revocations, holds and kills on two servers: nothing late, nothing lost, nobody wronged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.revocation_days import Days, told

FULL_DAY_SECONDS = 900
"""What 24 simulated hours with all their acts and kills take on two cores."""


@pytest.mark.soak(weight=3)
def test_a_day_of_up_to_5000_acts_and_50_kills(tmp_path: Path, url: str, soak_seed: int, soak_seconds: float) -> None:
    """As much of the day as the soak's time allows: acts, hours and kills in the same proportion."""
    part = min(1.0, soak_seconds / FULL_DAY_SECONDS)
    acts, kills = int(5000 * part), max(7, int(50 * part))
    days = Days(tmp_path / "vagus", url, soak_seed, acts=acts, hours=24 * part, kills=kills)
    with told(days):
        days.run()
    assert sum(days.killed.values()) == kills
    assert sum(days.done.values()) + days.undone == acts
    assert days.undone * 2 < kills
    assert days.worst_delay <= 60


@pytest.mark.process
def test_six_minutes_of_21_acts_and_7_kills(tmp_path: Path, soak_seed: int) -> None:
    days = Days(tmp_path / "vagus", f"sqlite:///{tmp_path / 'vagus.sqlite3'}", soak_seed, acts=21, hours=0.1, kills=7)
    with told(days):
        days.run()
    assert set(days.killed.values()) == {1}
    assert sum(days.done.values()) >= 14
