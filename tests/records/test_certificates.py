"""Certificates exist from their intent on; the first signature counts; shards give places in blocks."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from tests.records.query_plans import plans
from tests.records.revocation.test_revocations import revoke
from tests.records.test_publications import publication
from tests.simulator.presence import present
from tests.simulator.rows import authority, certificate
from vagus.records import certificates as rows
from vagus.records.engine.database import Connection, Database
from vagus.records.keys import block_key, insert_key
from vagus.records.publications import COMPLETE, put_publication


def test_one_query_finds_authority_key_and_request(connection: Connection, ca: int) -> None:
    known = certificate(connection, ca, 5)
    insert_key(connection, b"k" * 32, "device:a", at=1)
    assert rows.read_before_intent(connection, 99, b"k" * 32, "r5") == rows.BeforeIntent(None, None, False, None)
    assert rows.read_before_intent(connection, ca, b"z" * 32, "new") == rows.BeforeIntent("active", None, False, None)
    assert rows.read_before_intent(connection, ca, b"k" * 32, "r5") == rows.BeforeIntent(
        "active", "device:a", False, known.leaf_index
    )
    block_key(connection, b"k" * 32, "rule:x", at=2)
    assert rows.read_before_intent(connection, ca, b"k" * 32, "x").is_key_blocked


def test_an_intent_is_found_by_each_of_its_names(connection: Connection, ca: int) -> None:
    row = certificate(connection, ca, 5)
    assert rows.find_by_leaf(connection, 5) == row
    assert rows.find_certificate(connection, ca, row.serial) == row
    assert rows.find_by_request(connection, "r5") == row
    assert rows.list_of_key(connection, row.spki_sha256) == (row,)
    assert rows.load_bytes(connection, 5) == (b"tbs 5", None)
    assert rows.find_certificate(connection, ca, 1) is None
    assert rows.load_bytes(connection, 6) == (b"", None)


@pytest.mark.parametrize("twin", [{"serial": 0x40 << 152 | 5}, {"request_id": "r5"}])
def test_no_serial_and_no_request_id_comes_twice(connection: Connection, ca: int, twin: dict[str, object]) -> None:
    certificate(connection, ca, 5)
    with pytest.raises(IntegrityError):
        certificate(connection, ca, 6, **twin)


def test_the_first_signature_counts(connection: Connection) -> None:
    certificate(connection, authority(connection), 5)
    assert rows.note_signature(connection, 5, b"first", b"1" * 32)
    assert not rows.note_signature(connection, 5, b"second", b"2" * 32)
    assert rows.load_bytes(connection, 5) == (b"tbs 5", b"first")
    found = present(rows.find_by_leaf(connection, 5))
    assert (found.state, found.fingerprint) == (rows.ISSUED, b"1" * 32)


def test_what_was_revoked_before_its_signature_stays_revoked(connection: Connection) -> None:
    certificate(connection, authority(connection), 5)
    rows.set_state(connection, 5, rows.REVOKED)
    assert rows.note_signature(connection, 5, b"der", b"1" * 32)
    found = present(rows.find_by_leaf(connection, 5))
    assert found.state == rows.REVOKED


def test_pages_follow_one_another_in_order(connection: Connection, ca: int) -> None:
    for leaf in range(7):
        certificate(connection, ca, leaf, device_id="a" if leaf % 2 else "b")
    assert [row.leaf_index for row in rows.list_intended(connection, after=2, count=3)] == [3, 4, 5]
    for leaf in range(5):
        rows.note_signature(connection, leaf, b"der", bytes([leaf]) * 32)
    assert [row.leaf_index for row in rows.list_intended(connection)] == [5, 6]
    assert [row.leaf_index for row in rows.list_of_device(connection, "a")] == [5, 3, 1]
    assert [row.leaf_index for row in rows.list_of_device(connection, "a", alive_at=1003)] == [5]
    assert [row.leaf_index for row in rows.list_alive(connection, ca, alive_at=1001)] == [2, 3, 4]
    assert [row.leaf_index for row in rows.list_alive(connection, ca, alive_at=0, after=1, count=2)] == [2, 3]
    rows.set_state(connection, 4, rows.REVOKED)
    assert rows.count_alive(connection, ca, alive_at=1001) == 4


def test_places_are_taken_in_blocks(connection: Connection, ca: int) -> None:
    assert rows.find_shard(connection, ca) is None
    assert rows.list_shards(connection, ca) == (0,)
    assert [rows.take_places(connection, ca, shard, 250) for shard in (0, 0, 1)] == [250, 500, 250]
    assert rows.find_shard(connection, ca) == (1, 250)
    assert rows.list_shards(connection, ca) == (0, 1)


def test_a_shard_with_a_revocation_exists_without_taken_places(connection: Connection, ca: int, other: int) -> None:
    rows.take_places(connection, ca, 0, 250)
    rows.take_places(connection, ca, 2, 250)
    for leaf, shard in enumerate((0, 1, 1, 3, 3)):
        revoke(connection, certificate(connection, ca, leaf, shard=shard), leaf + 1)
    assert rows.list_shards(connection, ca) == (0, 1, 2, 3)
    assert rows.list_shards(connection, other) == (0,)


def test_a_shard_with_a_published_crl_exists_though_no_row_names_it(connection: Connection, ca: int) -> None:
    for shard in (COMPLETE, 0, 4):
        put_publication(connection, publication(ca, shard))
    assert rows.list_shards(connection, ca) == (0, 4)


def test_a_certificate_of_unknown_shard_has_a_place_in_every_shard(connection: Connection, ca: int, other: int) -> None:
    rows.take_places(connection, ca, 0, 250)
    rows.take_places(connection, ca, 1, 10)
    assert rows.list_covered_shards(connection, ca, 1) == (1,)
    for _ in range(3):
        rows.take_place_everywhere(connection, ca)
    assert [rows.count_places(connection, ca, shard) for shard in (0, 1)] == [253, 13]
    assert rows.take_places(connection, ca, 2, 250) == 253
    assert rows.find_shard(connection, ca) == (2, 253)
    assert rows.list_shards(connection, ca) == (0, 1, 2)
    assert rows.list_covered_shards(connection, ca, 1) == (1, rows.EVERY_SHARD)
    assert rows.list_covered_shards(connection, ca, COMPLETE) == (0, 1, 2, rows.EVERY_SHARD)
    assert rows.list_covered_shards(connection, other, COMPLETE) == (0,)


def test_a_shard_that_is_filled_keeps_what_it_has_beyond(connection: Connection, ca: int) -> None:
    rows.take_places(connection, ca, 1, 300)
    for shard in (0, 1, 2):
        rows.fill_shard(connection, ca, shard, 250)
    assert [rows.count_places(connection, ca, shard) for shard in (0, 1, 2)] == [250, 300, 250]


def test_finding_shards_reads_the_first_revocation_of_each(file_database: Database) -> None:
    with file_database.reading() as connection:
        found = plans(connection, lambda: rows.list_shards(connection, 1))
    assert "revocations_by_shard (authority_id=? AND shard>?)" in found or "revocations_by_step" in found
    assert "SCAN revocations" not in found
