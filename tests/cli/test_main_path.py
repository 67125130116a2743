"""The main path with real processes and sockets: plan, ceremony, serve, enrol, relay, revoke, refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import PLAN, done, run

SOURCES = [str(Path(__file__).parents[2] / "src")]
PATIENCE = 60
POLL = 1.0  # another process looks for revocations every 250 ms, and says nothing when it has looked


class Upstream(BaseHTTPRequestHandler):
    """Takes telemetry and notes who sent it."""

    seen: list[str | None]

    def do_POST(self) -> None:
        """One batch of lines."""
        self.rfile.read(int(self.headers["content-length"]))
        self.seen.append(self.headers["client-cert"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@dataclass(slots=True)
class Served:
    """A hospital that serves."""

    folder: Path
    process: subprocess.Popen[str]
    ready: dict[str, Any]
    seen: list[str | None]

    def port(self, listener: str) -> int:
        return int(self.ready["listeners"][listener].rpartition(":")[2])

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port('status')}{path}", timeout=PATIENCE) as answer:
            body: bytes = answer.read()
        return body


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`vagus serve` from its ready line to its end."""
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vagus", "--dir", str(folder), "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)},
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "serve.log").read_text()
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        process.stdout.close()


@pytest.fixture
def served(fresh: Path) -> Iterator[Served]:
    seen: list[str | None] = []
    upstream = HTTPServer(("127.0.0.1", 0), type("Seeing", (Upstream,), {"seen": seen}))
    thread = threading.Thread(target=upstream.serve_forever, daemon=True)
    thread.start()
    plan = fresh.parent / "plan.toml"
    plan.write_text(
        PLAN
        + f"""
[[listeners]]
name = "telemetry"
kind = "relay-http"
address = "127.0.0.1:0"
hospital = "h1"
host_names = ["telemetry.h1.test.example"]
upstream = "127.0.0.1:{upstream.server_port}"
"""
    )
    done(fresh, "plan", "apply", str(plan), "--yes", "--ceremony")
    with serving(fresh, "--issue-for", "h1/icu,h1/infra") as (process, ready):
        yield Served(fresh, process, ready, seen)
    upstream.shutdown()
    thread.join()
    upstream.server_close()


