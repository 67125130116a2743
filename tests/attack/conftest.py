"""One hospital for all attacks of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulator.attacked import Hospital, build
from tests.simulator.upstreams import Seen, http_upstream


@pytest.fixture(scope="session")
def upstream() -> Iterator[tuple[int, Seen]]:
    """What stands behind the relays, and what it saw."""
    with http_upstream() as found:
        yield found


@pytest.fixture(scope="session")
def seen(upstream: tuple[int, Seen]) -> Seen:
    """What reached the upstream."""
    return upstream[1]


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory, upstream: tuple[int, Seen]) -> Iterator[Hospital]:
    """The hospital that is attacked; at the end it must still be serving, and end well."""
    folder, scratch = tmp_path_factory.mktemp("hospital"), tmp_path_factory.mktemp("scratch")
    with build(folder, scratch, upstream[0]) as attacked:
        yield attacked
        assert attacked.served.process.poll() is None, "an attack ended the server"
    assert attacked.served.process.returncode == 0
    errors = (folder / "serve.log").read_text()
    assert "Traceback" not in errors, errors
