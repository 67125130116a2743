"""Finds, runs and watches the programs of other projects; each test that misses one is skipped with its name."""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENCE = 30.0
_PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/go/bin", "/usr/sbin", "/usr/local/sbin", "/sbin"])
_TRIES = 5  # a free port may be taken by another program before the program binds it


def program(name: str) -> str:
    """Where it is, or a skip that says what is missing."""
    found = shutil.which(name, path=_PLACES)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


@functools.cache
def version_of(name: str, *question: str) -> tuple[int, ...]:
    """The numbers of a program's version, the first in what it prints for `question`."""
    done = subprocess.run([program(name), *question], capture_output=True, text=True, timeout=PATIENCE, check=False)
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout + done.stderr)
    assert found is not None, f"{name} does not print its version"
    return tuple(int(number) for number in found.groups(default="0"))


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended and everything that it said."""

    code: int
    text: str
    raw: bytes

    def __contains__(self, words: str) -> bool:
        return words in self.text

    def must_say(self, *every: str) -> None:
        """It said each of these words."""
        for words in every:
            assert words in self.text, f"{words!r} is not in what it said:\n{self.text}"


def run(name: str, *words: str | Path, said: bytes = b"", seconds: float = PATIENCE, cwd: Path | None = None) -> Result:
    """Run it to its end; standard output alone is `raw`, both together are `text`."""
    command = [program(name), *map(str, words)]
    done = subprocess.run(command, input=said, capture_output=True, timeout=seconds, check=False, cwd=cwd)
    text = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace")
    return Result(done.returncode, text, done.stdout)


def converse(name: str, *words: str | Path, said: bytes, folder: Path, seconds: float = PATIENCE) -> Result:
    """Run it with `said` and then no more input, but no end of input, until it ends by itself or time is up."""
    heard = folder / f"{name}.said"
    with heard.open("wb") as stream:
        command = [program(name), *map(str, words)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT)
    assert process.stdin is not None
    try:
        process.stdin.write(said)
        process.stdin.flush()
        process.wait(seconds)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        process.terminate()
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        code = process.wait(10)
    raw = heard.read_bytes()
    return Result(code, raw.decode("utf-8", "replace"), raw)


def succeed(name: str, *words: str | Path, said: bytes = b"") -> Result:
    """Run it; anything but exit code 0 fails the test with what it said."""
    result = run(name, *words, said=said)
    assert result.code == 0, f"{name} {' '.join(map(str, words))}: {result.code}\n{result.text}"
    return result


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that is free at this moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def free_ports_in_a_row(count: int) -> int:
    """The first of so many; drawn, so that tests beside each other hardly ever take the same."""
    while True:
        first = 20_000 + secrets.randbelow(12_000)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return first


@dataclass(frozen=True, slots=True)
class Running:
    """A server that another project wrote, on loopback."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """Everything that it said so far."""
        return self.log.read_text("utf-8", "replace")


@contextmanager
def running(
    command: Callable[[int], Sequence[str | Path]], folder: Path, *, is_ready: Callable[[int, Path], bool] | None = None
) -> Iterator[Running]:
    """A server on a free port while the block lasts: `command` writes its files for a port and gives its words.

    It is ready when its port accepts, or as `is_ready` says of its port and the file with everything that it said.
    """
    said = folder / "said.log"
    for attempt in range(_TRIES):
        port = free_port()
        words = [str(word) for word in command(port)]
        with said.open("wb") as stream:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, cwd=folder
            )
        try:
            if _wait(process, port, said, is_ready or _accepts):
                yield Running(port, process, said)
                return
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        assert attempt + 1 < _TRIES, f"{words[0]} does not start: {said.read_text(errors='replace')[-3000:]}"


def _wait(process: subprocess.Popen[bytes], port: int, said: Path, is_ready: Callable[[int, Path], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if is_ready(port, said):
            time.sleep(0.05)
            return process.poll() is None  # a server that could not bind the port has ended by now
        time.sleep(0.05)
    return False


def _accepts(port: int, _said: Path) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
