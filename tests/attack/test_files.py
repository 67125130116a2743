"""Who may write files of the installation: keystores weakened or swapped, a checkpoint rolled back, TOML that bites."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import copied, passphrase
from tests.simulator.refusals import reason_of
from tests.simulator.running import PLAN, denied, done
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.software import SoftwareKeystore
from vagus.ledger.publish import LogPublisher
from vagus.policy.plans import decode_plan
from vagus.reasons import Reason
from vagus.settings import decode_settings
from vagus.testing import SeededEntropy
from vagus.wiring import Installation

__all__ = ["passphrase"]

SOURCES = ("env:TEST_PASSPHRASE",)


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital with two units that nobody serves."""
    folder = tmp_path_factory.mktemp("files") / "hospital"
    plan = folder.parent / "plan.toml"
    care = 'title = "Intensive Care"}'
    plan.write_text(PLAN.replace(care, care + ', {label = "er", title = "E"}'))
    done(folder, "init", "--unsafe-fast-kdf", "--origin", "log.test")
    done(folder, "plan", "apply", str(plan), "--yes", "--ceremony")
    return folder


@pytest.fixture
def installation(founded: Path, tmp_path: Path) -> Path:
    return copied(founded, tmp_path)


def _edit(file: Path, **changes: object) -> None:
    """Change fields of a keystore's settings, with the checksum that fits: it guards against accidents only."""
    lines = dict(line.split(" = ", 1) for line in file.read_text().splitlines())
    said = {name: json.loads(value) for name, value in lines.items()} | changes
    header = {name: value for name, value in said.items() if name not in {"probe", "checksum"}}
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    said["checksum"] = hashlib.sha256(canonical).hexdigest()
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in said.items()))


# keystores


@pytest.mark.parametrize(
    "weaker",
    [{"cost": 2048}, {"kdf": "pbkdf2", "cost": 1000}, {"salt": "00" * 16}, {"id": "0" * 32}],
    ids=["cost", "derivation", "salt", "identity"],
)
def test_a_weakened_derivation_opens_nothing_and_seals_nothing(installation: Path, weaker: dict[str, object]) -> None:
    """The probe in it was sealed under the true one: no new key is ever sealed under what the attacker chose."""
    _edit(installation / "keystores" / "h1.icu" / "keystore.toml", **weaker)
    denied(installation, 1, "PASSPHRASE_WRONG", "serve", "--issue-for", "h1/icu")


@pytest.mark.parametrize("work", [{"cost": 2**30}, {"kdf": "pbkdf2", "cost": 10**12}, {"cost": 3}, {"kdf": "none"}])
def test_a_derivation_without_measure_is_damage(installation: Path, work: dict[str, object]) -> None:
    _edit(installation / "keystores" / "h1.icu" / "keystore.toml", **work)
    denied(installation, 5, "KEYSTORE_DAMAGED", "serve", "--issue-for", "h1/icu")


def test_a_keystore_of_the_attackers_own_does_not_open(installation: Path) -> None:
    place = installation / "keystores" / "h1.icu"
    shutil.rmtree(place)
    SoftwareKeystore.create(place, Passphrase("attacker's own words"), entropy=SeededEntropy(3), unsafe_fast=True)
    denied(installation, 1, "PASSPHRASE_WRONG", "serve", "--issue-for", "h1/icu")


def test_keystores_of_two_authorities_that_were_swapped_sign_nothing(installation: Path) -> None:
    """One passphrase opens both, and both call their key by the same name."""
    places = installation / "keystores"
    (places / "h1.icu").rename(places / "aside")
    (places / "h1.er").rename(places / "h1.icu")
    (places / "aside").rename(places / "h1.er")
    for name in ("h1/icu", "h1/er"):
        denied(installation, 5, "KEY_MISMATCH", "serve", "--issue-for", name)


def test_one_key_file_under_anothers_keystore_does_not_open(installation: Path) -> None:
    places = installation / "keystores"
    (key,) = (places / "h1.er").glob("*.key")
    shutil.copy2(key, places / "h1.icu" / key.name)
    denied(installation, 5, "KEYSTORE_DAMAGED", "serve", "--issue-for", "h1/icu")


