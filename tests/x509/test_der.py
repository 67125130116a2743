"""DER is written in its one spelling, and read only in that."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vagus.errors import Malformed, VagusError
from vagus.reasons import Reason
from vagus.x509 import der


@given(st.integers(min_value=-(1 << 200), max_value=1 << 200))
def test_an_integer_comes_back_and_has_no_needless_octet(value: int) -> None:
    content = der.read_only(der.integer(value), der.INTEGER)
    assert int.from_bytes(content, "big", signed=True) == value
    assert len(content) == 1 or content[0] not in {0x00, 0xFF} or (content[0] ^ content[1]) & 0x80


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 1 << 40), max_size=8))
def test_an_object_identifier_comes_back(first: int, second: int, rest: list[int]) -> None:
    text = ".".join(map(str, (first, second, *rest)))
    assert der.decode_object_identifier(der.read_only(der.object_identifier(text), der.OBJECT_IDENTIFIER)) == text


def test_the_second_arc_under_two_may_be_large() -> None:
    assert der.object_identifier("2.999").hex() == "06028837"
    assert der.decode_object_identifier(bytes.fromhex("8837")) == "2.999"


@pytest.mark.parametrize("text", ["", "1", "1.40", "3.1", "1.2.x", "1..2", "1.02", "-1.2", "1.2.", "٣.1"])
def test_what_is_no_object_identifier_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refusal:
        der.object_identifier(text)
    assert refusal.value.reason is Reason.BAD_ENCODING


@pytest.mark.parametrize("content", ["", "80", "8001", "2a80", "2a8001", "86"])
def test_an_object_identifier_with_padding_or_a_cut_is_refused(content: str) -> None:
    with pytest.raises(Malformed) as refusal:
        der.decode_object_identifier(bytes.fromhex(content))
    assert refusal.value.reason is Reason.NON_DER


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_lengths_are_the_shortest_at_every_edge(size: int) -> None:
    whole = der.octet_string(bytes(size))
    assert der.read_only(whole, der.OCTET_STRING) == bytes(size)


@pytest.mark.parametrize(
    "octets",
    [
        "",
        "30",
        "3080",  # indefinite
        "308100",  # long form for a short length
        "30810130",
        "30820001ff",  # leading zero octet
        "3085000000000100",  # five octets of length
        "1f0100",  # tag number above 30
        "3003020101ff",  # octets after the end
        "30030201",  # cut off
    ],
)
def test_what_is_not_der_is_refused(octets: str) -> None:
    with pytest.raises(Malformed) as refusal:
        der.read_only(bytes.fromhex(octets), der.SEQUENCE)
    assert refusal.value.reason is Reason.NON_DER


def test_times_change_their_form_in_2050() -> None:
    assert der.time(datetime(2049, 12, 31, 23, 59, 59, 999, tzinfo=UTC)) == b"\x17\x0d491231235959Z"
    assert der.time(datetime(2050, 1, 1, tzinfo=UTC)) == b"\x18\x0f20500101000000Z"
    assert der.time(datetime(1949, 1, 1, tzinfo=UTC)) == b"\x18\x0f19490101000000Z"
    assert der.NO_EXPIRY_DER == b"\x18\x0f99991231235959Z"


def test_named_bits_have_no_trailing_zeros() -> None:
    assert der.named_bits([]).hex() == "030100"
    assert der.named_bits([0]).hex() == "03020780"
    assert der.named_bits([5, 6]).hex() == "03020106"
    assert der.named_bits([0, 8]).hex() == "0303078080"


def test_a_set_is_sorted() -> None:
    assert der.set_of([der.integer(2), der.integer(1)]) == der.set_of([der.integer(1), der.integer(2)])


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_the_walker_raises_only_our_errors(octets: bytes) -> None:
    try:
        for _, content, _ in der.read_children(octets):
            der.read_children(content)
            der.decode_object_identifier(content)
    except VagusError as fault:
        assert fault.reason is Reason.NON_DER
