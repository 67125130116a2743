"""Tokens are kept by their hash and bound once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.simulator.presence import present
from tests.simulator.queries import find_token, list_tokens_of
from tests.simulator.stock import device, stocked_database
from vagus.records import tokens
from vagus.records.devices import insert_devices
from vagus.records.engine.database import Connection, Database
from vagus.records.tokens import TokenRow

HASH = hashlib.sha256(b"token").digest()
ROW = TokenRow(HASH, device(1).id, 100, 200)


@pytest.fixture
def database() -> Iterator[Database]:
    with stocked_database() as stocked:
        with stocked.writing() as connection:
            insert_devices(connection, [device(1)])
            tokens.insert_token(connection, ROW)
        yield stocked


def test_a_token_comes_back_as_it_went_in(database: Database) -> None:
    with database.reading() as connection:
        assert find_token(connection, HASH) == ROW
        assert find_token(connection, b"other") is None
        assert list_tokens_of(connection, device(1).id) == (ROW,)


def test_the_first_key_binds_the_token_and_no_second_one_does(connection: Connection) -> None:
    assert tokens.bind_token(connection, HASH, b"key one", request_id=None, at=150)
    assert not tokens.bind_token(connection, HASH, b"key two", request_id="none", at=151)
    bound = replace(ROW, bound_spki_sha256=b"key one", used_at=150)
    assert find_token(connection, HASH) == bound


def test_only_unused_tokens_are_ended(database: Database) -> None:
    other = replace(ROW, token_sha256=b"other")
    with database.writing() as connection:
        tokens.insert_token(connection, other)
        tokens.bind_token(connection, HASH, b"key", request_id=None, at=110)
        assert tokens.expire_tokens_of(connection, device(1).id, at=120) == 1
        assert find_token(connection, b"other") == replace(other, expires_at=120)
        assert present(find_token(connection, HASH)).expires_at == 200
