"""DER is written in its one spelling, and read only in that."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import LimitExceeded, Malformed, VagusError
from vagus.reasons import Reason
from vagus.x509 import der

_FIRST = datetime(1950, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # hypothesis wants bounds without a zone
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).replace(tzinfo=None)


@given(st.integers(min_value=-(1 << 200), max_value=1 << 200))
def test_an_integer_comes_back_and_has_no_needless_byte(value: int) -> None:
    content = der.content_of(der.integer(value), der.INTEGER)
    assert int.from_bytes(content, "big", signed=True) == value
    assert len(content) == 1 or content[0] not in {0x00, 0xFF} or (content[0] ^ content[1]) & 0x80


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 1 << 40), max_size=8))
def test_an_object_identifier_comes_back(first: int, second: int, rest: list[int]) -> None:
    text = ".".join(map(str, (first, second, *rest)))
    assert der.decode_object_identifier(der.content_of(der.object_identifier(text), der.OBJECT_IDENTIFIER)) == text


def test_the_second_arc_under_two_may_be_large() -> None:
    assert der.object_identifier("2.999").hex() == "06028837"
    assert der.decode_object_identifier(bytes.fromhex("8837")) == "2.999"


@pytest.mark.parametrize("text", ["", "1", "1.40", "3.1", "1.2.x", "1..2", "1.02", "-1.2", "1.2.", "٣.1"])
def test_what_is_no_object_identifier_is_refused(text: str) -> None:
    assert reason_of(der.object_identifier, text, error=Malformed) is Reason.BAD_ENCODING


@pytest.mark.parametrize("content", ["", "80", "8001", "2a80", "2a8001", "86"])
def test_an_object_identifier_with_padding_or_a_cut_is_refused(content: str) -> None:
    assert reason_of(der.decode_object_identifier, bytes.fromhex(content), error=Malformed) is Reason.NON_DER


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_lengths_are_the_shortest_at_every_edge(size: int) -> None:
    whole = der.octet_string(bytes(size))
    assert der.content_of(whole, der.OCTET_STRING) == bytes(size)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "30",
        "3080",  # indefinite
        "308100",  # long form for a short length
        "30810130",
        "30820001ff",  # leading zero byte
        "3085000000000100",  # five bytes of length
        "1f0100",  # tag number above 30
        "3003020101ff",  # bytes after the end
        "30030201",  # cut off
    ],
)
def test_what_is_not_der_is_refused(data: str) -> None:
    assert reason_of(der.content_of, bytes.fromhex(data), der.SEQUENCE, error=Malformed) is Reason.NON_DER


def test_times_change_their_form_in_2050() -> None:
    assert der.time(datetime(2049, 12, 31, 23, 59, 59, 999, tzinfo=UTC)) == b"\x17\x0d491231235959Z"
    assert der.time(datetime(2050, 1, 1, tzinfo=UTC)) == b"\x18\x0f20500101000000Z"
    assert der.time(datetime(1949, 1, 1, tzinfo=UTC)) == b"\x18\x0f19490101000000Z"
    assert der.NO_EXPIRY_DER == b"\x18\x0f99991231235959Z"


def test_named_bits_have_no_trailing_zeros() -> None:
    assert der.named_bit_string([]).hex() == "030100"
    assert der.named_bit_string([0]).hex() == "03020780"
    assert der.named_bit_string([5, 6]).hex() == "03020106"
    assert der.named_bit_string([0, 8]).hex() == "0303078080"


def test_a_set_is_sorted() -> None:
    assert der.set_of([der.integer(2), der.integer(1)]) == der.set_of([der.integer(1), der.integer(2)])


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_the_walker_raises_only_our_errors(data: bytes) -> None:
    try:
        for _, content, _ in der.split_elements(data):
            der.split_elements(content)
            der.decode_object_identifier(content)
    except VagusError as fault:
        assert fault.reason is Reason.NON_DER


refusal_of = partial(reason_of, error=Malformed)


@settings(max_examples=200)
@given(st.integers(min_value=-(2**167), max_value=2**167 - 1))
def test_an_integer_is_read_back_by_position(value: int) -> None:
    whole = der.integer(value)
    start, end = der.read_whole(whole, der.INTEGER, "number")
    assert der.integer_value(whole, start, end, "number") == value


@settings(max_examples=100)
@given(st.sets(st.integers(min_value=0, max_value=15)))
def test_named_bits_come_back(positions: set[int]) -> None:
    whole = der.named_bit_string(positions)
    start, end = der.read_whole(whole, der.BIT_STRING, "bits")
    assert der.named_bits_value(whole, start, end, "bits") == sum(1 << position for position in positions)


@settings(max_examples=200)
@given(st.datetimes(min_value=_FIRST, max_value=_LAST))
def test_a_time_comes_back_to_the_second(moment: datetime) -> None:
    at = moment.replace(microsecond=0, tzinfo=UTC)
    whole = der.time(at)
    tag, start, end = der.read_element(whole, 0, len(whole))
    assert der.time_value(whole, tag, start, end, "moment") == at


@pytest.mark.parametrize(
    "data", [b"\x02\x02\x00\x01", b"\x02\x02\xff\x80", b"\x02\x00"], ids=["padded", "padded negative", "empty"]
)
def test_a_padded_or_empty_integer_is_refused(data: bytes) -> None:
    assert refusal_of(der.integer_value, data, 2, len(data), "integer") is Reason.NON_DER


@pytest.mark.parametrize("data", [b"\x01", b"\x01\x81"], ids=["absent bits", "set unused bits"])
def test_wrong_unused_bits_are_refused(data: bytes) -> None:
    assert refusal_of(der.bit_string_value, data, 0, len(data), "bits") is Reason.NON_DER


def test_a_named_list_with_trailing_zeros_passes_only_where_lists_in_use_have_them() -> None:
    data = b"\x00\x60\x00"
    assert refusal_of(der.named_bits_value, data, 0, 3, "usage") is Reason.NON_DER
    assert der.named_bits_value(data, 0, 3, "reasons", may_trail=True) == 0b110


@pytest.mark.parametrize("data", [b"\x01", b"\x00\x00", b""])
def test_a_boolean_is_00_or_ff(data: bytes) -> None:
    assert refusal_of(der.boolean_value, data, 0, len(data), "flag") is Reason.NON_DER


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (der.UTC_TIME, b"2703011200Z"),
        (der.UTC_TIME, b"270301120000+0100"),
        (der.UTC_TIME, b"270230120000Z"),
        (der.UTC_TIME, b"270301120060Z"),
        (der.GENERALIZED_TIME, b"20270301120000.5Z"),
        (der.GENERALIZED_TIME, b"20271301120000Z"),
        (der.GENERALIZED_TIME, b"2027030112000\xb9Z"),
        (der.INTEGER, b"20270301120000Z"),
    ],
)
def test_a_time_in_another_form_is_refused(tag: int, text: bytes) -> None:
    assert refusal_of(der.time_value, text, tag, 0, len(text), "moment") is Reason.NON_DER


def test_the_year_zero_is_long_past_and_not_an_error() -> None:
    text = b"00000101000000Z"
    assert der.time_value(text, der.GENERALIZED_TIME, 0, len(text), "moment") == datetime(1, 1, 1, tzinfo=UTC)


def test_utc_time_turns_the_century_at_fifty() -> None:
    for text, year in ((b"491231235959Z", 2049), (b"500101000000Z", 1950)):
        assert der.time_value(text, der.UTC_TIME, 0, len(text), "moment").year == year


@pytest.mark.parametrize("contents", [b"", b"\x80", b"\x2a\x80\x01", b"\x2a" * 129])
def test_an_object_identifier_is_minimal_and_whole(contents: bytes) -> None:
    assert refusal_of(der.check_oid, contents, "oid") is Reason.NON_DER
    assert der.oid_text(contents) == contents.hex()


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        children = der.read_children(data, 0, len(data))
    except Malformed as refusal:
        assert refusal.reason is Reason.NON_DER
    else:
        assert b"".join(data[start:end] for _, start, _, end in children) == data


def test_an_integer_of_more_bytes_than_are_read_is_refused_by_its_limit() -> None:
    whole = der.integer(2**167)
    start, end = der.read_whole(whole, der.INTEGER, "number")
    with refuses(Reason.TOO_LARGE, LimitExceeded) as caught:
        der.integer_value(whole, start, end, "number")
    assert caught.value.facts["limit"] == 21
    assert der.integer_value(whole, start, end, "number", longest=22) == 2**167
