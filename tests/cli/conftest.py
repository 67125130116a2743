"""Installations for the tests of the command line: a fresh one, and one whose hierarchy stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import MAKER_PLAN, PLAN, done


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PASSPHRASE", "correct horse battery")
    monkeypatch.setenv("VAGUS_PASSPHRASE_SOURCE", "env:TEST_PASSPHRASE")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    folder = tmp_path / "hospital"
    done(folder, "init", "--unsafe-fast-kdf", "--origin", "log.test")
    return folder


@pytest.fixture
def hospital(fresh: Path) -> Path:
    plan = fresh.parent / "plan.toml"
    plan.write_text(PLAN)
    done(fresh, "plan", "apply", str(plan), "--yes", "--ceremony")
    return fresh


@pytest.fixture
def maker(tmp_path: Path) -> Path:
    folder, plan = tmp_path / "maker", tmp_path / "maker.toml"
    plan.write_text(MAKER_PLAN)
    done(folder, "init", "--kind", "maker", "--unsafe-fast-kdf")
    done(folder, "plan", "apply", str(plan), "--yes", "--ceremony")
    return folder
