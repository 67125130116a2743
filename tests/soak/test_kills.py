"""Up to 200 kills on SQLite and 50 on PostgreSQL: everything that the server responded with is still there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durability.campaign import BETWEEN, Campaign
from tests.postgres import database_of_kind
from tests.simulator.clients import LEFT_OPEN

pytestmark = pytest.mark.filterwarnings(LEFT_OPEN)


@pytest.mark.soak(weight=2)
def test_up_to_200_kills_on_sqlite_lose_nothing(tmp_path: Path, soak_seed: int, soak_seconds: float) -> None:
    _kill_many(Campaign(tmp_path / "hospital", kills=200, seed=soak_seed), soak_seconds)


@pytest.mark.soak
def test_up_to_50_kills_on_postgresql_lose_nothing(tmp_path: Path, soak_seed: int, soak_seconds: float) -> None:
    with database_of_kind("postgresql", tmp_path) as url:
        _kill_many(Campaign(tmp_path / "hospital", kills=50, seed=soak_seed, database=url), soak_seconds)


def _kill_many(campaign: Campaign, seconds: float) -> None:
    """At least a third of the kills fall between an intent's commit and the response."""
    campaign.run(seconds)
    assert campaign.windows.total() >= 10
    assert sum(campaign.windows[point] for point in BETWEEN) * 3 >= campaign.windows.total()
