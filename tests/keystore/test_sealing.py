"""One derivation serves every keystore that one passphrase opens, and the keystores stay apart all the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.simulator.refusals import refuses
from vagus.errors import IntegrityFailure, NotAuthorised
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.sealing import Derivation, Derivations, Wrapping
from vagus.keystore.signing import Purpose
from vagus.keystore.software import SoftwareKeystore, read_derivation
from vagus.reasons import Reason
from vagus.testing import SeededEntropy
from vagus.x509.algorithms import KeyAlgorithm

SECRET = Passphrase("correct horse battery")
OTHER = Passphrase("staple correct horse")


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The salt of each derivation that is really computed."""
    salts: list[bytes] = []
    derive = Derivation.derive

    def count(self: Derivation, passphrase: Passphrase) -> Wrapping:
        salts.append(self.salt)
        return derive(self, passphrase)

    monkeypatch.setattr(Derivation, "derive", count)
    return salts


def choose(seed: int) -> Derivation:
    return Derivation.choose("scrypt", SeededEntropy(seed), unsafe_fast=True)


def test_a_pair_of_salt_and_passphrase_is_derived_once(derived: list[bytes]) -> None:
    known, one, other = Derivations(), choose(1), choose(2)
    wrapping = known.derive(one, SECRET)
    assert known.derive(one, Passphrase("correct horse battery")) is wrapping
    assert known.derive(one, OTHER) is not wrapping
    assert known.derive(other, SECRET) is not wrapping
    assert derived == [one.salt, one.salt, other.salt]


def test_several_are_derived_at_a_time_and_counted(derived: list[bytes]) -> None:
    known, every, told = Derivations(), [choose(seed) for seed in range(5)], []
    known.derive(every[0], SECRET)
    known.derive_all([(one, SECRET) for one in (*every, *every)], lambda done, of: told.append((done, of)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert sorted(derived) == sorted(one.salt for one in every)
    for one in every:
        piece = one.derive(SECRET).seal({"id": "x"}, b"content")
        assert known.derive(one, SECRET).open({"id": "x"}, piece) == b"content"


def make(folder: Path, seed: int, shared: Derivation | None = None) -> SoftwareKeystore:
    return SoftwareKeystore.create(folder, SECRET, entropy=SeededEntropy(seed), unsafe_fast=True, shared=shared)


def test_a_keystore_with_a_shared_salt_opens_by_its_passphrase_alone(tmp_path: Path) -> None:
    first = make(tmp_path / "first", 1)
    second = make(tmp_path / "second", 2, first.derivation)
    key = second.generate("tls", KeyAlgorithm.P256, [Purpose.TLS], "server:x")
    assert read_derivation(second.folder) == read_derivation(first.folder)
    assert SoftwareKeystore.open(second.folder, SECRET).load("tls").spki_der == key.spki_der
    with refuses(Reason.PASSPHRASE_WRONG, NotAuthorised):
        SoftwareKeystore.open(second.folder, OTHER)


def test_the_same_key_in_two_keystores_of_one_salt_has_two_nonces(tmp_path: Path) -> None:
    first = make(tmp_path / "first", 1)
    first.generate("data", KeyAlgorithm.P256, [Purpose.DATA], "data:x")
    pem = first.export_pkcs8("data", OTHER)
    keystores = [make(tmp_path / str(seed), seed, first.derivation) for seed in (2, 3)]
    for one in keystores:
        one.import_pkcs8("data", pem, OTHER, [Purpose.DATA], "data:x")
    sealed = [json.loads((one.folder / "data.key").read_bytes())["sealed"] for one in keystores]
    assert sealed[0][:16] != sealed[1][:16]
    assert keystores[0].load("data").spki_der == keystores[1].load("data").spki_der


def test_a_key_file_from_a_keystore_of_the_same_salt_is_refused(tmp_path: Path) -> None:
    first = make(tmp_path / "first", 1)
    second = make(tmp_path / "second", 2, first.derivation)
    first.generate("ca", KeyAlgorithm.P256, [Purpose.CERTIFICATE, Purpose.CRL], "authority:root#1")
    shutil.copy(first.folder / "ca.key", second.folder / "ca.key")
    with refuses(Reason.KEYSTORE_DAMAGED, IntegrityFailure):
        second.load("ca")


@pytest.mark.parametrize("unsafe_fast", [True, False])
def test_a_weak_derivation_is_known_from_a_strong_one(unsafe_fast: bool) -> None:
    one = Derivation.choose("scrypt", SeededEntropy(1), unsafe_fast=unsafe_fast)
    assert one.is_like("scrypt", unsafe_fast=unsafe_fast)
    assert not one.is_like("scrypt", unsafe_fast=not unsafe_fast)
    assert not one.is_like("pbkdf2", unsafe_fast=unsafe_fast)
