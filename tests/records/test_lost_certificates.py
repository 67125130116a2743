"""A lost certificate has a row without bytes, and a place in its shard, or in every one until a CRL names it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.records.revocation.test_revocations import revoke
from tests.simulator.presence import present
from tests.simulator.queries import count_lost
from tests.simulator.rows import authority, certificate
from vagus.records import lost_certificates as rows
from vagus.records.certificates import EVERY_SHARD, CertificateRow, count_places, find_by_leaf, take_places
from vagus.records.engine.database import Connection
from vagus.records.revocation.revocations import find_revocation


def lose(connection: Connection, leaf: int, shard: int) -> CertificateRow:
    known = certificate(connection, authority(connection), 0)
    row = replace(known, leaf_index=leaf, serial=leaf, request_id=f"lost:{leaf}", shard=shard, fingerprint=rows.LOST)
    take_places(connection, row.authority_id, 0, 250)
    rows.insert_lost_certificate(connection, row)
    return row


@pytest.mark.parametrize(("shard", "places"), [(0, [251, 0]), (1, [250, 1]), (EVERY_SHARD, [251, 0])])
def test_a_lost_certificate_takes_its_place_as_issued(connection: Connection, shard: int, places: list[int]) -> None:
    row = lose(connection, 5, shard)
    assert find_by_leaf(connection, 5) == row
    assert count_lost(connection) == 1
    assert [count_places(connection, row.authority_id, one) for one in (0, 1)] == places


def test_a_certificate_of_every_shard_moves_to_the_one_whose_crl_names_it(connection: Connection) -> None:
    row = lose(connection, 5, EVERY_SHARD)
    revoke(connection, row, 1)
    rows.set_known_shard(connection, row, 3)
    assert find_by_leaf(connection, 5) == replace(row, shard=3)
    assert present(find_revocation(connection, 5)).shard == 3
    assert count_places(connection, row.authority_id, 3) >= 1
