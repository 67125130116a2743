"""An installation with its hierarchy for the tests of this package, and one that publishes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import fresh_database, postgres_server
from tests.simulator.installation import Installation, new_installation
from tests.simulator.publishing import clinic, template

__all__ = ["built", "clinic", "database_url", "installation", "postgres", "template"]


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


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.interop)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database that other processes may open too and that survives the process that made it."""
    if request.param == "file":
        yield f"sqlite:///{tmp_path / 'vagus.sqlite3'}"
    else:
        with fresh_database(request.getfixturevalue("postgres")) as url:
            yield url
