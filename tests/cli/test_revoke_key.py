"""`vagus revoke --key`: with a compromise as the reason the key is blocked, whether anybody has shown it yet or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.revocation.test_commands import TWO_PERSONS, equipped, equipped_once, states
from tests.simulator.running import answer, denied, done, run
from vagus.operations.devices import find_named
from vagus.records.certificates import list_of_device
from vagus.records.keys import find_key
from vagus.wiring import Installation

__all__ = ["equipped", "equipped_once"]

UNSEEN = "5a" * 32
COMPROMISED = ("--reason", "keyCompromise")


def key_of(folder: Path, serial: str) -> str:
    with Installation.open(folder) as installation:
        device = find_named(installation.database, f"Aorta IP3:{serial}")
        with installation.database.reading() as connection:
            return list_of_device(connection, str(device.id))[0].spki_sha256.hex()


def is_blocked(folder: Path, key: str) -> bool:
    with Installation.open(folder) as installation, installation.database.reading() as connection:
        found = find_key(connection, bytes.fromhex(key))
    return found is not None and found.is_blocked


def blocks_told(folder: Path) -> int:
    return [row["kind"] for row in done(folder, "audit", "show", "--limit", "40", "--json").facts].count("key-blocked")


@pytest.mark.parametrize("reason", ["keyCompromise", "cACompromise", "aACompromise"])
def test_a_leaked_key_that_was_never_shown_is_blocked_once(equipped: Path, reason: str) -> None:
    asked = ("revoke", "--key", UNSEEN, "--reason", reason)
    dry = done(equipped, *asked, "--dry-run", "--json").facts
    assert (dry["certificates"], dry["key_is_blocked"]) == (0, "by this")
    assert not is_blocked(equipped, UNSEEN)
    refused = answer(equipped, "n\n", *asked)
    assert refused.code == 1
    assert "Block the key for good? No certificate that lives is for it." in refused.err
    assert not is_blocked(equipped, UNSEEN)
    assert "The key is blocked: no certificate is issued for it any more." in done(equipped, *asked, "--yes").out
    assert is_blocked(equipped, UNSEEN)
    again = answer(equipped, "", *asked)
    assert again.code == 0
    assert "?" not in again.err
    assert "The key is blocked already." in again.out
    assert done(equipped, *asked, "--json").facts["key_is_blocked"] == "already"
    assert done(equipped, *asked, "--dry-run", "--json").facts["key_is_blocked"] == "already"
    assert blocks_told(equipped) == 1
    assert done(equipped, "revoke", "list", "--json").facts == []
    done(equipped, "audit", "verify")


def test_what_lives_for_the_key_is_revoked_by_a_plan_and_the_output_says_both(equipped: Path) -> None:
    ended = answer(equipped, "y\n", "revoke", "--key", key_of(equipped, "AIP3-000002"), *COMPROMISED)
    assert ended.code == 0
    assert "Revoke 1 certificate of 1 device and block the key now, for good?" in ended.err
    assert "The key is blocked: no certificate is issued for it any more." in ended.out
    assert "Plan 1 is done: 1 certificate is revoked." in ended.out
    assert states(equipped).count("revoked") == 1
    assert blocks_told(equipped) == 1
    done(equipped, "audit", "verify")


def test_the_key_is_blocked_before_the_second_person_approves(equipped: Path) -> None:
    key = key_of(equipped, TWO_PERSONS)
    asked = ("revoke", "--key", key, *COMPROMISED)
    told = answer(equipped, "n\n", *asked)
    assert "Block the key at once and propose to revoke 1 certificate of 1 device?" in told.err
    waiting = run(equipped, *asked, "--yes", "--json")
    assert (waiting.code, waiting.facts["state"], waiting.facts["blocks_key"]) == (3, "proposed", True)
    assert is_blocked(equipped, key)
    assert set(states(equipped)) == {"issued"}
    done(equipped, "audit", "verify")


@pytest.mark.parametrize("more", [("--reason", "superseded"), (), ("--hold",)])
def test_without_a_compromise_a_key_without_certificates_is_left(equipped: Path, more: tuple[str, ...]) -> None:
    asked = ("revoke", "--key", UNSEEN, *more)
    dry = run(equipped, *asked, "--dry-run", "--json")
    assert (dry.code, dry.facts["key_is_blocked"], "nothing to do" in dry.err) == (3, None, True)
    denied(equipped, 3, "NOT_FOUND", *asked, "--yes")
    assert not is_blocked(equipped, UNSEEN)
