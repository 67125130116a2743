"""The name that a maker gives a hardware module: HardwareModuleName of RFC 4108 section 5, inside an otherName."""

from __future__ import annotations

from dataclasses import dataclass

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.names.general import Form

# Bytes, the same limit as for the serialNumber attribute (RFC 5280 appendix A: ub-serial-number).
_LONGEST_SERIAL = 64
HARDWARE_MODULE_NAME = "1.3.6.1.5.5.7.8.4"


@dataclass(frozen=True, slots=True)
class HardwareModule:
    """RFC 4108 section 5 HardwareModuleName: the maker's OID for the kind of module, and its serial number."""

    type_oid: str
    serial: bytes


def encode_hardware_module(module: HardwareModule) -> bytes:
    """The otherName GeneralName that carries `module`. Raises Malformed(BAD_ENCODING or NON_CANONICAL)."""
    if not 1 <= len(module.serial) <= _LONGEST_SERIAL:
        msg = f"a hardware module's serial has {len(module.serial)} bytes, allowed are 1-{_LONGEST_SERIAL}; shorten it"
        raise Malformed(Reason.NON_CANONICAL, msg)
    value = der.sequence(der.object_identifier(module.type_oid), der.octet_string(module.serial))
    return der.encode_tlv(0xA0, der.object_identifier(HARDWARE_MODULE_NAME) + der.explicit(0, value))


def decode_hardware_module(form: Form, content: bytes) -> HardwareModule | None:
    """The module that a GeneralName of this form and these contents carries, None for a name of another kind.

    Raises Malformed(NON_DER or BAD_ENCODING) for a HardwareModuleName that is not RFC 4108's.
    """
    parts = der.split_elements(content) if form is Form.OTHER_NAME else []
    if len(parts) != 2 or parts[0][2] != der.object_identifier(HARDWARE_MODULE_NAME):
        return None
    fields = der.split_elements(der.content_of(der.content_of(parts[1][2], 0xA0), der.SEQUENCE))
    if [tag for tag, _, _ in fields] != [der.OBJECT_IDENTIFIER, der.OCTET_STRING]:
        raise Malformed(Reason.BAD_ENCODING, "HardwareModuleName is not hwType and hwSerialNum (RFC 4108 section 5)")
    return HardwareModule(der.decode_object_identifier(fields[0][1]), fields[1][1])
