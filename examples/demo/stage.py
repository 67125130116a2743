"""What the demonstration uses: scratch folders, processes that are stopped again, and checks that are counted."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from examples.demo.programs import Ended, Programs

REPOSITORY = Path(__file__).parents[2]
_PATIENCE = 90.0
_QUIET_SECONDS = 1.0
"""After so long without a line, one says what is going on."""


class Broken(Exception):
    """The demonstration cannot go on: a command did what it should not have done."""


@dataclass(slots=True)
class Chapter:
    """A part of the story: what it proves when all its checks hold."""

    proves: str
    checked: int = 0
    failed: int = 0


class Stage:
    """Narrates, counts checks, runs `vagus` and `vagus-agent` as the processes that they are, and cleans up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.began = time.monotonic()
        self.checked = 0
        self.failed: list[str] = []
        self._chapters: list[Chapter] = []
        self._told = self.began
        self._doing: list[tuple[Callable[[], str], float]] = []
        self._turn = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._tell_what_goes_on, daemon=True).start()
        self._processes: list[subprocess.Popen[str]] = []
        self.passphrase = folder / "passphrase"
        self.passphrase.write_text("a passphrase for this demonstration alone\n", encoding="ascii")
        self.passphrase.chmod(0o600)
        self._programs = Programs((str(REPOSITORY / "src"), str(REPOSITORY)))
        paths = [str(REPOSITORY / "src"), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "NO_COLOR": "1"}

    # telling

    def chapter(self, title: str, proves: str) -> None:
        """Begin a part of the story; `proves` is what its checks prove together, for the summary."""
        self._chapters.append(Chapter(proves))
        self._print(f"\n[{time.monotonic() - self.began:5.1f} s] {title}")

    def say(self, text: str) -> None:
        """Something worth knowing that is no check."""
        self._print(f"          {text}")

    def check(self, holds: bool, text: str, found: object = "") -> None:
        """Count one check; what was found is shown when it does not hold."""
        self.checked += 1
        self._print(f"     {'ok  ' if holds else 'FAIL'} {text}")
        if self._chapters:
            self._chapters[-1].checked += 1
            self._chapters[-1].failed += not holds
        if not holds:
            self.failed.append(text)
            self._print(f"          found: {found}")

    def summarise(self) -> None:
        """What was proven, one line for each part, and how many checks held."""
        self._print("\nWhat this has shown:")
        for one in self._chapters:
            held = f"{one.checked - one.failed} of {one.checked} checks"
            self._print(f"  {'no ' if one.failed else 'yes'} {one.proves} ({held})")
        took = time.monotonic() - self.began
        self._print(f"\n{self.checked - len(self.failed)} of {self.checked} checks held in {took:.0f} s.")

    @contextmanager
    def doing(self, spell: Callable[[], str]) -> Iterator[None]:
        """While the block runs, a line with what `spell` gives comes whenever nothing else was printed for a while."""
        mine = (spell, time.monotonic())
        self._doing.append(mine)
        try:
            yield
        finally:
            self._doing.remove(mine)

    def _print(self, text: str) -> None:
        with self._turn:
            print(text, flush=True)
            self._told = time.monotonic()

    def _tell_what_goes_on(self) -> None:
        while not self._ended.wait(0.1):
            now = time.monotonic()
            doing = tuple(self._doing)
            if doing and now - self._told >= _QUIET_SECONDS:
                spell, since = doing[0]
                self._print(f"      ... {spell()}, {now - since:.0f} s")

    # processes

    def vagus(self, installation: Path, *arguments: str, expect: int = 0, seal: bool = False) -> str:
        """What `vagus --dir INSTALLATION ...` printed. Raises Broken for another exit code than `expect`."""
        given = ["--dir", str(installation), *arguments]
        if seal:
            given += ["--passphrase-source", f"file:{self.passphrase}"]
        with self.doing(lambda: f"vagus {' '.join(arguments[:2])}"):
            done = self._programs.run("vagus", given, self._environment, _PATIENCE)
        if done.returncode != expect:
            shown = " ".join(arguments)
            raise Broken(f"vagus {shown}: exit code {done.returncode}, not {expect}\n{done.stdout}{done.stderr}")
        return done.stdout

    def vagus_json(self, installation: Path, *arguments: str, expect: int = 0, seal: bool = False) -> Any:
        """The same with --json, decoded."""
        text = self.vagus(installation, *arguments, "--json", expect=expect, seal=seal)
        try:
            return json.loads(text)
        except ValueError:
            raise Broken(f"vagus {' '.join(arguments)} --json printed no JSON: {text[:500]}") from None

    def serve(self, installation: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start `vagus serve` and let it run until `clean_up`."""
        command = [sys.executable, "-m", "vagus", "--dir", str(installation), "serve", *arguments]
        command += ["--passphrase-source", f"file:{self.passphrase}"]
        return self.start(command, installation / "serve.log")

    def start(self, command: list[str], log: Path) -> subprocess.Popen[str]:
        """Start a process that writes to `log`."""
        with log.open("a", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True, env=self._environment
            )
        self._processes.append(process)
        return process

    def talk(self, command: list[str], log: Path) -> subprocess.Popen[str]:
        """Start a process that reads orders on its standard input and writes results on its standard output."""
        file: IO[str]
        with log.open("a", encoding="utf-8") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                bufsize=1,
                env=self._environment,
            )
        self._processes.append(process)
        return process

    def agent(self, *arguments: str, **environment: str) -> Ended:
        """Run one command of `vagus-agent` to its end."""
        with self.doing(lambda: f"vagus-agent {arguments[0]}"):
            return self._programs.run("vagus_agent", arguments, {**self._environment, **environment}, _PATIENCE)

    def wait_for_port(self, port: int, process: subprocess.Popen[str], log: Path) -> None:
        """Until something listens. Raises Broken with the end of the log when the process ends before."""
        deadline = time.monotonic() + _PATIENCE
        with self.doing(lambda: f"waiting for port {port}"):
            while time.monotonic() < deadline:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    return
                if process.poll() is not None:
                    break
                time.sleep(0.1)
        tail = log.read_text(encoding="utf-8")[-2000:] if log.exists() else ""
        raise Broken(f"nothing listens on port {port}; the process said:\n{tail}")

    def clean_up(self) -> None:
        """Stop what was started, by its process id, the newest first; nothing more is told."""
        self._ended.set()
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(15)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()


def free_ports(count: int) -> list[int]:
    """Free ports, below those that systems lend to outgoing connections."""
    ports: list[int] = []
    while len(ports) < count:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in ports:
                ports.append(port)
    return ports
