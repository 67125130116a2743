"""Processes under measurement, each on the lowest core, and the CPU time that the kernel says they used."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.rig.installation import ENVIRONMENT, SOURCE

_CORES = os.sched_getaffinity(0)
SERVER_CORE = {min(_CORES)}
LOAD_CORE = {max(_CORES)}
_START_SECONDS = 120
_ROOT = Path(__file__).parents[2]


def cpu_seconds(pid: int) -> float:
    """Time on a CPU of a process with all its threads since its start, in nanoseconds' resolution."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


@contextmanager
def on_load_core() -> Iterator[None]:
    """Our process on the highest core, away from the servers, until the end of the block."""
    os.sched_setaffinity(0, LOAD_CORE)
    try:
        yield
    finally:
        os.sched_setaffinity(0, _CORES)


def waited_seconds(pid: int) -> float:
    """How long the threads of a process were ready to run while others had the core."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[1])
    return spent / 1e9


class Serving:
    """A `vagus serve` (or another program that prints its addresses as one JSON line) on a core of its own."""

    def __init__(self, folder: Path, *command: str) -> None:
        arguments = command or ("-m", "vagus", "--dir", str(folder), *_SERVE)
        self._errors = (folder / "bench-server.err").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=_ROOT,
            preexec_fn=_take_server_core,  # noqa: PLW1509  no thread of ours runs yet
        )
        line = self._read_line()
        if not line:
            self.stop()
            raise RuntimeError(f"the server did not start: {(folder / 'bench-server.err').read_text()[-2000:]}")
        listeners = json.loads(line)["listeners"]
        self.addresses = {name: _address(text) for name, text in listeners.items()}

    def cpu_seconds(self) -> float:
        """What it has used of its core so far."""
        return cpu_seconds(self.process.pid)

    def waited_seconds(self) -> float:
        """How long it was ready to run while others had its core: what sharing does to wall-clock figures."""
        return waited_seconds(self.process.pid)

    def ask(self, line: str) -> str:
        """Write one line to it; returns the line that it writes back."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self._read_line()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._errors.close()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _read_line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _START_SECONDS)
        return self.process.stdout.readline().decode().strip() if ready else ""


@contextmanager
def serving(folder: Path, *command: str) -> Iterator[Serving]:
    """A server until the end of the block."""
    server = Serving(folder, *command)
    try:
        yield server
    finally:
        server.stop()


_SERVE = ("serve", "--issue-for", "h1/icu,h1/infra", "--passphrase-source", SOURCE)


def _take_server_core() -> None:
    os.sched_setaffinity(0, SERVER_CORE)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