def test_settings_of_a_keystore_that_would_keep_a_parser_busy_are_damage(installation: Path) -> None:
    file = installation / "keystores" / "h1.icu" / "keystore.toml"
    file.write_text("a" + ".a" * 30_000 + " = 1\n")
    denied(installation, 5, "KEYSTORE_DAMAGED", "serve", "--issue-for", "h1/icu")


# the published log


def test_a_checkpoint_rolled_back_is_found_by_a_kept_one_and_heals_without_a_fork(installation: Path) -> None:
    def publish(opened: Installation) -> int:
        return LogPublisher(opened.database, opened.settings.log, opened.checkpoint_key()).publish().size

    log = installation / "log"
    with Installation.open(installation, passphrase_sources=SOURCES) as opened:
        first = publish(opened)
        shutil.copytree(log, installation / "old")
        device = done(installation, "device", "list", "--json").facts[0]["id"]
        done(installation, "token", "make", device)
        second = publish(opened)
        assert second > first
        shutil.copy2(log / "checkpoint", installation / "kept")
        shutil.rmtree(log)
        (installation / "old").rename(log)  # what the world sees is a day old
        against = ("--against", str(installation / "kept"))
        assert done(installation, "audit", "checkpoint", "--json").facts["size"] == first
        denied(installation, 5, "LOG_TRUNCATED", "audit", "verify", "--published", str(log), *against)
        assert publish(opened) == second, "the next look brings it forward again"
        done(installation, "audit", "verify", "--published", str(log), *against)


# plans, packs and settings

BOMBS = {
    "a key of a million parts": "a" + ".a" * 1_000_000 + " = 1",
    "such a key behind a string that hides it": 'x = {a = """a"b""", b' + ".b" * 100_000 + ' = 1, c = ""}',
    "such a key behind a comment that hides it": '# """\nb' + ".b" * 100_000 + " = 1",
    "a table of so many parts": "[a" + ".a" * 100_000 + "]",
    "lists within lists": "a = " + "[" * 100_000 + "]" * 100_000,
    "tables within tables": "a = " + "{a = " * 50_000 + "1" + "}" * 50_000,
    "an endless number": "a = " + "1" * 100_000,
    "a file without end": "#" * (5 << 20),
    "a million empty tables": "[[devices]]\n" * 100_000,
    "nothing closed": 'a = """' * 10_000,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_toml_that_would_hold_a_parser_for_hours_is_refused_by_name(kind: str) -> None:
    raw = BOMBS[kind].encode()
    assert reason_of(decode_plan, raw, "plan.toml") is Reason.BAD_PLAN
    assert reason_of(decode_settings, raw, Path()) is Reason.BAD_SETTINGS


def test_dots_in_text_are_no_parts_of_a_key() -> None:
    dots = "e.g. " * 12 + "x"
    text = PLAN.replace('"First Hospital"', f'"{dots}"') + f"# {dots}\n"
    assert decode_plan(text.encode(), "plan.toml").status_url == "http://127.0.0.1:1"


def test_a_plan_of_a_million_million_devices_is_refused(installation: Path, tmp_path: Path) -> None:
    plan = tmp_path / "huge.toml"
    plan.write_text(PLAN.replace("count = 3", "count = 1000000000000"))
    assert "count" in denied(installation, 2, "BAD_PLAN", "plan", "apply", str(plan), "--yes").err


def test_a_plan_that_renames_a_unit_with_live_certificates_changes_nothing(installation: Path, tmp_path: Path) -> None:
    from tests.cli.revocation.test_commands import devices_of, issue

    with Installation.open(installation, passphrase_sources=SOURCES) as opened:
        issue(opened, opened.open_issuers(["h1/icu"])["h1/icu"], devices_of(opened)[0])
    plan = tmp_path / "renamed.toml"
    plan.write_text(PLAN.replace('"icu"', '"ward"'))
    before = done(installation, "ca", "list", "--json").facts
    denied(installation, 3, "AUTHORITY_IN_USE", "plan", "apply", str(plan), "--yes")
    assert done(installation, "ca", "list", "--json").facts == before
    assert not (installation / "keystores" / "h1.ward").exists()
