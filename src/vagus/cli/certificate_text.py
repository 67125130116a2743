"""Prints a certificate's fields as text, like openssl x509; verifies nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from vagus.errors import Malformed, VagusError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vagus.cli.output import Row
    from vagus.x509.certificates import PathCertificate


def spell_serial(serial: int) -> str:
    """As `openssl x509 -serial` prints it: capital hexadecimal digits, an even number of them."""
    digits = f"{serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def spell_identity(certificate: PathCertificate) -> str | None:
    """The names of the subjectAltName (a device has one dNSName); of an IDevID the maker's serial number instead.

    Raises Malformed(NON_DER or BAD_ENCODING).
    """
    from vagus.fleet.idevid import maker_serials
    from vagus.x509 import extensions
    from vagus.x509.names.general import Form, decode_general_names

    serials = sorted(maker_serials(certificate))
    if serials:
        return f"maker's serial number {', '.join(serials)}"
    names_der = certificate.value_of(extensions.SUBJECT_ALT_NAME)
    names = () if names_der is None else decode_general_names(names_der)
    return ", ".join(one.text if one.form is Form.DNS else str(one) for one in names) or None


def certificate_facts(certificate: PathCertificate) -> Row:
    """Whose certificate it is, as far as it says; what does not decode is left out."""
    identity, subject, issuer = None, None, None
    with suppress(Malformed):
        subject, issuer = certificate.subject.describe(), certificate.issuer.describe()
        identity = spell_identity(certificate)
    return {
        "identity": identity,
        "subject": subject or None,
        "issuer": issuer,
        "serial": spell_serial(certificate.serial),
    }


def find_labelled(presented: Iterable[bytes], label: object) -> PathCertificate | None:
    """The certificate of which a message speaks by its label; the first where it speaks of none in particular."""
    from vagus.x509.certificates import decode_certificate

    for der in presented:
        with suppress(VagusError):
            one = decode_certificate(der)
            if label in {None, one.label}:
                return one
    return None
