"""Durable files: whole or not at all, with the right modes; one process at a time under a folder's lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.refusals import refuses
from vagus.durable_files import (
    GROUP_FILE,
    PUBLIC_FILE,
    FolderLocked,
    check_private_file,
    check_private_folder,
    create_file,
    lock_folder,
    make_private_folder,
    make_public_folder,
    replace_durably,
    replace_file,
    replace_link,
    write_folder,
    write_new,
)
from vagus.errors import Conflict, Misconfigured
from vagus.reasons import Reason

HOLDER = """
import sys, time
from pathlib import Path
from vagus.durable_files import lock_folder
with lock_folder(Path(sys.argv[1]), seconds=0):
    print("locked", flush=True)
    time.sleep(60)
"""


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_and_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        replace_durably(tmp_path / "private", b"one")
        replace_durably(tmp_path / "private", b"two")
        replace_durably(tmp_path / "group", b"one", GROUP_FILE)
        replace_file(tmp_path / "public", b"one", PUBLIC_FILE)
    finally:
        os.umask(before)
    assert (tmp_path / "private").read_bytes() == b"two"
    assert mode_of(tmp_path / "private") == 0o600
    assert mode_of(tmp_path / "group") == 0o600  # the operator's umask takes the group's right away
    assert mode_of(tmp_path / "public") == 0o644  # any web server reads it, whatever the umask is
    assert names_in(tmp_path) == ["group", "private", "public"]


def test_a_public_folder_is_open_whatever_the_umask_is_and_an_existing_one_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o750)
    before = os.umask(0o077)
    try:
        make_public_folder(tmp_path / "mine" / "crl" / "h1.icu")
        make_public_folder(tmp_path / "mine")
    finally:
        os.umask(before)
    modes = [mode_of(tmp_path / name) for name in ("mine", "mine/crl", "mine/crl/h1.icu")]
    assert modes == [0o750, 0o755, 0o755]


def test_a_public_folder_may_be_a_link_but_not_one_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    make_public_folder(tmp_path / "link" / "crl")
    assert (tmp_path / "elsewhere" / "crl").is_dir()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "file").touch()
    for name in ("dangling", "dangling/crl", "file"):
        with pytest.raises(NotADirectoryError, match="make that folder"):
            make_public_folder(tmp_path / name)
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    replace_durably(tmp_path / "file", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os if step == "fsync" else Path, step, fail)
        with pytest.raises(OSError, match="No space"):
            replace_durably(tmp_path / "file", b"new content")
    assert (tmp_path / "file").read_bytes() == b"old"
    replace_durably(tmp_path / "file", b"new")  # also over what the failure left
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names_in(tmp_path) == ["file"]


def test_a_temporary_name_that_was_planted_as_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (tmp_path / ".file.new").symlink_to(victim)
    replace_durably(tmp_path / "file", b"content")
    assert victim.read_bytes() == b"untouched"
    assert not (tmp_path / "file").is_symlink()
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "link")


def test_a_new_secret_never_replaces_one(tmp_path: Path) -> None:
    write_new(tmp_path / "secret", b"first")
    with refuses(Reason.ALREADY_EXISTS, Conflict):
        write_new(tmp_path / "secret", b"second")
    assert (tmp_path / "secret").read_bytes() == b"first"
    assert mode_of(tmp_path / "secret") == 0o600
    assert names_in(tmp_path) == ["secret"]


def test_a_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "pending.new").mkdir()
    (tmp_path / "pending.new" / "half").write_bytes(b"of a crash")
    write_folder(tmp_path / "pending", {"key.pem": b"key", "chain.pem": b"chain"})
    assert names_in(tmp_path) == ["pending"]
    assert names_in(tmp_path / "pending") == ["chain.pem", "key.pem"]
    assert mode_of(tmp_path / "pending") == 0o700
    assert mode_of(tmp_path / "pending" / "key.pem") == 0o600


def test_a_link_is_replaced_also_after_a_crash_in_between(tmp_path: Path) -> None:
    replace_link(tmp_path / "current", "one")
    (tmp_path / "current.new").symlink_to("half")
    replace_link(tmp_path / "current", "two")
    assert (tmp_path / "current").readlink() == Path("two")
    assert names_in(tmp_path) == ["current"]


def test_private_means_the_owner_alone(tmp_path: Path) -> None:
    keys = tmp_path / "a" / "keys"
    make_private_folder(keys)
    make_private_folder(keys)
    assert mode_of(keys) == 0o700
    write_new(keys / "one", b"key")
    check_private_file(keys / "one")
    for path, mode, check in ((keys / "one", 0o640, check_private_file), (keys, 0o710, check_private_folder)):
        path.chmod(mode)
        with refuses(Reason.PERMISSIONS_TOO_OPEN, Misconfigured):
            check(path)
        path.chmod(0o700)
    with pytest.raises(Misconfigured):
        check_private_file(keys)
    with pytest.raises(Misconfigured):
        check_private_folder(keys / "one")


def test_a_locked_folder_is_closed_to_others_until_its_holder_ends_or_dies(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with lock_folder(lock, seconds=0), pytest.raises(FolderLocked), lock_folder(lock, seconds=0.05):
        pass
    with lock_folder(lock, seconds=0):
        pass
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(FolderLocked), lock_folder(lock, seconds=0.05):
            pass
        holder.send_signal(signal.SIGKILL)
        with lock_folder(lock, seconds=10):  # the kernel gave it back
            pass
    assert lock.exists()


def test_processes_that_write_one_file_at_once_have_temporary_names_of_their_own(tmp_path: Path) -> None:
    write = "import sys; from pathlib import Path; from vagus.durable_files import replace_durably as put\n"
    write += "for _ in range(100): put(Path(sys.argv[1]), sys.argv[2].encode() * 5_000, has_rivals=True)"
    command = [sys.executable, "-c", write, str(tmp_path / "shared")]
    writers = [subprocess.Popen([*command, letter], env={**os.environ, "PYTHONPATH": "src"}) for letter in "ab"]
    assert [one.wait(60) for one in writers] == [0, 0]
    assert (tmp_path / "shared").read_bytes() in {b"a" * 5_000, b"b" * 5_000}
    assert [one.name for one in tmp_path.iterdir()] == ["shared"]
