from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate

from tests.simulator.est_server import DEVICE_NAME, Hierarchy
from tests.simulator.refusals import reason_of, refuses
from vagus.errors import IntegrityFailure, NotAuthorised
from vagus.reasons import Reason
from vagus_agent.credentials import Credential, CredentialStore
from vagus_agent.keys import DeviceKeyAlgorithm, PrivateKey, certified_key_der, public_key_der

P256 = DeviceKeyAlgorithm.P256


class Crash(BaseException):
    """The process is gone from here on."""


class CrashAt:
    """Ends the process at the n-th point that it reaches."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.reached: list[str] = []

    def __call__(self, name: str) -> None:
        self.reached.append(name)
        self.left -= 1
        if self.left == 0:
            raise Crash


def certify(hierarchy: Hierarchy, key: PrivateKey) -> tuple[Certificate, ...]:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = hierarchy.unit.certify(key, dns_names=(DEVICE_NAME,))
    return leaf, hierarchy.unit.certificate


def unproven_pair(store: CredentialStore, hierarchy: Hierarchy) -> Credential:
    pending = store.begin(P256)
    return store.complete(pending, certify(hierarchy, pending.key))


def new_pair(store: CredentialStore, hierarchy: Hierarchy) -> None:
    store.prove(unproven_pair(store, hierarchy))


def opened(folder: Path, crash_point: CrashAt | None = None) -> CredentialStore:
    store = CredentialStore(folder, crash_point or CrashAt(0))
    store.open()
    return store


@pytest.fixture
def store(tmp_path: Path, hierarchy: Hierarchy) -> CredentialStore:
    """A store in `tmp_path` with one proven pair."""
    made = opened(tmp_path)
    new_pair(made, hierarchy)
    return made


def test_a_new_store_is_empty(tmp_path: Path) -> None:
    assert opened(tmp_path / "state").find_current() is None


def test_files_are_readable_by_their_owner_alone(tmp_path: Path, hierarchy: Hierarchy) -> None:
    new_pair(opened(tmp_path / "state"), hierarchy)
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "state").rglob("*") if not path.is_symlink()}
    assert modes == {0}


def test_a_key_that_others_may_read_is_refused(store: CredentialStore, tmp_path: Path) -> None:
    (tmp_path / "current" / "key.pem").chmod(0o640)
    assert reason_of(store.find_current, error=NotAuthorised, match="chmod 600") is Reason.PERMISSIONS_TOO_OPEN


def test_the_same_key_waits_until_it_is_certified(tmp_path: Path) -> None:
    first = opened(tmp_path).begin(P256)
    assert opened(tmp_path).begin(P256).key_pem == first.key_pem
    assert opened(tmp_path).begin(DeviceKeyAlgorithm.P384).key_pem != first.key_pem


def test_a_chain_for_another_key_changes_nothing(store: CredentialStore, hierarchy: Hierarchy) -> None:
    before = store.find_current()
    stranger = ec.generate_private_key(ec.SECP256R1())
    with refuses(Reason.KEY_MISMATCH, IntegrityFailure):
        store.complete(store.begin(P256), certify(hierarchy, stranger))
    assert store.find_current() == before


@pytest.mark.parametrize("begin_with", [0, 1])
@pytest.mark.parametrize("number", range(1, 8))
def test_a_crash_at_any_point_leaves_a_working_pair(
    tmp_path: Path, hierarchy: Hierarchy, number: int, begin_with: int
) -> None:
    for _ in range(begin_with):
        new_pair(opened(tmp_path), hierarchy)
    old = opened(tmp_path).find_current()
    crash = CrashAt(number)
    store = opened(tmp_path, crash)
    try:
        new_pair(store, hierarchy)
    except Crash:
        pass
    else:
        assert begin_with == 0  # there is no old pair to remove, so one point fewer
    again = opened(tmp_path)
    after = again.find_current()
    if begin_with:
        assert after is not None
        assert old is not None
        assert after.generation in {old.generation, old.generation + 1}
    if after is not None:
        assert certified_key_der(after.leaf)  # find_current has compared it with the key on disk
    if "chain kept" in crash.reached:  # once certified, a certificate is never lost
        assert after is not None
        assert old is None or after.generation == old.generation + 1
    elif "key kept" in crash.reached:  # the key that was asked with is asked with again
        assert (tmp_path / "pending" / "key.pem").exists()
    new_pair(again, hierarchy)
    newest = opened(tmp_path).find_current()
    assert newest is not None
    assert newest.is_proven
    assert [path.name for path in (tmp_path / "credentials").iterdir()] == [f"{newest.generation:06d}"]


def test_stepping_back_needs_an_unproven_pair_and_an_older_one(
    store: CredentialStore, tmp_path: Path, hierarchy: Hierarchy
) -> None:
    first = store.find_current()
    assert first is not None
    assert store.step_back(first) is None
    second = unproven_pair(store, hierarchy)
    assert store.step_back(second) == first
    assert opened(tmp_path).find_current() == first


def test_a_crash_while_stepping_back_ends_at_the_old_pair(
    store: CredentialStore, tmp_path: Path, hierarchy: Hierarchy
) -> None:
    first = store.find_current()
    second = unproven_pair(store, hierarchy)
    crash = CrashAt(1)
    with pytest.raises(Crash):
        opened(tmp_path, crash).step_back(second)
    assert crash.reached == ["marked refused"]
    assert opened(tmp_path).find_current() == first


@pytest.mark.parametrize("name", ["key.pem", "chain.pem"])
@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None])
def test_a_damaged_pair_gives_way_to_the_one_before_or_says_so(
    store: CredentialStore, tmp_path: Path, hierarchy: Hierarchy, name: str, content: bytes | None
) -> None:
    first = store.find_current()
    unproven_pair(store, hierarchy)
    damaged = tmp_path / "credentials" / "000002" / name
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content)
    assert opened(tmp_path).find_current() == first
    (tmp_path / "credentials" / "000001" / "key.pem").write_bytes(b"gone")
    assert reason_of(opened(tmp_path).find_current, error=IntegrityFailure) is Reason.KEYSTORE_DAMAGED


def test_a_swapped_key_is_noticed(store: CredentialStore, tmp_path: Path) -> None:
    other = store.begin(P256)
    (tmp_path / "current" / "key.pem").write_bytes(other.key_pem)
    assert reason_of(store.find_current, error=IntegrityFailure) is Reason.KEY_MISMATCH
    assert public_key_der(other.key)
