"""`vagus snapshot` and `vagus validate --snapshot`: made in the installation, used by whoever has no network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.simulator.issuing import publish
from tests.simulator.orders import order_for
from tests.simulator.running import Outcome, denied, done, run
from vagus.keystore import private_keys
from vagus.operations.devices import find_named
from vagus.wiring import Installation
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.pem import encode_block, encode_certificates


@pytest.fixture
def papers(hospital: Path, tmp_path: Path) -> Path:
    """A folder with leaf.pem, icu.pem, h1.pem, root.pem and the key that snapshots are verified with."""
    folder = tmp_path / "papers"
    folder.mkdir()
    for name in ("h1/icu", "h1", "root"):
        done(hospital, "ca", "export", name, "--out", str(folder / f"{name.rpartition('/')[2]}.pem"))
    with Installation.open(hospital, passphrase_sources=["env:TEST_PASSPHRASE"]) as installation:
        device = find_named(installation.database, "Aorta IP3:AIP3-000001")
        order = order_for(device.id, "test", profile=device.profile)
        issued = installation.issuance.issue_now(order, installation.open_issuers(["h1/icu"])["h1/icu"])
    (folder / "leaf.pem").write_bytes(encode_certificates([issued.der]))
    done(hospital, "snapshot", "key", "--out", str(folder / "snapshot.pem"))
    return folder


def write(hospital: Path, papers: Path, *more: str) -> dict[str, object]:
    found = done(hospital, "snapshot", "write", "--out", str(papers / "revoked.snapshot"), "--json", *more).facts
    assert isinstance(found, dict)
    return found


def test_a_snapshot_to_a_medium_that_is_not_there_is_refused_before_it_is_made(hospital: Path) -> None:
    medium, before = hospital.parent / "medium", done(hospital, "export").out
    refused = run(hospital, "snapshot", "write", "--out", str(medium / "revoked.snapshot"))
    assert (refused.code, refused.reason, "does not exist; make or mount" in refused.err) == (2, "BAD_ARGUMENT", True)
    assert not medium.exists()
    assert done(hospital, "export").out == before, "the ledger tells of no snapshot"


@pytest.mark.parametrize("gone", ["log", "published"])
def test_a_database_that_other_tools_restored_makes_no_snapshot(hospital: Path, papers: Path, gone: str) -> None:
    """It calls everybody good who was revoked since, for days and to whom can ask nobody else."""
    shutil.copy(hospital / "vagus.sqlite3", papers / "old.sqlite3")
    done(hospital, "device", "revoke", "Aorta IP3:AIP3-000001", "--reason", "keyCompromise", "--yes")
    publish(hospital)
    assert write(hospital, papers)["revoked"] == 1
    (papers / "revoked.snapshot").unlink()
    for left in hospital.glob("vagus.sqlite3*"):
        left.unlink()
    shutil.copy(papers / "old.sqlite3", hospital / "vagus.sqlite3")
    shutil.rmtree(hospital / gone)
    denied(hospital, 3, "RESTORE_UNSETTLED", "snapshot", "write", "--out", str(papers / "revoked.snapshot"))
    assert not (papers / "revoked.snapshot").exists()


def validate(papers: Path, *more: str) -> Outcome:
    files = [str(papers / f"{name}.pem") for name in ("leaf", "icu", "h1")]
    snapshot = ["--snapshot", str(papers / "revoked.snapshot"), "--snapshot-key", str(papers / "snapshot.pem")]
    anchors = ("--anchors", str(papers / "root.pem"), "--role", "client")
    return run(papers, "validate", *files, *anchors, *snapshot, "--json", *more)


def test_a_good_certificate_passes_offline_and_a_revoked_one_does_not(hospital: Path, papers: Path) -> None:
    made = write(hospital, papers, "--one-in", "100000")
    assert (made["revoked"], made["one_in"], made["issuers"]) == (0, 100_000, 5)
    assert made["bytes"] == (papers / "revoked.snapshot").stat().st_size
    assert validate(papers).facts["verdict"] == "accepted"
    done(hospital, "device", "revoke", "Aorta IP3:AIP3-000001", "--yes")
    assert write(hospital, papers, "--one-in", "100000")["revoked"] == 1
    refused = validate(papers)
    assert (refused.code, refused.facts["reason"], refused.facts["one_in"]) == (1, "STATUS_DOUBTFUL", 100_000)


def test_a_stale_snapshot_decides_nothing(hospital: Path, papers: Path) -> None:
    made = write(hospital, papers, "--hours", "2")
    late = validate(papers, "--at", str(made["next_update"]).replace("Z", ".9Z"))
    assert (late.code, late.facts["reason"]) == (1, "STATUS_STALE")


def test_a_snapshot_without_its_key_is_wrong_use(hospital: Path, papers: Path) -> None:
    write(hospital, papers)
    files = [str(papers / f"{name}.pem") for name in ("leaf", "icu", "h1")]
    snapshot = ["--snapshot", str(papers / "revoked.snapshot")]
    anchors = ("--anchors", str(papers / "root.pem"), "--role", "client")
    denied(papers, 2, "BAD_ARGUMENT", "validate", *files, *anchors, *snapshot)


def test_another_key_is_not_believed(hospital: Path, papers: Path) -> None:
    write(hospital, papers)
    other = private_keys.spki_of(private_keys.generate(KeyAlgorithm.P256))
    (papers / "snapshot.pem").write_bytes(encode_block(other, "PUBLIC KEY"))
    refused = validate(papers)
    assert (refused.code, refused.facts["reason"]) == (1, "SNAPSHOT_INVALID")
    shown = ("snapshot", "show", str(papers / "revoked.snapshot"), "--key", str(papers / "snapshot.pem"))
    denied(papers, 1, "SNAPSHOT_INVALID", *shown)


def test_a_snapshot_reports_what_it_is(hospital: Path, papers: Path) -> None:
    made = write(hospital, papers)
    place = str(papers / "revoked.snapshot")
    shown = done(papers, "snapshot", "show", place, "--key", str(papers / "snapshot.pem"), "--json").facts
    assert (shown["number"], shown["is_verified"], shown["revoked"]) == (made["number"], True, 0)
    assert done(papers, "snapshot", "show", place, "--json").facts["is_verified"] is False
    told = done(hospital, "audit", "show", "--kind", "operator-act", "--json").facts
    assert sum("act=snapshot-made" in one["facts"] for one in told) == 1


def test_a_hospital_may_not_take_its_name(fresh: Path, tmp_path: Path) -> None:
    from tests.simulator.running import PLAN

    plan = tmp_path / "plan.toml"
    plan.write_text(
        PLAN.replace('label = "h1"', 'label = "snapshot"').replace('hospital = "h1"', 'hospital = "snapshot"')
    )
    denied(fresh, 2, "BAD_PLAN", "plan", "check", str(plan))
