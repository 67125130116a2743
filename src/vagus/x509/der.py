"""Writes and reads DER (X.690), strict both ways: knows no X.509 structure and repairs nothing.

Writers are named for the ASN.1 type (`integer`, `sequence`) and return a whole element: tag, length, contents.
Readers come in two speeds. The verifier works on positions in one buffer and copies nothing: `read_element`,
`read_expected`, `read_whole` and `read_children` return where contents start and end, and the `..._value` functions
decode what lies there. Where speed does not matter, `content_of` and `split_elements` return the bytes themselves.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from vagus.errors import LimitExceeded, Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
ENUMERATED = 0x0A
UTF8_STRING = 0x0C
PRINTABLE_STRING = 0x13
IA5_STRING = 0x16
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
UNIVERSAL_STRING = 0x1C
BMP_STRING = 0x1E
SEQUENCE = 0x30
SET = 0x31

NULL_DER = b"\x05\x00"
TRUE_DER = b"\x01\x01\xff"
# GeneralizedTime 99991231235959Z: no well-defined expiration date (RFC 5280 4.1.2.5)
NO_EXPIRY_DER = b"\x18\x0f99991231235959Z"
_LAST_UTC_TIME_YEAR = 2049  # RFC 5280 4.1.2.5: dates from 2050 on are GeneralizedTime, earlier ones UTCTime
MAX_INTEGER = 21  # bytes of an INTEGER: CRL numbers have 20 (RFC 5280 5.2.3), and one for the sign
# bytes of a serial number: RFC 5280 4.1.2.2 allows 20, but longer ones are in use, and verifier profiles decide
MAX_SERIAL = 127
# bits of a named bit list: the longest of RFC 5280 has 9; without a bound the sender chooses our work
MAX_NAMED_BITS = 16
_MAX_OID = 128  # bytes of the longest object identifier that the verifier compares
_MAX_SHOWN_OID = 64  # bytes of the longest object identifier that is written in dotted form
_UTC_TIME = re.compile(rb"[0-9]{12}Z\Z")
_GENERALIZED_TIME = re.compile(rb"[0-9]{14}Z\Z")

Element = tuple[int, int, int]
"""Tag, start of the contents, end of the contents."""


# --- writing DER ----------------------------------------------------------------------------------------------------


def encode_tlv(tag: int, content: bytes) -> bytes:
    """One element with a one-byte tag and the shortest length (X.690 10.1)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    if size < 0x100:
        return bytes((tag, 0x81, size)) + content
    if size < 0x10000:
        return bytes((tag, 0x82, size >> 8, size & 0xFF)) + content
    width = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | width)) + size.to_bytes(width, "big") + content


def sequence(*parts: bytes) -> bytes:
    """A SEQUENCE of ready elements."""
    return encode_tlv(SEQUENCE, b"".join(parts))


def set_of(parts: Iterable[bytes]) -> bytes:
    """A SET OF ready elements, sorted as DER wants (X.690 11.6)."""
    return encode_tlv(SET, b"".join(sorted(parts)))


def integer(value: int) -> bytes:
    """An INTEGER in the fewest bytes."""
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
        # X.690 8.19.2: an arc in base 128, the most significant group first, bit 8 set on all but the last.
        groups = [arc & 0x7F]
        rest = arc >> 7
        while rest:
            groups.append(0x80 | (rest & 0x7F))
            rest >>= 7
        content.extend(reversed(groups))
    return encode_tlv(OBJECT_IDENTIFIER, bytes(content))


def octet_string(content: bytes) -> bytes:
    """An OCTET STRING."""
    return encode_tlv(OCTET_STRING, content)


def bit_string(content: bytes, unused: int = 0) -> bytes:
    """A BIT STRING whose last byte leaves `unused` bits."""
    return encode_tlv(BIT_STRING, bytes((unused,)) + content)


