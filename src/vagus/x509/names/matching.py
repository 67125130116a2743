"""Distinguished names as comparable values, RFC 5280 section 7.1; decides nothing about subtrees (see constraints)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from vagus.x509 import der

_CACHEABLE_NAME = 1024  # octets; keeps the cache of 4,096 names under some 16 MB whatever a peer sends
_LONGEST_RUN = 30  # combining marks on one character, the Stream-Safe Text Format of UAX #15
_MARKS_OF_CLASS_0 = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")  # what they decompose to begins with a mark
_EMAIL_ADDRESS = der.oid_contents("1.2.840.113549.1.9.1")
_COMMON_NAME = der.oid_contents("2.5.4.3")

_STRING_ENCODINGS = {
    der.PRINTABLE_STRING: "ascii",
    der.UTF8_STRING: "utf-8",
    der.IA5_STRING: "ascii",
    der.BMP_STRING: "utf-16-be",
    der.UNIVERSAL_STRING: "utf-32-be",
}

Attribute = tuple[bytes, int, str | bytes]
"""Type, tag (0 for every string type that compares as text) and the folded value."""

RelativeName = frozenset[Attribute]


@dataclass(frozen=True, slots=True, eq=False)
class DistinguishedName:
    """A Name, kept byte for byte beside the folded form that comparisons use.

    Text compares without case, without leading, trailing and repeated spaces, and whatever string type carries it
    (RFC 5280 7.1, RFC 4518 without its Unicode 3.2 tables: NFKC and full case folding). Control characters are kept,
    so that `a<NUL>b` never equals `ab`. Other value types compare octet by octet, and so does text that piles more
    than 30 combining marks on one character: NFKC sorts them in time that grows with their square.
    """

    der: bytes
    relative_names: tuple[RelativeName, ...]
    emails: tuple[str, ...]
    common_names: tuple[str, ...]

    def matches(self, other: DistinguishedName) -> bool:
        """Whether both spell the same name."""
        return self.der == other.der or self.relative_names == other.relative_names

    def is_within(self, base: DistinguishedName) -> bool:
        """Whether this name lies in the subtree of `base` (RFC 5280 4.2.1.10: an initial part of the RDNs)."""
        return self.relative_names[: len(base.relative_names)] == base.relative_names

    @property
    def is_empty(self) -> bool:
        """Whether the name has no RDN at all."""
        return not self.relative_names

    def with_relative_name(self, last: RelativeName) -> tuple[RelativeName, ...]:
        """The folded form of this name with one more RDN (nameRelativeToCRLIssuer, RFC 5280 4.2.1.13)."""
        return (*self.relative_names, last)


def decode_name(name_der: bytes) -> DistinguishedName:
    """The Name that fills `name_der`. Raises Malformed(NON_DER)."""
    if len(name_der) <= _CACHEABLE_NAME:
        return _decode_cached(name_der)
    return _decode(name_der)


def _decode(name_der: bytes) -> DistinguishedName:
    start, end = der.read_whole(name_der, der.SEQUENCE, "a Name")
    relative_names = []
    emails: list[str] = []
    common_names: list[str] = []
    while start < end:
        first, last = der.read_expected(name_der, start, end, der.SET, "an RDN")
        relative_names.append(decode_relative_name(name_der, first, last, emails, common_names))
        start = last
    return DistinguishedName(name_der, tuple(relative_names), tuple(emails), tuple(common_names))


_decode_cached = lru_cache(maxsize=4096)(_decode)


def decode_relative_name(data: bytes, start: int, end: int, emails: list[str], common_names: list[str]) -> RelativeName:
    """The RDN whose SET contents lie between `start` and `end`; e-mail and common names found are appended."""
    attributes: list[Attribute] = []
    while start < end:
        first, last = der.read_expected(data, start, end, der.SEQUENCE, "an attribute of a Name")
        oid_start, oid_end = der.read_expected(data, first, last, der.OBJECT_IDENTIFIER, "an attribute type")
        kind = data[oid_start:oid_end]
        der.check_oid(kind, "an attribute type")
        tag, value_start, value_end = der.read_element(data, oid_end, last)
        if value_end != last:
            der.fail("bytes after the value of an attribute")
        value = data[value_start:value_end]
        text = _text(tag, value)
        if text is None or not _is_stream_safe(text):
            attributes.append((kind, tag, value))
        else:
            attributes.append((kind, 0, fold_text(text)))
        if text is not None:
            if kind == _EMAIL_ADDRESS:
                emails.append(text)
            elif kind == _COMMON_NAME:
                common_names.append(text)
        start = last
    if not attributes:
        der.fail("an RDN without attributes")
    return frozenset(attributes)


def _text(tag: int, value: bytes) -> str | None:
    encoding = _STRING_ENCODINGS.get(tag)
    if encoding is None:
        return None
    try:
        return value.decode(encoding)
    except UnicodeDecodeError:
        return None  # such a value still chains to itself, octet by octet


def _is_stream_safe(text: str) -> bool:
    """Whether no character bears more than 30 combining marks (UAX #15 section 13); one look at each character."""
    if len(text) <= _LONGEST_RUN or text.isascii():
        return True
    run = 0
    for character in text:
        if unicodedata.combining(character) or character in _MARKS_OF_CLASS_0:
            run += 1
            if run > _LONGEST_RUN:
                return False
        else:
            run = 0
    return True


def fold_text(text: str) -> str:
    """`text` as comparisons see it: folded case, NFKC, inner runs of spaces as one, outer spaces gone."""
    if text.isascii():
        folded = text.lower()
    else:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if " " in folded:
        folded = " ".join(part for part in folded.split(" ") if part)
    return folded
