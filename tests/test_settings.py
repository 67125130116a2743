"""Settings: what `init` writes can be read back, and every wrong key is named with its remedy."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Conflict, Malformed, Misconfigured, Unavailable
from vagus.reasons import Reason
from vagus.settings import FILE_NAME, Settings, decode_settings, load_settings, write_settings


def begin(folder: Path, *, database: str = "sqlite:///vagus.sqlite3", unsafe_fast_kdf: bool = False) -> Settings:
    return write_settings(
        folder, kind="hospital", origin="log.example/vagus", database=database, unsafe_fast_kdf=unsafe_fast_kdf
    )


def test_what_init_writes_is_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "vagus"
    written = begin(folder)
    assert load_settings(folder) == written
    assert written.database_file == (folder / "vagus.sqlite3").absolute()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600


def test_a_server_database_has_no_file(tmp_path: Path) -> None:
    written = begin(tmp_path / "vagus", database="postgresql+psycopg://localhost/vagus")
    assert written.database_file is None


def test_the_weak_derivation_is_written_down(tmp_path: Path) -> None:
    assert begin(tmp_path / "vagus", unsafe_fast_kdf=True).unsafe_fast_kdf
    assert not begin(tmp_path / "other").unsafe_fast_kdf


def test_an_installation_is_not_begun_twice(tmp_path: Path) -> None:
    begin(tmp_path / "vagus")
    assert reason_of(begin, tmp_path / "vagus", error=Conflict) is Reason.ALREADY_EXISTS


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "vagus"):
        match = r"name .* for the installation|name a folder that this user owns"
        with refuses(Reason.BAD_ARGUMENT, Malformed, match=match):
            begin(folder)


def test_a_full_disk_has_another_reason_than_a_wrong_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable, match=r"No space left on device.*; make room on it"):
        begin(tmp_path / "vagus")


def test_a_folder_without_settings_says_how_to_begin(tmp_path: Path) -> None:
    assert reason_of(load_settings, tmp_path, error=Misconfigured, match="init") is Reason.BAD_SETTINGS


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('kind = "hospital"', 'kind = "clinic"', "installation.kind"),
        ('origin = "log.example/vagus"', 'origin = "has space"', "installation.origin"),
        ('"sqlite:///vagus.sqlite3"', '"mysql://x"', "installation.database"),
        ('kdf = "scrypt"', 'kdf = "md5"', "keystore.kdf"),
        ("connections = 20000", "connections = 0", "serve.connections"),
        ("handshake_seconds = 10.0", "handshake_seconds = -1.0", "serve.handshake_seconds"),
        ("stall_seconds = 60.0", 'stall_seconds = "long"', "serve.stall_seconds"),
        ("[serve]", '[serve]\nhealth = "nowhere"', "serve.health"),
        ("[serve]", "[serve]\nunknown = 1", "serve.unknown"),
        ("format = 1", "format = 9", "format"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    begin(tmp_path / "vagus")
    text = (tmp_path / "vagus" / FILE_NAME).read_text()
    assert old in text
    with refuses(Reason.BAD_SETTINGS, Misconfigured) as caught:
        decode_settings(text.replace(old, new, 1).encode(), tmp_path)
    assert caught.value.facts["key"] == key
    assert FILE_NAME in str(caught.value)
