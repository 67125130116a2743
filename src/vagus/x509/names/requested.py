"""What a certificate request (PKCS#10) says about its device, wherever it says it; decides nothing about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der, oids
from vagus.x509.names.distinguished import COMMON_NAME, SERIAL_NUMBER, read_text
from vagus.x509.names.hardware_module import HARDWARE_MODULE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMING = frozenset(
    {
        COMMON_NAME,
        "0.9.2342.19200300.100.1.1",  # userId
        "2.5.4.46",  # dnQualifier
        "1.2.840.113549.1.9.2",  # unstructuredName (RFC 2985 5.4.1)
    }
)
_TEXTS = frozenset({0x0C, 0x12, 0x13, 0x14, 0x16, 0x1A, 0x1C, 0x1E})  # every ASN.1 string type that holds text
_NAME_FORMS = frozenset({0x81, 0x82, 0x86})  # rfc822Name, dNSName and uniformResourceIdentifier of a GeneralName
_CONSTRUCTED = 0x20
_DEEPEST = 16


@dataclass(slots=True)
class RequestedNames:
    """The texts of a request, in its order.

    `serials` are serialNumber attributes and the serial numbers of HardwareModuleNames: they can mean nothing but the
    device (IEEE 802.1AR 8.6, 8.10). `names` may name it: common names, user ids, names of the subjectAltName.
    `others` is every other text: organisation, model, passwords, extensions.
    """

    serials: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def read_requested_names(request_der: bytes) -> RequestedNames:
    """The texts of a request that `decode_request` accepted.

    All of it but the key is read, attributes and extensions of any kind too: a name must not be overlooked because it
    stands in an unusual place. Raises Malformed(NON_DER), Malformed(BAD_ENCODING) for more than 16 levels.
    """
    info = der.split_elements(der.content_of(request_der, der.SEQUENCE))[0][1]
    found = RequestedNames()
    _, subject, _, *attributes = der.split_elements(info)
    _read((subject, *attributes), (), found)
    return found


def _read(elements: Iterable[tuple[int, bytes, bytes]], above: tuple[str, ...], found: RequestedNames) -> None:
    """Sort the texts below some elements; `above` are the object identifiers that say what they are."""
    if len(above) > _DEEPEST:
        msg = f"the request has more than {_DEEPEST} levels of values; send the key and the subject alone"
        raise Malformed(Reason.BAD_ENCODING, msg)
    for tag, content, _ in elements:
        if tag & _CONSTRUCTED:
            parts = der.split_elements(content)
            is_typed = bool(parts) and parts[0][0] == der.OBJECT_IDENTIFIER
            _read(parts, (*above, der.oid_text(parts[0][1]) if is_typed else ""), found)
        elif tag in _TEXTS:
            _sort(read_text(tag, content), above, found)
        elif tag in _NAME_FORMS and oids.SUBJECT_ALT_NAME in above:
            _sort(read_text(der.IA5_STRING, content), above, found)
        elif tag == der.OCTET_STRING and HARDWARE_MODULE_NAME in above:
            found.serials.append(read_text(der.IA5_STRING, content).removeprefix("#"))
        elif tag == der.OCTET_STRING:  # the value of an extension, or bytes that are no DER
            try:
                parts = der.split_elements(content)
            except Malformed:
                found.others.append(read_text(der.IA5_STRING, content))
            else:
                _read(parts, (*above, ""), found)


def _sort(text: str, above: tuple[str, ...], found: RequestedNames) -> None:
    typed = next((one for one in reversed(above) if one), "")
    if typed == SERIAL_NUMBER:
        found.serials.append(text)
    elif typed in _NAMING or oids.SUBJECT_ALT_NAME in above:
        found.names.append(text)
    else:
        found.others.append(text)
