"""A quick start makes a whole hospital or nothing, on ports that are free, from the plan that examples/ shows."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from tests.simulator.refusals import refuses
from vagus.durable_files import FolderLocked, lock_folder
from vagus.errors import Conflict, Malformed, Misconfigured, Unavailable
from vagus.operations.devices import DeviceQuery
from vagus.policy.plans import HospitalPlan, load_plan
from vagus.reasons import Reason
from vagus.records.authorities import ACTIVE, list_authorities
from vagus.server.quickstart import ward
from vagus.server.quickstart.telemetry_store import TelemetryStore
from vagus.server.quickstart.ward import FIRST_PORT, PLAN, PORTS, make_ward
from vagus.wiring import Installation

EXAMPLE = Path(__file__).parents[3] / "examples" / "one-ward.toml"


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as one:
        port: int = one.getsockname()[1]
        yield port


def left_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_the_shipped_plan_is_the_example() -> None:
    assert PLAN.read_bytes() == EXAMPLE.read_bytes()


def test_the_plan_has_one_ward_of_ten_devices_a_gateway_and_four_ports_in_a_row() -> None:
    plan = load_plan(PLAN)
    assert isinstance(plan, HospitalPlan)
    assert [str(unit) for hospital in plan.hospitals for unit in hospital.units] != []
    assert len(list(plan.each_device())) == 10
    ports = [one.address[1] for one in plan.listeners] + [one.upstream[1] for one in plan.listeners if one.upstream]
    assert ports == list(range(FIRST_PORT, FIRST_PORT + PORTS))
    assert [one.kind for one in plan.listeners] == ["status", "enrolment", "relay-http"]


def test_a_ward_is_whole_and_its_ports_are_in_its_plan(tmp_path: Path) -> None:
    said: list[str] = []
    made = make_ward(tmp_path / "ward", first_port=None, say=said.append)
    assert left_in(tmp_path) == ["ward"]
    assert left_in(made.folder) == ["anchor.pem", "hospital", "passphrase", "plan.toml", "token"]
    for name in ("passphrase", "token"):
        assert stat.S_IMODE((made.folder / name).stat().st_mode) == 0o600
    assert len(said) == 3
    with Installation.open(made.installation, passphrase_sources=[made.passphrase_source]) as installation:
        with installation.database.reading() as connection:
            assert {one.state for one in list_authorities(connection)} == {ACTIVE}
        assert installation.planning.compare(made.folder / "plan.toml").difference.is_empty
        assert len(installation.operations.devices.list_page(installation.actor, DeviceQuery())) == 10
    commands = made.commands()
    for one in made.plan().listeners:
        if one.kind != "relay-tcp":
            assert f"127.0.0.1:{one.address[1]}" in commands["enrol"]
    assert commands["store"].endswith(f" {made.store_port()}")


def test_an_empty_folder_is_taken_and_given_ports_are_used(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    first = ward._find_ports(None)
    made = make_ward(tmp_path / "ward", first_port=first, say=lambda _: None)
    assert [one.address[1] for one in made.plan().listeners] == [first, first + 1, first + 2]
    assert made.store_port() == first + 3


def test_free_ports_are_found_beside_a_taken_one(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(ward, "FIRST_PORT", taken)
    assert taken not in range(ward._find_ports(None), ward._find_ports(None) + PORTS)


def test_a_machine_without_free_ports_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = OSError(errno.EADDRINUSE, "Address already in use")
    monkeypatch.setattr(ward, "_try_port", lambda _port: taken)
    with refuses(Reason.BAD_SETTINGS, Misconfigured, match="--port"):
        ward._find_ports(None)


def test_a_taken_port_is_reported_and_nothing_is_made(tmp_path: Path, taken: int) -> None:
    with refuses(Reason.BAD_SETTINGS, Misconfigured, match=f"{taken} is taken.*leave --port out"):
        make_ward(tmp_path / "ward", first_port=taken, say=lambda _: None)
    assert left_in(tmp_path) == []


def test_a_port_that_needs_a_privilege_is_not_called_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr("vagus.server.quickstart.ward._try_port", lambda _: denied)
    with refuses(Reason.BAD_SETTINGS, Misconfigured, match="80 fails: .*Permission denied, give another --port"):
        make_ward(tmp_path / "ward", first_port=80, say=lambda _: None)
    assert left_in(tmp_path) == []


def test_a_folder_that_holds_something_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    (tmp_path / "ward" / "thesis.doc").write_text("years of work")
    with refuses(Reason.ALREADY_EXISTS, Conflict, match="thesis.doc.*new or an empty folder"):
        make_ward(tmp_path / "ward", first_port=None, say=lambda _: None)
    assert left_in(tmp_path / "ward") == ["thesis.doc"]


def test_a_file_and_a_folder_that_is_not_there_are_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "ward", tmp_path / "none" / "ward"):
        with refuses(Reason.BAD_ARGUMENT, Malformed, match=str(place)):
            make_ward(place, first_port=None, say=lambda _: None)
    assert left_in(tmp_path) == ["file"]


def test_a_folder_that_may_not_be_written_is_reported(tmp_path: Path) -> None:
    if os.getuid() == 0:
        with refuses(Reason.BAD_ARGUMENT, Malformed, match="this user may write"):
            make_ward(Path("/proc/ward"), first_port=None, say=lambda _: None)
        return
    tmp_path.chmod(0o500)
    with refuses(Reason.BAD_ARGUMENT, Malformed, match="this user may write"):
        make_ward(tmp_path / "ward", first_port=None, say=lambda _: None)


@pytest.mark.parametrize("step", range(3))
def test_a_full_disk_leaves_nothing_and_is_reported(tmp_path: Path, step: int) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) > step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable, match="nothing was made; make room"):
        make_ward(tmp_path / "ward", first_port=None, say=say)
    assert left_in(tmp_path) == []


def test_an_interrupted_quick_start_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_ward(tmp_path / "ward", first_port=None, say=interrupt)
    assert left_in(tmp_path) == []


def killed(parent: Path, name: str = ".ward.abcdefg1") -> Path:
    """What SIGKILL leaves: a folder with keys and a lock that nobody holds."""
    left = parent / name
    left.mkdir(mode=0o700)
    for file in ("passphrase", ward._LOCK):
        (left / file).write_bytes(b"secret")
    return left


def test_what_a_killed_quick_start_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left, said = killed(tmp_path), list[str]()
    make_ward(tmp_path / "ward", first_port=None, say=said.append)
    assert left_in(tmp_path) == ["ward"]
    assert str(left) in said[0]
    assert ward._LOCK not in left_in(tmp_path / "ward")


@pytest.mark.process
def test_a_quick_start_that_is_killed_holds_its_lock_no_more(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal, sys; from vagus.server.quickstart.ward import make_ward;"
        "make_ward(pathlib.Path(sys.argv[1]), first_port=None, say=lambda _: os.kill(os.getpid(), signal.SIGKILL))"
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path / "ward")], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    ward._remove_abandoned(tmp_path / "other", print)
    assert left_in(tmp_path) == [left.name], "it is of another folder"
    ward._remove_abandoned(tmp_path / "ward", print)
    assert left_in(tmp_path) == []


def test_folders_that_no_quick_start_abandoned_stay(tmp_path: Path) -> None:
    work, unlocked, public = killed(tmp_path), killed(tmp_path, ".ward.abcdefg2"), killed(tmp_path, ".ward.abcdefg3")
    (unlocked / ward._LOCK).unlink()
    public.chmod(0o755)
    other, longer = killed(tmp_path, ".wards.abcdefg4"), killed(tmp_path, ".ward.abcdefg45")
    (tmp_path / ".ward.abcdefg6").symlink_to(other)
    before = left_in(tmp_path)
    with lock_folder(work / ward._LOCK, seconds=0):
        make_ward(tmp_path / "ward", first_port=None, say=lambda _: None)
    assert left_in(tmp_path) == [*before, "ward"]
    assert left_in(work) == left_in(other) == left_in(longer) == ["passphrase", ward._LOCK]


def test_a_quick_start_that_lost_its_lock_to_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(_file: Path, *, seconds: float) -> NoReturn:
        raise FolderLocked

    monkeypatch.setattr(ward, "lock_folder", taken)
    with refuses(Reason.ALREADY_EXISTS, Conflict, match="another quick start"):
        make_ward(tmp_path / "ward", first_port=None, say=lambda _: None)
    assert left_in(tmp_path) == []


def test_a_plan_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward, "PLAN", tmp_path / "one-ward.toml")
    with refuses(Reason.BAD_PLAN, Misconfigured, match="install vagus again"):
        make_ward(tmp_path / "ward", first_port=None, say=lambda _: None)
    assert left_in(tmp_path) == []


def test_the_store_counts_lines_and_refuses_a_body_without_a_bound() -> None:
    store = TelemetryStore(0)
    with store.serving():
        url = f"http://127.0.0.1:{store.server_address[1]}/telemetry"
        with urllib.request.urlopen(urllib.request.Request(url, b"{}\n{}\n"), timeout=10) as answered:
            assert answered.status == 204
        with urllib.request.urlopen(url, timeout=10) as answered:
            assert answered.read() == b"2 lines\n"
        for length in ("1000001", "-1", "x"):
            with closing(socket.create_connection(("127.0.0.1", int(store.server_address[1])), 10)) as one:
                one.sendall(f"POST / HTTP/1.1\r\nHost: store\r\nContent-Length: {length}\r\n\r\n".encode())
                assert one.recv(100).startswith(b"HTTP/1.1 413 ")
    assert store.lines == 2


def test_a_store_whose_port_is_taken_is_reported(tmp_path: Path) -> None:
    made = make_ward(tmp_path / "ward", first_port=None, say=lambda _: None)
    with (
        closing(socket.create_server(("127.0.0.1", made.store_port()))),
        refuses(Reason.BAD_SETTINGS, Misconfigured, match="end the program that has it"),
    ):
        ward.serve_ward(made, ready=lambda _: None, say=lambda _: None)
