"""Runs one `vagus` command in this process: arguments in; exit code, output and errors out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vagus.cli import main

PLAN = """
kind = "hospital"
format = 1
[group]
title = "Test Group"
domain = "test.example"
status_url = "http://127.0.0.1:1"
[[hospitals]]
label = "h1"
title = "First Hospital"
units = [{label = "icu", title = "Intensive Care"}]
devices = [{unit = "icu", model = "Aorta IP3", first = 1, count = 3}]
[[models]]
name = "Aorta IP3"
maker = "Aorta Devices"
category = "infusion-pump"
serial_prefix = "AIP3"
[[listeners]]
name = "status"
kind = "status"
address = "127.0.0.1:0"
[[listeners]]
name = "enrol"
kind = "enrolment"
address = "127.0.0.1:0"
hospital = "h1"
host_names = ["enrol.h1.test.example"]
"""

MAKER_PLAN = """
kind = "maker"
format = 1
[maker]
title = "Aorta Devices"
status_url = "http://127.0.0.1:1"
[[models]]
name = "Aorta IP3"
category = "infusion-pump"
serial_prefix = "AIP3"
[[batches]]
name = "first"
model = "Aorta IP3"
first = 1
count = 3
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> Any:
        """What it printed with --json."""
        return json.loads(self.out)

    @property
    def reason(self) -> str:
        """The reason code in its error."""
        return self.err.strip().rpartition("reason ")[2]


def run(folder: Path, *arguments: str) -> Outcome:
    """`vagus --dir FOLDER ARGUMENTS...`, never with a traceback."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["--dir", str(folder), *arguments])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    outcome = Outcome(code, out.getvalue(), err.getvalue())
    assert "Traceback" not in outcome.err
    return outcome


def done(folder: Path, *arguments: str) -> Outcome:
    """A command that must succeed."""
    outcome = run(folder, *arguments)
    assert outcome.code == 0, outcome
    return outcome


END_OF_INPUT = "\x04"


def answer(folder: Path, typed: str, *arguments: str) -> Outcome:
    """A command on a terminal at which somebody types."""
    keyboard, terminal = pty.openpty()
    os.write(keyboard, typed.encode())
    before = sys.stdin
    try:
        with os.fdopen(terminal) as sys.stdin:
            return run(folder, *arguments)
    finally:
        sys.stdin = before
        os.close(keyboard)
