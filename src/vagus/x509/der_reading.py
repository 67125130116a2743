"""Primitive types read by position out of strict DER, beside what `der` walks; knows no X.509 structure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NoReturn

from vagus.errors import LimitExceeded, Malformed
from vagus.reasons import Reason
from vagus.x509.der import (
    BIT_STRING,
    BOOLEAN,
    GENERALIZED_TIME,
    IA5_STRING,
    INTEGER,
    NULL,
    NULL_DER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    UTC_TIME,
    UTF8_STRING,
    decode_object_identifier,
    object_identifier,
    read_element,
)

__all__ = [
    "BIT_STRING",
    "BMP_STRING",
    "BOOLEAN",
    "ENUMERATED",
    "GENERALIZED_TIME",
    "IA5_STRING",
    "INTEGER",
    "NULL",
    "NULL_DER",
    "OBJECT_IDENTIFIER",
    "OCTET_STRING",
    "PRINTABLE_STRING",
    "SEQUENCE",
    "SET",
    "UNIVERSAL_STRING",
    "UTC_TIME",
    "UTF8_STRING",
    "read_element",
]

ENUMERATED = 0x0A
BMP_STRING = 0x1E
UNIVERSAL_STRING = 0x1C
MAX_INTEGER = 21  # octets: CRL numbers of 20 (RFC 5280 5.2.3) and their sign
MAX_SERIAL = 127  # octets: 4.1.2.2 allows 20, and longer ones are in use; profiles decide
MAX_NAMED_BITS = 16  # the lists of RFC 5280 have 9; a longer one would be a number as long as its sender likes
_UTC_TIME = re.compile(rb"[0-9]{12}Z\Z")
_GENERALIZED_TIME = re.compile(rb"[0-9]{14}Z\Z")

Element = tuple[int, int, int]
"""Tag, start of the contents, end of the contents."""


def fail(what: str, *, reason: Reason = Reason.NON_DER) -> NoReturn:
    """Refuse bytes that are not what DER or the structure around them allows."""
    raise Malformed(reason, f"not strict DER: {what}; have the sender encode it by X.690 section 10")


def read_expected(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """Start and end of the contents of the element at `at`, which must have `tag`. Raises Malformed(NON_DER)."""
    start = at + 2
    if start <= end and data[at] == tag:
        stop = start + data[at + 1]
        if data[at + 1] < 0x80 and stop <= end:  # the usual case, without a second call
            return start, stop
    found, start, stop = read_element(data, at, end)
    if found != tag:
        fail(f"{what} has tag 0x{found:02x} where 0x{tag:02x} belongs")
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


def integer_value(data: bytes, start: int, end: int, what: str, *, longest: int = MAX_INTEGER) -> int:
    """An INTEGER or ENUMERATED, minimal as X.690 8.3.2 wants it.

    Raises Malformed(NON_DER), LimitExceeded(TOO_LARGE) beyond `longest` octets.
    """
    if start == end:
        fail(f"{what} is an empty INTEGER")
    if end - start > longest:
        msg = f"{what} is an INTEGER of {end - start} octets where {longest} are read; have a shorter one issued"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=longest, value=end - start)
    first = data[start]
    if end - start > 1 and ((first == 0 and data[start + 1] < 0x80) or (first == 0xFF and data[start + 1] >= 0x80)):
        fail(f"{what} is an INTEGER with needless leading octets")
    return int.from_bytes(data[start:end], "big", signed=True)


def boolean_value(data: bytes, start: int, end: int, what: str) -> bool:
    """A BOOLEAN of X.690 11.1: 0x00 or 0xff. Raises Malformed(NON_DER)."""
    if end - start != 1 or data[start] not in {0x00, 0xFF}:
        fail(f"{what} is a BOOLEAN other than 00 or ff")
    return data[start] == 0xFF


def bit_string_value(data: bytes, start: int, end: int, what: str) -> tuple[bytes, int]:
    """Octets and the count of unused bits, which must be zero bits (X.690 11.2.1). Raises Malformed(NON_DER)."""
    if start == end:
        fail(f"{what} is a BIT STRING without its first octet")
    unused = data[start]
    octets = data[start + 1 : end]
    if unused > 7 or (unused and (not octets or octets[-1] & ((1 << unused) - 1))):
        fail(f"{what} is a BIT STRING with wrong unused bits")
    return octets, unused


def whole_bytes(data: bytes, start: int, end: int, what: str) -> bytes:
    """A BIT STRING that holds whole octets: a key or a signature. Raises Malformed(NON_DER)."""
    octets, unused = bit_string_value(data, start, end, what)
    if unused:
        fail(f"{what} is not a whole number of octets")
    return octets


def named_bits(data: bytes, start: int, end: int, what: str, *, may_trail: bool = False) -> int:
    """A named bit list as a number whose bit n is bit n of the list, trailing zeros removed (X.690 11.2.2).

    `may_trail` lets trailing zeros pass, where lists in use have them and no meaning hangs on it.
    Raises Malformed(NON_DER), LimitExceeded(TOO_LARGE) beyond 16 bits.
    """
    if end - start > 1 + MAX_NAMED_BITS // 8:
        bits = 8 * (end - start - 1)
        msg = f"{what} is a list of some {bits} named bits where {MAX_NAMED_BITS} are read; have it issued with fewer"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_NAMED_BITS, value=bits)
    octets, unused = bit_string_value(data, start, end, what)
    if not may_trail and octets and not (octets[-1] >> unused) & 1:
        fail(f"{what} is a named bit list with trailing zero bits")
    flags = 0
    for index in range(8 * len(octets) - unused):
        if octets[index >> 3] & (0x80 >> (index & 7)):
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


def oid_text(contents: bytes) -> str:
    """The dotted form of an OBJECT IDENTIFIER's contents, for messages; octets that are none come back in hex."""
    try:
        return decode_object_identifier(contents)
    except Malformed:
        return contents.hex()


def oid_contents(dotted: str) -> bytes:
    """The contents octets of a dotted OBJECT IDENTIFIER written in our own sources."""
    return object_identifier(dotted)[2:]


def check_oid(contents: bytes, what: str) -> None:
    """X.690 8.19: at least one octet, the last one ends an arc, no arc starts with 0x80. Raises Malformed(NON_DER)."""
    if not contents or contents[-1] & 0x80 or len(contents) > 128:
        fail(f"{what} is an OBJECT IDENTIFIER that is empty, cut short or over 128 octets")
    if 0x80 in contents:
        starts = True
        for octet in contents:
            if starts and octet == 0x80:
                fail(f"{what} is an OBJECT IDENTIFIER with a padded arc")
            starts = octet < 0x80


def context(number: int, *, constructed: bool) -> int:
    """The tag octet of context-specific tag `number`."""
    return 0x80 | (0x20 if constructed else 0) | number
