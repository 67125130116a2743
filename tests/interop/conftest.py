"""One hospital for the whole session; each test brings the relying party."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulator.listeners import judge
from tests.simulator.relying import Bearer, Hospital
from tests.simulator.relying import hospital as made_hospital
from tests.simulator.upstreams import seen, upstream

__all__ = ["judge", "seen", "upstream"]


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """Served on loopback by `vagus serve`, with everybody below enrolled."""
    with made_hospital(tmp_path_factory.mktemp("hospital")) as made:
        yield made


def _enrolled(name: str, unit: str = "h1/icu", label: str | None = None) -> Any:
    """The fixture of a device of that unit, whose files have that name."""
    return pytest.fixture(scope="session")(lambda hospital: hospital.enrol(name, unit, label=label))


pump = _enrolled("pump")
"""A good device of h1/icu, in the second shard."""
er_pump = _enrolled("er-pump", "h1/er")
"""A good device of another unit."""
pacemaker = _enrolled("pacemaker", "h1/remote-care")
"""An implant: TLS 1.3 alone."""
web = _enrolled("web", "h1/icu/gate", "server")
"""What the gateway shows as a server, under the infrastructure CA."""


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
