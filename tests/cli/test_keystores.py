"""`vagus keystore`: what opens which keystore is shown and changed; an interrupted change is finished by a repeat."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulator.running import denied, done, findings, run
from vagus.keystore import resealing
from vagus.keystore.software import read_derivation

NEW = ("--new-passphrase-source", "env:TEST_NEW_PASSPHRASE")
CHANGE = ("keystore", "change-passphrase")


@pytest.fixture(autouse=True)
def passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_NEW_PASSPHRASE", "staple battery horse")
    monkeypatch.setenv("TEST_OTHER_PASSPHRASE", "another one of all")
    monkeypatch.setenv("TEST_SHORT_PASSPHRASE", "short")


def opened(folder: Path, source: str) -> dict[str, str]:
    outcome = run(folder, "keystore", "check", "--passphrase-source", source, "--json")
    found = {one["keystore"]: one["opens"] for one in outcome.facts}
    assert outcome.code == int("no" in found.values())
    return found


def salts(folder: Path) -> set[bytes]:
    return {read_derivation(path.parent).salt for path in (folder / "keystores").glob("*/keystore.toml")}


def test_every_keystore_is_changed_shares_one_derivation_and_goes_on_signing(hospital: Path) -> None:
    everyone = opened(hospital, "env:TEST_PASSPHRASE")
    assert (set(everyone.values()), {"root", "h1/icu", "log"} <= set(everyone)) == ({"yes"}, True)
    rows = done(hospital, *CHANGE, "all", *NEW, "--yes", "--json").facts
    assert {one["keystore"]: one["passphrase"] for one in rows} == dict.fromkeys(everyone, "changed")
    assert opened(hospital, "env:TEST_NEW_PASSPHRASE") == everyone
    assert set(opened(hospital, "env:TEST_PASSPHRASE").values()) == {"no"}
    assert len(salts(hospital)) == 1, "one passphrase costs one derivation (ADR 17)"
    acts = done(hospital, "audit", "show", "--kind", "operator-act", "--limit", "100", "--json").facts
    subjects = [one["facts"] for one in acts if "act=passphrase-changed" in one["facts"]]
    assert len(subjects) == len(everyone)
    assert any("subject=log:keystore-h1.icu" in one for one in subjects)
    assert run(hospital, "ca", "roll", "h1/icu", "--passphrase-source", "env:TEST_NEW_PASSPHRASE").code == 3
    done(hospital, "ceremony", "--passphrase-source", "env:TEST_NEW_PASSPHRASE", "--yes")
    denied(hospital, 1, "PASSPHRASE_WRONG", "ca", "roll", "h1")
    done(hospital, "audit", "verify")


def test_one_keystore_gets_a_passphrase_of_its_own(hospital: Path) -> None:
    rows = done(hospital, *CHANGE, "root", *NEW, "--yes", "--json").facts
    assert [one["keystore"] for one in rows] == ["root"]
    found = opened(hospital, "env:TEST_PASSPHRASE")
    assert {name for name, opens in found.items() if opens == "no"} == {"root"}
    both = ("--passphrase-source", "root=env:TEST_NEW_PASSPHRASE", "--passphrase-source", "env:TEST_PASSPHRASE")
    assert {one["opens"] for one in done(hospital, "keystore", "check", *both, "--json").facts} == {"yes"}
    assert len(salts(hospital)) == 2


def test_a_repeat_after_a_crash_between_two_keystores_finishes(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, count = resealing.change_passphrase, 0

    def crash(*given: object, **named: object) -> object:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return change(*given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("vagus.maintenance.keystore_passphrases.change_passphrase", crash)
        assert run(hospital, *CHANGE, "all", *NEW, "--yes").code != 0
    assert sorted(opened(hospital, "env:TEST_NEW_PASSPHRASE").values()).count("yes") == 2
    rows = done(hospital, *CHANGE, "all", *NEW, "--yes", "--json").facts
    assert [one["passphrase"] for one in rows].count("was changed before") == 2
    assert set(opened(hospital, "env:TEST_NEW_PASSPHRASE").values()) == {"yes"}
    assert len(salts(hospital)) == 1, "a repeat shares the salt of what was changed before"


def test_nothing_is_changed_unless_every_named_keystore_opens(hospital: Path) -> None:
    done(hospital, *CHANGE, "root", "--new-passphrase-source", "env:TEST_OTHER_PASSPHRASE", "--yes")
    before = {path: path.read_bytes() for path in (hospital / "keystores").rglob("*") if path.is_file()}
    denied(hospital, 1, "PASSPHRASE_WRONG", *CHANGE, "all", *NEW, "--yes", says=("keystore root", "root=fd:N"))
    assert {path: path.read_bytes() for path in before} == before
    both = ("--passphrase-source", "root=env:TEST_OTHER_PASSPHRASE", "--passphrase-source", "env:TEST_PASSPHRASE")
    done(hospital, *CHANGE, "all", *NEW, *both, "--yes")


@pytest.mark.parametrize(
    ("names", "source", "code", "reason", "says"),
    [
        (("h1/xyz",), "env:TEST_NEW_PASSPHRASE", 2, "BAD_ARGUMENT", "h1/icu"),
        (("emergency",), "env:TEST_NEW_PASSPHRASE", 2, "BAD_ARGUMENT", "hold a ceremony"),
        (("log",), "env:TEST_PASSPHRASE", 2, "BAD_ARGUMENT", "give another"),
        (("log",), "env:TEST_SHORT_PASSPHRASE", 2, "BAD_SETTINGS", "8 bytes"),
        (("log",), "env:NOT_SET", 2, "BAD_SETTINGS", "NOT_SET"),
        (("log",), "root=env:TEST_NEW_PASSPHRASE", 4, "KEY_NOT_OPEN", "log"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    hospital: Path, names: tuple[str, ...], source: str, code: int, reason: str, says: str
) -> None:
    given = (*CHANGE, *names, "--new-passphrase-source", source, "--yes")
    denied(hospital, code, reason, *given, says=(says,))
    assert set(opened(hospital, "env:TEST_PASSPHRASE").values()) == {"yes"}


def test_all_is_all_and_a_medium_that_is_away_is_named(hospital: Path, tmp_path: Path) -> None:
    (hospital / "keystores" / "root").rename(tmp_path / "medium")
    (hospital / "keystores" / "root").symlink_to(tmp_path / "mount")
    denied(hospital, 4, "KEY_NOT_OPEN", *CHANGE, "all", *NEW, "--yes", says=("root", "medium"))
    done(hospital, *CHANGE, "h1", *NEW, "--yes")
    (tmp_path / "mount").symlink_to(tmp_path / "medium")
    done(hospital, *CHANGE, "all", *NEW, "--yes")
    assert set(opened(hospital, "env:TEST_NEW_PASSPHRASE").values()) == {"yes"}


def test_a_damaged_key_is_named_by_the_check(hospital: Path) -> None:
    file = next((hospital / "keystores" / "root").glob("*.key"))
    file.write_bytes(file.read_bytes()[:-9])
    outcome = run(hospital, "keystore", "check", "--json")
    assert outcome.code == 1
    assert [(one["keystore"], file.name in one["problem"]) for one in outcome.facts if one["opens"] == "no"] == [
        ("root", True)
    ]


def test_a_weak_derivation_ends_with_the_change_of_the_passphrase(hospital: Path) -> None:
    """The doctor judges what each keystore really has; the change takes what vagus.toml says by then."""
    settings = hospital / "vagus.toml"
    settings.write_text(settings.read_text().replace("unsafe_fast = true", "unsafe_fast = false"))
    (weak,) = findings(hospital, "keystores")
    assert ("h1" in weak["finding"], "change-passphrase" in weak["remedy"]) == (True, True)
    done(hospital, *CHANGE, "root", *NEW, "--yes")
    (weak,) = findings(hospital, "keystores")
    assert "root" not in weak["finding"]
    assert read_derivation(hospital / "keystores" / "root").is_strong
    settings.write_text(settings.read_text().replace('kdf = "scrypt"', 'kdf = "pbkdf2"'))
    _, other = findings(hospital, "keystores")
    assert ("(root)" in other["finding"], "pbkdf2" in other["finding"]) == (True, True)
