"""A simulated day of revocations, holds and crashes on two servers: nothing late, nothing lost, nobody wronged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.revocation_days import Days, told

# a crash is the death of the writing thread, in the middle of a batch
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.mark.soak
def test_a_day_of_5000_acts_and_50_crashes(tmp_path: Path, url: str, soak_seed: int) -> None:
    days = Days(tmp_path / "house", url, soak_seed, acts=5000, hours=24, crashes=50)
    with told(days):
        days.run()
    assert sum(days.crashed.values()) == 50
    assert sum(days.done.values()) >= 5000 - 50
    assert days.worst_delay <= 60


def test_ten_minutes_of_40_acts_and_6_crashes(tmp_path: Path, soak_seed: int) -> None:
    days = Days(
        tmp_path / "house", f"sqlite:///{tmp_path / 'vagus.sqlite3'}", soak_seed, acts=40, hours=0.17, crashes=6
    )
    with told(days):
        days.run()
    assert sum(days.crashed.values()) == 6
    assert sum(days.done.values()) >= 34