def named_bit_string(positions: Iterable[int]) -> bytes:
    """A BIT STRING with the named bits set and no trailing zero bits (X.690 11.2.2)."""
    value, last = 0, -1
    for position in positions:
        value |= 1 << position
        last = max(last, position)
    if last < 0:
        return bit_string(b"")
    size = last // 8 + 1
    content = bytearray(size)
    for position in range(last + 1):
        if value >> position & 1:
            content[position // 8] |= 0x80 >> (position % 8)
    return bit_string(bytes(content), size * 8 - last - 1)


def explicit(number: int, element: bytes) -> bytes:
    """`element` inside a context tag of its own."""
    return encode_tlv(0xA0 | number, element)


def implicit(number: int, content: bytes) -> bytes:
    """Primitive content under a context tag."""
    return encode_tlv(0x80 | number, content)


def context(number: int, *, constructed: bool) -> int:
    """The tag byte of context-specific tag `number`."""
    return 0x80 | (0x20 if constructed else 0) | number


@lru_cache(maxsize=256)  # certificates issued within one second have the same dates
def time(moment: datetime) -> bytes:
    """A Time of RFC 5280 4.1.2.5: UTCTime until 2049, GeneralizedTime from 2050, whole seconds, Z."""
    at = moment.astimezone(UTC)
    if 1950 <= at.year <= _LAST_UTC_TIME_YEAR:
        return encode_tlv(UTC_TIME, at.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return generalized_time(at)


@lru_cache(maxsize=4096)  # OCSP responses of one round have the same dates
def generalized_time(moment: datetime) -> bytes:
    """A GeneralizedTime in whole seconds with Z."""
    at = moment.astimezone(UTC)
    # strftime("%Y") does not pad years below 1000 on every platform, so years are formatted here.
    return encode_tlv(GENERALIZED_TIME, f"{at.year:04d}{at.strftime('%m%d%H%M%SZ')}".encode("ascii"))


# --- reading DER ----------------------------------------------------------------------------------------------------


def fail(what: str, *, reason: Reason = Reason.NON_DER) -> NoReturn:
    """Refuse bytes that are not what DER or the structure around them allows. Raises Malformed(reason)."""
    raise Malformed(reason, f"not strict DER: {what}; have the sender encode it by X.690 section 10")


def read_element(data: bytes, at: int, limit: int) -> Element:
    """Tag, start of the contents and end of the element at `at`, which must lie inside `limit`.

    Raises Malformed(NON_DER) for high tag numbers, indefinite or padded lengths, and truncation (X.690 10.1).
    """
    if at + 2 > limit:
        fail(f"an element is cut off at byte {at}")
    tag, size = data[at], data[at + 1]
    if tag & 0x1F == 0x1F:
        fail(f"a tag number above 30 at byte {at}")
    start = at + 2
    if size >= 0x80:
        width = size & 0x7F
        if not 1 <= width <= 4 or start + width > limit:
            fail(f"an indefinite, oversized or cut-off length at byte {at}")
        size = int.from_bytes(data[start : start + width], "big")
        if size < 0x80 or size < 1 << 8 * (width - 1):
            fail(f"a length that is not the shortest at byte {at}")
        start += width
    end = start + size
    if end > limit:
        fail(f"an element longer than what holds it at byte {at}")
    return tag, start, end


def read_expected(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """Start and end of the contents of the element at `at`, which must have `tag`. Raises Malformed(NON_DER)."""
    start = at + 2
    if start <= end and data[at] == tag:
        size = data[at + 1]
        stop = start + size
        if size < 0x80 and stop <= end:  # the usual case, read without a second call
            return start, stop
    found, start, stop = read_element(data, at, end)
    if found != tag:
        fail(f"{what} has tag 0x{found:02x} where 0x{tag:02x} belongs")
    return start, stop


def read_only(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """As `read_expected` for the one element between `at` and `end`. Raises Malformed(NON_DER)."""
    start, stop = read_expected(data, at, end, tag, what)
    if stop != end:
        fail(f"bytes after {what}")
    return start, stop


def read_whole(data: bytes, tag: int, what: str) -> tuple[int, int]:
    """As `read_expected` for the one element that fills `data`. Raises Malformed(NON_DER)."""
    end = len(data)
    start, stop = read_expected(data, 0, end, tag, what)
    if stop != end:
        fail(f"bytes after {what}")
    return start, stop


def read_children(data: bytes, start: int, end: int) -> list[tuple[int, int, int, int]]:
    """All elements between `start` and `end`: (tag, element start, contents start, contents end) of each."""
    children = []
    while start < end:
        tag, first, last = read_element(data, start, end)
        children.append((tag, start, first, last))
        start = last
    return children


def read_each(data: bytes, at: int, end: int, tag: int, what: str) -> Iterator[tuple[int, int]]:
    """Start and end of the contents of each element of a SEQUENCE OF or SET OF. Raises Malformed(NON_DER)."""
    while at < end:
        start, at = read_expected(data, at, end, tag, what)
        yield start, at


def read_optional(data: bytes, at: int, end: int, tags: Collection[int], what: str) -> dict[int, tuple[int, int]]:
    """The contents of fields with context tags, each of them optional, by tag.

    Raises Malformed(NON_DER) for a tag that is not one of `tags`, and for one that comes twice or in a wrong place.
    """
    fields: dict[int, tuple[int, int]] = {}
    previous = -1
    for tag, _, start, stop in read_children(data, at, end):
        if tag not in tags or tag & 0x1F <= previous:
            fail(f"{what} holds an unknown field")
        previous = tag & 0x1F
        fields[tag] = start, stop
    return fields


def content_of(data: bytes, tag: int) -> bytes:
    """A copy of the contents of the one element that fills `data`. Raises Malformed(NON_DER) for another tag."""
    start, end = read_whole(data, tag, "an element")
    return data[start:end]


def split_elements(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Copies of the elements that fill `data`: (tag, contents, whole element) of each. Raises Malformed(NON_DER)."""
    return [(tag, data[first:last], data[start:last]) for tag, start, first, last in read_children(data, 0, len(data))]


def integer_value(data: bytes, start: int, end: int, what: str, *, longest: int = MAX_INTEGER) -> int:
    """An INTEGER or ENUMERATED, minimal as X.690 8.3.2 wants it.

    Raises Malformed(NON_DER), LimitExceeded(TOO_LARGE) beyond `longest` bytes.
    """
    if start == end:
        fail(f"{what} is an empty INTEGER")
    if end - start > longest:
        msg = f"{what} is an INTEGER of {end - start} bytes, and at most {longest} are read; have a shorter one issued"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=longest, value=end - start)
    first = data[start]
    if end - start > 1 and ((first == 0 and data[start + 1] < 0x80) or (first == 0xFF and data[start + 1] >= 0x80)):
        fail(f"{what} is an INTEGER with needless leading bytes")
    return int.from_bytes(data[start:end], "big", signed=True)


def boolean_value(data: bytes, start: int, end: int, what: str) -> bool:
    """A BOOLEAN of X.690 11.1: 0x00 or 0xff. Raises Malformed(NON_DER)."""
    if end - start != 1 or data[start] not in {0x00, 0xFF}:
        fail(f"{what} is a BOOLEAN other than 00 or ff")
    return data[start] == 0xFF


def bit_string_value(data: bytes, start: int, end: int, what: str) -> tuple[bytes, int]:
    """Bytes and the count of unused bits, which must be zero bits (X.690 11.2.1). Raises Malformed(NON_DER)."""
    if start == end:
        fail(f"{what} is a BIT STRING without its first byte")
    unused = data[start]
    content = data[start + 1 : end]
    if unused > 7 or (unused and (not content or content[-1] & ((1 << unused) - 1))):
        fail(f"{what} is a BIT STRING with wrong unused bits")
    return content, unused


def whole_bytes(data: bytes, start: int, end: int, what: str) -> bytes:
    """A BIT STRING that holds whole bytes: a key or a signature. Raises Malformed(NON_DER)."""
    content, unused = bit_string_value(data, start, end, what)
    if unused:
        fail(f"{what} is not a whole number of bytes")
    return content


def named_bits_value(data: bytes, start: int, end: int, what: str, *, may_trail: bool = False) -> int:
    """A named bit list as a number whose bit n is bit n of the list, trailing zeros removed (X.690 11.2.2).

    `may_trail` lets trailing zeros pass, for lists that are in use with them and where they change no meaning.
    Raises Malformed(NON_DER), LimitExceeded(TOO_LARGE) beyond 16 bits.
    """
    if end - start > 1 + MAX_NAMED_BITS // 8:
        bits = 8 * (end - start - 1)
        msg = f"{what} has some {bits} named bits, and at most {MAX_NAMED_BITS} are read; have it issued with fewer"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_NAMED_BITS, value=bits)
    content, unused = bit_string_value(data, start, end, what)
    if not may_trail and content and not (content[-1] >> unused) & 1:
        fail(f"{what} is a named bit list with trailing zero bits")
    flags = 0
    for index in range(8 * len(content) - unused):
        if content[index >> 3] & (0x80 >> (index & 7)):
            flags |= 1 << index
    return flags


def time_value(data: bytes, tag: int, start: int, end: int, what: str) -> datetime:
    """A UTCTime or GeneralizedTime as RFC 5280 4.1.2.5 writes them: seconds, `Z`, no fraction.

    Year 0 exists in GeneralizedTime and not in Python: it becomes year 1, which is as long past. A
    GeneralizedTime before 2050 is accepted here, since RFC 5280 binds those who issue; lints and profiles refuse it.
    Raises Malformed(NON_DER).
    """
    text = data[start:end]
    if tag == UTC_TIME:
        if not _UTC_TIME.match(text):
            fail(f"{what} is not a UTCTime of the form YYMMDDHHMMSSZ")
        text = (b"20" if text < b"50" else b"19") + text
    elif tag != GENERALIZED_TIME or not _GENERALIZED_TIME.match(text):
        fail(f"{what} is not a GeneralizedTime of the form YYYYMMDDHHMMSSZ")
    digits = text.decode("ascii")
    if digits.startswith("0000"):
        digits = "0001" + digits[4:]
    try:
        return datetime.fromisoformat(f"{digits[:8]}T{digits[8:14]}+00:00")
    except ValueError:
        fail(f"{what} is not a moment of the calendar")


def read_time(data: bytes, at: int, end: int, what: str) -> tuple[datetime, int]:
    """The Time at `at`, as `time_value` reads it, and where it ends. Raises Malformed(NON_DER)."""
    tag, start, stop = read_element(data, at, end)
    return time_value(data, tag, start, stop, what), stop


def check_size(data: bytes, most: int, what: str, remedy: str) -> None:
    """Nothing of a longer object is read. Raises LimitExceeded(TOO_LARGE)."""
    if len(data) > most:
        msg = f"{what} of {len(data)} bytes exceeds the limit of {most} bytes; {remedy}"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=most, value=len(data))


def check_oid(contents: bytes, what: str, *, longest: int = _MAX_OID) -> None:
    """X.690 8.19: at least one byte, the last one ends an arc, no arc starts with 0x80. Raises Malformed(NON_DER)."""
    if not contents or contents[-1] & 0x80 or len(contents) > longest:
        fail(f"{what} is an OBJECT IDENTIFIER that is empty, cut short or over {longest} bytes")
    if 0x80 in contents:
        starts = True
        for byte in contents:
            if starts and byte == 0x80:
                fail(f"{what} is an OBJECT IDENTIFIER with a padded arc")
            starts = byte < 0x80


@lru_cache(maxsize=1024)
def decode_object_identifier(contents: bytes) -> str:
    """The dotted text of an OBJECT IDENTIFIER's contents, at most 64 bytes. Raises Malformed(NON_DER)."""
    check_oid(contents, "an identifier", longest=_MAX_SHOWN_OID)
    arcs: list[int] = []
    value = 0
    for byte in contents:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def oid_text(contents: bytes) -> str:
    """The dotted form of an OBJECT IDENTIFIER's contents, for messages; hexadecimal where it has none."""
    try:
        return decode_object_identifier(contents)
    except Malformed:
        return contents.hex()


def oid_contents(dotted: str) -> bytes:
    """The contents of a dotted OBJECT IDENTIFIER written in our own sources."""
    return object_identifier(dotted)[2:]
