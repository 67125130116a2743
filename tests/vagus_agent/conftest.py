"""A hospital made once, and a device that trusts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.simulator.est_server import Hierarchy, Server
from vagus.testing import FrozenClock, SeededEntropy
from vagus_agent.device import Device
from vagus_agent.routes import Patience
from vagus_agent.state import Orders, StateFolder

MakeDevice = Callable[..., Device]


def write_papers(folder: Path, hierarchy: Hierarchy) -> None:
    """What a new device is given: the anchors, and the maker's certificate with its key."""
    idevid = hierarchy.idevid()
    (folder / "anchors.pem").write_bytes(hierarchy.infrastructure.pem)
    (folder / "idevid.pem").write_bytes(idevid.chain_pem)
    (folder / "idevid-key.pem").write_bytes(idevid.key_pem)


@pytest.fixture(scope="session")
def hierarchy() -> Hierarchy:
    return Hierarchy()


@pytest.fixture
def server(hierarchy: Hierarchy) -> Iterator[Server]:
    with Server(hierarchy) as running:
        yield running


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def make_device(tmp_path: Path, hierarchy: Hierarchy, server: Server, clock: FrozenClock) -> MakeDevice:
    """Builds a device in one folder with pinned anchors and the maker's certificate; call again for a restart."""

    def make(*, has_idevid: bool = True, crash_point: Callable[[str], None] | None = None, **orders: object) -> Device:
        folder = StateFolder(tmp_path / "state")
        folder.create()
        write_papers(tmp_path, hierarchy)
        folder.keep_anchors(tmp_path / "anchors.pem")
        if has_idevid and folder.find_idevid() is None:
            folder.keep_idevid(tmp_path / "idevid.pem", tmp_path / "idevid-key.pem")
        told = {"server": server.route(), "relay": server.route(), "category": "infusion-pump", **orders}
        return Device(
            folder,
            Orders(**told),  # type: ignore[arg-type]
            system_clock=clock,
            entropy=SeededEntropy(1),
            patience=Patience(connect=5, response=5),
            crash_point=crash_point or (lambda _name: None),
        )

    return make


@pytest.fixture
def device(make_device: MakeDevice) -> Device:
    """A device that has enrolled."""
    made = make_device()
    made.enrol()
    return made
