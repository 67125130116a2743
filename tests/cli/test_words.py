"""What the commands say to somebody who mistyped, or repeats what must happen once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulator.issuing import device_name, issue
from tests.simulator.running import END_OF_INPUT, answer, denied, done, run


@pytest.mark.parametrize("named", ["foo", "Aorta IP3-000001", "a" * 200])
def test_what_names_no_device_is_answered_with_the_two_ways_of_naming_one(hospital: Path, named: str) -> None:
    words = ("MODEL:SERIAL", "vagus device list")
    assert len(denied(hospital, 2, "BAD_ARGUMENT", "device", "show", named, says=words).err) < 400


@pytest.mark.parametrize("command", [("device", "revoke"), ("revoke",)])
def test_the_help_of_a_revocation_lists_every_reason(hospital: Path, command: tuple[str, ...]) -> None:
    said = " ".join(run(hospital, *command, "--help").out.split())
    for reason in ("keyCompromise", "affiliationChanged", "privilegeWithdrawn", "cessationOfOperation", "superseded"):
        assert reason in said


def test_a_backup_that_is_not_there_is_a_bad_argument(tmp_path: Path) -> None:
    assert "nope.tar" in denied(tmp_path / "back", 2, "BAD_ARGUMENT", "restore", str(tmp_path / "nope.tar")).err
    assert not (tmp_path / "back").exists()


def test_a_ceremony_without_a_plan_says_what_comes_first(fresh: Path) -> None:
    assert "vagus plan apply" in denied(fresh, 3, "CEREMONY_NEEDED", "ceremony", "--yes").err


def test_a_second_birth_certificate_for_one_serial_number_is_asked_for_by_name(maker: Path, tmp_path: Path) -> None:
    def make(folder: str, *more: str) -> tuple[str, ...]:
        asked = ("maker", "make-idevids", "--out", str(tmp_path / folder), "--serial", "AIP3-000002")
        return (*asked, "--unsafe-make-keys", *more)

    done(maker, *make("first"))
    first = (tmp_path / "first" / "AIP3-000002" / "certificate.pem").read_bytes()
    done(maker, *make("first"))
    assert (tmp_path / "first" / "AIP3-000002" / "certificate.pem").read_bytes() == first, "the same key, the same one"
    (refused,) = run(maker, *make("second", "--json")).facts["files"]
    assert (refused["state"], refused["reason"]) == ("refused", "ALREADY_EXISTS")
    assert "AIP3-000002 has a birth certificate for another key" in refused["message"]
    assert not (tmp_path / "second" / "AIP3-000002" / "certificate.pem").exists()
    done(maker, *make("second", "--again"))
    assert (tmp_path / "second" / "AIP3-000002" / "certificate.pem").read_bytes() != first
    shown = done(maker, "audit", "show", "--kind", "operator-act", "--json").facts
    assert [row for row in shown if "idevid-again" in row["facts"]]
    done(maker, "audit", "verify")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("revoke", "run", "abc"), ("'ID'", "'abc' should be a valid integer", "vagus revoke run --help")),
        (("device", "list", "--limit", "0"), ("'--limit'", "'0' should be greater than or equal to 1")),
        (("device", "show"), ("Missing argument 'DEVICE'", "vagus device show --help")),
        (("token", "make", "A:1", "--hours", "-1"), ("'--hours'", "'-1' should be greater than or equal to 0.02")),
        (("init", "--kind", "clinic"), ("'clinic' is not one of 'hospital', 'maker'",)),
        (("device", "list", "--limti", "3"), ("--limti", "--limit")),
        (("enrol",), ("'enrol'", "vagus --help")),
    ],
)
def test_wrong_arguments_are_one_message(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    said, _reason = denied(tmp_path, 2, "BAD_ARGUMENT", *arguments).err.splitlines()
    for word in words:
        assert word in said
    if len(arguments) > 1:
        assert json.loads(run(tmp_path, *arguments, "--json").err)["error"]["reason"] == "BAD_ARGUMENT"


@pytest.mark.parametrize("group", ["ca", "device", "plan", "audit"])
def test_a_group_alone_shows_its_help(tmp_path: Path, group: str) -> None:
    shown = run(tmp_path, group)
    assert shown.code == 2
    assert "Commands:" in shown.err


@pytest.mark.parametrize(
    ("option", "wrong", "known"),
    [("--unit", "h1/er", "h1/icu"), ("--hospital", "h9", "h1"), ("--model", "Aorta IP4", "Aorta IP3")],
)
def test_a_misspelt_name_does_not_look_like_an_empty_one(hospital: Path, option: str, wrong: str, known: str) -> None:
    denied(hospital, 2, "BAD_ARGUMENT", "device", "list", option, wrong, says=(wrong, known))
    done(hospital, "device", "list", option, known)


def test_no_token_is_made_that_could_not_be_written(hospital: Path, tmp_path: Path) -> None:
    place = tmp_path / "none" / "token"
    made = ("token", "make", device_name(1), "--out", str(place))
    denied(hospital, 2, "BAD_ARGUMENT", *made, says=(str(place.parent),))
    assert done(hospital, "audit", "show", "--kind", "token-made", "--json").facts == []


def test_a_generation_is_retired_by_its_number_alone(hospital: Path) -> None:
    denied(hospital, 2, "BAD_ARGUMENT", "ca", "retire", "h1/icu", says=("h1/icu#1",))
    assert done(hospital, "ca", "show", "h1/icu", "--json").facts["state"] == "active"


@pytest.mark.parametrize(
    ("more", "locks"),
    [
        ((), True),
        (("--reason", "keyCompromise"), True),
        (("--keep-enrolling",), False),
        (("--reason", "superseded"), False),
    ],
)
def test_the_question_before_a_revocation_says_what_happens(hospital: Path, more: tuple[str, ...], locks: bool) -> None:
    asked = answer(hospital, END_OF_INPUT, "device", "revoke", "Aorta IP3:AIP3-000001", *more)
    assert asked.code == 1
    assert "Revoke every certificate of Aorta IP3 AIP3-000001 of h1/icu (device " in asked.err
    assert ("now, for good, and lock it out?" in asked.err) is locks
    assert "nothing was changed" in asked.err
    assert done(hospital, "device", "show", device_name(1), "--json").facts["device"]["state"] == "received"


def test_a_ceremony_asks_for_what_it_will_do(hospital: Path) -> None:
    assert "Open the offline keys, sign new CRLs of the offline authorities?" in answer(hospital, "n\n", "ceremony").err


def test_a_page_of_devices_says_that_more_may_follow(hospital: Path) -> None:
    first = done(hospital, "device", "list", "--limit", "2")
    ids = [row["id"] for row in done(hospital, "device", "list", "--limit", "2", "--json").facts]
    assert f"More may follow: --after {ids[1]}" in first.out
    rest = done(hospital, "device", "list", "--after", ids[1])
    assert "More may follow" not in rest.out
    assert ids[0] not in rest.out


def test_a_hold_or_revocation_that_is_given_again_says_that_it_stood_before(hospital: Path) -> None:
    device = device_name(1)
    issue(hospital, 1)
    assert "before:" not in done(hospital, "device", "hold", device).out
    again = done(hospital, "device", "hold", device, "--json").facts
    assert (again["held"], again["held_before"]) == (0, 1)
    assert "were on hold before" in done(hospital, "device", "hold", device).out
    done(hospital, "device", "release", device)
    first = done(hospital, "device", "revoke", device, "--yes", "--json").facts
    assert (first["revoked"], first["revoked_before"]) == (1, 0)
    again = done(hospital, "device", "revoke", device, "--yes", "--json").facts
    assert (again["revoked"], again["revoked_before"]) == (0, 1)
    assert "were revoked before" in done(hospital, "device", "revoke", device, "--yes").out


def test_the_end_of_a_generation_is_asked_for_and_a_no_changes_nothing(hospital: Path) -> None:
    asked = answer(hospital, END_OF_INPUT, "ca", "retire", "h1/icu#1")
    assert asked.code == 1
    assert "Retire h1/icu#1 for good?" in asked.err
    assert "nothing was changed" in asked.err
    assert done(hospital, "ca", "show", "h1/icu", "--json").facts["state"] == "active"
    done(hospital, "ca", "retire", "h1/icu#1", "--yes")
    denied(hospital, 3, "AUTHORITY_UNKNOWN", "ca", "retire", "h1/icu#1")


def test_a_database_that_is_not_there_is_not_begun_beside_the_real_one(hospital: Path) -> None:
    settings = hospital / "vagus.toml"
    settings.write_text(settings.read_text().replace("sqlite:///vagus.sqlite3", "sqlite:///vagus.sqlite"))
    for command in (("device", "list"), ("upgrade",), ("doctor",)):
        denied(hospital, 2, "BAD_SETTINGS", *command, says=(str(hospital / "vagus.sqlite"), "correct the path"))
    assert not (hospital / "vagus.sqlite").exists()


def test_a_folder_without_the_plan_that_was_applied_says_to_copy_it(hospital: Path) -> None:
    (hospital / "plan.toml").unlink()
    words = f"{hospital / 'plan.toml'} is missing here, though a plan is in force"
    refused = denied(hospital, 3, "CEREMONY_NEEDED", "serve", "--role", "status", says=(words,))
    assert "vagus plan apply" not in refused.err


@pytest.mark.parametrize("arguments", [("revoke", "list"), ("device", "state", "Aorta IP3:AIP3-000001", "recalled")])
def test_a_place_that_sqlite_may_not_write_is_named_with_what_helps(hospital: Path, arguments: tuple[str, ...]) -> None:
    for suffix in ("-wal", "-shm"):
        beside = hospital / f"vagus.sqlite3{suffix}"
        beside.unlink(missing_ok=True)
        beside.mkdir()  # root may write everything, but not this
    words = (f"beside {hospital / 'vagus.sqlite3'}", "to the user that runs this")
    assert "try again" not in denied(hospital, 4, "DATABASE_UNAVAILABLE", *arguments, says=words).err


@pytest.mark.parametrize("content", ["shopping list", "{}"])
def test_a_file_that_is_no_sealed_crl_is_wrong_use(hospital: Path, tmp_path: Path, content: str) -> None:
    odd = tmp_path / "odd.txt"
    odd.write_text(content)
    denied(hospital, 2, "BAD_ARGUMENT", "ca", "emergency", str(odd), "--yes", says=(f"{odd} is no sealed CRL",))
