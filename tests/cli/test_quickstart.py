"""`vagus quickstart` as a person runs it: one command, then the commands that it prints, word for word."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.processes import PATIENCE, environment
from tests.simulator.programs import free_ports_in_a_row
from tests.simulator.running import denied, done

PROGRAMS = {"vagus": "vagus", "vagus-agent": "vagus_agent"}


def program(line: str) -> list[str]:
    """A printed command as these sources run it."""
    first, *rest = shlex.split(line)
    return [sys.executable, "-m", PROGRAMS[first], *rest] if first in PROGRAMS else [first, *rest]


def ask(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program(line), capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment()
    )


@pytest.mark.parametrize("named", ["", "."])
def test_no_folder_is_not_the_present_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.chdir(tmp_path)
    denied(tmp_path, 2, "BAD_ARGUMENT", "quickstart", named, "--no-serve", says=("vagus quickstart ward",))
    assert list(tmp_path.iterdir()) == []


def test_without_serving_it_prints_every_next_command(tmp_path: Path) -> None:
    folder = tmp_path / "ward"
    made = done(tmp_path, "quickstart", str(folder), "--no-serve")
    assert "Not for production: one passphrase" in made.out
    printed = [line.strip() for line in made.out.splitlines() if line.startswith("  ")]
    assert [shlex.split(line)[0] for line in printed] == [
        sys.executable,
        "vagus",
        "vagus-agent",
        "vagus-agent",
        "vagus",
    ]
    denied(tmp_path, 3, "ALREADY_EXISTS", "quickstart", str(folder), says=("new or an empty folder",))


def test_programs_get_the_commands_as_json(tmp_path: Path) -> None:
    made = done(tmp_path, "quickstart", str(tmp_path / "ward"), "--no-serve", "--json").facts
    assert made["folder"] == str(tmp_path / "ward")
    assert set(made["commands"]) == {"enrol", "connect", "revoke", "serve", "store"}


def test_ports_outside_their_range_are_wrong_use(tmp_path: Path) -> None:
    for port in ("0", "65533", "x"):
        denied(tmp_path, 2, "BAD_ARGUMENT", "quickstart", str(tmp_path / "ward"), "--port", port)
    assert not (tmp_path / "ward").exists()


@pytest.mark.process
def test_a_device_enrols_connects_and_is_refused_by_the_printed_commands(tmp_path: Path) -> None:
    command = f"vagus quickstart {tmp_path / 'ward'} --port {free_ports_in_a_row(4)}"
    with subprocess.Popen(
        program(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as server:
        try:
            assert server.stdout is not None
            printed = []
            for line in server.stdout:
                printed.append(line)
                if line.startswith("Ctrl-C"):
                    break
            enrol, connect, revoke = (line.strip() for line in printed if line.startswith("  "))
            enrolled = ask(enrol)
            assert enrolled.returncode == 0, enrolled
            assert ".icu.h1.one-ward.example" in enrolled.stdout
            assert ask(connect).returncode == 0
            assert ask(revoke).returncode == 0
            refused = ask(connect)
            assert refused.returncode == 1, refused
            assert "REVOKED" in refused.stderr
        finally:
            server.send_signal(signal.SIGINT)
            said, progress = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
    assert [line for line in progress.splitlines() if not line.startswith("vagus: ")] == []
    assert '"kind":"issuance"' in (tmp_path / "ward" / "events.log").read_text()
    assert "The telemetry store took 5 lines. To serve again:" in said
