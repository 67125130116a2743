"""The devices of the demonstration: one folder and one process of `vagus-agent` for each; holds no key itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from examples.demo.plans import BuiltListeners, Made
from examples.demo.stage import Broken, Stage

AT_ONCE: Final = 4
Result = dict[str, Any]


class Outcome:
    """What one command of an agent came to."""

    def __init__(self, code: int, results: list[Result], said: str) -> None:
        self.code = code
        self.results = results
        self.said = said

    @property
    def last(self) -> Result:
        """The last result."""
        return self.results[-1] if self.results else {}

    @property
    def reason(self) -> str | None:
        """Why it was refused; None when it was not."""
        return self.last.get("reason")

    def __str__(self) -> str:
        return f"exit code {self.code}, {self.last or self.said}"


class Device:
    """One device: its folder, and the program that lives in it."""

    def __init__(self, stage: Stage, made: Made, folder: Path) -> None:
        self.made = made
        self.state = folder
        self._stage = stage
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def label(self) -> str:
        """How people speak of it."""
        return f"{self.made.category} {self.made.serial} of {self.made.unit}"

    @property
    def name(self) -> str:
        """Its identity, once enrolled."""
        return str(self.run("status").last["name"])

    def run(self, command: str, *options: str, **environment: str) -> Outcome:
        """One command, as a process of its own."""
        done = self._stage.agent(*self._arguments(command, *options), **environment)
        try:
            results = [json.loads(line) for line in done.stdout.splitlines()]
        except ValueError:
            results = []
        return Outcome(done.returncode, results, done.stdout[-500:] + done.stderr[-2000:])

    def probe(self, route: str) -> Probe:
        """The agent holding a connection to `route` under our orders."""
        command = [sys.executable, "-m", "vagus_agent", *self._arguments("probe", "--relay", route)]
        return Probe(self._stage, self._stage.talk(command, self._stage.folder / "probes.log"))

    def _arguments(self, command: str, *options: str) -> tuple[str, ...]:
        return (command, "--state", str(self.state), "--json", *options)


class Probe:
    """An agent that opens, resumes and sends on order."""

    def __init__(self, stage: Stage, process: subprocess.Popen[str]) -> None:
        self._stage = stage
        self._process = process

    def ask(self, order: str) -> Result:
        """The result of one order."""
        if self._process.stdin is None or self._process.stdout is None:
            raise Broken("the agent's pipes are gone")
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        with self._stage.doing(lambda: f"an agent's {order}"):
            line = self._process.stdout.readline()
        if not line:
            raise Broken(f"the agent ended after the order {order!r}")
        result: Result = json.loads(line)
        return result

    def give(self, order: str) -> None:
        """Give an order and do not wait for its result."""
        if self._process.stdin is not None:
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()

    def hear(self) -> Result:
        """The next result."""
        if self._process.stdout is None:
            raise Broken("the agent's pipes are gone")
        with self._stage.doing(lambda: "watching an open connection"):
            result: Result = json.loads(self._process.stdout.readline() or "{}")
        return result

    def end(self) -> None:
        """Let it go."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(20)


def everyone(stage: Stage, devices: Iterable[Device], act: Callable[[Device], Outcome]) -> dict[Device, Outcome]:
    """The same act by every device, a few processes at once (two cores)."""
    many, done = list(devices), 0

    def act_and_count(device: Device) -> Outcome:
        nonlocal done
        outcome = act(device)
        done += 1
        return outcome

    with ThreadPoolExecutor(AT_ONCE) as pool, stage.doing(lambda: f"{done} of {len(many)} devices"):
        return dict(zip(many, pool.map(act_and_count, many), strict=True))


def options_of(listeners: BuiltListeners, device: Made, anchors: dict[str, Path]) -> list[str]:
    """What the installer configures on a device: its servers, its trust anchor and what it is."""
    enrol, telemetry = (
        (listeners.enrol, listeners.telemetry)
        if device.hospital == "h1"
        else (listeners.enrol_h2, listeners.telemetry_h2)
    )
    return [
        *("--server", enrol.route, "--relay", telemetry.route, "--status", f"127.0.0.1:{listeners.status.port}"),
        *("--anchors", str(anchors[device.hospital]), "--category", device.category),
    ]
