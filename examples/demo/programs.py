"""Runs `vagus` and `vagus-agent`, each command as a process of its own that is forked from one that has loaded them.

A hundred and fifty short commands would otherwise spend most of their time on imports. Long-lived processes (serve,
probe) are started as usual.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path

_PRELOADED = (
    "examples.demo.programs",
    "vagus.cli.application",
    "vagus.wiring",
    "vagus.authority.ceremony",
    "vagus.authority.hierarchy",
    "vagus.fleet.plans.planning",
    *(f"vagus.operations.{name}" for name in ("audit", "authorities", "ceremonies", "devices", "maker_line", "plans")),
    "vagus_agent.__main__",
    "vagus_agent.device",
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Programs:
    """Starts commands; `path` is where they are imported from."""

    def __init__(self, path: Sequence[str]) -> None:
        sys.path[:0] = [one for one in path if one not in sys.path]
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(list(_PRELOADED))
        # `start` also asks for the exit codes of all other processes, and a code can be read once only: the thread that
        # comes second would take a process for one that ended with 255. So one thread at a time starts or joins.
        self._turn = threading.Lock()

    def run(self, program: str, arguments: Sequence[str], environment: Mapping[str, str], patience: float) -> Ended:
        """One command of `vagus` or `vagus_agent`, to its end. Raises TimeoutError."""
        with tempfile.TemporaryDirectory(prefix="vagus-said-") as said:
            out, err = Path(said) / "out", Path(said) / "err"
            given = (program, list(arguments), dict(environment), str(out), str(err))
            process = self._context.Process(target=_be, args=given)
            with self._turn:
                process.start()
            is_over = wait([process.sentinel], patience)
            if not is_over:
                process.kill()
            with self._turn:
                process.join()
            if not is_over:
                raise TimeoutError(f"{program} {' '.join(arguments[:4])} did not end within {patience:.0f} s")
            assert process.exitcode is not None
            return Ended(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))


def _be(program: str, arguments: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """In the new process: take the environment and the two files, then be the program."""
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, out), (2, err)):
        opened = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    if program == "vagus":
        from vagus.cli import main

        main(arguments)
    else:
        from vagus_agent.__main__ import main as be_agent

        be_agent(arguments)
