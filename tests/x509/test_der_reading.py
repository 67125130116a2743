"""Primitive DER types: one encoding each, anything else refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vagus.errors import LimitExceeded, Malformed
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509 import der_reading as reading

_FIRST = datetime(1950, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # hypothesis wants bounds without a zone
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).replace(tzinfo=None)


def refusal_of(act: Callable[[], object]) -> Reason:
    with pytest.raises(Malformed) as caught:
        act()
    return caught.value.reason


@settings(max_examples=200)
@given(st.integers(min_value=-(2**167), max_value=2**167 - 1))
def test_an_integer_comes_back(value: int) -> None:
    whole = der.integer(value)
    start, end = reading.read_whole(whole, reading.INTEGER, "number")
    assert reading.integer_value(whole, start, end, "number") == value


@settings(max_examples=100)
@given(st.sets(st.integers(min_value=0, max_value=15)))
def test_named_bits_come_back(positions: set[int]) -> None:
    whole = der.named_bits(positions)
    start, end = reading.read_whole(whole, reading.BIT_STRING, "bits")
    assert reading.named_bits(whole, start, end, "bits") == sum(1 << position for position in positions)


@settings(max_examples=200)
@given(st.datetimes(min_value=_FIRST, max_value=_LAST))
def test_a_time_comes_back_to_the_second(moment: datetime) -> None:
    at = moment.replace(microsecond=0, tzinfo=UTC)
    whole = der.time(at)
    tag, start, end = reading.read_element(whole, 0, len(whole))
    assert reading.time_value(whole, tag, start, end, "moment") == at


@pytest.mark.parametrize(
    ("what", "octets"),
    [
        ("a padded integer", b"\x02\x02\x00\x01"),
        ("a padded negative integer", b"\x02\x02\xff\x80"),
        ("an empty integer", b"\x02\x00"),
    ],
)
def test_a_padded_integer_is_refused(what: str, octets: bytes) -> None:
    assert refusal_of(lambda: reading.integer_value(octets, 2, len(octets), what)) is Reason.NON_DER


@pytest.mark.parametrize("octets", [b"\x01", b"\x01\x81"], ids=["absent bits", "set unused bits"])
def test_wrong_unused_bits_are_refused(octets: bytes) -> None:
    assert refusal_of(lambda: reading.bit_string_value(octets, 0, len(octets), "bits")) is Reason.NON_DER


def test_a_named_list_with_trailing_zeros_passes_only_where_lists_in_use_have_them() -> None:
    octets = b"\x00\x60\x00"
    assert refusal_of(lambda: reading.named_bits(octets, 0, 3, "usage")) is Reason.NON_DER
    assert reading.named_bits(octets, 0, 3, "reasons", may_trail=True) == 0b110


@pytest.mark.parametrize("octets", [b"\x01", b"\x00\x00", b""])
def test_a_boolean_is_00_or_ff(octets: bytes) -> None:
    assert refusal_of(lambda: reading.boolean_value(octets, 0, len(octets), "flag")) is Reason.NON_DER


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (reading.UTC_TIME, b"2703011200Z"),
        (reading.UTC_TIME, b"270301120000+0100"),
        (reading.UTC_TIME, b"270230120000Z"),
        (reading.UTC_TIME, b"270301120060Z"),
        (reading.GENERALIZED_TIME, b"20270301120000.5Z"),
        (reading.GENERALIZED_TIME, b"20271301120000Z"),
        (reading.GENERALIZED_TIME, b"2027030112000\xb9Z"),
        (reading.INTEGER, b"20270301120000Z"),
    ],
)
def test_a_time_in_another_form_is_refused(tag: int, text: bytes) -> None:
    assert refusal_of(lambda: reading.time_value(text, tag, 0, len(text), "moment")) is Reason.NON_DER


def test_the_year_zero_is_long_past_and_not_an_error() -> None:
    text = b"00000101000000Z"
    assert reading.time_value(text, reading.GENERALIZED_TIME, 0, len(text), "moment") == datetime(1, 1, 1, tzinfo=UTC)


def test_utc_time_turns_the_century_at_fifty() -> None:
    for text, year in ((b"491231235959Z", 2049), (b"500101000000Z", 1950)):
        assert reading.time_value(text, reading.UTC_TIME, 0, len(text), "moment").year == year


@pytest.mark.parametrize("contents", [b"", b"\x80", b"\x2a\x80\x01", b"\x2a" * 129])
def test_an_object_identifier_is_minimal_and_whole(contents: bytes) -> None:
    assert refusal_of(lambda: reading.check_oid(contents, "oid")) is Reason.NON_DER
    assert reading.oid_text(contents) == contents.hex()


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    try:
        children = reading.read_children(octets, 0, len(octets))
    except Malformed as refusal:
        assert refusal.reason is Reason.NON_DER
    else:
        assert b"".join(octets[start:end] for _, start, _, end in children) == octets


def test_an_integer_of_more_octets_than_are_read_is_refused_by_its_limit() -> None:
    whole = der.integer(2**167)
    start, end = reading.read_whole(whole, reading.INTEGER, "number")
    with pytest.raises(LimitExceeded) as caught:
        reading.integer_value(whole, start, end, "number")
    assert (caught.value.reason, caught.value.facts["limit"]) == (Reason.TOO_LARGE, 21)
    assert reading.integer_value(whole, start, end, "number", longest=22) == 2**167
