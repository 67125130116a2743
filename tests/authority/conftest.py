"""An installation with its hierarchy for every test of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.authority.installation import Installation, new_installation


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """Nothing but an empty database."""
    with new_installation(tmp_path) as new:
        yield new


@pytest.fixture
def built(installation: Installation) -> Installation:
    """Root, three branches and two units, certified."""
    installation.build()
    return installation
