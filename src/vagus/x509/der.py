"""The little DER that we write and walk by hand, strict both ways; knows no certificate and repairs nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OBJECT_IDENTIFIER = 0x06
UTF8_STRING = 0x0C
PRINTABLE_STRING = 0x13
IA5_STRING = 0x16
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31

NULL_DER = b"\x05\x00"
TRUE_DER = b"\x01\x01\xff"
NO_EXPIRY_DER = b"\x18\x0f99991231235959Z"  # RFC 5280 4.1.2.5: no well-defined expiration date
_LAST_UTC_TIME_YEAR = 2049  # RFC 5280 4.1.2.5: GeneralizedTime from 2050 on
_DEEPEST_OID = 64


# --- writing -----------------------------------------------------------------------------------------------------


def encode_tlv(tag: int, content: bytes) -> bytes:
    """One element with a one-octet tag and the shortest length (X.690 10.1)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    if size < 0x100:
        return bytes((tag, 0x81, size)) + content
    if size < 0x10000:
        return bytes((tag, 0x82, size >> 8, size & 0xFF)) + content
    octets = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | octets)) + size.to_bytes(octets, "big") + content


def sequence(*parts: bytes) -> bytes:
    """A SEQUENCE of ready elements."""
    return encode_tlv(SEQUENCE, b"".join(parts))


def set_of(parts: Iterable[bytes]) -> bytes:
    """A SET OF ready elements, sorted as DER wants (X.690 11.6)."""
    return encode_tlv(SET, b"".join(sorted(parts)))


def integer(value: int) -> bytes:
    """An INTEGER in the fewest octets."""
    bits = (value if value >= 0 else ~value).bit_length()
    return encode_tlv(INTEGER, value.to_bytes(bits // 8 + 1, "big", signed=True))


@lru_cache(maxsize=1024)
def object_identifier(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER from its dotted text. Raises Malformed(BAD_ENCODING)."""
    parts = dotted.split(".")
    if not all(part.isascii() and part.isdigit() and str(int(part)) == part for part in parts) or len(parts) < 2:
        msg = f"{dotted!r} is not an object identifier; write numbers with dots, as in 1.3.6.1.5.5.7.3.2"
        raise Malformed(Reason.BAD_ENCODING, msg, value=dotted)
    arcs = [int(part) for part in parts]
    if arcs[0] > 2 or (arcs[0] < 2 and arcs[1] > 39):
        msg = f"object identifier {dotted!r} starts outside 0.0-0.39, 1.0-1.39 and 2.*; correct its first two numbers"
        raise Malformed(Reason.BAD_ENCODING, msg, value=dotted)
    content = bytearray()
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        octets = [arc & 0x7F]
        rest = arc >> 7
        while rest:
            octets.append(0x80 | (rest & 0x7F))
            rest >>= 7
        content.extend(reversed(octets))
    return encode_tlv(OBJECT_IDENTIFIER, bytes(content))


def octet_string(content: bytes) -> bytes:
    """An OCTET STRING."""
    return encode_tlv(OCTET_STRING, content)


def bit_string(content: bytes, unused: int = 0) -> bytes:
    """A BIT STRING whose last octet leaves `unused` bits."""
    return encode_tlv(BIT_STRING, bytes((unused,)) + content)


def named_bits(positions: Iterable[int]) -> bytes:
    """A BIT STRING with the named bits set and no trailing zero bits (X.690 11.2.2)."""
    value, last = 0, -1
    for position in positions:
        value |= 1 << position
        last = max(last, position)
    if last < 0:
        return bit_string(b"")
    size = last // 8 + 1
    octets = bytearray(size)
    for position in range(last + 1):
        if value >> position & 1:
            octets[position // 8] |= 0x80 >> (position % 8)
    return bit_string(bytes(octets), size * 8 - last - 1)


def explicit(number: int, element: bytes) -> bytes:
    """`element` inside a context tag of its own."""
    return encode_tlv(0xA0 | number, element)


def implicit(number: int, content: bytes) -> bytes:
    """Primitive content under a context tag."""
    return encode_tlv(0x80 | number, content)


def time(moment: datetime) -> bytes:
    """A Time of RFC 5280 4.1.2.5: UTCTime until 2049, GeneralizedTime from 2050, whole seconds, Z."""
    at = moment.astimezone(UTC)
    if 1950 <= at.year <= _LAST_UTC_TIME_YEAR:
        return encode_tlv(UTC_TIME, at.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return generalized_time(at)


def generalized_time(moment: datetime) -> bytes:
    """A GeneralizedTime in whole seconds with Z."""
    at = moment.astimezone(UTC)
    # strftime("%Y") does not pad years below 1000 on every platform
    return encode_tlv(GENERALIZED_TIME, f"{at.year:04d}{at.strftime('%m%d%H%M%SZ')}".encode("ascii"))


# --- walking -----------------------------------------------------------------------------------------------------


def _refuse(what: str, at: int) -> Malformed:
    return Malformed(Reason.NON_DER, f"not DER: {what} at octet {at}; send the strict encoding", offset=at)


def read_element(data: bytes, at: int, limit: int) -> tuple[int, int, int]:
    """Tag, start of content and end of the element at `at`, which must lie inside `limit`.

    Raises Malformed(NON_DER) for high tag numbers, indefinite or padded lengths, and truncation (X.690 10.1).
    """
    if at + 2 > limit:
        raise _refuse("an element is cut off", at)
    tag, size = data[at], data[at + 1]
    if tag & 0x1F == 0x1F:
        raise _refuse("a tag number above 30", at)
    start = at + 2
    if size >= 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= 4 or start + octets > limit:
            raise _refuse("an indefinite, oversized or cut-off length", at)
        size = int.from_bytes(data[start : start + octets], "big")
        if size < 0x80 or size < 1 << 8 * (octets - 1):
            raise _refuse("a length that is not the shortest", at)
        start += octets
    end = start + size
    if end > limit:
        raise _refuse("an element longer than what holds it", at)
    return tag, start, end


def read_only(data: bytes, tag: int) -> bytes:
    """The content of `data`, which must be exactly one element of this tag. Raises Malformed(NON_DER)."""
    found, start, end = read_element(data, 0, len(data))
    if found != tag:
        raise _refuse(f"tag {found:#04x} where {tag:#04x} belongs", 0)
    if end != len(data):
        raise _refuse(f"{len(data) - end} octets after the end", end)
    return data[start:end]


def read_children(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Every element in `data` as (tag, content, whole element). Raises Malformed(NON_DER)."""
    found: list[tuple[int, bytes, bytes]] = []
    at, limit = 0, len(data)
    while at < limit:
        tag, start, end = read_element(data, at, limit)
        found.append((tag, data[start:end], data[at:end]))
        at = end
    return found


@lru_cache(maxsize=1024)
def decode_object_identifier(content: bytes) -> str:
    """The dotted text of an OBJECT IDENTIFIER's content octets. Raises Malformed(NON_DER)."""
    if not content or content[-1] & 0x80 or len(content) > _DEEPEST_OID:
        raise _refuse("an object identifier that is empty, too long or cut off", 0)
    arcs: list[int] = []
    value, is_first_octet = 0, True
    for octet in content:
        if is_first_octet and octet == 0x80:
            raise _refuse("a padded object identifier", 0)
        value = value << 7 | octet & 0x7F
        is_first_octet = not octet & 0x80
        if is_first_octet:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))
