"""What is revoked comes whole and page by page; the newest and the released are found without reading the rest."""

from __future__ import annotations

import pytest

from tests.records.query_plans import plans
from tests.records.revocation.test_revocations import release, revoke
from tests.simulator.presence import present
from tests.simulator.rows import authority, certificate
from vagus.records.certificates import note_signature, take_places
from vagus.records.engine import query_hints
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.tables import certificates
from vagus.records.lost_certificates import LOST
from vagus.records.revocation import status_facts as rows


def test_revoked_certificates_come_by_shard_and_leaf(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_hints, "_AT_ONCE", 2)
    with database.writing() as connection:
        ca, other = authority(connection), authority(connection, "h1/er")
        made = [certificate(connection, ca, leaf, shard=leaf % 2) for leaf in range(7)]
        for step, one in enumerate(reversed(made), 1):
            revoke(connection, one, step)
        revoke(connection, certificate(connection, other, 9), 8)
        every = [one.serial for one in rows.iterate_revoked(connection, ca)]
        assert every == [made[leaf].serial for leaf in (0, 2, 4, 6, 1, 3, 5)]
        assert [one.serial for one in rows.iterate_revoked(connection, ca, 1)] == every[4:]
        assert [one.sequence for one in rows.iterate_revoked(connection, ca, 0)] == [7, 5, 3, 1]


def test_the_newest_revocations_are_those_of_the_last_steps_in_whatever_shard(connection: Connection, ca: int) -> None:
    for shard in range(3):
        take_places(connection, ca, shard, 10)
    made = [certificate(connection, ca, leaf, shard=leaf % 3) for leaf in range(6)]
    for step, leaf in enumerate((4, 0, 3, 5, 1, 2), 1):
        revoke(connection, made[leaf], step)
    assert [row.leaf_index for row in rows.list_newest_revoked(connection, ca, 3)] == [2, 1, 5]
    assert len(rows.list_newest_revoked(connection, ca, 50)) == 6


def test_a_release_is_listed_from_its_time_on(connection: Connection, ca: int) -> None:
    one, other = certificate(connection, ca, 0), certificate(connection, ca, 1)
    revoke(connection, one, 1)
    revoke(connection, other, 2)
    release(connection, one, 3, at=700)
    assert rows.list_released(connection, ca, since=700) == {one.serial}
    assert rows.list_released(connection, ca, since=701) == frozenset()


def test_the_newest_that_is_signed_and_has_not_ended_is_found(connection: Connection, ca: int, other: int) -> None:
    for leaf in range(4):
        certificate(connection, ca, leaf, not_after=(500, 900, 100, 900)[leaf])
    certificate(connection, other, 7, not_after=900)
    for leaf in (0, 1, 2, 7):  # the fourth was begun and not signed
        note_signature(connection, leaf, b"signed", bytes(32))
    found = [rows.find_newest_alive(connection, ca, alive_at=at) for at in (50, 100, 500, 899, 900)]
    assert [row and row.leaf_index for row in found] == [2, 1, 1, 1, None]
    connection.execute(certificates.update().where(certificates.c.leaf_index == 1).values(not_after=50))
    newest = present(rows.find_newest_alive(connection, ca, alive_at=100))
    assert newest.leaf_index == 0
    connection.execute(certificates.update().where(certificates.c.leaf_index == 0).values(fingerprint=LOST))
    assert rows.find_newest_alive(connection, ca, alive_at=100) is None, "of which a restore has lost the bytes"


def test_each_query_uses_its_index(file_database: Database) -> None:
    with file_database.writing() as connection:
        ca = authority(connection)
        take_places(connection, ca, 0, 10)
    with file_database.reading() as connection:
        newest = plans(connection, lambda: rows.list_newest_revoked(connection, ca, 3))
        assert (
            "revocations_by_step ((authority_id,shard,sequence)>(?,?,?) AND (authority_id,shard,sequence)<(?,?,?))"
            in newest
        )
        assert "TEMP B-TREE" not in newest
        released = plans(connection, lambda: rows.list_released(connection, ca, since=5))
        assert "revocation_events_by_act (act=? AND at>?)" in released
        alive = plans(connection, lambda: rows.find_newest_alive(connection, ca, alive_at=5))
        assert "certificates_by_authority" in alive
        alive = plans(connection, lambda: rows.find_alive_from(connection, ca, 7, alive_at=5))
        assert "certificates_by_authority (authority_id=? AND leaf_index>?)" in alive or "AND rowid>?)" in alive
        assert "certificates_by_authority (authority_id=?" in plans(
            connection, lambda: rows.find_newest_leaf(connection, ca)
        )
        every = plans(connection, lambda: list(rows.iterate_revoked(connection, ca)))
        assert "revocations_by_shard" in every
        assert "TEMP B-TREE" not in every
