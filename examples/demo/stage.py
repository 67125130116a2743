"""What the demonstration uses: scratch folders, processes that are stopped again, and checks that are counted."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

REPOSITORY = Path(__file__).parents[2]
_PATIENCE = 90.0


class Broken(Exception):
    """The demonstration cannot go on: a command did what it should not have done."""


class Stage:
    """Narrates, counts checks, runs `vagus` and `vagus-agent` as the processes that they are, and cleans up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.began = time.monotonic()
        self.checked = 0
        self.failed: list[str] = []
        self._processes: list[subprocess.Popen[str]] = []
        self.passphrase = folder / "passphrase"
        self.passphrase.write_text("a passphrase for this demonstration alone\n", encoding="ascii")
        self.passphrase.chmod(0o600)
        paths = [str(REPOSITORY / "src"), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "NO_COLOR": "1"}

    # telling

    def chapter(self, title: str) -> None:
        """Begin a part of the story."""
        print(f"\n[{time.monotonic() - self.began:5.1f} s] {title}", flush=True)

    def say(self, text: str) -> None:
        """Something worth knowing that is no check."""
        print(f"          {text}", flush=True)

    def check(self, holds: bool, text: str, found: object = "") -> None:
        """Count one check; what was found is shown when it does not hold."""
        self.checked += 1
        print(f"     {'ok  ' if holds else 'FAIL'} {text}", flush=True)
        if not holds:
            self.failed.append(text)
            print(f"          found: {found}", flush=True)

    # processes

    def vagus(self, installation: Path, *arguments: str, expect: int = 0, seal: bool = False) -> str:
        """What `vagus --dir INSTALLATION ...` printed. Raises Broken for another exit code than `expect`."""
        command = [sys.executable, "-m", "vagus", "--dir", str(installation), *arguments]
        if seal:
            command += ["--passphrase-source", f"file:{self.passphrase}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False, env=self._environment
        )
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

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a process to its end."""
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
            env={**self._environment, **environment},
        )

    def wait_for_port(self, port: int, process: subprocess.Popen[str], log: Path) -> None:
        """Until something listens. Raises Broken with the end of the log when the process ends before."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if process.poll() is not None:
                break
            time.sleep(0.1)
        tail = log.read_text(encoding="utf-8")[-2000:] if log.exists() else ""
        raise Broken(f"nothing listens on port {port}; the process said:\n{tail}")

    def clean_up(self) -> None:
        """Stop what was started, by its process id, the newest first."""
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
