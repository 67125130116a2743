"""A simulated day of revocations, holds and kills on two servers: nothing late, nothing lost, nobody wronged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.revocation_days import Days, told


@pytest.mark.soak
def test_a_day_of_5000_acts_and_50_kills(tmp_path: Path, url: str, soak_seed: int) -> None:
    days = Days(tmp_path / "house", url, soak_seed, acts=5000, hours=24, kills=50)
    with told(days):
        days.run()
    assert sum(days.killed.values()) == 50
    assert sum(days.done.values()) + days.undone == 5000
    assert days.undone < 25
    assert days.worst_delay <= 60


def test_six_minutes_of_21_acts_and_7_kills(tmp_path: Path, soak_seed: int) -> None:
    days = Days(tmp_path / "house", f"sqlite:///{tmp_path / 'vagus.sqlite3'}", soak_seed, acts=21, hours=0.1, kills=7)
    with told(days):
        days.run()
    assert set(days.killed.values()) == {1}
    assert sum(days.done.values()) >= 14
