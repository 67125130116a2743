"""A PostgreSQL that ends, comes back or is a standby: nothing old is taken for current, and all comes back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.postgres import Cluster, own_cluster
from tests.simulator.installation import BY, Installation, new_installation
from tests.simulator.refusals import refuses
from tests.simulator.waiting import wait_until
from vagus.authority.issuance import IssuedCertificate
from vagus.errors import Unavailable
from vagus.events.devices import DeviceFollower
from vagus.events.revocations import RevocationFollower
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.records.engine import writer as writer_module
from vagus.server.unsigned_certificates import UnsignedCertificates
from vagus.x509.crls.building import RevocationReason

pytestmark = pytest.mark.interop
PATIENCE = 60.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with own_cluster() as made:
        yield made


@pytest.fixture
def built(cluster: Cluster, tmp_path: Path) -> Iterator[Installation]:
    with new_installation(tmp_path / "installation", cluster.url) as made:
        made.build()
        yield made


@pytest.fixture
def followers(built: Installation) -> Iterator[tuple[RevocationFollower, DeviceFollower]]:
    """Both, polling until the test ends."""
    follower, devices = RevocationFollower(built.database, built.clock), DeviceFollower(built.database)
    for one in (follower, devices):
        one.start(0.02)
    yield follower, devices
    follower.close()
    devices.close()


def is_away(act: Callable[[], object]) -> bool:
    try:
        act()
    except Unavailable as error:
        assert error.reason is Reason.DATABASE_UNAVAILABLE
        return True
    return False


def test_a_server_that_crashed_is_followed_and_written_to_again_without_a_restart(
    cluster: Cluster, built: Installation, followers: tuple[RevocationFollower, DeviceFollower]
) -> None:
    first, second = built.issue(), built.issue()
    follower, devices = followers
    revoke(built, first)
    wait_until(lambda: follower.find(first.issuer.authority_id, first.serial) is not None)
    cluster.stop()
    assert is_away(follower.catch_up)
    assert is_away(devices.catch_up)
    assert is_away(lambda: revoke(built, second))
    assert follower.find(first.issuer.authority_id, first.serial) is not None, "what it knew it knows"
    built.clock.advance(seconds=3)
    assert follower.is_lost(built.clock.now(), timedelta(seconds=2))
    cluster.start()
    wait_until(lambda: not is_away(lambda: revoke(built, second)))
    wait_until(lambda: follower.find(second.issuer.authority_id, second.serial) is not None)
    assert not follower.is_lost(built.clock.now(), timedelta(seconds=2))


def test_the_first_act_after_an_unnoticed_outage_is_done(
    cluster: Cluster, built: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_IDLE_SECONDS", 0.05)
    issued = built.issue()
    built.settle()
    cluster.stop()
    cluster.start()
    revoke(built, issued)
    follower = RevocationFollower(built.database, built.clock)
    assert follower.find(issued.issuer.authority_id, issued.serial) is not None


def test_a_readable_standby_is_not_taken_for_the_database(cluster: Cluster, built: Installation) -> None:
    """It lacks what is revoked at the primary meanwhile, and its readers would believe that all is current."""
    issued = built.issue()
    built.settle()
    follower = RevocationFollower(built.database, built.clock)
    cluster.stop(signal.SIGINT)  # it becomes as a standby whose primary is gone: it lets everybody read what it has
    cluster.run_command("touch", cluster.data / "standby.signal")
    cluster.start()
    built.clock.advance(seconds=3)
    assert is_away(follower.catch_up)
    assert follower.is_lost(built.clock.now(), timedelta(seconds=2))
    for read in (built.database.reading, built.database.bounded_reading):
        with refuses(Reason.DATABASE_UNAVAILABLE, Unavailable, match="standby"), read():
            pass
    assert is_away(lambda: revoke(built, issued))
    cluster.stop(signal.SIGINT)
    (cluster.data / "standby.signal").unlink()
    cluster.start()
    wait_until(lambda: not is_away(lambda: revoke(built, issued)))
    wait_until(lambda: not is_away(follower.catch_up))
    assert follower.find(issued.issuer.authority_id, issued.serial) is not None


def test_tables_that_were_missing_for_a_moment_stop_nothing(
    cluster: Cluster,
    built: Installation,
    followers: tuple[RevocationFollower, DeviceFollower],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in a restore under a serving process: PostgreSQL calls a statement wrong, and is not unavailable."""
    issued = built.issue()
    built.settle()
    follower, devices = followers
    cluster.run("ALTER TABLE log_head RENAME TO log_head_away")
    wait_until(lambda: "revocation sequence cannot" in caplog.text and "device changes cannot" in caplog.text)
    cluster.run("ALTER TABLE log_head_away RENAME TO log_head")
    wait_until(lambda: not is_away(lambda: revoke(built, issued)))
    wait_until(lambda: follower.find(issued.issuer.authority_id, issued.serial) is not None)
    for thread in (follower._thread, devices._thread):
        assert thread is not None
        assert thread.is_alive()


def test_each_certificate_that_a_device_got_is_in_the_database_soon_after_connections_were_cut(
    cluster: Cluster, built: Installation
) -> None:
    """The lock of the log head is held while certificates are recorded and signed; then every connection is ended."""
    issuance, got = built.issuance(), dict[int, bytes]()
    ended = threading.Event()

    def enrol() -> None:
        while not ended.is_set():
            order = built.order(request_id=f"r{built.entropy(6).hex()}")
            try:
                issued = issuance.issue_now(order, built.icu)
            except Unavailable:
                continue
            got[issued.leaf_index] = issued.der

    clients = [threading.Thread(target=enrol) for _ in range(4)]
    for client in clients:
        client.start()
    for _ in range(5):
        seen = len(got)
        wait_until(lambda seen=seen: len(got) > seen + 5)  # type: ignore[misc]
        cluster.run(_CUT)
    ended.set()
    for client in clients:
        client.join(PATIENCE)
    watch = UnsignedCertificates(built.database, issuance, built.units, lambda: True, seconds=iter((0, 20)).__next__)

    def is_written() -> bool:
        issuance.write_rows()
        return not issuance.unwritten

    wait_until(is_written)
    built.settle()
    missing = [leaf for leaf, der in got.items() if built.read(rows.load_bytes, leaf)[1] != der]
    assert (missing, len(got) > 25) == ([], True)
    for _ in range(2):  # those whose commit had no outcome, so that no client has them
        watch.check()
    assert built.read(rows.list_intended) == ()
    for leaf, der in got.items():
        row = built.find(rows.find_by_leaf, leaf)
        assert (row.state, built.read(rows.load_bytes, leaf)[1]) == (rows.ISSUED, der)


_CUT = """SELECT size FROM log_head FOR UPDATE; SELECT pg_sleep(0.2);
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'vagus' AND pid <> pg_backend_pid()"""


def revoke(built: Installation, issued: IssuedCertificate) -> None:
    name = issued.issuer.authority_id, issued.serial
    built.revocations.revoke(*name, RevocationReason.SUPERSEDED, by=BY).result(PATIENCE)
