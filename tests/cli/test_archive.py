"""Backup and restore: a copy is sound or refused whole; what comes back issues nothing until its gap is closed."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from tests.cli.running import done, run
from vagus.records.certificates import list_of_device
from vagus.wiring import House


def backed_up(hospital: Path) -> Path:
    file = hospital.parent / "backup.tar"
    done(hospital, "backup", str(file))
    return file


def test_a_backup_holds_what_a_restore_needs_and_no_key_in_clear(hospital: Path) -> None:
    file = backed_up(hospital)
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert names[:3] == ["manifest.json", "manifest.sha256", "database.sqlite3"]
    assert {"vagus.toml", "plan.toml", "log.vkey", "keystores/root/ca-1.key"} <= set(names)
    assert b"PRIVATE KEY" not in file.read_bytes()


def test_a_backup_never_replaces_a_file(hospital: Path) -> None:
    file = backed_up(hospital)
    refused = run(hospital, "backup", str(file))
    assert (refused.code, refused.reason) == (3, "ALREADY_EXISTS")


def test_what_comes_back_is_the_same_and_issues_nothing(hospital: Path, tmp_path: Path) -> None:
    before = done(hospital, "export").out
    back = tmp_path / "back"
    restored = done(back, "restore", str(backed_up(hospital)), "--json").facts
    assert restored["log_size"] > 0
    after = done(back, "export").out
    assert after != before, "the ledger has the entry of the restore"
    assert done(back, "audit", "verify", "--json").facts["verdict"] == "sound"
    for command in (("ceremony", "--yes"), ("ca", "roll", "h1/icu"), ("serve", "--issue-for", "h1/icu")):
        refused = run(back, *command)
        assert (refused.code, refused.reason) == (3, "RESTORE_UNSETTLED"), command
    failing = run(back, "doctor", "--json")
    assert failing.code == 1


def test_the_gap_is_closed_with_an_entry_and_then_it_issues(hospital: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    done(back, "restore", str(backed_up(hospital)))
    closed = done(back, "restore-gap", "--unsafe-no-checkpoint", "--accept", "--yes", "--json").facts
    assert closed["act"] == "accepted"
    done(back, "ceremony", "--yes")
    assert len(done(back, "audit", "show", "--kind", "gap-accepted", "--json").facts) == 1
    again = run(back, "restore-gap", "--unsafe-no-checkpoint", "--accept", "--yes")
    assert (again.code, again.reason) == (3, "ALREADY_EXISTS")


def test_certificates_of_the_gap_are_revoked_from_the_published_log(hospital: Path, tmp_path: Path) -> None:
    file = backed_up(hospital)
    issue_to_first_device(hospital)
    published, checkpoint = publish(hospital), hospital / "log" / "checkpoint"
    back = tmp_path / "back"
    done(back, "restore", str(file))
    closed = done(
        back,
        "restore-gap",
        "--checkpoint",
        str(checkpoint),
        "--published",
        str(published),
        "--revoke",
        "--yes",
        "--json",
    ).facts
    assert closed["revoked"] == 1
    assert closed["end"] > closed["start"]
    assert done(back, "audit", "verify", "--json").facts["revocations"] == 1


def test_a_checkpoint_of_another_history_closes_nothing(hospital: Path, tmp_path: Path) -> None:
    file = backed_up(hospital)
    publish(hospital)
    checkpoint = (hospital / "log" / "checkpoint").read_text()
    forged = tmp_path / "checkpoint"
    lines = checkpoint.splitlines()
    forged.write_text("\n".join([lines[0], "5", *lines[2:]]) + "\n")
    back = tmp_path / "back"
    done(back, "restore", str(file))
    refused = run(back, "restore-gap", "--checkpoint", str(forged), "--accept", "--yes")
    assert (refused.code, refused.reason) == (5, "CHECKPOINT_INVALID")
    assert run(back, "ceremony", "--yes").reason == "RESTORE_UNSETTLED"


@pytest.mark.parametrize("arguments", [("--revoke", "--accept"), (), ("--accept",)])
def test_the_operator_says_what_becomes_of_the_gap(hospital: Path, arguments: tuple[str, ...]) -> None:
    refused = run(hospital, "restore-gap", *arguments, "--yes")
    assert (refused.code, refused.reason) == (2, "BAD_ARGUMENT")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.95])
def test_a_truncated_backup_is_refused_and_nothing_appears(hospital: Path, tmp_path: Path, share: float) -> None:
    file = backed_up(hospital)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    refused = run(tmp_path / "back", "restore", str(file))
    assert (refused.code, refused.reason) == (5, "BACKUP_DAMAGED")
    assert not (tmp_path / "back").exists()
    assert not list(tmp_path.glob(".back*"))


def test_a_changed_byte_is_refused(hospital: Path, tmp_path: Path) -> None:
    file = backed_up(hospital)
    with tarfile.open(file) as tar:
        places = [(member.name, member.offset_data, member.size) for member in tar.getmembers()]
    content = file.read_bytes()
    for name, start, size in places:
        at = start + size // 2
        damaged = bytearray(content)
        damaged[at] ^= 1
        file.write_bytes(bytes(damaged))
        refused = run(tmp_path / "back", "restore", str(file))
        assert (refused.code, refused.reason) == (5, "BACKUP_DAMAGED"), name
        assert not (tmp_path / "back").exists()


def test_a_file_that_would_land_elsewhere_is_refused(hospital: Path, tmp_path: Path) -> None:
    file = backed_up(hospital)
    foreign = tmp_path / "foreign.tar"
    with tarfile.open(file) as old, tarfile.open(foreign, "w") as new:
        for member in old.getmembers():
            source = old.extractfile(member)
            member.name = "../outside" if member.name == "plan.toml" else member.name
            new.addfile(member, source)
    refused = run(tmp_path / "back", "restore", str(foreign))
    assert refused.reason == "BACKUP_DAMAGED"
    assert not (tmp_path / "outside").exists()


def test_a_restore_never_replaces_an_installation(hospital: Path) -> None:
    refused = run(hospital, "restore", str(backed_up(hospital)))
    assert (refused.code, refused.reason) == (3, "ALREADY_EXISTS")


def test_a_missing_backup_is_told(tmp_path: Path) -> None:
    refused = run(tmp_path / "back", "restore", str(tmp_path / "none.tar"))
    assert refused.code == 4


def issue_to_first_device(hospital: Path) -> None:
    """What EST does, without the network: one certificate for one device of the inventory."""
    from vagus.authority.issuance import IssuanceOrder
    from vagus.keystore import private_keys
    from vagus.x509.algorithms import KeyAlgorithm
    from vagus.x509.keys import decode_public_key
    from vagus.x509.names import SubjectFields

    with House.open(hospital, passphrase_sources=["env:TEST_PASSPHRASE"]) as house:
        device = house.find_device("Aorta IP3:AIP3-000001")
        key = decode_public_key(private_keys.spki_of(private_keys.generate(KeyAlgorithm.P256)))
        order = IssuanceOrder(
            request_id="test",
            profile=device.profile,
            owner=f"device:{device.id}",
            device_id=str(device.id),
            public_key=key,
            subject=SubjectFields("First Hospital", "Intensive Care", str(device.id)),
            dns_names=(f"{device.id}.icu.h1.test.example",),
        )
        house.issuance.issue_now(order, house.open_issuers(["h1/icu"])["h1/icu"])
        with house.database.reading() as connection:
            assert len(list_of_device(connection, str(device.id))) == 1


def publish(hospital: Path) -> Path:
    """What the serving process does every second; gives a copy that was kept elsewhere."""
    from vagus.ledger.publish import LogPublisher

    with House.open(hospital, passphrase_sources=["env:TEST_PASSPHRASE"]) as house:
        LogPublisher(house.database, house.settings.log, house.checkpoint_key()).publish()
    kept = hospital.parent / "kept"
    shutil.copytree(hospital / "log", kept)
    return kept
