"""Entries stand ready for every list, and the sequence tells how they came."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from tests.records.signing import authority, certificate
from vagus.records import revocations as rows
from vagus.records.certificates import CertificateRow
from vagus.records.database import Connection, Database
from vagus.records.revocations import RevocationEvent, RevocationRow


def revoke(connection: Connection, one: CertificateRow, sequence: int, entry: bytes = b"") -> RevocationRow:
    row = RevocationRow(
        leaf_index=one.leaf_index,
        sequence=sequence,
        authority_id=one.authority_id,
        serial=one.serial,
        shard=one.shard,
        reason=1,
        revoked_at=500,
        not_after=one.not_after,
        entry_der=entry or b"entry %d" % one.leaf_index,
    )
    rows.put_revocation(connection, row)
    rows.insert_event(connection, RevocationEvent(sequence, one.authority_id, one.serial, rows.REVOKE, 1, 500))
    return row


def test_what_is_revoked_is_found_until_it_is_released(database: Database) -> None:
    with database.writing() as connection:
        ca = authority(connection)
        one = certificate(connection, ca, 5)
        row = revoke(connection, one, 1)
        assert rows.find_revocation(connection, 5) == row
        assert rows.find_revoked_serial(connection, ca, one.serial) == row
        again = revoke(connection, one, 2, b"worse")
        assert rows.find_revocation(connection, 5) == again
        assert rows.count_revoked(connection, ca) == 1
        rows.delete_revocation(connection, 5)
        assert rows.find_revocation(connection, 5) is None
        assert rows.find_revoked_serial(connection, ca, one.serial) is None


def test_no_step_of_the_sequence_comes_twice(database: Database) -> None:
    with database.writing() as connection:
        ca = authority(connection)
        revoke(connection, certificate(connection, ca, 5), 1)
        with pytest.raises(IntegrityError):
            revoke(connection, certificate(connection, ca, 6), 1)


def test_entries_of_a_shard_come_in_order_and_without_what_is_past(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_PAGE", 2)
    with database.writing() as connection:
        ca = authority(connection)
        for leaf in range(6):
            revoke(connection, certificate(connection, ca, leaf, shard=leaf // 5), leaf + 1)
        found = list(rows.iterate_entries(connection, ca, 0, ends_from=1001))
        assert found == [b"entry 1entry 2", b"entry 3entry 4"]
        assert list(rows.iterate_entries(connection, ca, 1, ends_from=0)) == [b"entry 5"]
        assert list(rows.iterate_entries(connection, ca, 2, ends_from=0)) == []


def test_the_sequence_tells_which_shards_were_touched(database: Database) -> None:
    with database.writing() as connection:
        ca, other = authority(connection), authority(connection, "h1/er")
        for leaf in range(4):
            revoke(connection, certificate(connection, ca, leaf, shard=leaf % 2), leaf + 1)
        revoke(connection, certificate(connection, other, 9), 5)
        assert rows.newest_by_shard(connection, ca, after=0) == {0: 3, 1: 4}
        assert rows.newest_by_shard(connection, ca, after=3) == {1: 4}
        assert rows.newest_sequence(connection) == 5
        assert rows.newest_sequence(connection, ca) == 4
        assert [event.sequence for event in rows.list_events(connection, ca, after=1, until=3)] == [2, 3]
