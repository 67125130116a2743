"""init, export, and how every command refuses: a sentence, a reason, an exit code, never a traceback."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulator.running import denied, done, run
from vagus.cli.failures import describe, exit_code
from vagus.errors import (
    Conflict,
    IntegrityFailure,
    LimitExceeded,
    Malformed,
    Misconfigured,
    NotAuthorised,
    NotTrusted,
    PolicyRefusal,
    Unavailable,
)
from vagus.reasons import Reason


def test_init_begins_an_installation_that_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "installation"
    facts = done(folder, "init", "--unsafe-fast-kdf", "--origin", "log.test", "--json").facts
    assert facts["origin"] == "log.test"
    assert facts["log_key"].startswith("log.test+")
    assert (folder / "log.vkey").read_text().strip() == facts["log_key"]
    for path in (folder, folder / "keystores", folder / "keystores" / "log"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (folder / "vagus.toml", folder / "vagus.sqlite3"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_init_is_not_done_twice(fresh: Path) -> None:
    denied(fresh, 3, "ALREADY_EXISTS", "init", "--unsafe-fast-kdf")


def test_init_without_a_passphrase_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAGUS_PASSPHRASE_SOURCE")
    denied(tmp_path / "installation", 4, "KEY_NOT_OPEN", "init")
    assert not (tmp_path / "installation").exists()


def test_a_short_passphrase_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PASSPHRASE", "short")
    denied(tmp_path / "installation", 2, "BAD_SETTINGS", "init")
    assert not (tmp_path / "installation").exists()


def test_a_passphrase_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path) -> None:
    refused = denied(tmp_path / "installation", 2, "BAD_ARGUMENT", "init", "--passphrase-source", "my secret")
    assert "my secret" not in refused.err


def test_a_folder_without_an_installation_says_how_to_begin(tmp_path: Path) -> None:
    assert "init" in denied(tmp_path, 2, "BAD_SETTINGS", "device", "list").err


def test_an_error_with_json_is_one_object(tmp_path: Path) -> None:
    assert json.loads(run(tmp_path, "device", "list", "--json").err)["error"]["reason"] == "BAD_SETTINGS"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("device",),
        ("device", "add"),
        ("device", "list", "--limit", "0"),
        ("token", "make"),
        ("validate", "leaf.pem"),
        ("serve", "--role", "queen"),
        ("plan", "apply"),
    ],
)
def test_wrong_use_has_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(tmp_path, *arguments).code == 2


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Malformed, 2),
        (Misconfigured, 2),
        (LimitExceeded, 2),
        (NotTrusted, 1),
        (NotAuthorised, 1),
        (PolicyRefusal, 1),
        (Conflict, 3),
        (Unavailable, 4),
        (IntegrityFailure, 5),
    ],
)
def test_each_kind_of_error_has_its_documented_exit_code(kind: type[Malformed], code: int) -> None:
    assert exit_code(kind(Reason.BAD_ARGUMENT, "x")) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(2, "No such file or directory", "plan.toml"), 2),
        (IsADirectoryError(21, "Is a directory", "plan.toml"), 2),
        (PermissionError(13, "Permission denied", "plan.toml"), 4),
        (OSError(28, "No space left on device", "plan.toml"), 4),
    ],
)
def test_a_path_that_leads_nowhere_is_wrong_use_and_a_disk_that_is_full_is_not(error: OSError, code: int) -> None:
    assert exit_code(error) == code
    assert "plan.toml" in describe(error, is_json=False)


def test_an_error_of_the_program_says_what_to_report() -> None:
    try:
        int("x")
    except ValueError as error:
        text = describe(error, is_json=False)
        assert exit_code(error) == 70
    assert "Please report" in text
    assert "test_installation.py" in text
    assert "Traceback" not in text


def test_a_damaged_database_is_reported_without_a_traceback(fresh: Path) -> None:
    (fresh / "vagus.sqlite3").write_bytes(b"not a database" * 1000)
    for left in fresh.glob("vagus.sqlite3-*"):
        left.unlink()
    assert run(fresh, "export").code in {2, 4, 5}


def test_an_open_database_file_is_refused(fresh: Path) -> None:
    (fresh / "vagus.sqlite3").chmod(0o644)
    denied(fresh, 2, "PERMISSIONS_TOO_OPEN", "export")


def test_the_program_starts_quickly() -> None:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "vagus", "--help"], check=True, capture_output=True)
    assert time.monotonic() - begun < 10  # 0.3 s by itself; the bound is for a machine under load


def test_starting_loads_no_library_that_commands_alone_need() -> None:
    heavy = ("sqlalchemy", "cryptography", "OpenSSL", "uvicorn", "pydantic")
    code = f"import sys, vagus.cli; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"


def test_the_version_is_shown(tmp_path: Path) -> None:
    assert done(tmp_path, "--version").out.startswith("vagus ")
