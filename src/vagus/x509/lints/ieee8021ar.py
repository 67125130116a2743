"""What IEEE 802.1AR-2018 asks of an initial device identity (IDevID); RFC 4108 for the name of the module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.errors import VagusError
from vagus.x509 import oids
from vagus.x509.lints.registry import Document
from vagus.x509.names.distinguished import SERIAL_NUMBER
from vagus.x509.names.hardware_module import decode_hardware_module
from vagus.x509.profiles import KeyUsage, NameForm

if TYPE_CHECKING:
    from vagus.x509.lints.parsed_tbs import Draft

IEEE8021AR = Document("IEEE 802.1AR-2018", "8021ar")

_ALLOWED_PURPOSES = (None, (), (oids.CLIENT_AUTH,))


def _is_idevid(draft: Draft) -> bool:
    return draft.profile.name_form is NameForm.HARDWARE_MODULE


@IEEE8021AR.lint("no-expiry", "clause 8, validity")
def no_expiry(draft: Draft) -> str | None:
    """An IDevID lives as long as its device: 99991231235959Z."""
    after = draft.fields.not_after
    is_last = (after.year, after.month, after.day, after.hour, after.minute, after.second) == (9999, 12, 31, 23, 59, 59)
    return "notAfter is not 99991231235959Z" if _is_idevid(draft) and not is_last else None


@IEEE8021AR.lint("subject-serial", "clause 8, subject")
def subject_serial(draft: Draft) -> str | None:
    """The subject names the device by its serialNumber attribute."""
    if not _is_idevid(draft):
        return None
    has_serial = any(one.oid == SERIAL_NUMBER for attributes in draft.subject for one in attributes)
    return None if has_serial else "subject has no serialNumber attribute"


@IEEE8021AR.lint("key-usage", "clause 8, keyUsage")
def digital_signature(draft: Draft) -> str | None:
    """A DevID authenticates, so its key signs."""
    if not _is_idevid(draft) or draft.key_usage is None:
        return None
    return None if KeyUsage.DIGITAL_SIGNATURE in draft.key_usage else "keyUsage lacks digitalSignature"


@IEEE8021AR.lint("purposes", "clause 8, extensions")
def purposes(draft: Draft) -> str | None:
    """None, or clientAuth alone: an IDevID opens enrolment and nothing else."""
    return (
        "extKeyUsage is more than clientAuth" if _is_idevid(draft) and draft.purposes not in _ALLOWED_PURPOSES else None
    )


@IEEE8021AR.lint("hardware-module", "clause 8, subjectAltName; RFC 4108 5")
def hardware_module(draft: Draft) -> str | None:
    """A HardwareModuleName, where present, decodes."""
    if not _is_idevid(draft):
        return None
    for form, content in draft.names.others:
        try:
            decode_hardware_module(form, content)
        except VagusError as fault:
            return f"HardwareModuleName does not decode ({fault})"
    return None
