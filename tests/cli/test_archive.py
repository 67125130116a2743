"""Backup and restore: a copy is sound or refused whole; what comes back issues nothing until its gap is closed."""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path

import pytest

from tests.simulator.running import denied, done, findings, run


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


def test_makers_lists_come_back_and_bind_as_they_did(hospital: Path, tmp_path: Path) -> None:
    makers = hospital / "makers"
    makers.mkdir()
    for name in ("acme.crl", "line.pem", "notes.txt"):
        (makers / name).write_bytes(b"what the maker sent as " + name.encode())
        (makers / name).chmod(0o644)
    (makers / "gone.crl").symlink_to(tmp_path / "nowhere")
    (makers / "mounted.crl").symlink_to(makers / "acme.crl")
    back = tmp_path / "back"
    done(back, "restore", str(backed_up(hospital)))
    brought = {path.name: path for path in (back / "makers").iterdir()}
    assert set(brought) == {"acme.crl", "line.pem", "mounted.crl"}, "what serve reads, and no other file"
    assert brought["mounted.crl"].read_bytes() == brought["acme.crl"].read_bytes() == (makers / "acme.crl").read_bytes()
    assert {stat.S_IMODE(path.lstat().st_mode) for path in (back / "makers", *brought.values())} == {0o700, 0o600}
    found = findings(back, "makers' lists")
    assert any("makers/acme.crl" in one["finding"] for one in found), "the doctor reads them where they are now"


def test_a_makers_file_that_no_backup_can_hold_is_reported_by_its_name(hospital: Path) -> None:
    (hospital / "makers").mkdir()
    (hospital / "makers" / "Acme Root.crl").write_bytes(b"a list")
    backup = ("backup", str(hospital.parent / "backup.tar"))
    denied(hospital, 2, "BAD_ARGUMENT", *backup, says=("makers/Acme Root.crl",))
    assert not list(hospital.parent.glob("*.tar*"))


def test_a_backup_never_replaces_a_file(hospital: Path) -> None:
    denied(hospital, 3, "ALREADY_EXISTS", "backup", str(backed_up(hospital)))


def test_a_backup_to_a_medium_that_is_not_there_is_refused_and_no_folder_is_made(hospital: Path) -> None:
    medium = hospital.parent / "medium"
    for place, said in (
        (medium / "vagus.tar", "does not exist; make or mount"),
        (hospital.parent, "is a folder; name a file"),
    ):
        assert said in denied(hospital, 2, "BAD_ARGUMENT", "backup", str(place)).err
    assert not medium.exists()
    medium.mkdir()
    done(hospital, "backup", str(medium / "vagus.tar"))
    assert [one.name for one in medium.iterdir()] == ["vagus.tar"]


def test_a_backup_without_a_name_goes_into_a_folder_of_the_installation(hospital: Path) -> None:
    done(hospital, "backup")
    assert [one.suffix for one in (hospital / "backups").iterdir()] == [".tar"]


def test_what_comes_back_is_the_same_and_issues_nothing(hospital: Path, tmp_path: Path) -> None:
    before = done(hospital, "export").out
    back = tmp_path / "back"
    assert done(back, "restore", str(backed_up(hospital)), "--json").facts["log_size"] > 0
    assert done(back, "export").out == before, "not one entry is added before the gap is closed"
    assert done(back, "audit", "verify", "--json").facts["verdict"] == "sound"
    for command in (("ceremony", "--yes"), ("ca", "roll", "h1/icu"), ("serve", "--issue-for", "h1/icu")):
        denied(back, 3, "RESTORE_UNSETTLED", *command)
    assert run(back, "doctor", "--json").code == 1


@pytest.mark.parametrize("arguments", [("--revoke", "--accept"), (), ("--accept",)])
def test_the_operator_says_what_becomes_of_the_gap(hospital: Path, arguments: tuple[str, ...]) -> None:
    denied(hospital, 2, "BAD_ARGUMENT", "restore-gap", *arguments, "--yes")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.95])
def test_a_truncated_backup_is_refused_and_nothing_appears(hospital: Path, tmp_path: Path, share: float) -> None:
    file = backed_up(hospital)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    denied(tmp_path / "back", 5, "BACKUP_DAMAGED", "restore", str(file))
    assert not (tmp_path / "back").exists()
    assert not list(tmp_path.glob(".back*"))


def test_a_changed_byte_is_refused(hospital: Path, tmp_path: Path) -> None:
    file = backed_up(hospital)
    with tarfile.open(file) as tar:
        places = [(member.offset_data, member.size) for member in tar.getmembers()]
    content = file.read_bytes()
    for start, size in (*places[:3], places[len(places) // 2], places[-1]):
        at = start + size // 2
        damaged = bytearray(content)
        damaged[at] ^= 1
        file.write_bytes(bytes(damaged))
        denied(tmp_path / "back", 5, "BACKUP_DAMAGED", "restore", str(file))
        assert not (tmp_path / "back").exists()


def test_a_file_that_would_land_elsewhere_is_refused(hospital: Path, tmp_path: Path) -> None:
    file = backed_up(hospital)
    foreign = tmp_path / "foreign.tar"
    with tarfile.open(file) as old, tarfile.open(foreign, "w") as new:
        for member in old.getmembers():
            source = old.extractfile(member)
            member.name = "../outside" if member.name == "plan.toml" else member.name
            new.addfile(member, source)
    assert run(tmp_path / "back", "restore", str(foreign)).reason == "BACKUP_DAMAGED"
    assert not (tmp_path / "outside").exists()


def test_a_restore_never_replaces_an_installation(hospital: Path) -> None:
    denied(hospital, 3, "ALREADY_EXISTS", "restore", str(backed_up(hospital)))


def test_a_missing_backup_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "none.tar", tmp_path / "file" / "none.tar", tmp_path):
        words = ("name a file that `vagus backup` made",)
        denied(tmp_path / "back", 2, "BAD_ARGUMENT", "restore", str(wrong), says=words)
    assert not (tmp_path / "back").exists()
