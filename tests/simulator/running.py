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

from tests.simulator import plans
from vagus.cli import main

PLAN = plans.hospital_plan(
    plans.hospital(plans.devices("icu", 1, 3)),
    status_url="http://127.0.0.1:1",
    listeners=[plans.STATUS, plans.listener("enrol", "enrolment", "enrol.h1.test.example", hospital="h1")],
)

MAKER_PLAN = plans.maker_plan(batches=[plans.batch(3, name="first")])


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


def denied(folder: Path, code: int, reason: str, *arguments: str, says: tuple[str, ...] = ()) -> Outcome:
    """A command that must fail with this exit code and reason, and with a message that contains all of `says`."""
    outcome = run(folder, *arguments)
    assert (outcome.code, outcome.reason) == (code, reason), (arguments, outcome)
    assert [words for words in says if words not in outcome.err] == [], outcome
    return outcome


def findings(folder: Path, check: str, *more: str, fails: bool | None = None) -> list[dict[str, Any]]:
    """What the doctor finds in one of its checks; `fails` says whether any check must fail."""
    outcome = run(folder, "doctor", "--json", *more)
    assert fails is None or outcome.code == int(fails), outcome
    return [one for one in outcome.facts if one["check"] == check]


END_OF_INPUT = "\x04"


def answer(folder: Path, typed: str, *arguments: str) -> Outcome:
    """A command on a terminal at which a person types."""
    keyboard, terminal = pty.openpty()
    os.write(keyboard, typed.encode())
    before = sys.stdin
    try:
        with os.fdopen(terminal) as sys.stdin:
            return run(folder, *arguments)
    finally:
        sys.stdin = before
        os.close(keyboard)
