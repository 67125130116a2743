"""Fixtures for every test: the public test vectors, the seed of a soak and its share of the soak's time."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: a busy machine is no failure. In CI the examples are the same in every run.
settings.register_profile("vagus", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("vagus")

_SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


def pytest_report_header() -> list[str]:
    """The seed, so that a failed soak can be run again: `make soak SOAK_SEED=…`."""
    return [f"soak seed {_SEED}, {os.environ.get('SOAK_MINUTES', '10')} minutes"]


@pytest.fixture(scope="session")
def soak_seed() -> int:
    """The seed of this run."""
    return _SEED


@pytest.fixture
def soak_seconds(request: pytest.FixtureRequest) -> float:
    """How many seconds this soak test may take: SOAK_MINUTES, shared by the soak tests of the run by their weights."""
    weights = {
        item: mark.kwargs.get("weight", 1) for item in request.session.items for mark in item.iter_markers("soak")
    }
    part: float = weights[request.node] / sum(weights.values())
    return float(os.environ.get("SOAK_MINUTES", "10")) * 60 * part


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of public test vectors, or a skip with its reason."""
    named = os.environ.get("VAGUS_VECTORS")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "vectors"
    if not folder.is_dir():
        pytest.skip("the public vectors are not here; set VAGUS_VECTORS to their folder")
    return folder
