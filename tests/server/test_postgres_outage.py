"""A PostgreSQL that ends, comes back or is a standby: nothing old is taken for current, and all comes back."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.postgres import _binary, _lower_rights, _plain, _wait
from tests.simulator.installation import BY, Installation, new_installation
from vagus.errors import Unavailable
from vagus.events.devices import DeviceFollower
from vagus.events.revocations import RevocationFollower
from vagus.reasons import Reason
from vagus.records.engine import writer as writer_module
from vagus.x509.crls.building import RevocationReason

pytestmark = pytest.mark.interop
PATIENCE = 60.0


class Cluster:
    """A server of our own that may be ended and begun again."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
        server, initdb = _binary("postgres"), _binary("initdb")
        if server is None or initdb is None:
            pytest.skip("no PostgreSQL: install its server")
        self._folder = folder
        self._prefix = _lower_rights(folder)
        self.data = folder / "data"
        self.url = f"postgresql+psycopg://vagus@/postgres?host={folder}"
        made = [initdb, "-D", str(self.data), "-U", "vagus", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*self._prefix, *made], capture_output=True, check=True, cwd=folder)
        self._command = [*self._prefix, server, "-D", str(self.data), "-c", "listen_addresses="]
        self._command += ["-c", f"unix_socket_directories={folder}"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._folder)
        _wait(self.url, self._process, self._folder / "log")

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT: as by a crash; SIGINT: in order, connections cut."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def become_standby(self) -> None:
        """As a standby whose primary is gone: it lets everybody read what it has."""
        self.stop(signal.SIGINT)
        self._touch("standby.signal")
        self.start()

    def promote(self) -> None:
        self.stop(signal.SIGINT)
        (self.data / "standby.signal").unlink()
        self.start()

    def run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(_plain(self.url), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _touch(self, name: str) -> None:
        subprocess.run([*self._prefix, "touch", self.data / name], check=True, cwd=self._folder)


@contextmanager
def clustered() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="vagus-postgres-") as folder:
        cluster = Cluster(Path(folder))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with clustered() as made:
        yield made


@pytest.fixture
def built(cluster: Cluster, tmp_path: Path) -> Iterator[Installation]:
    with new_installation(tmp_path / "installation", cluster.url) as made:
        made.build()
        yield made


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_away(act: Callable[[], object]) -> bool:
    try:
        act()
    except Unavailable as error:
        assert error.reason is Reason.DATABASE_UNAVAILABLE
        return True
    return False


def test_a_server_that_crashed_is_followed_and_written_to_again_without_a_restart(
    cluster: Cluster, built: Installation
) -> None:
    issuers = built.issuers("h1/icu")
    first, second = built.issue(issuers), built.issue(issuers)
    follower, devices = RevocationFollower(built.database, built.clock), DeviceFollower(built.database)
    follower.start(0.05)
    devices.start(0.05)
    revoke(built, first.serial, first.issuer.authority_id)
    until(lambda: follower.find(first.issuer.authority_id, first.serial) is not None)
    cluster.stop()
    assert is_away(follower.catch_up)
    assert is_away(devices.catch_up)
    assert is_away(lambda: revoke(built, second.serial, second.issuer.authority_id))
    assert follower.find(first.issuer.authority_id, first.serial) is not None, "what it knew it knows"
    built.clock.advance(seconds=3)
    assert follower.is_lost(built.clock.now(), timedelta(seconds=2))
    cluster.start()
    until(lambda: not is_away(lambda: revoke(built, second.serial, second.issuer.authority_id)))
    until(lambda: follower.find(second.issuer.authority_id, second.serial) is not None)
    assert not follower.is_lost(built.clock.now(), timedelta(seconds=2))
    follower.close()
    devices.close()


def test_the_first_act_after_an_unnoticed_outage_is_done(
    cluster: Cluster, built: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_IDLE_SECONDS", 0.05)
    issued = built.issue(built.issuers("h1/icu"))
    built.settle()
    cluster.stop()
    cluster.start()
    revoke(built, issued.serial, issued.issuer.authority_id)
    follower = RevocationFollower(built.database, built.clock)
    assert follower.find(issued.issuer.authority_id, issued.serial) is not None


def test_a_readable_standby_is_not_taken_for_the_database(cluster: Cluster, built: Installation) -> None:
    """It lacks what is revoked at the primary meanwhile, and its readers would believe that all is current."""
    issued = built.issue(built.issuers("h1/icu"))
    built.settle()
    follower = RevocationFollower(built.database, built.clock)
    cluster.become_standby()
    built.clock.advance(seconds=3)
    assert is_away(follower.catch_up)
    assert follower.is_lost(built.clock.now(), timedelta(seconds=2))
    for road in (built.database.reading, built.database.bounded_reading):
        with pytest.raises(Unavailable, match="standby") as refused, road():
            pass
        assert refused.value.reason is Reason.DATABASE_UNAVAILABLE
    assert is_away(lambda: revoke(built, issued.serial, issued.issuer.authority_id))
    cluster.promote()
    until(lambda: not is_away(lambda: revoke(built, issued.serial, issued.issuer.authority_id)))
    until(lambda: not is_away(follower.catch_up))
    assert follower.find(issued.issuer.authority_id, issued.serial) is not None


def test_tables_that_were_missing_for_a_moment_stop_nothing(
    cluster: Cluster, built: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a restore under a serving process: PostgreSQL calls a statement wrong, and is not unavailable."""
    issued = built.issue(built.issuers("h1/icu"))
    built.settle()
    follower, devices = RevocationFollower(built.database, built.clock), DeviceFollower(built.database)
    follower.start(0.02)
    devices.start(0.02)
    cluster.run("ALTER TABLE log_head RENAME TO log_head_away")
    until(lambda: "revocation sequence cannot" in caplog.text and "device changes cannot" in caplog.text)
    cluster.run("ALTER TABLE log_head_away RENAME TO log_head")
    until(lambda: not is_away(lambda: revoke(built, issued.serial, issued.issuer.authority_id)))
    until(lambda: follower.find(issued.issuer.authority_id, issued.serial) is not None)
    for thread in (follower._thread, devices._thread):
        assert thread is not None
        assert thread.is_alive()
    follower.close()
    devices.close()


def revoke(built: Installation, serial: int, authority_id: int) -> None:
    built.revocations.revoke(authority_id, serial, RevocationReason.SUPERSEDED, by=BY).result(PATIENCE)
