"""Passphrases come from a descriptor, a file or the environment, and never show themselves."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Malformed, Misconfigured
from vagus.keystore.passphrases import Passphrase, read_passphrase
from vagus.reasons import Reason

SECRET = "correct horse battery"


def test_a_descriptor_gives_the_passphrase_and_is_closed() -> None:
    reader, writer = os.pipe()
    os.write(writer, SECRET.encode() + b"\n")
    os.close(writer)
    assert read_passphrase(f"fd:{reader}").unsafe_reveal() == SECRET.encode()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(reader)


def test_a_private_file_gives_the_passphrase(tmp_path: Path) -> None:
    place = tmp_path / "secret"
    place.write_bytes(SECRET.encode() + b"\r\n")
    place.chmod(0o600)
    assert read_passphrase(f"file:{place}").unsafe_reveal() == SECRET.encode()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "secret"
    place.write_text(SECRET)
    place.chmod(mode)
    reason = reason_of(read_passphrase, f"file:{place}", error=Misconfigured, match="chmod 0600")
    assert reason is Reason.PERMISSIONS_TOO_OPEN


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="a credential belongs to root, and this user is not root")


@NEEDS_ROOT
@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_a_credential_of_the_service_manager_gives_the_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """The service may read it by an access list of systemd, whose mask stat(2) shows as the group's bits."""
    place = tmp_path / "passphrase"
    place.write_text(SECRET + "\n")
    place.chmod(mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_passphrase(f"file:{place}").unsafe_reveal() == SECRET.encode()


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("mode", "group", "is_linked"),
    [(0o444, 0, False), (0o460, 0, False), (0o640, 0, False), (0o440, 1, False), (0o440, 0, True)],
)
def test_what_only_lies_where_credentials_are_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: int, *, is_linked: bool
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    place = tmp_path / "secret" if is_linked else folder / "passphrase"
    place.write_text(SECRET)
    place.chmod(mode)
    os.chown(place, 0, group)
    if is_linked:
        (folder / "passphrase").symlink_to(place)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    reason = reason_of(read_passphrase, f"file:{folder}/passphrase", error=Misconfigured, match="chmod 0600")
    assert reason is Reason.PERMISSIONS_TOO_OPEN


@pytest.mark.parametrize("folder", ["", "/nonexistent", None])
def test_a_file_elsewhere_is_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None) -> None:
    place = tmp_path / "passphrase"
    place.write_text(SECRET)
    place.chmod(0o440)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    if folder is not None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", folder)
    assert reason_of(read_passphrase, f"file:{place}", error=Misconfigured) is Reason.PERMISSIONS_TOO_OPEN


def test_a_credential_that_is_missing_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    match = f"{tmp_path}/gone cannot be read"
    assert reason_of(read_passphrase, f"file:{tmp_path}/gone", error=Misconfigured, match=match) is Reason.BAD_SETTINGS


def test_the_environment_gives_the_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAGUS_TEST_SECRET", SECRET)
    assert read_passphrase("env:VAGUS_TEST_SECRET").unsafe_reveal() == SECRET.encode()


@pytest.mark.parametrize("source", [SECRET, "", "fd:", "fd:three", "fd:-1", "pass:" + SECRET, "fd:1234567"])
def test_another_form_is_refused_and_not_repeated(source: str) -> None:
    with refuses(Reason.BAD_ARGUMENT, Malformed) as refusal:
        read_passphrase(source)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("source", ["env:VAGUS_NOT_SET", "file:/nonexistent/secret", "fd:987"])
def test_a_source_that_gives_nothing_says_so(source: str) -> None:
    assert reason_of(read_passphrase, source, error=Misconfigured) is Reason.BAD_SETTINGS


def test_an_empty_or_endless_passphrase_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n", b"x" * 5000):
        place = tmp_path / "secret"
        place.write_bytes(content)
        place.chmod(0o600)
        assert reason_of(read_passphrase, f"file:{place}", error=Misconfigured) is Reason.BAD_SETTINGS


def test_a_folder_is_no_passphrase_file(tmp_path: Path) -> None:
    assert reason_of(read_passphrase, f"file:{tmp_path}", error=Misconfigured) is Reason.BAD_SETTINGS


def test_a_passphrase_never_shows_itself() -> None:
    secret = Passphrase(SECRET)
    assert SECRET not in repr(secret) + str(secret) + f"{secret!s}" + repr([secret])
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    try:
        secret.check_length()
        Passphrase("short").check_length()
    except Misconfigured as refusal:
        assert "short" not in "".join(traceback.format_exception(refusal)).replace('Passphrase("short")', "")
    else:
        pytest.fail("a short passphrase sealed something new")
