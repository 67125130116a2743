"""A small hospital on disk, made through the command line, and its serving process: the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from tests.simulator import plans
from tests.simulator.processes import Served, serving
from vagus.identifiers import DeviceId
from vagus.wiring import Installation

PASSPHRASE = "a passphrase made for tests alone"
ENVIRONMENT = {**os.environ, "VAGUS_TEST_PASSPHRASE": PASSPHRASE}
SOURCE = "env:VAGUS_TEST_PASSPHRASE"


def plan(count: int, upstream: int) -> str:
    """A hospital with so many pumps in its ICU and a relay to them."""
    control = {"hospital": "h1", "units": ["icu"], "function": "control"}
    return plans.hospital_plan(
        plans.hospital(
            plans.devices("icu", 1, count), plans.devices("er", 50001, 4), title="Test Hospital", units=("icu", "er")
        ),
        listeners=[
            plans.STATUS,
            plans.listener("enrol-h1", "enrolment", "enrol.test.example", hospital="h1"),
            plans.listener("control-h1-icu", "relay-http", "control.test.example", upstream, **control),
        ],
    )


def vagus(folder: Path, *arguments: str) -> str:
    """What `vagus --dir FOLDER ARGUMENTS` prints."""
    command = [sys.executable, "-m", "vagus", "--dir", str(folder), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"vagus {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def found_hospital(folder: Path, plan: str, *options: str) -> None:
    """`vagus init` with these options, and the plan applied with a ceremony."""
    vagus(folder, "init", "--kind", "hospital", "--unsafe-fast-kdf", "--passphrase-source", SOURCE, *options)
    file = folder / "test-plan.toml"
    file.write_text(plan, encoding="utf-8")
    vagus(folder, "plan", "apply", str(file), "--yes", "--ceremony", "--passphrase-source", SOURCE)


def make_installation(folder: Path, *, devices: int, database: str | None = None, upstream: int = 9) -> list[DeviceId]:
    """Plan, hierarchy and inventory of a small hospital; gives the devices of h1/icu."""
    found_hospital(folder, plan(devices, upstream), *(["--database", database] if database else []))
    listed = json.loads(vagus(folder, "device", "list", "--unit", "h1/icu", "--limit", str(devices), "--json"))
    return [DeviceId(row["id"]) for row in listed]


def make_tokens(folder: Path, devices: list[DeviceId]) -> dict[str, str]:
    """A token for each device, made in one process: thousands by the command line would take minutes."""
    with Installation.open(folder, passphrase_sources=[SOURCE]) as installation:
        makings = [installation.tokens.make(device, by="operator:test") for device in devices]
        return {str(device): making.result().text for device, making in zip(devices, makings, strict=True)}


def infrastructure_anchor(folder: Path) -> str:
    """The PEM that a device of h1 pins for its servers."""
    return vagus(folder, "ca", "export", "h1/infra")


def server_that_dies(folder: Path, point: str = "none", nth: int = 1) -> AbstractContextManager[Served]:
    """One run of `tests.durability.server`, which kills itself at the NTH passing of `point`."""
    return serving(folder, point, str(nth), around=ENVIRONMENT, program="tests.durability.server")
