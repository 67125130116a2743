"""Every task of docs/cookbook.md, run as it is written: its commands, their exit codes and the output that it quotes.

`$` begins a command, and the lines below it are its output, where `...` stands for anything. Only the ports are
changed, to those that the trial hospital of the page took.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.simulator.processes import SOURCES

pytestmark = pytest.mark.process

PAGE = Path(__file__).parents[1] / "docs" / "cookbook.md"
FIRST_PORT, PORTS = 8480, 4
PATIENCE = 120
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r" *# exit code (\d+)$")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the page, what it promises to print, and its exit code."""

    text: str
    code: int
    output: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Task:
    """One heading of the page with its files and commands, in their order."""

    title: str
    steps: list[Command | tuple[str, str]]


def read_commands(block: str) -> Iterator[Command]:
    """The commands of a block; a line that ends with a backslash goes on in the next one."""
    found: Command | None = None
    for line in block.replace("\\\n", "\\\x00").splitlines():
        if line.startswith("$ "):
            if found is not None:
                yield found
            code = _CODE.search(line)
            text = _CODE.sub("", line[2:]).replace("\x00", "\n")
            found = Command(text, int(code[1]) if code else 0)
        else:
            assert found is not None, f"output before any command: {line}"
            found.output.append(line)
    if found is not None:
        yield found


def read_tasks(page: str) -> list[Task]:
    """The tasks below the headings of the second order."""
    found = []
    for part in re.split(r"^## ", re.sub(r"^# .*$", "", page, flags=re.MULTILINE), flags=re.MULTILINE)[1:]:
        steps: list[Command | tuple[str, str]] = []
        for kind, name, text in _BLOCK.findall(part):
            if kind == "console":
                steps += read_commands(text)
            elif name:
                steps.append((name, text))
        found.append(Task(part.splitlines()[0], steps))
    return found


SET_UP, *TASKS = read_tasks(PAGE.read_text("utf-8"))


@dataclass(frozen=True, slots=True)
class Ward:
    """The trial hospital, and how a shell of its operator begins."""

    folder: Path
    first_port: int
    environment: dict[str, str]

    def place(self, text: str) -> str:
        """Text of the page with the ports of this hospital."""
        for step in range(PORTS):
            text = text.replace(f"127.0.0.1:{FIRST_PORT + step}", f"127.0.0.1:\x00{self.first_port + step}")
        return text.replace("\x00", "")

    def run(self, script: str, place: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", script],
            cwd=place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """What the page's first heading sets up: `vagus quickstart`, serving until the end of this module."""
    place = tmp_path_factory.mktemp("cookbook")
    programs = place / "bin"
    programs.mkdir()
    for name, module in (("vagus", "vagus"), ("vagus-agent", "vagus_agent"), ("python3", "")):
        arguments = f"-m {module} " if module else ""
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("VAGUS_")},
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(SOURCES),
        "NO_COLOR": "1",
    }
    begin = SET_UP.steps[0]
    assert isinstance(begin, Command)
    command = ["bash", "-c", f"exec {begin.text}"]
    with (
        (place / "serve.log").open("w") as log,
        subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if "Ctrl-C ends it" in line:
                    break
            else:
                pytest.fail((place / "serve.log").read_text())
            plan = tomllib.loads((place / "ward" / "plan.toml").read_text())
            first = min(int(one["address"].rpartition(":")[2]) for one in plan["listeners"])
            yield Ward(place, first, environment)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(PATIENCE)


def expected(lines: list[str]) -> re.Pattern[str]:
    """Quoted output as an expression: `...` on a line of its own is any lines, within a line any characters."""
    parts = [
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(squeezed(line)).replace(r"\.\.\.", ".*") + r"\n"
        for line in lines
    ]
    return re.compile("".join(parts) + r"\Z")


def squeezed(line: str) -> str:
    return " ".join(line.split())


def test_the_page_has_its_tasks() -> None:
    assert len(TASKS) >= 20
    assert all(task.steps for task in TASKS)


def test_quoted_output_must_be_there_in_its_order() -> None:
    (command,) = read_commands("$ seq 3 \\\n  --dry  # exit code 3\none ... three\n...\nend\n")
    assert (command.text, command.code) == ("seq 3 \\\n  --dry", 3)
    pattern = expected(command.output)
    assert pattern.match("one two three\nmore\nend\n")
    assert not pattern.match("one two three\nend\nmore\n")
    assert not pattern.match("one two\nend\n")


def test_every_task_does_what_the_page_says(ward: Ward) -> None:
    for task in TASKS:  # one test: a reader goes through the page in its order, and later tasks need earlier files
        run_task(ward, task)


def run_task(ward: Ward, task: Task) -> None:
    begin = "\n".join(step.text for step in SET_UP.steps[1:] if isinstance(step, Command))
    place = ward.folder / "ward"
    for step in task.steps:
        if not isinstance(step, Command):
            (place / step[0]).write_text(ward.place(step[1]))
            continue
        done = ward.run(f"{begin}\n{ward.place(step.text)}", ward.folder)
        said = f"{task.title}\n$ {step.text}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in said, said
        assert done.returncode == step.code, said
        if step.output:
            lines = [squeezed(line) for line in (done.stdout + done.stderr).splitlines()]
            text = "".join(f"{line}\n" for line in lines if line)
            assert expected([ward.place(line) for line in step.output]).match(text), said
