"""Two gates over one database, devices that stay connected, a third process that revokes: who must go goes in time."""

from __future__ import annotations

import http.client
import random
import ssl
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.simulator.clients import ListenerConnection, Wish, enrol, pinning
from tests.simulator.commands import SOURCE, infrastructure_anchor, make_installation, make_tokens, server_that_dies
from tests.simulator.orders import key_pem
from tests.simulator.processes import Served
from tests.simulator.upstreams import http_upstream
from tests.stall import StallMeter
from vagus.records.authorities import list_authorities
from vagus.wiring import Installation
from vagus.x509.crls.building import RevocationReason

pytestmark = pytest.mark.soak

BOUND = 2.0
"""Seconds from the commit until a connection must be gone (design section 5)."""
DEVICES = 40
LEFT = 12  # devices that are never revoked
BY = "operator:soak"


@dataclass
class Device:
    """One device, its certificate and its open connection."""

    serial: int
    trust: ssl.SSLContext
    address: tuple[str, int]
    line: ListenerConnection | None = None
    is_revoked: bool = False

    def talk(self) -> int:
        """One request on the connection that is open; the status of its answer."""
        if self.line is None:
            self.line = ListenerConnection(self.address, "control.test.example", self.trust)
            self.line.connect()
        self.line.request("GET", "/5")
        answer = self.line.getresponse()
        answer.read()
        return answer.status

    def wait_cut(self) -> float:
        """Seconds until the other side ends the connection."""
        assert self.line is not None
        began = time.monotonic()
        self.line.sock.settimeout(BOUND * 5)
        with suppress(ConnectionError, ssl.SSLError):
            assert self.line.sock.recv(1) == b""
        took = time.monotonic() - began
        self.line.close()
        self.line = None
        return took

    def is_let_in(self) -> bool:
        """Whether a new connection is served."""
        try:
            return self.talk() == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            if self.line is not None:
                self.line.close()
                self.line = None


def test_whoever_is_revoked_is_cut_within_two_seconds_and_nobody_else(
    tmp_path: Path, url: str, soak_seconds: float, soak_seed: int
) -> None:
    folder, dice = tmp_path / "hospital", random.Random(soak_seed)
    with ExitStack() as stack:
        port, _ = stack.enter_context(http_upstream())
        names = make_installation(folder, devices=DEVICES, database=url, upstream=port)
        tokens = make_tokens(folder, names)
        gates = [stack.enter_context(server_that_dies(folder)) for _ in range(2)]
        installation = stack.enter_context(Installation.open(folder, passphrase_sources=[SOURCE]))
        with installation.database.reading() as connection:
            issuer = next(row.id for row in list_authorities(connection) if row.name == "h1/icu")
        anchor = infrastructure_anchor(folder)
        devices = [
            enrolled(anchor, gates[number % 2], str(name), tokens[str(name)], tmp_path / f"{number}.pem")
            for number, name in enumerate(names)
        ]
        with StallMeter() as stalls:
            cuts = watch_cuts(installation, issuer, devices, dice, soak_seconds)
    print(f"cuts: {len(cuts)}, slowest {max(cuts):.2f} s, worst stall of the machine {stalls.worst:.2f} s")  # noqa: T201
    assert len(cuts) >= 40
    assert max(cuts) < BOUND + stalls.worst


def watch_cuts(
    installation: Installation, issuer: int, devices: list[Device], dice: random.Random, seconds: float
) -> list[float]:
    """Revoke, hold and release at random while all good devices go on talking; gives how long each cut took."""
    cuts: list[float] = []
    end = time.monotonic() + max(20.0, min(seconds, 90.0))
    while time.monotonic() < end or len(cuts) < 40:
        good = [device for device in devices if not device.is_revoked]
        for device in good:
            assert device.talk() == 200, "a good device was refused"
        chosen, act = dice.choice(good), "hold"
        if len(good) > LEFT and dice.random() < 0.3:
            act, chosen.is_revoked = "revoke", True
            installation.revocations.revoke(issuer, chosen.serial, RevocationReason.KEY_COMPROMISE, by=BY).result()
        else:
            installation.revocations.hold(issuer, chosen.serial, by=BY).result()
        cuts.append(chosen.wait_cut())
        assert not chosen.is_let_in(), f"after {act} the device is let in again"
        if act == "hold":
            installation.revocations.release(issuer, chosen.serial, by=BY).result()
            asked = time.monotonic()
            while not chosen.is_let_in():
                assert time.monotonic() - asked < BOUND * 5, "a released device stays out"
    for device in devices:
        if device.line is not None:
            device.line.close()
    return cuts


def enrolled(anchor: str, gate: Served, name: str, token: str, file: Path) -> Device:
    """A device with a certificate, and with the gate at which it will stay."""
    trust, shown = pinning(anchor), pinning(anchor)
    wish = Wish(name, token)
    listener = ListenerConnection(gate.addresses["enrol-h1"], "enrol.test.example", trust)
    certificate = x509.load_der_x509_certificate(enrol(listener, wish))
    listener.close()
    file.write_bytes(key_pem(wish.key) + certificate.public_bytes(serialization.Encoding.PEM))
    shown.load_cert_chain(file)
    return Device(certificate.serial_number, shown, gate.addresses["control-h1-icu"])
