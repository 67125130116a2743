"""A hospital made once, and a device that trusts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.est_server import Hierarchy, Server
from vagus.testing import FrozenClock, SeededEntropy
from vagus_agent.device import Device
from vagus_agent.routes import Patience
from vagus_agent.state import Orders, StateFolder


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


class Ward:
    """A server to enrol at, a clock, and the folder of one device that trusts the server."""

    def __init__(self, folder: Path, hierarchy: Hierarchy, server: Server, clock: FrozenClock) -> None:
        self.folder, self.hierarchy, self.server, self.clock = folder, hierarchy, server, clock
        self.behaviour = server.behaviour

    def device(self, *, has_idevid: bool = True, **orders: object) -> Device:
        """The device with pinned anchors and the maker's certificate; call again for a restart."""
        folder = StateFolder(self.folder / "state")
        folder.create()
        write_papers(self.folder, self.hierarchy)
        folder.keep_anchors(self.folder / "anchors.pem")
        if has_idevid and folder.find_idevid() is None:
            folder.keep_idevid(self.folder / "idevid.pem", self.folder / "idevid-key.pem")
        route = self.server.route()
        given = Orders(**{"server": route, "relay": route, "category": "infusion-pump", **orders})  # type: ignore[arg-type]
        patience = Patience(connect=5, response=5)
        return Device(folder, given, system_clock=self.clock, entropy=SeededEntropy(1), patience=patience)

    def enrolled(self, **orders: object) -> Device:
        """The device with a certificate."""
        made = self.device(**orders)  # type: ignore[arg-type]
        made.enrol()
        return made

    def pass_time(self, **by: float) -> None:
        """For the device and the server alike."""
        self.behaviour.now = self.clock.advance(**by)


@pytest.fixture
def ward(tmp_path: Path, hierarchy: Hierarchy, server: Server, clock: FrozenClock) -> Ward:
    return Ward(tmp_path, hierarchy, server, clock)
