"""What every test may ask for: the public vectors and the budget of a soak; sets no state behind a test's back."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure; and what a landing must pass is the same twice.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")

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
    """How many seconds this soak test may take: the whole budget, shared by the soak tests of the run."""
    items = [item for item in request.session.items if item.get_closest_marker("soak")]
    return float(os.environ.get("SOAK_MINUTES", "10")) * 60 / max(1, len(items))


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of public test vectors, or a skip with its reason."""
    named = os.environ.get("VAGUS_VECTORS")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "vectors"
    if not folder.is_dir():
        pytest.skip("the public vectors are not here; set VAGUS_VECTORS to their folder")
    return folder
