"""After a restore: the lost leaves come back from the published log, and one history goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.simulator.log import CheckpointKey, LogFixture
from tests.simulator.queries import count_lost
from tests.simulator.refusals import refuses
from vagus.authority.lot_locks import lock_lot
from vagus.authority.revocation import hold_row, revoke_row
from vagus.errors import IntegrityFailure
from vagus.events.revocations import RevocationFollower
from vagus.fleet.devices import change_host_names, change_profile, set_hold, transfer_device
from vagus.fleet.inventory_entries import record_model
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.append import append
from vagus.ledger.entries import GapAccepted, IssuanceRecorded
from vagus.ledger.publish import LogPublisher
from vagus.ledger.recover import RecoveredGap, recover_leaves
from vagus.ledger.verify import verify_log, verify_published
from vagus.reasons import Reason
from vagus.records.certificates import EVERY_SHARD, count_places, find_certificate, list_intended, list_of_device
from vagus.records.devices import find_device
from vagus.records.engine.backup import copy_database, restore_database
from vagus.records.engine.database import open_database
from vagus.records.engine.tables import devices, revocation_events, work
from vagus.records.engine.writer import Batch, Writer
from vagus.records.keys import find_key
from vagus.records.models import ModelRow
from vagus.records.revocation.device_lots import DeviceLot
from vagus.records.revocation.revocations import find_revoked_serial
from vagus.records.units import UnitRow, put_unit
from vagus.testing import NOON, FrozenClock, SeededEntropy
from vagus.x509.crls.building import RevocationReason, read_entry_date

DEVICE = "a" * 26
BEGUN = 3  # a model, a device and an authority
START = BEGUN + 21
OVERLAP = timedelta(hours=3)


@pytest.fixture
def lived(tmp_path: Path) -> Iterator[LogFixture]:
    """An installation with one device, on disk."""
    with closing(LogFixture.make(tmp_path, f"sqlite:///{tmp_path / 'vagus.sqlite3'}")) as made:
        made.add_device(DEVICE)
        yield made


@contextmanager
def restored(lived: LogFixture, folder: Path) -> Iterator[LogFixture]:
    """The installation again from `backup` in `folder`, with the published log as it is."""
    place = folder / "restored.sqlite3"
    restore_database(folder / "backup", place)
    database = open_database(f"sqlite:///{place}")
    clock = FrozenClock()
    again = LogFixture(database, Writer(database, clock), clock, SeededEntropy(9), lived.folder, lived.key)
    yield again
    again.close()


def recover(log: LogFixture) -> RecoveredGap:
    return recover_leaves(log.writer, log.folder, log.publisher().key, overlap=OVERLAP)


def settle(again: LogFixture, gap: RecoveredGap, how: str) -> None:
    """An operator settles the gap."""
    settled = GapAccepted(gap.start, gap.end, how, "operator:someone")
    again.writer.submit(lambda batch: append(batch, settled)).result(10)


def test_a_restored_log_goes_on_with_its_own_history(lived: LogFixture, tmp_path: Path) -> None:
    kept = lived.issue(20)
    lived.change(kept[0])
    copy_database(lived.database, tmp_path / "backup")
    lost = lived.issue(300)
    lived.change(kept[1])
    lived.change(lost[0])
    lived.change(lost[1], "hold")
    lived.change(lost[2], "hold")
    lived.change(lost[2], "release")
    published = lived.publisher().publish()

    with restored(lived, tmp_path) as again:
        with refuses(Reason.LOG_TRUNCATED, IntegrityFailure):
            again.publisher().publish()

        gap = recover(again)
        assert (gap.start, gap.end) == (START, published.size)
        assert gap.certificates == tuple(("h1/icu#1", serial) for serial in lost)
        assert gap.kinds == {"issuance": 300, "revocation": 2, "hold": 2, "release": 1}
        assert verify_published(again.database, lived.folder, public_key=again.key.public_key) == published

        # the gap is open until an operator settles it, and says so
        with pytest.raises(IntegrityFailure) as caught:
            verify_log(again.database, public_key=again.key.public_key)
        assert caught.value.facts["index"] == START
        settle(again, gap, "revoked")
        report = verify_log(again.database, public_key=again.key.public_key, against=published)
        assert (report.certificates, report.revocations) == (320, 6)

        # and the log goes on
        again.issue(5)
        assert again.publisher().publish().size == published.size + 6
        verify_log(lived.folder, public_key=again.key.public_key, against=published)


def test_lost_certificates_can_be_found_and_refused(lived: LogFixture, tmp_path: Path) -> None:
    lived.issue(1)
    copy_database(lived.database, tmp_path / "backup")
    good, revoked, held = lived.issue(3)
    lived.change(revoked)
    lived.change(held, "hold")
    lived.publisher().publish()
    with restored(lived, tmp_path) as again:
        recover(again)
        with again.database.reading() as connection:
            rows = {serial: find_certificate(connection, 1, serial) for serial in (good, revoked, held)}
            assert [row.state for row in rows.values() if row] == ["issued", "revoked", "held"]
            assert [row.device_id for row in rows.values() if row] == [DEVICE] * 3
            assert len(list_of_device(connection, DEVICE)) == 4
            assert list_intended(connection) == ()  # nothing that a start would try to sign again
            assert count_lost(connection) == 3
            assert find_revoked_serial(connection, 1, good) is None
            found = [find_revoked_serial(connection, 1, serial) for serial in (revoked, held)]
            assert [one.reason for one in found if one] == [4, 6]
            keys = [find_key(connection, row.spki_sha256) for row in rows.values() if row]
            assert [key.owner for key in keys if key] == [f"device:{DEVICE}"] * 3
        follower = RevocationFollower(again.database, FrozenClock())
        assert follower.find(1, revoked) is not None
        assert follower.find(1, good) is None


def test_the_dates_of_revocations_from_elsewhere_come_back(lived: LogFixture, tmp_path: Path) -> None:
    dated, now = int(NOON.timestamp()) - 86_400, int(NOON.timestamp())
    lived.issue()
    copy_database(lived.database, tmp_path / "backup")
    revoked, held, ours = lived.issue(3)

    def act(batch: Batch) -> None:
        rows = [find_certificate(batch.connection, 1, serial) for serial in (revoked, held)]
        first, second = (row for row in rows if row is not None)
        revoke_row(batch, first, RevocationReason.SUPERSEDED, by="operator:a", dated_at=dated)
        hold_row(batch, second, by="operator:a", dated_at=dated + 1)

    lived.writer.submit(act).result(30)
    lived.change(ours)
    published = lived.publisher().publish()
    with restored(lived, tmp_path) as again:
        settle(again, recover(again), "revoked")
        verify_log(again.database, public_key=again.key.public_key, against=published)
        with again.database.reading() as connection:
            found = [find_revoked_serial(connection, 1, serial) for serial in (revoked, held, ours)]
        dates = [int(read_entry_date(one.entry_der).timestamp()) for one in found if one is not None]
        assert dates == [dated, dated + 1, now]


def test_a_changed_date_is_a_finding(lived: LogFixture) -> None:
    (serial,) = lived.issue()

    def act(batch: Batch) -> None:
        row = find_certificate(batch.connection, 1, serial)
        assert row is not None
        revoke_row(batch, row, RevocationReason.SUPERSEDED, by="operator:a", dated_at=1_700_000_000)

    lived.writer.submit(act).result(30)
    verify_log(lived.database, public_key=lived.key.public_key)
    with lived.database.writing() as connection:
        connection.execute(revocation_events.update().values(dated_at=1_700_000_001))
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        verify_log(lived.database, public_key=lived.key.public_key)


def test_a_lost_certificate_is_in_the_shard_of_its_entry_or_in_every_one(lived: LogFixture, tmp_path: Path) -> None:
    (known,) = lived.issue(1)
    copy_database(lived.database, tmp_path / "backup")
    entry = IssuanceRecorded("h1/icu#1", 5, bytes(32), b"k" * 32, "bedside", f"device:{DEVICE}", bytes(32), shard=3)
    for one in (entry, replace(entry, serial=6, shard=None)):  # as before entries told the shard
        lived.writer.submit(partial(append, entry=one)).result(10)
    lived.publisher().publish()
    with restored(lived, tmp_path) as again:
        recover(again)
        with again.database.reading() as connection:
            found = [find_certificate(connection, 1, serial) for serial in (known, 5, 6)]
            assert [one.shard for one in found if one] == [0, 3, EVERY_SHARD]
            assert count_places(connection, 1, 3) == 2, "its own, and one for what stands in all"
            assert count_places(connection, 1, EVERY_SHARD) == 1


def test_a_device_that_was_changed_in_the_gap_does_not_fall_back(lived: LogFixture, tmp_path: Path) -> None:
    lab, before, after = UnitName("h1", "lab"), ("old.h1.test",), ("new.h1.test",)
    device = DeviceId(DEVICE)

    def prepare(batch: Batch) -> None:
        put_unit(batch.connection, UnitRow(lab, "H", "L"))
        record_model(batch, ModelRow("watch", "maker", "wearable", "wearable"), by="operator:someone")
        change_host_names(batch, device, before, by="operator:someone")

    def change(batch: Batch) -> None:
        transfer_device(batch, device, lab, by="operator:someone", overlap=OVERLAP)
        change_profile(batch, device, "wearable", by="plan:test")
        change_host_names(batch, device, after, by="plan:test")
        set_hold(batch, device, is_held=True, by="operator:someone")
        lock_lot(batch, DeviceLot(model="m"), is_hold=False, by="operator:someone")

    lived.writer.submit(prepare).result(10)
    copy_database(lived.database, tmp_path / "backup")
    lived.writer.submit(change).result(10)
    lived.publisher().publish()
    with restored(lived, tmp_path) as again:
        gap = recover(again)
        with again.database.reading() as connection:
            row = find_device(connection, device)
            assert row is not None
            assert (row.unit, row.profile, row.host_names) == (lab, "wearable", ())
            assert row.transferred_at == row.held_at == int(NOON.timestamp())
            (run_after,) = connection.execute(select(work.c.run_after).where(work.c.kind == "supersede")).scalars()
            assert run_after == int((NOON + OVERLAP).timestamp()), "its old certificates end as they would have"
        settle(again, gap, "accepted")
        verify_log(again.database, public_key=again.key.public_key)


def test_nothing_is_recovered_where_nothing_was_lost(lived: LogFixture) -> None:
    lived.issue(3)
    lived.publisher().publish()
    lived.issue(2)
    gap = recover(lived)
    assert (gap.start, gap.end, gap.certificates) == (BEGUN + 5, BEGUN + 5, ())


def test_another_history_is_not_recovered(lived: LogFixture, tmp_path: Path) -> None:
    lived.issue(3)
    copy_database(lived.database, tmp_path / "backup")
    lived.issue(5)
    lived.publisher().publish()
    with restored(lived, tmp_path) as again:
        again.note(1)  # something was appended before the recovery: the two logs part here
        with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
            recover(again)
        with again.database.reading() as connection:
            assert count_lost(connection) == 0


def test_a_folder_that_does_not_verify_gives_nothing_back(lived: LogFixture, tmp_path: Path) -> None:
    lived.issue(3)
    key = lived.publisher().key
    with refuses(Reason.CHECKPOINT_INVALID, IntegrityFailure):
        recover_leaves(lived.writer, tmp_path / "nothing", key, overlap=OVERLAP)
    LogPublisher(lived.database, tmp_path / "strange", CheckpointKey(5)).publish()
    with refuses(Reason.CHECKPOINT_INVALID, IntegrityFailure):
        recover_leaves(lived.writer, tmp_path / "strange", key, overlap=OVERLAP)
    lived.publisher().publish()
    shutil.rmtree(lived.folder / "tile/entries")
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure):
        recover_leaves(lived.writer, lived.folder, key, overlap=OVERLAP)


def test_an_authority_that_was_made_in_the_gap_leaves_only_its_entries(lived: LogFixture, tmp_path: Path) -> None:
    lived.issue(1)
    copy_database(lived.database, tmp_path / "backup")
    entry = IssuanceRecorded("h1/new#1", 5, bytes(32), bytes(32), "bedside", "device:x", bytes(32))
    lived.writer.submit(lambda batch: append(batch, entry)).result(10)
    lived.publisher().publish()
    with restored(lived, tmp_path) as again:
        gap = recover(again)
        assert gap.certificates == (("h1/new#1", 5),)
        with again.database.reading() as connection:
            assert connection.execute(select(devices.c.id)).scalars().all() == [DEVICE]
            assert count_lost(connection) == 0
