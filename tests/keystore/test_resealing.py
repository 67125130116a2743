"""A keystore gets another passphrase: at each crash one of the two opens it and every key, and a repeat finishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulator.refusals import refuses
from vagus.durable_files import replace_durably
from vagus.errors import IntegrityFailure, Misconfigured, NotAuthorised, Unavailable
from vagus.keystore import resealing
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.resealing import change_passphrase
from vagus.keystore.sealing import Derivation
from vagus.keystore.signing import Purpose
from vagus.keystore.software import SoftwareKeystore
from vagus.reasons import Reason
from vagus.testing import SeededEntropy
from vagus.x509.algorithms import KeyAlgorithm

OLD, NEW, THIRD = Passphrase("correct horse battery"), Passphrase("staple battery horse"), Passphrase("third one here")
KEYS = ("a", "b", "z")


class Crash(BaseException):
    """The power goes."""


@pytest.fixture
def keystore(tmp_path: Path) -> SoftwareKeystore:
    made = SoftwareKeystore.create(tmp_path / "h1.icu", OLD, entropy=SeededEntropy(), unsafe_fast=True)
    for name in KEYS:
        made.generate(name, KeyAlgorithm.P256, [Purpose.DATA], f"data:{name}")
    return made


def derivation(seed: int = 2) -> Derivation:
    return Derivation.choose("scrypt", SeededEntropy(seed), unsafe_fast=True)


def change(keystore: SoftwareKeystore, new: Passphrase = NEW, *, crash_after: int = 99, seed: int = 2) -> None:
    reached = 0

    def kill(_point: str) -> None:
        nonlocal reached
        reached += 1
        if reached > crash_after:
            raise Crash

    change_passphrase(keystore, new, derivation(seed), derive=Derivation.derive, kill_points=kill)


def spki(keystore: SoftwareKeystore) -> list[bytes]:
    return [keystore.load(name).spki_der for name in KEYS]


def opening(folder: Path) -> Passphrase:
    """The one of the two passphrases that opens the keystore."""
    found = []
    for passphrase in (OLD, NEW):
        try:
            SoftwareKeystore.open(folder, passphrase)
        except NotAuthorised:
            continue
        found.append(passphrase)
    (one,) = found
    return one


def test_the_new_passphrase_opens_every_key_and_the_old_one_nothing(keystore: SoftwareKeystore) -> None:
    before, purposes = spki(keystore), keystore.load("a").purposes
    change(keystore)
    again = SoftwareKeystore.open(keystore.folder, NEW)
    assert (spki(again), again.load("a").purposes, again.derivation) == (before, purposes, derivation())
    with refuses(Reason.PASSPHRASE_WRONG, NotAuthorised):
        SoftwareKeystore.open(keystore.folder, OLD)
    assert sorted(path.name for path in keystore.folder.iterdir()) == ["a.key", "b.key", "keystore.toml", "z.key"]
    assert {path.stat().st_mode & 0o777 for path in keystore.folder.iterdir()} == {0o600}


@pytest.mark.parametrize("crash_after", range(5))
def test_after_a_crash_one_passphrase_opens_every_key_and_a_repeat_finishes(
    keystore: SoftwareKeystore, crash_after: int
) -> None:
    """The points: all sealed, settings replaced, and each of three key files replaced."""
    before = spki(keystore)
    with pytest.raises(Crash):
        change(keystore, crash_after=crash_after)
    one = opening(keystore.folder)
    assert one is (OLD if crash_after == 0 else NEW)
    again = SoftwareKeystore.open(keystore.folder, one)
    assert spki(again) == before
    again.generate(f"later-{crash_after}", KeyAlgorithm.P256, [Purpose.DATA], "data:later")
    change(again, THIRD, seed=3)  # whatever was left is completed or taken back
    last = SoftwareKeystore.open(keystore.folder, THIRD)
    assert (spki(last), len(last.key_ids())) == (before, 4)
    assert list(keystore.folder.glob("*.next")) == []


@pytest.mark.parametrize("writes", range(3))
def test_a_disk_that_fails_while_keys_are_sealed_changes_nothing(
    keystore: SoftwareKeystore, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    done = 0

    def replace(path: Path, content: bytes) -> None:
        nonlocal done
        done += 1
        if done > writes:
            raise OSError("no space left on device")
        replace_durably(path, content)

    before = {path.name: path.read_bytes() for path in keystore.folder.iterdir()}
    monkeypatch.setattr(resealing, "replace_durably", replace)
    with pytest.raises(OSError, match="space"):
        change(keystore)
    assert {path.name: path.read_bytes() for path in keystore.folder.iterdir()} == before


def test_a_damaged_key_stops_the_change_before_it_begins(keystore: SoftwareKeystore) -> None:
    (keystore.folder / "b.key").write_bytes(b"{}")
    with refuses(Reason.KEYSTORE_DAMAGED, IntegrityFailure, match=r"b\.key"):
        change(keystore)
    assert opening(keystore.folder) is OLD
    assert list(keystore.folder.glob("*.next")) == []


def test_a_short_passphrase_is_refused(keystore: SoftwareKeystore) -> None:
    with refuses(Reason.BAD_SETTINGS, Misconfigured):
        change(keystore, Passphrase("short"))
    assert opening(keystore.folder) is OLD


def test_a_process_that_has_it_open_signs_on_and_seals_nothing_under_the_old_one(keystore: SoftwareKeystore) -> None:
    """A responder's key that it made under the old passphrase would be lost at its next start."""
    serving = SoftwareKeystore.open(keystore.folder, OLD)
    key = serving.load("a")
    change(keystore)
    assert key.sign(Purpose.DATA, b"x") == SoftwareKeystore.open(keystore.folder, NEW).load("a").sign(
        Purpose.DATA, b"x"
    )
    for act in (
        lambda: serving.load("b"),
        lambda: serving.generate("new", KeyAlgorithm.P256, [Purpose.DATA], "data:new"),
        lambda: change(serving, THIRD),
    ):
        with refuses(Reason.KEY_NOT_OPEN, Unavailable, match="was changed since"):
            act()
    assert SoftwareKeystore.open(keystore.folder, NEW).key_ids() == KEYS


def test_a_key_that_comes_while_the_others_are_sealed_is_changed_too(
    keystore: SoftwareKeystore,
) -> None:
    other = SoftwareKeystore.open(keystore.folder, OLD)

    def come(point: str) -> None:
        if point == "sealed":
            other.generate("late", KeyAlgorithm.P256, [Purpose.DATA], "data:late")

    change_passphrase(keystore, NEW, derivation(), derive=Derivation.derive, kill_points=come)
    assert SoftwareKeystore.open(keystore.folder, NEW).load("late").key_id == "late"
