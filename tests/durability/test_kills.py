"""Ten kills in the middle of enrolment and revocation lose nothing that was answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durability.campaign import BETWEEN, Campaign
from tests.simulator.clients import LEFT_OPEN

pytestmark = pytest.mark.process


@pytest.mark.filterwarnings(LEFT_OPEN)
def test_nothing_that_was_answered_is_lost_in_ten_kills(tmp_path: Path, soak_seed: int) -> None:
    campaign = Campaign(tmp_path / "hospital", kills=10, seed=soak_seed)
    campaign.run()
    assert sum(campaign.windows.values()) == 10
    assert sum(campaign.windows[point] for point in BETWEEN) * 3 >= 10
