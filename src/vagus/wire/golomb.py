"""Sets of numbers as Golomb-Rice coded gaps: about as small as a set of random values can be; hashes nothing.

A set of n random values below n * m has gaps that are geometrically distributed with mean m. For such gaps the best
prefix code (Golomb 1966, Rice 1971) writes the quotient by about m * ln 2 in unary and the remainder as it is. With a
power of two as divisor the remainder is a fixed number of low bits. The code needs about log2(m) + 1.5 bits a value,
within 0.1 bit of the least that is possible. Decoding reads each bit once, and `limit` bounds every value.
"""

from __future__ import annotations

from collections.abc import Iterable

from vagus.errors import Malformed
from vagus.reasons import Reason

MAX_RICE_BITS = 40


def rice_bits(mean_gap: int) -> int:
    """The number of low bits of a gap that are written as they are, best for geometric gaps with this mean."""
    return max(0, (mean_gap * 693 // 1000).bit_length() - 1)


def encode_gaps(values: Iterable[int], bits: int) -> bytes:
    """Strictly ascending `values` >= 0 as gaps: each its high part in unary (ones, then a zero), then `bits` low bits.

    The first gap counts from -1, so a gap is at least 1 and is written less 1. The last byte is filled with zeros.
    Raises Malformed(BAD_ARGUMENT) when the values do not ascend.
    """
    previous = -1
    parts: list[str] = []
    low_mask = (1 << bits) - 1
    for value in values:
        gap = value - previous - 1
        if gap < 0:
            msg = f"value {value} of a Golomb-coded set does not follow {previous} in ascending order; sort the values"
            raise Malformed(Reason.BAD_ARGUMENT, msg)
        parts.append("1" * (gap >> bits) + "0" + (format(gap & low_mask, f"0{bits}b") if bits else ""))
        previous = value
    text = "".join(parts)
    if not text:
        return b""
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def decode_gaps(data: bytes, bits: int, count: int, limit: int) -> tuple[int, ...]:
    """The `count` values, strictly ascending and all below `limit`.

    Raises Malformed(BAD_ENCODING) for anything that `encode_gaps` does not write.
    """
    if not 0 <= bits <= MAX_RICE_BITS or count < 0:
        raise _refuse(f"the parameters {bits} low bits and {count} values are impossible")
    text = format(int.from_bytes(data, "big"), f"0{8 * len(data)}b") if data else ""
    values: list[int] = []
    value, at = -1, 0
    for _ in range(count):
        stop = text.find("0", at)
        end = stop + 1 + bits
        if stop < 0 or end > len(text):
            raise _refuse("the data end in the middle of a gap")
        low = int(text[stop + 1 : end], 2) if bits else 0
        value += ((stop - at) << bits) + low + 1
        if value >= limit:
            raise _refuse(f"the data hold a value at or above {limit}")
        values.append(value)
        at = end
    if len(text) - at >= 8 or "1" in text[at:]:
        raise _refuse("the data have bits after the last gap")
    return tuple(values)


def _refuse(what: str) -> Malformed:
    return Malformed(Reason.BAD_ENCODING, f"no Golomb-coded set: {what}; fetch it again")
