"""Distinguished names (RFC 5280 4.1.2.4): subjects as we write them, any name as it is read, compared and described.

Whether a name lies in the subtrees of a CA is decided in `paths/name_constraints.py`.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNTRY = "2.5.4.6"
ORGANISATION = "2.5.4.10"
UNIT = "2.5.4.11"
COMMON_NAME = "2.5.4.3"
SERIAL_NUMBER = "2.5.4.5"
_EMAIL_ADDRESS = "1.2.840.113549.1.9.1"
_EMAIL_ADDRESS_CONTENTS = der.oid_contents(_EMAIL_ADDRESS)

# RFC 5280 appendix A: the limit of ub-organization-name, ub-common-name and ub-serial-number.
_LONGEST = 64
_SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        COUNTRY: "C",
        ORGANISATION: "O",
        UNIT: "OU",
        COMMON_NAME: "CN",
        SERIAL_NUMBER: "serialNumber",
        "2.5.4.4": "SN",
        "2.5.4.7": "L",
        "2.5.4.8": "ST",
        "2.5.4.9": "street",
        "2.5.4.46": "dnQualifier",
        "0.9.2342.19200300.100.1.1": "UID",
        "0.9.2342.19200300.100.1.25": "DC",
        _EMAIL_ADDRESS: "emailAddress",
    }
)
_TEXT_ENCODINGS: Mapping[int, str] = MappingProxyType(
    {
        der.UTF8_STRING: "utf-8",
        der.PRINTABLE_STRING: "ascii",
        der.IA5_STRING: "ascii",
        0x12: "ascii",  # ASN.1 tag of NumericString
        0x14: "latin-1",  # TeletexString: X.520 says T.61, but issuers write Latin-1
        0x1A: "ascii",  # ASN.1 tag of VisibleString
        der.UNIVERSAL_STRING: "utf-32-be",
        der.BMP_STRING: "utf-16-be",
    }
)
# Only these string types are compared as text. Others are compared byte by byte, because software disagrees on their
# text.
_COMPARED_AS_TEXT = frozenset(
    {der.UTF8_STRING, der.PRINTABLE_STRING, der.IA5_STRING, der.UNIVERSAL_STRING, der.BMP_STRING}
)
# Bytes of the longest name that is cached: 4,096 names stay under some 16 MB, whatever a peer sends.
_CACHEABLE_NAME = 1024
_LONGEST_RUN = 30  # combining marks on one character: the Stream-Safe Text Format of UAX #15
_MARKS_OF_CLASS_0 = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")  # their decomposition begins with a combining mark
_PRINTABLE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")


@dataclass(frozen=True, slots=True)
class SubjectFields:
    """A subject of our profiles, in this order: C, O, OU, serialNumber, CN; absent where None.

    Devices: O=<hospital>, OU=<unit>, CN=<device id>. `serial_number` is for IDevIDs alone (802.1AR 8.6).
    """

    organisation: str
    unit: str | None = None
    common_name: str | None = None
    country: str | None = None
    serial_number: str | None = None


def encode_subject(fields: SubjectFields) -> bytes:
    """The fields as a DER Name, UTF8String throughout (RFC 5280 4.1.2.4), PrintableString where X.520 asks for it.

    Raises Malformed(NON_CANONICAL) for empty, overlong or unprintable fields.
    """
    leading = _encode_leading(fields.country, fields.organisation, fields.unit)
    trailing = b""
    if fields.serial_number is not None:
        trailing += _attribute(SERIAL_NUMBER, der.PRINTABLE_STRING, fields.serial_number)
    if fields.common_name is not None:
        trailing += _attribute(COMMON_NAME, der.UTF8_STRING, fields.common_name)
    return der.encode_tlv(der.SEQUENCE, leading + trailing)


@lru_cache(maxsize=1024)
def _encode_leading(country: str | None, organisation: str, unit: str | None) -> bytes:
    """The part of a subject that whole compartments share."""
    found = b""
    if country is not None:
        if len(country) != 2 or not (country.isascii() and country.isalpha() and country.isupper()):
            msg = f"country {country!r} is not two capital letters (ISO 3166-1), as in DE; correct it"
            raise Malformed(Reason.NON_CANONICAL, msg, value=country)
        found += _attribute(COUNTRY, der.PRINTABLE_STRING, country)
    found += _attribute(ORGANISATION, der.UTF8_STRING, organisation)
    if unit is not None:
        found += _attribute(UNIT, der.UTF8_STRING, unit)
    return found


def _attribute(oid: str, tag: int, text: str) -> bytes:
    """One RelativeDistinguishedName of one attribute."""
    what = _SHORT_NAMES[oid]
    if not 1 <= len(text) <= _LONGEST or text != text.strip() or not text.isprintable():
        msg = (
            f"{what} {text!r} is not 1-{_LONGEST} printable characters without space at its ends; shorten or correct it"
        )
        raise Malformed(Reason.NON_CANONICAL, msg, value=text)
    if tag == der.PRINTABLE_STRING and not _PRINTABLE.issuperset(text):
        msg = f"{what} {text!r} holds characters that PrintableString lacks; use letters, digits and ' ()+,-./:=?"
        raise Malformed(Reason.NON_CANONICAL, msg, value=text)
    return der.encode_tlv(der.SET, der.sequence(der.object_identifier(oid), der.encode_tlv(tag, text.encode("utf-8"))))


# --- reading distinguished names ------------------------------------------------------------------------------------

FoldedAttribute = tuple[bytes, int, str | bytes]
"""Type, tag (0 for every string type that compares as text) and the folded value."""

RelativeName = frozenset[FoldedAttribute]


class Attribute(NamedTuple):
    """One attribute of a Name as it is written: its type in dotted form, the tag and the contents of its value."""

    oid: str
    tag: int
    value: bytes

    @property
    def text(self) -> str:
        """The value for people."""
        return read_text(self.tag, self.value)


@dataclass(frozen=True, slots=True, eq=False)
class DistinguishedName:
    """A Name: its bytes, beside the folded form that comparisons use and its e-mail addresses.

    Text compares without case, without leading, trailing and repeated spaces, and whatever string type carries it
    (RFC 5280 7.1, RFC 4518 without its Unicode 3.2 tables: NFKC and full case folding). Control characters count,
    so that `a<NUL>b` never equals `ab`. Other value types compare byte by byte. So does text with more than 30
    combining marks on one character: NFKC sorts such marks in time that grows with the square of their number.
    """

    der: bytes
    relative_names: tuple[RelativeName, ...]
    emails: tuple[str, ...]

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

    @property
    def attributes(self) -> tuple[tuple[Attribute, ...], ...]:
        """The attributes as they are written, one tuple for each RDN; read anew, so that a cached name stays small.

        Raises Malformed(NON_DER) for an attribute type of more than 64 bytes.
        """
        return read_attributes(self.der)

    def texts(self, oid: str) -> list[str]:
        """The values of the attributes of type `oid`, for people. Raises Malformed as `attributes` does."""
        return [one.text for attributes in self.attributes for one in attributes if one.oid == oid]

    def describe(self) -> str:
        """The name for people, in the order in which it is written: `O=Hospital 1, OU=ICU, CN=...`. Never parse it.

        Raises Malformed as `attributes` does.
        """
        return ", ".join(
            "+".join(f"{_SHORT_NAMES.get(one.oid, one.oid)}={one.text}" for one in attributes)
            for attributes in self.attributes
        )


def decode_name(name_der: bytes) -> DistinguishedName:
    """The Name that fills `name_der`. Raises Malformed(NON_DER)."""
    if len(name_der) <= _CACHEABLE_NAME:
        return _decode_cached(name_der)
    return _decode(name_der)


def _decode(name_der: bytes) -> DistinguishedName:
    fold = _fold_cached if len(name_der) <= _CACHEABLE_NAME else _fold
    folded = [fold(content) for content in _read_contents(name_der)]
    emails = [email for _, found in folded for email in found]
    return DistinguishedName(name_der, tuple([name for name, _ in folded]), tuple(emails))


_decode_cached = lru_cache(maxsize=4096)(_decode)


def read_attributes(name_der: bytes) -> tuple[tuple[Attribute, ...], ...]:
    """The attributes of the Name that fills `name_der`, one tuple for each RDN, without folding them.

    Raises Malformed(NON_DER), also for an attribute type of more than 64 bytes.
    """
    spell = _spell_cached if len(name_der) <= _CACHEABLE_NAME else _spell
    return tuple([spell(content) for content in _read_contents(name_der)])


def decode_relative_name(data: bytes, start: int, end: int) -> RelativeName:
    """The folded RDN whose SET contents lie between `start` and `end`. Raises Malformed(NON_DER)."""
    return _fold(data[start:end])[0]


def _read_contents(name_der: bytes) -> list[bytes]:
    """The contents of each RDN of the Name."""
    start, end = der.read_whole(name_der, der.SEQUENCE, "a Name")
    return [name_der[first:last] for first, last in der.read_each(name_der, start, end, der.SET, "an RDN")]


def _read_attributes(content: bytes) -> list[tuple[bytes, int, bytes]]:
    """Type (contents of the OID), tag and value of each attribute of one RDN."""
    attributes = []
    for first, last in der.read_each(content, 0, len(content), der.SEQUENCE, "an attribute of a Name"):
        oid_start, oid_end = der.read_expected(content, first, last, der.OBJECT_IDENTIFIER, "an attribute type")
        kind = content[oid_start:oid_end]
        der.check_oid(kind, "an attribute type")
        tag, value_start, value_end = der.read_element(content, oid_end, last)
        if value_end != last:
            der.fail("bytes after the value of an attribute")
        attributes.append((kind, tag, content[value_start:value_end]))
    if not attributes:
        der.fail("an RDN without attributes")
    return attributes


def _spell(content: bytes) -> tuple[Attribute, ...]:
    """The attributes of one RDN as they are written."""
    return tuple(
        [Attribute(der.decode_object_identifier(oid), tag, value) for oid, tag, value in _read_attributes(content)]
    )


def _fold(content: bytes) -> tuple[RelativeName, tuple[str, ...]]:
    """One RDN as comparisons see it, and the e-mail addresses in it."""
    folded: list[FoldedAttribute] = []
    emails: list[str] = []
    for kind, tag, value in _read_attributes(content):
        text = _decode_text(tag, value) if tag in _COMPARED_AS_TEXT else None
        if text is not None and kind == _EMAIL_ADDRESS_CONTENTS:
            emails.append(text)
        if text is None or not _is_stream_safe(text):
            folded.append((kind, tag, value))
        else:
            folded.append((kind, 0, fold_text(text)))
    return frozenset(folded), tuple(emails)


# the names of one unit share all RDNs but the last: each is read once
_spell_cached = lru_cache(maxsize=1024)(_spell)
_fold_cached = lru_cache(maxsize=1024)(_fold)


def _decode_text(tag: int, value: bytes) -> str | None:
    encoding = _TEXT_ENCODINGS.get(tag)
    if encoding is None:
        return None
    try:
        return value.decode(encoding)
    except UnicodeDecodeError:
        return None  # a value that is no text: names with it still match byte by byte


def read_text(tag: int, content: bytes) -> str:
    """A directory string for people: its text, or `#` and hexadecimal where it has none (RFC 4514 2.4)."""
    text = _decode_text(tag, content)
    return text if text and text.isprintable() else "#" + content.hex()


def _is_stream_safe(text: str) -> bool:
    """Whether no character has more than 30 combining marks (UAX #15 section 13); in one pass."""
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
