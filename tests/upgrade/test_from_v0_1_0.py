"""An installation that v0.1.0 made, with its keystores, database, ledger and devices, opens and serves here.

The old release is not imitated: its sources come out of the git history and run as processes of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.processes import serving
from tests.simulator.programs import succeed
from tests.simulator.running import PLAN
from tests.upgrade.history import ROOT, old_sources
from vagus.records.engine.database import SCHEMA

pytestmark = pytest.mark.process
_SECONDS = 120
_SERVER = "enrol.h1.test.example=127.0.0.1:{}"


@dataclass(frozen=True, slots=True)
class Release:
    """The programs of one release, run from its own sources on one installation folder."""

    sources: Path
    folder: Path

    def run(self, module: str, *arguments: str, **more: str) -> str:
        """One command that must succeed; gives what it printed."""
        ran = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            cwd=self.folder.parent,
            env=self._environment(more),
        )
        assert ran.returncode == 0, f"{module} {' '.join(arguments)}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def vagus(self, *arguments: str) -> str:
        return self.run("vagus", "--dir", str(self.folder), *arguments)

    def enrol(self, state: Path, port: int, token: str) -> None:
        anchors = self.folder.parent / "infra.pem"
        if not anchors.exists():
            self.vagus("ca", "export", "h1/infra", "--out", str(anchors))
        server, where = _SERVER.format(port), str(state)
        given = ("--anchors", str(anchors), "--token", "env:DEVICE_TOKEN")
        self.run("vagus_agent", "--state", where, "enrol", "--server", server, *given, DEVICE_TOKEN=token)

    def token(self, number: int) -> str:
        made: str = json.loads(self.vagus("token", "make", _device(number), "--json"))["token"]
        return made

    def found(self, *options: str) -> list[dict[str, Any]]:
        """What `cert find` shows."""
        shown: list[dict[str, Any]] = json.loads(self.vagus("cert", "find", *options, "--json"))
        return shown

    def states_of(self, number: int) -> list[str]:
        """The states of a device's certificates, found by the device and by the name in them."""
        mine = self.found("--device", _device(number))
        assert self.found("--san", mine[0]["names"][0]) == mine == self.found("--subject", mine[0]["subject"])
        return [str(one["state"]) for one in mine]

    @contextlib.contextmanager
    def serving(self) -> Iterator[dict[str, int]]:
        """`vagus serve` until the block ends; gives the port of each listener."""
        around = self._environment({})
        with serving(self.folder, "--issue-for", "h1/icu,h1/infra", around=around) as served:
            yield {name: port for name, (_, port) in served.addresses.items()}
        assert served.process.returncode == 0

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        secret = {"SECRET": "a passphrase of the test", "VAGUS_PASSPHRASE_SOURCE": "env:SECRET"}
        return {**os.environ, "PYTHONPATH": str(self.sources), **secret, **more}


def _device(number: int) -> str:
    return f"Aorta IP3:AIP3-{number:06d}"


@pytest.fixture
def old_release(tmp_path: Path) -> Iterator[Release]:
    with old_sources() as sources:
        yield Release(sources, tmp_path / "hospital")


def _statuses(release: Release, port: int, states: tuple[Path, ...]) -> list[str]:
    """What OCSP says of each device's certificate, asked and checked by OpenSSL."""
    found = []
    issuer, root = release.folder.parent / "icu.pem", release.folder.parent / "root.pem"
    if not issuer.exists():
        release.vagus("ca", "export", "h1/icu", "--chain", "--out", str(issuer))
        release.vagus("ca", "export", "root", "--out", str(root))
    for state in states:
        files = ("-issuer", issuer, "-cert", state / "current" / "chain.pem", "-CAfile", root, "-verify_other", issuer)
        ran = succeed("openssl", "ocsp", *files, "-url", f"http://127.0.0.1:{port}/ocsp")
        assert "Response verify OK" in ran, ran.text
        found.append(ran.text.splitlines()[0].rpartition(": ")[2])
    return found


def test_an_installation_of_v0_1_0_opens_serves_and_goes_on(old_release: Release, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.replace("count = 3", "count = 9"))
    first, second, third, fourth = (tmp_path / f"device-{number}" for number in range(1, 5))

    # what v0.1.0 leaves behind: two devices, one of them revoked, and a token that no device has used yet
    old_release.vagus("init")
    old_release.vagus("plan", "apply", str(plan), "--ceremony", "--yes")
    with old_release.serving() as ports:
        old_release.enrol(first, ports["enrol"], old_release.token(1))
        old_release.enrol(second, ports["enrol"], old_release.token(2))
    old_release.vagus("device", "revoke", _device(2), "--reason", "keyCompromise", "--yes")
    unused = old_release.token(3)
    before: dict[str, Any] = json.loads(old_release.vagus("audit", "verify", "--json"))
    backup = tmp_path / "backup.vagus"
    old_release.vagus("backup", str(backup))
    seen = tmp_path / "checkpoint"
    seen.write_bytes((old_release.folder / "log" / "checkpoint").read_bytes())

    # this release on the same folder, whose certificates a search finds
    now = Release(ROOT / "src", old_release.folder)
    assert SCHEMA in now.vagus("upgrade")
    assert now.states_of(1) == ["issued"]
    assert now.states_of(2) == ["revoked"]
    assert len(now.found("--unit", "h1/icu", "--category", "infusion-pump", "--algorithm", "p256")) == 2
    (server,) = now.found("--san", "enrol.h1.test.example")
    assert server["profile"] == "tls-server"
    with now.serving() as ports:
        assert _statuses(now, ports["status"], (first, second)) == ["good", "revoked"]
        now.run("vagus_agent", "--state", str(first), "renew", "--force", "--server", _SERVER.format(ports["enrol"]))
        now.enrol(third, ports["enrol"], unused)
        now.enrol(fourth, ports["enrol"], now.token(4))
        assert _statuses(now, ports["status"], (first, third, fourth)) == ["good"] * 3
    now.vagus("device", "revoke", _device(1), "--yes")
    after: dict[str, Any] = json.loads(now.vagus("audit", "verify", "--against", str(seen), "--json"))
    assert after["revocations"] > before["revocations"] == 1
    assert after["certificates"] > before["certificates"]

    # a backup of v0.1.0 is restored by this release
    restored = Release(ROOT / "src", tmp_path / "restored")
    restored.vagus("restore", str(backup))
    assert [restored.states_of(number) for number in (1, 2)] == [["issued"], ["revoked"]]
