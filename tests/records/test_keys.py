"""A key has one owner for ever and may be blocked, known or not."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from vagus.records.engine.database import Connection
from vagus.records.keys import BLOCKED, KeyRow, block_key, find_key, insert_key

KEY = b"k" * 32


def test_a_key_is_found_with_its_owner(connection: Connection) -> None:
    assert find_key(connection, KEY) is None
    insert_key(connection, KEY, "device:a", at=7)
    assert find_key(connection, KEY) == KeyRow(KEY, "device:a", "active", 7)


def test_a_second_owner_breaks_the_table(connection: Connection) -> None:
    insert_key(connection, KEY, "device:a", at=7)
    with pytest.raises(IntegrityError):
        insert_key(connection, KEY, "device:b", at=8)


def test_blocking_keeps_the_owner_and_the_first_moment(connection: Connection) -> None:
    insert_key(connection, KEY, "device:a", at=7)
    for at in (9, 11):
        block_key(connection, KEY, "rule:x", at=at)
    found = find_key(connection, KEY)
    assert found == KeyRow(KEY, "device:a", BLOCKED, 9)
    assert found.is_blocked


def test_a_key_that_was_never_presented_is_blocked_beforehand(connection: Connection) -> None:
    block_key(connection, KEY, "rule:leaked", at=9)
    assert find_key(connection, KEY) == KeyRow(KEY, "rule:leaked", BLOCKED, 9)
