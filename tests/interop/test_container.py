"""The image of deploy/Containerfile: no root, a read-only root file system without any /tmp, one writable folder.

The base image is made by mmdebstrap from Debian's packages, since no registry of images may be in reach.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.simulator import plans
from tests.simulator.commands import PASSPHRASE
from tests.simulator.processes import agent
from tests.simulator.programs import free_port, program
from tests.simulator.waiting import wait_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for mmdebstrap and for files of another account"),
]

ROOT = Path(__file__).parents[2]
UID = 54321
BUILD_SECONDS, RUN_SECONDS = 900.0, 120.0
LIMITS = '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
"""A test machine may not let its root raise a limit to podman's own."""


@dataclass(frozen=True, slots=True)
class Image:
    """The built image, in a storage of its own."""

    folder: Path
    run_folder: Path
    """podman wants a path of at most 50 characters here."""

    def podman(self, *words: str | Path, seconds: float = RUN_SECONDS) -> subprocess.CompletedProcess[str]:
        """One podman command; it never reads this machine's own images."""
        place = ["--root", self.folder / "storage", "--runroot", self.run_folder, "--cgroup-manager", "cgroupfs"]
        command = [program("podman"), *map(str, place), "--runtime", program("runc"), *map(str, words)]
        settings = self.folder / "containers.conf"
        settings.write_text(LIMITS)
        around = {**os.environ, "CONTAINERS_CONF": str(settings)}
        return subprocess.run(command, env=around, capture_output=True, text=True, timeout=seconds, check=False)

    def run(self, options: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
        """As docs/deployment.md runs it, and without podman's own writable folders: /tmp and /run are read-only too."""
        closed = ("--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges")
        return self.podman("run", "--rm", "--network", "host", *closed, *options, "localhost/vagus", *words)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Built from a base of Debian's packages, by the lines of the Containerfile."""
    made = Image(tmp_path_factory.mktemp("image"), Path(tempfile.mkdtemp(prefix="run-")))
    base = made.folder / "base.tar"
    for name in ("podman", "runc"):
        program(name)
    command: list[str | Path] = [
        program("mmdebstrap"),
        "--variant=minbase",
        "--include=python3,python3-venv",
        "bookworm",
        base,
    ]
    bootstrapped = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    if bootstrapped.returncode:
        pytest.skip(f"mmdebstrap finds no Debian packages: {bootstrapped.stderr[-300:]}")
    # the package index as this machine reaches it: its certificate store, mounted while the image is built
    authorities = os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
    settings = made.folder / "pip.conf"
    settings.write_text("[global]\ncert = /etc/ssl/certs/host.pem\n")
    mounts = ("-v", f"{settings}:/etc/pip.conf:ro", "-v", f"{authorities}:/etc/ssl/certs/host.pem:ro")
    options = ("--isolation", "chroot", "--format", "docker", "--network", "host", *mounts)
    try:
        imported = made.podman("import", "--quiet", base, "localhost/vagus-base")
        assert imported.returncode == 0, imported.stderr
        base.unlink()
        file = ("--build-arg", "BASE=localhost/vagus-base", "-f", ROOT / "deploy" / "Containerfile")
        built = made.podman("build", *options, *file, "-t", "localhost/vagus", ROOT, seconds=BUILD_SECONDS)
        assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-4000:]
        yield made
    finally:
        made.podman("rmi", "--all", "--force")
        shutil.rmtree(made.run_folder, ignore_errors=True)


@pytest.fixture
def volumes(tmp_path: Path) -> tuple[str, ...]:
    """The writable folder, the passphrase as a secret of that user, and the plan."""
    data, secret, plan = tmp_path / "data", tmp_path / "secret", tmp_path / "plan.toml"
    data.mkdir(mode=0o700)
    secret.write_text(PASSPHRASE)
    secret.chmod(0o400)
    for path in (data, secret):
        os.chown(path, UID, UID)
    enrol = plans.listener("enrol-h1", "enrolment", "enrol.test.example", hospital="h1")
    plan.write_text(plans.hospital_plan(plans.hospital(plans.devices("icu", 1, 2)), listeners=[plans.STATUS, enrol]))
    return ("-v", f"{data}:/srv/vagus", "-v", f"{secret}:/run/secrets/vagus:ro", "-v", f"{plan}:/plan.toml:ro")


