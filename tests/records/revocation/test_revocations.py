"""Revocations as rows: ready for every CRL, and numbered in the order in which they came."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from tests.records.query_plans import plans
from tests.simulator.queries import count_revoked
from tests.simulator.rows import authority, certificate
from vagus.records.certificates import EVERY_SHARD, CertificateRow, take_place_everywhere, take_places
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.records.engine.database import Connection, Database
from vagus.records.revocation import revocations as rows
from vagus.records.revocation.revocations import RevocationRow


def revoke(
    connection: Connection, one: CertificateRow, sequence: int, entry: bytes = b"", *, at: int = 500
) -> RevocationRow:
    row = RevocationRow(
        leaf_index=one.leaf_index,
        sequence=sequence,
        authority_id=one.authority_id,
        serial=one.serial,
        shard=one.shard,
        reason=1,
        revoked_at=at,
        not_after=one.not_after,
        entry_der=entry or b"entry %d" % one.leaf_index,
    )
    rows.put_revocation(connection, row)
    rows.insert_event(connection, RevocationEvent(sequence, one.authority_id, one.serial, rows.REVOKE, 1, at))
    return row


def test_what_is_revoked_is_found_until_it_is_released(connection: Connection, ca: int) -> None:
    one = certificate(connection, ca, 5)
    row = revoke(connection, one, 1)
    assert rows.find_revocation(connection, 5) == row
    assert rows.find_revoked_serial(connection, ca, one.serial) == row
    again = revoke(connection, one, 2, b"worse")
    assert rows.find_revocation(connection, 5) == again
    assert count_revoked(connection, ca) == 1
    rows.delete_revocation(connection, 5)
    assert rows.find_revocation(connection, 5) is None
    assert rows.find_revoked_serial(connection, ca, one.serial) is None


def test_no_step_of_the_sequence_comes_twice(connection: Connection, ca: int) -> None:
    revoke(connection, certificate(connection, ca, 5), 1)
    with pytest.raises(IntegrityError):
        revoke(connection, certificate(connection, ca, 6), 1)


def test_entries_of_a_shard_come_in_order_and_unexpired(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_PAGE", 2)
    with database.writing() as connection:
        ca = authority(connection)
        for leaf in range(6):
            revoke(connection, certificate(connection, ca, leaf, shard=leaf // 5), leaf + 1)
        found = list(rows.iterate_entries(connection, ca, 0, ends_from=1001))
        assert found == [b"entry 1entry 2", b"entry 3entry 4"]
        assert list(rows.iterate_entries(connection, ca, 1, ends_from=0)) == [b"entry 5"]
        assert list(rows.iterate_entries(connection, ca, 2, ends_from=0)) == []


def test_the_sequence_names_the_shards_with_new_steps(connection: Connection, ca: int, other: int) -> None:
    for leaf in range(4):
        revoke(connection, certificate(connection, ca, leaf, shard=leaf % 2), leaf + 1)
    revoke(connection, certificate(connection, other, 9), 5)
    assert rows.newest_by_shard(connection, ca, after=0) == {0: 3, 1: 4}
    assert rows.newest_by_shard(connection, ca, after=3) == {1: 4}
    assert rows.newest_sequence(connection) == 5
    assert [event.sequence for event in rows.list_events(connection, ca, after=1)] == [2, 3, 4]


def test_a_certificate_of_unknown_shard_changes_every_crl(connection: Connection, ca: int) -> None:
    lost = certificate(connection, ca, 0, shard=EVERY_SHARD)
    take_places(connection, ca, 0, 10)
    take_place_everywhere(connection, ca)
    take_places(connection, ca, 3, 10)
    revoke(connection, lost, 1)
    revoke(connection, certificate(connection, ca, 1, shard=3), 2)
    assert rows.newest_by_shard(connection, ca, after=0) == {0: 1, 3: 2}
    for shard, ends in ((0, [lost.serial]), (3, [lost.serial, lost.serial + 1])):
        assert [one.serial for one in rows.list_changes(connection, ca, shard, after=0, most=9)] == ends
        assert rows.oldest_waiting(connection, ca, shard, after=0) == 500
    assert rows.oldest_waiting(connection, ca, 0, after=1) is None
    release(connection, lost, 3, at=700)
    assert [one.entry_der for one in rows.list_changes(connection, ca, 3, after=2, most=9)] == [None]


def test_the_oldest_step_that_waits_for_a_crl_is_found(connection: Connection, ca: int, other: int) -> None:
    for step, (issuer, shard) in enumerate(((ca, 0), (other, 0), (ca, 1), (ca, 0), (ca, 1)), 1):
        revoke(connection, certificate(connection, issuer, step, shard=shard), step, at=100 * step)
    expected = {0: (100, 400, 400, None), 1: (300, 300, 500, 500), 2: (None,) * 4}
    for shard, firsts in expected.items():
        asked = [rows.oldest_waiting(connection, ca, shard, after=after) for after in (0, 1, 3, 4)]
        assert tuple(asked) == firsts, f"behind 0, 1, 3 and 4, of shard {shard}"
    rows.delete_revocation(connection, 1)
    assert rows.oldest_waiting(connection, ca, 0, after=0) == 400, "what was released waits for no entry"


def release(connection: Connection, one: CertificateRow, sequence: int, at: int) -> None:
    rows.delete_revocation(connection, one.leaf_index)
    rows.insert_event(connection, RevocationEvent(sequence, one.authority_id, one.serial, rows.RELEASE, 8, at))


def test_changes_of_a_shard_are_revocations_and_releases(connection: Connection, ca: int, other: int) -> None:
    before, held, worse, again, elsewhere = (certificate(connection, ca, leaf, shard=leaf // 4) for leaf in range(5))
    for step, one in enumerate((before, held, worse, again), 1):
        revoke(connection, one, step)
    revoke(connection, certificate(connection, other, 9), 5)
    # behind step 5: one hold ends, one reason becomes worse, one is released and revoked, one is in another shard
    release(connection, held, 6, at=700)
    revoke(connection, worse, 7, b"worse")
    release(connection, again, 8, at=800)
    revoke(connection, again, 9, b"again")
    revoke(connection, elsewhere, 10)
    changes = rows.list_changes(connection, ca, 0, after=5, most=10)
    assert [(one.serial, one.entry_der) for one in changes] == [
        (held.serial, None),
        (worse.serial, b"worse"),
        (again.serial, b"again"),
    ]
    assert changes[0].at == 700
    assert len(rows.list_changes(connection, ca, 0, after=5, most=2)) == 2
    assert rows.list_changes(connection, ca, 0, after=9, most=10) == ()


def test_no_query_of_a_shard_or_a_serial_reads_all_revocations(file_database: Database) -> None:
    with file_database.reading() as connection:
        shard = plans(connection, lambda: rows.list_changes(connection, 1, 0, after=5, most=10))
        assert "revocations_by_step (authority_id=? AND shard=? AND sequence>?)" in shard
        assert "revocation_events_by_act (act=?" in shard
        waiting = plans(connection, lambda: rows.oldest_waiting(connection, 1, 0, after=5))
        assert "revocations_by_step (authority_id=? AND shard=? AND sequence>?)" in waiting
        entries = plans(connection, lambda: list(rows.iterate_entries(connection, 1, 0, ends_from=5)))
        assert "revocations_by_shard (authority_id=? AND shard=? AND leaf_index>?)" in entries
        serial = plans(connection, lambda: rows.find_revoked_serial(connection, 1, 5))
        assert "(serial=?)" in serial
        assert "SCAN" not in shard + waiting + entries + serial
