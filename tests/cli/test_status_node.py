"""A status node: a folder of its own with settings, plan, the ledger's public key and the responders' keystore."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.issuing import device_name, issue, make_responder, publish
from tests.simulator.processes import Served, serving
from tests.simulator.running import run
from vagus.wiring import Installation, RealClock

pytestmark = pytest.mark.process

NODE = ("--role", "status", "--passphrase-source", "ocsp=env:TEST_PASSPHRASE")


@pytest.fixture
def node(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As docs/status.md has it, over the database of a hospital that publishes."""
    make_responder(hospital)
    publish(hospital)
    folder = hospital.parent / "node"
    folder.mkdir(mode=0o700)
    settings = (hospital / "vagus.toml").read_text()
    settings = settings.replace("sqlite:///vagus.sqlite3", f"sqlite:///{hospital}/vagus.sqlite3")
    (folder / "vagus.toml").write_text(settings + 'health = "127.0.0.1:0"\nprobe = "off"\n')
    (folder / "vagus.toml").chmod(0o600)
    for name in ("plan.toml", "log.vkey"):
        shutil.copy(hospital / name, folder)
    (folder / "keystores").mkdir(mode=0o700)
    shutil.copytree(hospital / "keystores" / "ocsp", folder / "keystores" / "ocsp")
    monkeypatch.delenv("VAGUS_PASSPHRASE_SOURCE")
    return folder


def health(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(served.get("/health", "health"))
    return found


def findings(folder: Path) -> dict[str, Any]:
    return {one["check"]: one for one in run(folder, "doctor", "--json").facts}


def test_a_status_node_lacks_nothing_that_it_has_no_use_for(node: Path) -> None:
    with serving(node, *NODE) as served:
        said = health(served)
    assert said["status"] == "well", said
    assert set(said) == {"status", "sequence", "work", "listeners", "answers", "published"}
    assert set(said["work"]) == {
        *(
            "lists",
            "files",
            "responders",
            "answers",
            "gates",
            "plan",
            "newest-lists",
            "list-ages",
            "events",
            "unsigned",
        ),
    }
    assert "checkpoint" not in served.log()
    found = findings(node)
    assert found["ledger"]["state"] == "well"
    assert "emergency lists" not in found


def test_a_node_whose_folder_cannot_be_written_goes_on_answering_and_says_where(node: Path) -> None:
    (node / "published").write_text("in the way")  # nobody, root included, makes a folder there
    with serving(node, *NODE) as served:
        said = health(served)
        assert said["status"] == "degraded"
        assert str(node / "published") in said["lacks"]["files"]
        assert "give the folder to the user that serves" in said["lacks"]["files"]
        assert said["work"]["files"]["failures"] == 0
        assert b'vagus_lacks{what="files"} 1.0' in served.get("/metrics", "health")
        assert served.get("/crl/h1.icu/1/0.crl")
    assert served.log().count("CRLs are not written") == 1


def test_the_doctor_sees_revocations_without_a_crl(node: Path, hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issue(hospital, 1)
    publish(hospital, "again")
    revoked_at = datetime.now(UTC)
    with Installation.open(hospital) as installation:
        installation.operations.devices.revoke(installation.actor, device_name(1), "keyCompromise")
    assert findings(node)["CRL"]["state"] == "well"
    monkeypatch.setattr(RealClock, "now", lambda _: revoked_at + timedelta(seconds=63))
    (one,) = [one for one in run(node, "doctor", "--json").facts if "is in no CRL yet" in one["finding"]]
    assert (one["check"], one["state"], one["remedy"]) == ("CRL", "failing", "vagus serve --issue-for h1/icu")


def test_where_lists_are_signed_a_folder_that_cannot_be_written_is_a_failure_with_its_path(hospital: Path) -> None:
    """Static servers hand out what was written last, and nobody else writes there."""
    with (hospital / "vagus.toml").open("a") as settings:
        settings.write('health = "127.0.0.1:0"\nprobe = "off"\n')
    shutil.rmtree(hospital / "published")
    (hospital / "published").write_text("in the way")
    with serving(hospital, "--issue-for", "h1/icu,h1/infra", "--passphrase-source", "env:TEST_PASSPHRASE") as served:
        code, body = served.request("GET", "/health", listener="health")
        said = json.loads(body)
    assert (code, said["status"]) == (503, "failing")
    assert f"{hospital / 'published'}" in said["work"]["files"]["last_error"]
    assert "check its owner" in said["work"]["files"]["last_error"]
    assert served.log().count("periodic task files failed") == 1
