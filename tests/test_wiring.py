"""The installation: parts are made on demand, closed together, and only what was named is opened."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import pytest

from tests.simulator.refusals import refuses
from vagus.errors import Conflict, Malformed, NotAuthorised, Unavailable
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.sealing import Derivation, Wrapping
from vagus.keystore.software import read_derivation
from vagus.ledger.entries import PolicyAdopted, decode_entry
from vagus.reasons import Reason
from vagus.records.installation import set_restored
from vagus.records.log import iterate_leaves
from vagus.wiring import Installation, RealClock, real_entropy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WIRING_PASSPHRASE", "correct horse battery")
    place = tmp_path / "installation"
    new_hospital(place, "env:WIRING_PASSPHRASE").close()
    return place


def new_hospital(folder: Path, source: str) -> Installation:
    """A new installation, open."""
    url, sources = "sqlite:///vagus.sqlite3", [source]
    return Installation.create(
        folder, kind="hospital", origin="log.test", database=url, unsafe_fast_kdf=True, passphrase_sources=sources
    )


def opened(folder: Path, *sources: str) -> Installation:
    return Installation.open(folder, passphrase_sources=sources)


def test_the_real_clock_is_in_utc_and_entropy_does_not_repeat() -> None:
    assert RealClock().now().tzinfo is UTC
    assert len(real_entropy(16)) == 16
    assert real_entropy(16) != real_entropy(16)


def test_the_first_entry_of_an_installation_is_its_policy(folder: Path) -> None:
    with opened(folder) as installation, installation.database.reading() as connection:
        (leaf,) = iterate_leaves(connection)
        entry = decode_entry(leaf.entry).entry
        assert isinstance(entry, PolicyAdopted)
        assert entry.sha256.hex() == installation.pack.sha256
        assert installation.row.policy_sha256 == entry.sha256


def test_the_ledgers_key_is_sealed_and_its_public_half_is_a_file(folder: Path) -> None:
    with opened(folder, "env:WIRING_PASSPHRASE") as installation:
        assert installation.log_verifier.startswith("log.test+")
        assert installation.checkpoint_key().key_id == "checkpoint"
    with opened(folder) as installation, refuses(Reason.KEY_NOT_OPEN, Unavailable):
        installation.checkpoint_key()


def test_a_lost_verifier_key_is_reported(folder: Path) -> None:
    (folder / "log.vkey").unlink()
    with opened(folder) as installation, pytest.raises(Unavailable, match="backup"):
        _ = installation.log_verifier


def test_one_keystore_may_have_its_own_passphrase(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_PASSPHRASE", "another long passphrase")
    with opened(folder, "env:WIRING_PASSPHRASE", "h1/icu=env:OTHER_PASSPHRASE") as installation:
        installation.keystore_or_new("h1/icu")
    with opened(folder, "env:WIRING_PASSPHRASE") as installation, refuses(Reason.PASSPHRASE_WRONG, NotAuthorised):
        installation.keystore("h1/icu")


def salt_of(folder: Path, name: str) -> bytes:
    return read_derivation(folder / "keystores" / name).salt


def test_keystores_of_one_passphrase_cost_one_derivation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("h1/icu", "h1/er", "root")
    with opened(folder, "env:WIRING_PASSPHRASE") as installation:
        for name in names:
            installation.keystore_or_new(name)
    assert {salt_of(folder, name) for name in ("h1.icu", "h1.er", "root")} == {salt_of(folder, "log")}
    derived: list[bytes] = []
    derive = Derivation.derive

    def count(self: Derivation, passphrase: Passphrase) -> Wrapping:
        derived.append(self.salt)
        return derive(self, passphrase)

    monkeypatch.setattr(Derivation, "derive", count)
    with opened(folder, "env:WIRING_PASSPHRASE") as installation:
        for name in names:
            installation.keystore(name)
    assert len(derived) == 1


def test_keystores_of_another_passphrase_have_another_salt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_PASSPHRASE", "another long passphrase")
    with opened(folder, "env:WIRING_PASSPHRASE", "root=env:OTHER_PASSPHRASE") as installation:
        for name in ("h1/icu", "root"):
            installation.keystore_or_new(name)
    with opened(folder, "env:OTHER_PASSPHRASE") as installation:  # whose passphrase does not open the ledger's keystore
        for name in ("h2/icu", "h2/er"):
            installation.keystore_or_new(name)
    salts = [salt_of(folder, name) for name in ("log", "root", "h2.icu")]
    assert len(set(salts)) == 3
    assert salt_of(folder, "h1.icu") == salts[0]
    assert salt_of(folder, "h2.er") == salts[2]


def test_a_strong_keystore_takes_no_salt_of_a_weak_one(folder: Path) -> None:
    settings = folder / "vagus.toml"
    settings.write_text(settings.read_text().replace("unsafe_fast = true", "unsafe_fast = false"))
    with opened(folder, "env:WIRING_PASSPHRASE") as installation:
        installation.keystore_or_new("h1/icu")
    assert salt_of(folder, "h1.icu") != salt_of(folder, "log")
    assert read_derivation(folder / "keystores" / "h1.icu").is_strong


def test_keys_are_derived_beforehand_and_a_bad_keystore_is_reported_when_it_is_opened(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    with opened(folder, "env:WIRING_PASSPHRASE") as installation:
        installation.derive_keys(("log", "h1/none"), lambda done, of: told.append((done, of)))
        assert told == [(1, 1)]
        assert installation.checkpoint_key().key_id == "checkpoint"
        with refuses(Reason.KEY_NOT_OPEN, Unavailable):
            installation.keystore("h1/none")


def test_two_sources_for_one_keystore_are_refused(folder: Path) -> None:
    with pytest.raises(Malformed, match="two passphrase sources"):
        opened(folder, "env:A", "env:B")


def test_a_restored_installation_makes_nothing(folder: Path) -> None:
    with opened(folder) as installation:
        installation.writer.submit(
            lambda batch: set_restored(batch.connection, batch.at, size=1, backup_sha256=bytes(32))
        ).result()
        for part in ("issuance", "hierarchy"):
            with refuses(Reason.RESTORE_UNSETTLED, Conflict):
                getattr(installation, part)


def test_an_installation_without_a_plan_has_no_status_url(folder: Path) -> None:
    with opened(folder) as installation, pytest.raises(Conflict, match="plan apply"):
        _ = installation.status_url


def test_the_operator_is_a_word_that_the_ledger_takes(folder: Path) -> None:
    with opened(folder) as installation:
        assert installation.actor.id.startswith("operator:")
        assert " " not in installation.actor.id


def test_an_installation_that_cannot_begin_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIRING_PASSPHRASE", "correct horse battery")
    with pytest.raises(Malformed):
        new_hospital(tmp_path / "installation", "nonsense")
    assert not (tmp_path / "installation").exists()
