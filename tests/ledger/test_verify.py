"""Verification: whatever is changed, cut or added in the log or its tables is found, with the first index."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import ColumnElement, Connection, Table, select, true

from tests.simulator.log import ORIGIN, SALT, LogFixture
from tests.simulator.refusals import refuses
from vagus.errors import IntegrityFailure
from vagus.ledger.append import append
from vagus.ledger.entries import IssuanceRecorded, TokenSpent, encode_entry
from vagus.ledger.publish import LogPublisher
from vagus.ledger.verify import LogReport, verify_log, verify_published
from vagus.reasons import Reason
from vagus.records.engine.database import open_database
from vagus.records.engine.tables import (
    certificate_bytes,
    certificates,
    keys,
    log_head,
    log_leaves,
    revocation_events,
    revocations,
)
from vagus.records.log import iterate_leaves
from vagus.tlog.checkpoint import Checkpoint
from vagus.tlog.merkle import Frontier, leaf_hash


@pytest.fixture
def busy(log: LogFixture) -> LogFixture:
    """An authority, 300 certificates, some revoked, one held and released, other entries between."""
    serials = log.issue(150)
    log.note(19)
    for serial in serials[:5]:
        log.change(serial)
    log.change(serials[9], "hold")
    log.change(serials[9], "release")
    log.issue(150)
    return log


def rewrite_head(connection: Connection) -> None:
    """What a thief of the database does after changing leaves: make everything agree again."""
    frontier = Frontier().extend(
        leaf_hash(entry)
        for (entry,) in connection.execute(select(log_leaves.c.entry).order_by(log_leaves.c.leaf_index))
    )
    connection.execute(log_head.update().values(size=frontier.size, frontier=frontier.encode(), root=frontier.root))


def replace_leaf(connection: Connection, index: int, entry: bytes) -> None:
    connection.execute(
        log_leaves.update().where(log_leaves.c.leaf_index == index).values(entry=entry, leaf_hash=leaf_hash(entry))
    )


def forge_leaf(log: LogFixture, index: int) -> None:
    """Put another entry in place of a leaf, and make the head agree."""
    entry = encode_entry(TokenSpent(b"x" * 32, "device:b", bytes(32)), at=7, salt=SALT)
    with log.database.writing() as connection:
        replace_leaf(connection, index, entry)
        rewrite_head(connection)


def verify(log: LogFixture, source: Path | None = None, against: Checkpoint | None = None) -> LogReport:
    """Verify the database, or the published folder `source`."""
    return verify_log(source or log.database, public_key=log.key.public_key, against=against)


def refused(log: LogFixture, against: Checkpoint | None = None, source: Path | None = None) -> tuple[Reason, object]:
    """Why verification fails, and at which index."""
    with pytest.raises(IntegrityFailure) as caught:
        verify(log, source, against)
    return caught.value.reason, caught.value.facts.get("index")


def test_an_honest_log_verifies_and_counts(busy: LogFixture) -> None:
    report = verify(busy)
    assert (report.origin, report.size, report.certificates, report.revocations) == (ORIGIN, 327, 300, 7)


def test_without_a_second_memory_the_report_says_what_it_cannot_exclude(busy: LogFixture) -> None:
    report = verify(busy)
    assert report.caveat is not None
    assert "cut off" in report.caveat
    saved = Checkpoint(ORIGIN, report.size, report.root)
    busy.note(10)
    assert verify(busy, against=saved).caveat is None


def test_a_log_cut_short_is_found_only_against_a_saved_checkpoint(busy: LogFixture) -> None:
    saved = busy.publisher().publish()
    with busy.database.writing() as connection:
        cut = select(certificates.c.spki_sha256).where(certificates.c.leaf_index >= 300)
        connection.execute(keys.delete().where(keys.c.spki_sha256.in_(cut)))
        connection.execute(certificate_bytes.delete().where(certificate_bytes.c.leaf_index >= 300))
        connection.execute(certificates.delete().where(certificates.c.leaf_index >= 300))
        connection.execute(log_leaves.delete().where(log_leaves.c.leaf_index >= 300))
        rewrite_head(connection)
    assert verify(busy).size == 300
    assert refused(busy, saved) == (Reason.LOG_TRUNCATED, 300)
    with refuses(Reason.LOG_TRUNCATED, IntegrityFailure):
        verify_published(busy.database, busy.folder, public_key=busy.key.public_key)


def test_a_rewritten_history_is_found_against_a_saved_checkpoint_and_located_by_the_published_log(
    busy: LogFixture,
) -> None:
    saved = busy.publisher().publish()
    forge_leaf(busy, 160)
    assert verify(busy).size == 327
    assert refused(busy, saved)[0] is Reason.LOG_TAMPERED
    with pytest.raises(IntegrityFailure) as caught:
        verify_published(busy.database, busy.folder, public_key=busy.key.public_key)
    assert (caught.value.reason, caught.value.facts["index"]) == (Reason.LOG_TAMPERED, 160)


def test_a_checkpoint_of_another_log_proves_nothing(busy: LogFixture) -> None:
    assert refused(busy, Checkpoint("elsewhere", 1, bytes(32)))[0] is Reason.CHECKPOINT_INVALID


Change = Callable[[Connection], object]
ISSUED = 20  # the leaf of some certificate


def change(table: Table, where: ColumnElement[bool], **values: object) -> Change:
    return lambda connection: connection.execute(table.update().where(where).values(**values))


def remove(table: Table, where: ColumnElement[bool]) -> Change:
    return lambda connection: connection.execute(table.delete().where(where))


def add(table: Table, **values: object) -> Change:
    return lambda connection: connection.execute(table.insert().values(**values))


def leaf(index: int) -> ColumnElement[bool]:
    return log_leaves.c.leaf_index == index


def step(sequence: int) -> ColumnElement[bool]:
    return revocation_events.c.sequence == sequence


HEAD = log_head.c.id == 1
ROW = certificates.c.leaf_index == ISSUED
BYTES = certificate_bytes.c.leaf_index == ISSUED
SHADOW_STEP = {"sequence": 8, "authority_id": 1, "serial": b"\x01", "act": "revoke", "reason": 4, "at": 0}

CHANGES: dict[str, tuple[int | None, Change]] = {
    "a leaf's entry": (160, change(log_leaves, leaf(160), entry=b"x")),
    "a leaf's hash": (160, change(log_leaves, leaf(160), leaf_hash=bytes(32))),
    "a leaf with its hash": (160, lambda connection: replace_leaf(connection, 160, b"x")),
    "a missing leaf": (160, remove(log_leaves, leaf(160))),
    "the last leaf": (326, remove(log_leaves, leaf(326))),
    "one leaf too many": (327, add(log_leaves, leaf_index=327, entry=b"{}", leaf_hash=leaf_hash(b"{}"))),
    "the root": (None, change(log_head, HEAD, root=bytes(32))),
    "the frontier": (None, change(log_head, HEAD, frontier=bytes(64))),
    "the revocation count": (None, change(log_head, HEAD, revocation_sequence=8)),
    "a certificate's bytes": (ISSUED, change(certificate_bytes, BYTES, tbs_der=b"x")),
    "a certificate without bytes": (ISSUED, remove(certificate_bytes, BYTES)),
    "a certificate's serial": (ISSUED, change(certificates, ROW, serial=b"\x01")),
    "a certificate's owner": (ISSUED, change(certificates, ROW, owner="device:other")),
    "a certificate's profile": (ISSUED, change(certificates, ROW, profile="gateway")),
    "a certificate's key": (ISSUED, change(certificates, ROW, spki_sha256=bytes(32))),
    "a certificate's request": (ISSUED, change(certificates, ROW, request_id="another")),
    "a revocation's reason": (170, change(revocation_events, step(1), reason=1)),
    "a revocation's serial": (170, change(revocation_events, step(1), serial=b"\x01")),
    "a revocation turned into a hold": (170, change(revocation_events, step(1), act="hold")),
    "a revocation taken back": (170, remove(revocation_events, step(1))),
    "the last step taken back": (176, remove(revocation_events, step(7))),
    "a step without an entry": (None, add(revocation_events, **SHADOW_STEP)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_in_the_database_is_found_with_its_index(busy: LogFixture, what: str) -> None:
    index, make = CHANGES[what]
    with busy.database.writing() as connection:
        make(connection)
    reason, found_at = refused(busy)
    assert reason in {Reason.LOG_TAMPERED, Reason.LOG_TRUNCATED}
    assert index in {None, found_at}


def test_a_certificate_without_an_entry_is_found(busy: LogFixture) -> None:
    """Shadow issuance: the row is there, the log says nothing."""
    busy.note(1)
    with busy.database.writing() as connection:
        connection.execute(
            certificates.insert().values(
                leaf_index=327, authority_id=1, serial=b"\x05", owner="device:x", profile="bedside",
                spki_sha256=bytes(32), request_id="r", not_before=0, not_after=1, shard=0, state="issued",
            )
        )  # fmt: skip
        connection.execute(certificate_bytes.insert().values(leaf_index=327, tbs_der=b"x"))
    assert refused(busy) == (Reason.LOG_TAMPERED, 327)


def test_an_issuance_entry_without_a_certificate_is_found(busy: LogFixture) -> None:
    entry = IssuanceRecorded("h1/icu#1", 5, bytes(32), bytes(32), "bedside", "device:x", bytes(32))
    index = busy.writer.submit(lambda batch: append(batch, entry)).result(10)
    assert refused(busy) == (Reason.LOG_TAMPERED, index)


def test_an_entry_with_a_second_spelling_is_found(busy: LogFixture) -> None:
    index = busy.writer.submit(lambda batch: batch.append(b'{"v": 1}')).result(10)
    assert refused(busy) == (Reason.LOG_TAMPERED, index)


def test_the_published_folder_verifies_by_itself(busy: LogFixture) -> None:
    published = busy.publisher().publish()
    report = verify(busy, busy.folder, published)
    assert (report.size, report.certificates, report.caveat) == (327, 0, None)


def test_no_single_changed_byte_of_the_published_log_passes(busy: LogFixture) -> None:
    busy.publisher().publish()
    files = [path for path in busy.folder.rglob("*") if path.is_file() and path.name != ".lock"]
    chance = random.Random(7)
    for _ in range(60):
        path = chance.choice(files)
        before = path.read_bytes()
        contents = bytearray(before)
        at = chance.randrange(len(contents))
        contents[at] ^= 1 << chance.randrange(8)
        path.write_bytes(contents)
        with pytest.raises(Exception, match=r".") as caught:
            verify(busy, busy.folder)
        assert type(caught.value).__module__ == "vagus.errors", (path, at, caught.value)
        path.write_bytes(before)
    verify(busy, busy.folder)


@pytest.mark.parametrize("name", ["tile/0/000", "tile/entries/001.p/71", "tile/1/000.p/1"])
def test_a_missing_published_file_is_found(busy: LogFixture, name: str) -> None:
    busy.publisher().publish()
    (busy.folder / name).unlink()
    assert refused(busy, source=busy.folder)[0] is Reason.LOG_TAMPERED


def test_an_older_published_folder_is_found_against_a_newer_checkpoint(busy: LogFixture, tmp_path: Path) -> None:
    busy.publisher().publish()
    shutil.copytree(busy.folder, tmp_path / "old")
    busy.note(1)
    saved = busy.publisher().publish()
    assert refused(busy, saved, tmp_path / "old") == (Reason.LOG_TRUNCATED, 327)


def test_a_forked_folder_is_found_against_a_saved_checkpoint(busy: LogFixture, tmp_path: Path) -> None:
    saved = busy.publisher().publish()
    forge_leaf(busy, 150)
    LogPublisher(busy.database, tmp_path / "fork", busy.key).publish()
    assert verify(busy, tmp_path / "fork").size == 327
    assert refused(busy, saved, tmp_path / "fork")[0] is Reason.LOG_TAMPERED


def test_a_folder_without_a_checkpoint_or_of_another_key_is_refused(busy: LogFixture, tmp_path: Path) -> None:
    busy.publisher().publish()
    for folder, key in [(tmp_path, busy.key.public_key), (busy.folder, bytes(32))]:
        with refuses(Reason.CHECKPOINT_INVALID, IntegrityFailure):
            verify_log(folder, public_key=key)


def test_an_empty_log_is_sound(log: LogFixture) -> None:
    assert verify(log).size == 0


def test_reading_and_verifying_do_not_change_the_database(tmp_path: Path) -> None:
    path = tmp_path / "vagus.sqlite3"
    made = LogFixture.make(tmp_path, f"sqlite:///{path}")
    made.issue(3)
    made.close()
    before = path.read_bytes()
    database = open_database(f"sqlite:///{path}")
    verify_log(database, public_key=made.key.public_key)
    with database.reading() as connection:
        assert len(list(iterate_leaves(connection))) == 4
    database.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        remove(revocations, true()),
        change(revocations, true(), reason=0),
        change(revocations, true(), entry_der=b"\x30\x00"),
        change(revocations, true(), shard=7),
        change(certificates, true(), state="issued"),
        change(certificates, true(), state="revoked"),
    ],
    ids=["row", "reason", "entry", "shard", "unrevoked", "revoked"],
)
def test_rows_whose_crl_would_omit_or_invent_a_revocation_are_found(busy: LogFixture, change: Change) -> None:
    busy.writer.submit(lambda batch: change(batch.connection)).result(30)
    assert refused(busy)[0] is Reason.LOG_TAMPERED
