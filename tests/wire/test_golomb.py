"""Golomb-coded sets: what goes in comes out, as small as promised, and nothing else decodes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.wire.golomb import decode_gaps, encode_gaps, rice_bits

values = st.sets(st.integers(0, 100_000), max_size=60).map(sorted)


@settings(max_examples=200, deadline=None)
@given(values=values, bits=st.integers(0, 20))
def test_what_goes_in_comes_out(values: list[int], bits: int) -> None:
    data = encode_gaps(values, bits)
    assert list(decode_gaps(data, bits, len(values), 100_001)) == values


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=40), bits=st.integers(0, 20), count=st.integers(0, 40))
def test_what_decodes_is_what_is_written(data: bytes, bits: int, count: int) -> None:
    try:
        found = decode_gaps(data, bits, count, 1 << 30)
    except Malformed as refusal:
        assert refusal.reason is Reason.BAD_ENCODING
    else:
        assert encode_gaps(found, bits) == data


def test_an_example_by_hand() -> None:
    # 5 and 8 with two low bits: gaps 5 and 2 -> "10" "01", "0" "10"
    assert encode_gaps([5, 8], 2) == bytes([0b10010100])
    assert encode_gaps([], 2) == b""


@pytest.mark.parametrize("mean", [2, 10, 100, 1000, 65_536])
def test_random_values_take_hardly_more_than_the_bound(mean: int) -> None:
    draw = random.Random(mean)
    count = 4000
    chosen = sorted(draw.sample(range(count * mean), count))
    bits = rice_bits(mean)
    best = min(len(encode_gaps(chosen, other)) for other in range(max(0, bits - 2), bits + 3))
    assert len(encode_gaps(chosen, bits)) <= best * 1.05


@pytest.mark.parametrize("unsorted", [[3, 3], [5, 2], [-1]])
def test_only_ascending_values_are_written(unsorted: list[int]) -> None:
    assert reason_of(encode_gaps, unsorted, 3, error=Malformed) is Reason.BAD_ARGUMENT


@pytest.mark.parametrize(
    ("data", "bits", "count", "limit"),
    [
        (b"\xff", 2, 1, 1000),  # never ends
        (b"", 2, 1, 1000),
        (bytes([0b10010100]), 2, 3, 1000),  # one value more than there is
        (bytes([0b10010100]), 2, 1, 1000),  # one value fewer
        (bytes([0b10010101]), 2, 2, 1000),  # the rest is not zero
        (bytes([0b10010100, 0]), 2, 2, 1000),  # a whole byte too many
        (bytes([0b10010100]), 2, 2, 8),  # beyond the limit
        (b"\x00", 41, 1, 1000),
        (b"\x00", -1, 1, 1000),
        (b"\x00", 1, -1, 1000),
    ],
)
def test_anything_else_is_refused(data: bytes, bits: int, count: int, limit: int) -> None:
    assert reason_of(decode_gaps, data, bits, count, limit, error=Malformed) is Reason.BAD_ENCODING
