"""A token is for one key of one device, for a while; a second key with it is refused and recorded."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.queries import find_token
from tests.simulator.refusals import reason_of, refuses
from tests.simulator.stock import BY, Stock
from vagus.errors import Malformed, NotAuthorised, VagusError
from vagus.fleet import tokens
from vagus.fleet.lifecycle import DeviceState
from vagus.ledger.entries import TokenMade, TokenSpent
from vagus.reasons import Reason
from vagus.records.engine.writer import Batch
from vagus.records.tokens import TokenRow
from vagus.testing import SeededEntropy

KEY = hashlib.sha256(b"key").digest()
OTHER_KEY = hashlib.sha256(b"other key").digest()


def _made(site: Stock) -> tokens.MadeToken:
    return site.tokens.make(site.add().id, by=BY).result(10)


def _spend(site: Stock, text: str, key: bytes = KEY) -> TokenRow:
    return site.writer.submit(lambda batch: _spending(batch, tokens.hash_token(text), key)).result(10)


def _spending(batch: Batch, token_sha256: bytes, key: bytes) -> TokenRow:
    row = tokens.check_token(find_token(batch.connection, token_sha256), key, at=batch.at)
    tokens.spend_token(batch, row, key)
    return row


def _refused(site: Stock, text: str, key: bytes = KEY) -> Reason:
    reason = reason_of(_spend, site, text, key, error=NotAuthorised)
    with site.database.reading() as connection, refuses(reason, NotAuthorised):
        token = find_token(connection, tokens.hash_token(text))
        tokens.check_token(token, key, at=int(site.clock.now().timestamp()))
    return reason


def test_a_token_has_160_random_bits_and_only_its_hash_is_stored(site: Stock) -> None:
    made = _made(site)
    assert len(made.text) == 32
    assert made.text not in repr(made)
    with site.database.reading() as connection:
        (row,) = connection.exec_driver_sql("SELECT * FROM tokens").all()
        assert made.text not in str(row)
        assert row.token_sha256 == hashlib.sha256(made.text.encode()).digest()
    assert isinstance(site.entries()[-1], TokenMade)


def test_a_token_is_read_as_people_write_it() -> None:
    text = tokens.draw_token(SeededEntropy(1))
    spoken = "-".join(text[start : start + 4] for start in range(0, 32, 4)).upper()
    assert tokens.hash_token(f" {spoken}\n") == tokens.hash_token(text)


@given(st.text(max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_text_is_a_hash_or_refused(text: str) -> None:
    try:
        assert len(tokens.hash_token(text)) == 32
    except VagusError as error:
        assert error.reason is Reason.TOKEN_INVALID


def test_the_first_use_binds_and_the_same_key_may_repeat_for_an_hour(site: Stock) -> None:
    made = _made(site)
    _spend(site, made.text)
    assert isinstance(site.entries()[-1], TokenSpent)
    entries = len(site.entries())
    site.clock.advance(minutes=60)
    _spend(site, made.text)
    assert len(site.entries()) == entries, "a repetition is no second spending"
    site.clock.advance(seconds=1)
    assert _refused(site, made.text) is Reason.TOKEN_EXPIRED


def test_another_key_is_refused_however_late_it_comes(site: Stock) -> None:
    made = _made(site)
    _spend(site, made.text)
    assert _refused(site, made.text, OTHER_KEY) is Reason.TOKEN_REUSED
    site.clock.advance(days=30)
    assert _refused(site, made.text, OTHER_KEY) is Reason.TOKEN_REUSED


def test_of_two_keys_in_one_batch_one_wins(site: Stock) -> None:
    token = tokens.hash_token(_made(site).text)
    both = [site.writer.submit(partial(_spending, token_sha256=token, key=key)) for key in (KEY, OTHER_KEY)]
    assert both[0].exception(10) is None
    assert reason_of(both[1].result, 10, error=NotAuthorised) is Reason.TOKEN_REUSED


def test_an_unused_token_expires(site: Stock) -> None:
    made = _made(site)
    site.clock.advance(days=7)
    assert _refused(site, made.text) is Reason.TOKEN_EXPIRED


def test_an_unknown_token_is_refused(site: Stock) -> None:
    assert _refused(site, tokens.draw_token(SeededEntropy(99))) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("life", [timedelta(0), timedelta(days=91)])
def test_a_life_out_of_bounds_is_refused(site: Stock, life: timedelta) -> None:
    assert reason_of(site.tokens.make, site.add().id, by=BY, life=life, error=Malformed) is Reason.BAD_ARGUMENT


def test_a_device_that_may_not_enrol_gets_no_token(site: Stock) -> None:
    device = site.add()
    site.inventory.change_state(device.id, DeviceState.RECALLED, by=BY).result(10)
    assert reason_of(site.tokens.make(device.id, by=BY).result, 10) is Reason.DEVICE_STATE
