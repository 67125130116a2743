"""One hospital for the whole session; each test brings the relying party."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulator.listeners import judge
from tests.simulator.relying import Bearer, Hospital
from tests.simulator.relying import hospital as made_hospital

__all__ = ["judge"]


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """Served on loopback by `vagus serve`, with everybody below enrolled."""
    with made_hospital(tmp_path_factory.mktemp("hospital")) as made:
        yield made


@pytest.fixture(scope="session")
def pump(hospital: Hospital) -> Bearer:
    """A good device of h1/icu, in the second shard."""
    return hospital.enrol("pump")


@pytest.fixture(scope="session")
def early(hospital: Hospital) -> Bearer:
    """A good device of h1/icu from before the first shard was full."""
    return hospital.bearer("early")


@pytest.fixture(scope="session")
def revoked(hospital: Hospital) -> Bearer:
    """A device of h1/icu whose key was compromised: in its list, known to every listener."""
    bearer = hospital.enrol("revoked")
    hospital.revoke(bearer)
    return bearer


@pytest.fixture(scope="session")
def er_pump(hospital: Hospital) -> Bearer:
    """A good device of another unit."""
    return hospital.enrol("er-pump", "h1/er")


@pytest.fixture(scope="session")
def pacemaker(hospital: Hospital) -> Bearer:
    """An implant: TLS 1.3 alone."""
    return hospital.enrol("pacemaker", "h1/remote-care")


@pytest.fixture(scope="session")
def web(hospital: Hospital) -> Bearer:
    """What the gateway shows as a server, under the infrastructure CA."""
    return hospital.enrol("web", "h1/icu/gate", label="server")
