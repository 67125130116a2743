"""What the tests of the fleet act on: a stock of devices, and a hospital that enrols them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulator.enrolment import Site, new_site
from tests.simulator.stock import Stock, stock


@pytest.fixture(scope="module")
def hospital() -> Iterator[Site]:
    """One for all tests of a module."""
    with new_site() as built:
        yield built


@pytest.fixture
def site() -> Iterator[Stock]:
    """A fresh inventory."""
    with stock() as built:
        yield built