def test_the_image_holds_what_it_needs_and_no_more(image: Image) -> None:
    (facts,) = json.loads(image.podman("image", "inspect", "localhost/vagus").stdout)
    assert facts["Config"]["User"] == f"{UID}:{UID}"
    assert facts["Healthcheck"]["Test"][1] == "python3"
    shell = ("--entrypoint", "/bin/sh")
    listed = image.run(
        shell, "-c", "ls /opt/vagus/bin; /opt/vagus/bin/python -c 'import setuptools'; cat /opt/vagus/vagus.cdx.json"
    )
    assert "No module named 'setuptools'" in listed.stderr
    programs, _, bill = listed.stdout.partition("{")
    assert {"vagus", "vagus-agent"} <= set(programs.split())
    assert not {"pip", "pip3"} & set(programs.split())
    assert json.loads("{" + bill)["metadata"]["component"]["name"] == "vagus"
    for place in ("/tmp/x", "/opt/vagus/x", "/run/x", "/x"):
        assert "Read-only file system" in image.run(shell, "-c", f"touch {place}").stderr


def test_a_secret_with_podmans_own_mode_is_refused_and_nothing_is_made(
    image: Image, volumes: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "secret").chmod(0o444)
    refused = image.run(volumes, "init")
    assert refused.returncode == 2
    assert "PERMISSIONS_TOO_OPEN" in refused.stderr
    assert list((tmp_path / "data").iterdir()) == []


def test_a_first_certificate_comes_from_a_container_with_a_read_only_root(
    image: Image, volumes: tuple[str, ...], tmp_path: Path
) -> None:
    def vagus(*words: str) -> str:
        done = image.run(volumes, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # 1. From nothing to a hierarchy.
    vagus("init", "--unsafe-fast-kdf")
    vagus("plan", "apply", "/plan.toml", "--ceremony", "--yes")
    settings = tmp_path / "data" / "vagus.toml"
    health = free_port()
    settings.write_text(settings.read_text().replace('# health = "127.0.0.1:9470"', f'health = "127.0.0.1:{health}"'))
    # 2. Serve, and let a device enrol with a token.
    name = f"vagus-test-{os.getpid()}"
    started = image.run(("--detach", "--name", name, *volumes))
    assert started.returncode == 0, started.stderr
    try:
        wait_until(lambda: '"ready": true' in image.podman("logs", name).stdout, "it serves", seconds=60)
        ready = json.loads(image.podman("logs", name).stdout.splitlines()[0])
        anchors = tmp_path / "infra.pem"
        anchors.write_text(vagus("ca", "export", "h1/infra"))
        token = json.loads(vagus("token", "make", f"{plans.PUMP}:AIP3-000001", "--json"))["token"]
        server = f"enrol.test.example={ready['listeners']['enrol-h1']}"
        asked = ("enrol", "--server", server, "--anchors", str(anchors), "--token", "env:TOKEN")
        code, said = agent(tmp_path / "device", *asked, TOKEN=token)
        assert code == 0, said
        assert ".icu.h1." in said
        # 3. What sorts and copies works without a /tmp too.
        vagus("backup", "/srv/vagus/copy.tar")
        vagus("audit", "verify")
        published = tmp_path / "data" / "published"
        wait_until((published / "ca" / "h1.icu" / "1.cer").exists, "CA certificates are published")
        # 4. The health check of the image, at the address of this test.
        (facts,) = json.loads(image.podman("image", "inspect", "localhost/vagus").stdout)
        check = [word.replace("9470", str(health)) for word in facts["Healthcheck"]["Test"][1:]]
        assert image.podman("exec", name, *check).returncode == 0
        assert image.podman("exec", name, *(word.replace(str(health), "1") for word in check)).returncode == 1
        # 5. It ends by itself when it is asked to.
        began = time.monotonic()
        assert image.podman("stop", "--time", "30", name).returncode == 0
        assert time.monotonic() - began < 30, "it did not wait to be killed"
    finally:
        image.podman("rm", "--force", name)
    owners = {path.stat().st_uid for path in (tmp_path / "data").rglob("*")}
    assert owners == {UID}
