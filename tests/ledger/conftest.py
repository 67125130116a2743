"""The small installation that ledger tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.log import LogFixture


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogFixture]:
    """An installation in memory that publishes into a folder of the test."""
    made = LogFixture.make(tmp_path)
    yield made
    made.close()
