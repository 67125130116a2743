"""Distinguished names that we write, and names as we read them for records; matches and constrains nothing."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

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

_LONGEST = 64  # RFC 5280 appendix A: ub-organization-name, ub-common-name, ub-serial-number
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
        "1.2.840.113549.1.9.1": "emailAddress",
    }
)
_TEXT_ENCODINGS: Mapping[int, str] = MappingProxyType(
    {
        der.UTF8_STRING: "utf-8",
        der.PRINTABLE_STRING: "ascii",
        der.IA5_STRING: "ascii",
        0x12: "ascii",  # NumericString
        0x14: "latin-1",  # TeletexString: X.520 says T.61, the world writes Latin-1
        0x1A: "ascii",  # VisibleString
        0x1C: "utf-32-be",  # UniversalString
        0x1E: "utf-16-be",  # BMPString
    }
)
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


def decode_name(name_der: bytes) -> tuple[tuple[tuple[str, int, bytes], ...], ...]:
    """A Name as RDNs of (attribute OID, string tag, content octets). Raises Malformed(NON_DER or BAD_ENCODING)."""
    found: list[tuple[tuple[str, int, bytes], ...]] = []
    for tag, content, _ in der.split_elements(der.content_of(name_der, der.SEQUENCE)):
        attributes: list[tuple[str, int, bytes]] = []
        if tag != der.SET or not content:
            raise Malformed(
                Reason.BAD_ENCODING, "a Name holds something else than non-empty SETs; send RFC 5280 4.1.2.4"
            )
        for inner, pair, _ in der.split_elements(content):
            parts = der.split_elements(pair) if inner == der.SEQUENCE else []
            if len(parts) != 2 or parts[0][0] != der.OBJECT_IDENTIFIER:
                raise Malformed(Reason.BAD_ENCODING, "an RDN holds something else than type and value")
            attributes.append((der.decode_object_identifier(parts[0][1]), parts[1][0], parts[1][1]))
        found.append(tuple(attributes))
    return tuple(found)


def read_text(tag: int, content: bytes) -> str:
    """A directory string for people: its text, or `#` and hexadecimal where it has none (RFC 4514 2.4)."""
    encoding = _TEXT_ENCODINGS.get(tag)
    if encoding is not None:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            text = ""
        if text.isprintable() and text:
            return text
    return "#" + content.hex()


def describe_name(name_der: bytes) -> str:
    """A Name for people, in the order in which it is written: `O=Hospital 1, OU=ICU, CN=...`.

    Raises Malformed as `decode_name` does. Never parse what this gives.
    """
    return ", ".join(
        "+".join(f"{_SHORT_NAMES.get(oid, oid)}={read_text(tag, content)}" for oid, tag, content in attributes)
        for attributes in decode_name(name_der)
    )


class GeneralNameForm(StrEnum):
    """The nine forms of a GeneralName (RFC 5280 4.2.1.6), spelt as there."""

    OTHER_NAME = "otherName"
    RFC822_NAME = "rfc822Name"
    DNS_NAME = "dNSName"
    X400_ADDRESS = "x400Address"
    DIRECTORY_NAME = "directoryName"
    EDI_PARTY_NAME = "ediPartyName"
    URI = "uniformResourceIdentifier"
    IP_ADDRESS = "iPAddress"
    REGISTERED_ID = "registeredID"


_FORMS: Mapping[int, GeneralNameForm] = MappingProxyType(
    {
        0xA0: GeneralNameForm.OTHER_NAME,
        0x81: GeneralNameForm.RFC822_NAME,
        0x82: GeneralNameForm.DNS_NAME,
        0xA3: GeneralNameForm.X400_ADDRESS,
        0xA4: GeneralNameForm.DIRECTORY_NAME,
        0xA5: GeneralNameForm.EDI_PARTY_NAME,
        0x86: GeneralNameForm.URI,
        0x87: GeneralNameForm.IP_ADDRESS,
        0x88: GeneralNameForm.REGISTERED_ID,
    }
)
_TEXT_FORMS = frozenset({GeneralNameForm.RFC822_NAME, GeneralNameForm.DNS_NAME, GeneralNameForm.URI})


@dataclass(frozen=True, slots=True)
class GeneralName:
    """One name of a subjectAltName: its form and its content octets."""

    form: GeneralNameForm
    content: bytes

    def __str__(self) -> str:
        return f"{self.form}:{self.text}"

    @property
    def text(self) -> str:
        """The name for people; `#` and hexadecimal where it has no text."""
        if self.form in _TEXT_FORMS:
            return read_text(der.IA5_STRING, self.content)
        try:
            if self.form is GeneralNameForm.IP_ADDRESS:
                return str(ipaddress.ip_address(self.content))
            if self.form is GeneralNameForm.REGISTERED_ID:
                return der.decode_object_identifier(self.content)
            if self.form is GeneralNameForm.DIRECTORY_NAME:
                return describe_name(self.content)
        except (ValueError, Malformed):
            pass
        return "#" + self.content.hex()


def decode_general_names(names_der: bytes) -> tuple[GeneralName, ...]:
    """A GeneralNames sequence, at least one name (RFC 5280 4.2.1.6). Raises Malformed(NON_DER or BAD_ENCODING)."""
    found: list[GeneralName] = []
    for tag, content, _ in der.split_elements(der.content_of(names_der, der.SEQUENCE)):
        form = _FORMS.get(tag)
        if form is None:
            msg = f"a GeneralName has tag {tag:#04x}, which RFC 5280 4.2.1.6 does not know; send one of its nine forms"
            raise Malformed(Reason.BAD_ENCODING, msg)
        found.append(GeneralName(form, content))
    if not found:
        raise Malformed(Reason.BAD_ENCODING, "GeneralNames is empty; send at least one name (RFC 5280 4.2.1.6)")
    return tuple(found)


HARDWARE_MODULE_NAME = "1.3.6.1.5.5.7.8.4"


@dataclass(frozen=True, slots=True)
class HardwareModule:
    """RFC 4108 section 5 HardwareModuleName: the maker's OID for the kind of module, and its serial number."""

    type_oid: str
    serial: bytes


