"""200 kills on SQLite and 50 on PostgreSQL lose nothing that was answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durability.campaign import BETWEEN, Campaign
from tests.durability.clients import LEFT_OPEN
from tests.postgres import fresh_database, postgres_server

pytestmark = [pytest.mark.soak, pytest.mark.filterwarnings(LEFT_OPEN)]


def test_200_kills_on_sqlite_lose_nothing(tmp_path: Path, soak_seed: int) -> None:
    campaign = Campaign(tmp_path / "hospital", kills=200, seed=soak_seed)
    campaign.run()
    assert sum(campaign.windows[point] for point in BETWEEN) * 3 >= 200


def test_50_kills_on_postgresql_lose_nothing(tmp_path: Path, soak_seed: int) -> None:
    with postgres_server() as server, fresh_database(server) as url:
        campaign = Campaign(tmp_path / "hospital", kills=50, seed=soak_seed, database=url)
        campaign.run()
        assert sum(campaign.windows[point] for point in BETWEEN) * 3 >= 50
