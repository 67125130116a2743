"""A small hospital on disk, made through the command line, and its serving process: the real thing."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from tests.simulator import plans
from vagus.identifiers import DeviceId
from vagus.wiring import Installation

PASSPHRASE = "a passphrase made for tests alone"
ENVIRONMENT = {**os.environ, "VAGUS_TEST_PASSPHRASE": PASSPHRASE}
SOURCE = "env:VAGUS_TEST_PASSPHRASE"
START_SECONDS = 60


def plan(count: int, upstream: int) -> str:
    """A hospital with so many pumps in its ICU and a relay to them."""
    return plans.hospital_plan(
        plans.hospital(
            plans.devices("icu", 1, count), plans.devices("er", 50001, 4), title="Test Hospital", units=("icu", "er")
        ),
        listeners=[
            plans.STATUS,
            plans.listener("enrol-h1", "enrolment", "enrol.test.example", hospital="h1"),
            plans.listener(
                "control-h1-icu",
                "relay-http",
                "control.test.example",
                upstream,
                hospital="h1",
                units=["icu"],
                function="control",
            ),
        ],
    )


def vagus(folder: Path, *arguments: str, expected: int = 0) -> str:
    """What `vagus --dir FOLDER ARGUMENTS` prints."""
    command = [sys.executable, "-m", "vagus", "--dir", str(folder), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == expected, f"vagus {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def found_hospital(folder: Path, plan: Path | str, *options: str) -> None:
    """`vagus init` with these options, and the plan applied with a ceremony."""
    vagus(folder, "init", "--kind", "hospital", "--unsafe-fast-kdf", "--passphrase-source", SOURCE, *options)
    file = folder / "test-plan.toml" if isinstance(plan, str) else plan
    if isinstance(plan, str):
        file.write_text(plan, encoding="utf-8")
    vagus(folder, "plan", "apply", str(file), "--yes", "--ceremony", "--passphrase-source", SOURCE)


def make_installation(folder: Path, *, devices: int, database: str | None = None, upstream: int = 9) -> list[DeviceId]:
    """Plan, hierarchy and inventory of a small hospital; gives the devices of h1/icu."""
    found_hospital(folder, plan(devices, upstream), *(["--database", database] if database else []))
    listed = json.loads(vagus(folder, "device", "list", "--unit", "h1/icu", "--limit", str(devices), "--json"))
    rows = listed if isinstance(listed, list) else listed["devices"]
    return [DeviceId(row["id"]) for row in rows]


def make_tokens(folder: Path, devices: list[DeviceId]) -> dict[str, str]:
    """A token for each device, made in one process: thousands by the command line would take minutes."""
    with Installation.open(folder, passphrase_sources=[SOURCE]) as installation:
        makings = [installation.tokens.make(device, by="operator:test") for device in devices]
        return {str(device): making.result().text for device, making in zip(devices, makings, strict=True)}


def infrastructure_anchor(folder: Path) -> str:
    """The PEM that a device of h1 pins for its servers."""
    return vagus(folder, "ca", "export", "h1/infra")


class ServerProcess:
    """One run of `tests.durability.server`."""

    def __init__(self, folder: Path, point: str = "none", nth: int = 1) -> None:
        self._errors = (folder / "server.err").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.durability.server", str(folder), point, str(nth)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.addresses: dict[str, tuple[str, int]] = {}

    def wait_ready(self) -> bool:
        """Whether it came up; False when it died on the way."""
        try:
            line = self._lines.get(timeout=START_SECONDS)
        except queue.Empty:
            line = ""
        if not line:
            return False
        for name, address in json.loads(line)["listeners"].items():
            host, _, port = address.rpartition(":")
            self.addresses[name] = (host, int(port))
        return True

    def revoke(self, device: str) -> bool:
        """Revoke a device's certificates; False when the server died before it said so."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(f"revoke {device}\n")
            self._process.stdin.flush()
            return self._lines.get(timeout=START_SECONDS) == f"revoked {device}\n"
        except (OSError, queue.Empty):
            return False

    def has_ended(self) -> bool:
        """Whether it died by itself."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL, as a power switch would; also tidies up after a server that killed itself."""
        self._process.kill()
        self._close()

    def stop(self) -> int:
        """SIGTERM and wait; gives the exit code."""
        self._process.terminate()
        return self._close()

    def _close(self) -> int:
        code = self._process.wait(START_SECONDS)
        self._reader.join()
        self._errors.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")
