"""An installation with its hierarchy for the tests of this package, and one that publishes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.installation import Installation, new_installation
from tests.simulator.publishing import clinic, template

__all__ = ["built", "clinic", "installation", "template"]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """Nothing but an empty database."""
    with new_installation(tmp_path) as new:
        yield new


@pytest.fixture
def built(installation: Installation) -> Installation:
    """Root, three branches and two units, certified; the units' authorities are open."""
    installation.build()
    assert installation.units
    return installation
