"""What the commands say to somebody who mistyped, or repeats what must happen once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import done, run


@pytest.mark.parametrize("named", ["foo", "Aorta IP3-000001", "a" * 200])
def test_what_names_no_device_is_told_the_two_ways_of_naming_one(hospital: Path, named: str) -> None:
    refused = run(hospital, "device", "show", named)
    assert (refused.code, refused.reason) == (2, "BAD_ARGUMENT")
    assert "MODEL:SERIAL" in refused.err
    assert "vagus device list" in refused.err
    assert len(refused.err) < 400


@pytest.mark.parametrize("command", [("device", "revoke"), ("revoke",)])
def test_the_help_of_a_revocation_lists_every_reason(hospital: Path, command: tuple[str, ...]) -> None:
    said = " ".join(run(hospital, *command, "--help").out.split())
    for reason in ("keyCompromise", "affiliationChanged", "privilegeWithdrawn", "cessationOfOperation", "superseded"):
        assert reason in said


def test_a_backup_that_is_not_there_is_a_bad_argument(tmp_path: Path) -> None:
    refused = run(tmp_path / "back", "restore", str(tmp_path / "nope.tar"))
    assert (refused.code, refused.reason) == (2, "BAD_ARGUMENT")
    assert "nope.tar" in refused.err
    assert not (tmp_path / "back").exists()


def test_a_ceremony_without_a_plan_says_what_comes_first(fresh: Path) -> None:
    refused = run(fresh, "ceremony", "--yes")
    assert (refused.code, refused.reason) == (3, "CEREMONY_NEEDED")
    assert "vagus plan apply" in refused.err


def test_a_second_birth_certificate_for_one_serial_number_is_asked_for_by_name(maker: Path, tmp_path: Path) -> None:
    def make(folder: str, *more: str) -> tuple[str, ...]:
        asked = ("maker", "make-idevids", "--out", str(tmp_path / folder), "--serial", "AIP3-000002")
        return (*asked, "--unsafe-make-keys", *more)

    done(maker, *make("first"))
    first = (tmp_path / "first" / "AIP3-000002" / "certificate.pem").read_bytes()
    done(maker, *make("first"))
    assert (tmp_path / "first" / "AIP3-000002" / "certificate.pem").read_bytes() == first, "the same key, the same one"
    refused = run(maker, *make("second"))
    assert (refused.code, refused.reason) == (3, "ALREADY_EXISTS")
    assert "AIP3-000002" in refused.err
    assert not (tmp_path / "second" / "AIP3-000002" / "certificate.pem").exists()
    done(maker, *make("second", "--again"))
    assert (tmp_path / "second" / "AIP3-000002" / "certificate.pem").read_bytes() != first
    shown = done(maker, "audit", "show", "--kind", "operator-act", "--json").facts
    assert [row for row in shown if "idevid-again" in row["facts"]]
    done(maker, "audit", "verify")
