"""Installations on disk, made through the command line as an operator makes them; measures nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select
from tests.simulator import plans

from vagus.identifiers import DeviceId
from vagus.records.engine.tables import devices
from vagus.wiring import Installation

PASSPHRASE = "a passphrase made for benchmarks alone"
ENVIRONMENT = {**os.environ, "VAGUS_BENCH_PASSPHRASE": PASSPHRASE}
SOURCE = "env:VAGUS_BENCH_PASSPHRASE"
GROUP = "bench.example"
ENROL_HOST = f"enrol.{GROUP}"
UNIT = "h1/icu"
MODEL = "Aorta IP3"


def _hospital_plan(devices: int, port: int) -> str:
    return plans.hospital_plan(
        plans.hospital(
            plans.devices("icu", 1, devices), plans.devices("icu", 1, 1, plans.GATEWAY), title="Bench Hospital"
        ),
        title="Bench Group",
        domain=GROUP,
        status_url=f"http://127.0.0.1:{port}",
        models=[plans.model(), plans.model(plans.GATEWAY, "Keystone", "device-gateway", "KGW")],
        listeners=[
            {**plans.STATUS, "address": f"127.0.0.1:{port}"},
            plans.listener(
                "enrol-h1",
                "enrolment",
                ENROL_HOST,
                hospital="h1",
                registration_authorities=[f"{plans.GATEWAY}:KGW-000001"],
            ),
        ],
    )


def vagus(folder: Path, *arguments: str) -> str:
    """What `vagus --dir FOLDER ARGUMENTS` prints. Raises RuntimeError with its words when it fails."""
    command = [sys.executable, "-m", "vagus", "--dir", str(folder), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"vagus {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@contextmanager
def hospital(devices: int, database: str = "sqlite:///vagus.sqlite3") -> Iterator[Path]:
    """A hospital of one unit with so many pumps and one gateway that is a registration authority."""
    with _installed("hospital", _hospital_plan(devices, free_port()), database) as folder:
        yield folder


@contextmanager
def maker() -> Iterator[Path]:
    """A maker with its line CA."""
    with _installed(
        "maker",
        plans.maker_plan(batches=[plans.batch(4_000)], status_url="http://status.aorta.example"),
        "sqlite:///vagus.sqlite3",
    ) as folder:
        yield folder


@contextmanager
def _installed(kind: str, plan: str, database: str) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix="vagus-bench-"))
    try:
        folder = scratch / kind
        begin = ("init", "--kind", kind, "--database", database, "--unsafe-fast-kdf", "--passphrase-source", SOURCE)
        vagus(folder, *begin)
        (scratch / "plan.toml").write_text(plan)
        apply = ("plan", "apply", str(scratch / "plan.toml"), "--yes", "--ceremony", "--passphrase-source", SOURCE)
        vagus(folder, *apply)
        yield folder
    finally:
        shutil.rmtree(scratch)


def open_installation(folder: Path) -> Installation:
    """The installation in this process."""
    os.environ["VAGUS_BENCH_PASSPHRASE"] = PASSPHRASE
    return Installation.open(folder, passphrase_sources=[SOURCE])


def free_port() -> int:
    """A free port of the loopback address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def devices_of(installation: Installation, model: str) -> list[DeviceId]:
    """The devices of a model, in the order of their identifiers."""
    with installation.database.reading() as connection:
        query = select(devices.c.id).where(devices.c.model == model).order_by(devices.c.id)
        return [DeviceId(found) for found in connection.execute(query).scalars()]