def encode_hardware_module(module: HardwareModule) -> bytes:
    """The otherName GeneralName that carries `module`. Raises Malformed(BAD_ENCODING or NON_CANONICAL)."""
    if not 1 <= len(module.serial) <= _LONGEST:
        msg = f"hardware serial number has {len(module.serial)} octets, allowed are 1-{_LONGEST}; shorten it"
        raise Malformed(Reason.NON_CANONICAL, msg)
    value = der.sequence(der.object_identifier(module.type_oid), der.octet_string(module.serial))
    return der.encode_tlv(0xA0, der.object_identifier(HARDWARE_MODULE_NAME) + der.explicit(0, value))


def decode_hardware_module(name: GeneralName) -> HardwareModule | None:
    """The module that an otherName carries, or None when it is an otherName of another kind.

    Raises Malformed(NON_DER or BAD_ENCODING) for a HardwareModuleName that is not RFC 4108's.
    """
    parts = der.split_elements(name.content) if name.form is GeneralNameForm.OTHER_NAME else []
    if len(parts) != 2 or parts[0][2] != der.object_identifier(HARDWARE_MODULE_NAME):
        return None
    fields = der.split_elements(der.content_of(der.content_of(parts[1][2], 0xA0), der.SEQUENCE))
    if [tag for tag, _, _ in fields] != [der.OBJECT_IDENTIFIER, der.OCTET_STRING]:
        raise Malformed(
            Reason.BAD_ENCODING, "HardwareModuleName is not hwType and hwSerialNum; send RFC 4108 section 5"
        )
    return HardwareModule(der.decode_object_identifier(fields[0][1]), fields[1][1])