def agent(state: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """One command of the device's own program."""
    ran = subprocess.run(
        [sys.executable, "-m", "vagus_agent", "--state", str(state), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES), **environment},
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_a_device_is_let_in_and_after_its_revocation_refused(served: Served, tmp_path: Path) -> None:
    anchors = tmp_path / "anchors.pem"
    done(served.folder, "ca", "export", "h1/infra", "--out", str(anchors))
    token = done(served.folder, "token", "make", "Aorta IP3:AIP3-000001", "--json").facts["token"]
    state = tmp_path / "device"

    # enrolled
    code, said = agent(
        state,
        "enrol",
        "--server",
        f"enrol.h1.test.example=127.0.0.1:{served.port('enrol')}",
        "--relay",
        f"telemetry.h1.test.example=127.0.0.1:{served.port('telemetry')}",
        "--status",
        f"127.0.0.1:{served.port('status')}",
        "--anchors",
        str(anchors),
        "--token",
        "env:DEVICE_TOKEN",
        "--log-key",
        (served.folder / "log.vkey").read_text().strip(),
        DEVICE_TOKEN=token,
    )
    assert code == 0, said + (served.folder / "serve.log").read_text()

    # let in
    code, said = agent(state, "connect", "--count", "2")
    assert code == 0, said
    assert served.seen
    assert served.seen[0] is not None, "the upstream learns who it is (RFC 9440)"

    # refused
    revoked = done(served.folder, "device", "revoke", "Aorta IP3:AIP3-000001", "--yes", "--json").facts
    assert revoked["revoked"] == 1
    time.sleep(POLL)
    count = len(served.seen)
    code, said = agent(state, "connect", "--count", "2", "--attempts", "1")
    assert code != 0
    assert "REVOKED" in said, said
    assert len(served.seen) == count, "no byte of a revoked device reaches the upstream"

    # and it can be told afterwards
    assert done(served.folder, "audit", "verify", "--json").facts["revocations"] == 1


def test_status_is_served_and_the_process_stops_cleanly(served: Served) -> None:
    assert served.get("/crl/h1.icu/1/0.crl")[0] == 0x30
    assert served.get("/ca/h1.icu/1.cer")[0] == 0x30
    assert served.get("/log/checkpoint").startswith(b"log.test\n")
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(PATIENCE) == 0
    (served.folder / "checkpoint.kept").write_bytes((served.folder / "log" / "checkpoint").read_bytes())
    against = str(served.folder / "checkpoint.kept")
    assert done(served.folder, "audit", "verify", "--against", against, "--json").facts["caveat"] is None
    assert done(served.folder, "audit", "checkpoint", "--json").facts["size"] > 0


def test_a_backup_taken_while_it_serves_comes_back_and_answers_status(served: Served) -> None:
    file = served.folder.parent / "backup.tar"
    done(served.folder, "backup", str(file))
    assert served.process.poll() is None
    back = served.folder.parent / "back"
    done(back, "restore", str(file))
    assert done(back, "audit", "verify", "--json").facts["verdict"] == "sound"
    with serving(back, "--role", "status", "--issue-for", "h1/icu") as (_, ready):
        assert list(ready["listeners"]) == ["status"]
        port = int(ready["listeners"]["status"].rpartition(":")[2])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/crl/h1.icu/1/0.crl", timeout=PATIENCE) as answer:
            assert answer.read(1) == b"0"


def test_a_maker_taken_in_while_it_serves_is_known_at_once(served: Served, maker: Path, tmp_path: Path) -> None:
    done(maker, "maker", "make-idevids", "--out", str(tmp_path / "born"), "--unsafe-make-keys")
    done(maker, "maker", "manifest", "--out", str(tmp_path / "manifest.json"))
    done(maker, "ca", "export", "root", "--out", str(tmp_path / "maker.pem"))
    done(served.folder, "ca", "export", "h1/infra", "--out", str(tmp_path / "anchors.pem"))
    done(served.folder, "device", "import", str(tmp_path / "manifest.json"), "--anchor", str(tmp_path / "maker.pem"))
    born = tmp_path / "born" / "AIP3-000002"
    arguments = [
        "enrol",
        "--server",
        f"enrol.h1.test.example=127.0.0.1:{served.port('enrol')}",
        "--anchors",
        str(tmp_path / "anchors.pem"),
        "--idevid-cert",
        str(born / "certificate.pem"),
        "--idevid-key",
        str(born / "key.pem"),
    ]
    until = time.monotonic() + PATIENCE
    code, said = agent(tmp_path / "device", *arguments)
    while code != 0 and time.monotonic() < until:  # the doors look for new makers every other second
        code, said = agent(tmp_path / "device", *arguments)
    assert code == 0, said
    shown = done(served.folder, "device", "show", "Aorta IP3:AIP3-000002", "--json").facts
    assert shown["device"]["state"] == "commissioned"


def test_an_apply_that_is_killed_converges(fresh: Path) -> None:
    plan = fresh.parent / "plan.toml"
    plan.write_text(PLAN.replace("count = 3", "count = 3000"))
    command = [sys.executable, "-m", "vagus", "--dir", str(fresh), "plan", "apply", str(plan), "--yes", "--ceremony"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    for seconds in (0.6, 0.9, 1.2):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, text=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)
    done(fresh, "plan", "apply", str(plan), "--yes", "--ceremony")
    before = done(fresh, "export").out
    assert json.loads(before)["devices"][-1]["state"] == "received"
    assert len(json.loads(before)["devices"]) == 3000
    done(fresh, "plan", "apply", str(plan), "--yes", "--ceremony")
    assert done(fresh, "export").out == before
    assert run(fresh, "plan", "check", str(plan), "--json").facts == []
    assert done(fresh, "audit", "verify", "--json").facts["verdict"] == "sound"
