"""Installations for the tests of the command line: a fresh one, and one whose hierarchy is certified.

Each is founded once for each test process; a test gets a copy of its folder and may do to it what it likes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.running import MAKER_PLAN, PLAN, done

_ENVIRONMENT = {
    "TEST_PASSPHRASE": "correct horse battery",
    "VAGUS_PASSPHRASE_SOURCE": "env:TEST_PASSPHRASE",
    "NO_COLOR": "1",
}


@pytest.fixture(scope="session", autouse=True)
def passphrase() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def fresh_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh") / "hospital"
    done(folder, "init", "--unsafe-fast-kdf", "--origin", "log.test")
    return folder


@pytest.fixture(scope="session")
def hospital_once(fresh_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return apply(copied(fresh_once, tmp_path_factory.mktemp("founded")), "plan.toml", PLAN)


@pytest.fixture(scope="session")
def maker_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "maker"
    done(folder, "init", "--kind", "maker", "--unsafe-fast-kdf")
    return apply(folder, "maker.toml", MAKER_PLAN)


@pytest.fixture
def fresh(fresh_once: Path, tmp_path: Path) -> Path:
    return copied(fresh_once, tmp_path)


@pytest.fixture
def hospital(hospital_once: Path, tmp_path: Path) -> Path:
    shutil.copy(hospital_once.parent / "plan.toml", tmp_path)
    return copied(hospital_once, tmp_path)


@pytest.fixture
def maker(maker_once: Path, tmp_path: Path) -> Path:
    shutil.copy(maker_once.parent / "maker.toml", tmp_path)
    return copied(maker_once, tmp_path)


def apply(folder: Path, name: str, plan: str) -> Path:
    """Write the plan beside the installation and apply it, with a ceremony."""
    file = folder.parent / name
    file.write_text(plan)
    done(folder, "plan", "apply", str(file), "--yes", "--ceremony")
    return folder


def copied(folder: Path, place: Path) -> Path:
    """A copy of an installation that no process has open."""
    return Path(shutil.copytree(folder, place / folder.name))
