"""Certificates as one file for other software: PEM, DER, PKCS #7 or a Java truststore; decides nothing about trust."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.wire.cms import encode_certs_only
from vagus.x509.pem import encode_block, encode_certificates

NamedCertificate = tuple[str, bytes]
"""A name for people, and the certificate in DER."""


class BundleForm(StrEnum):
    """How certificates are written."""

    PEM = "pem"
    DER = "der"
    """One certificate alone."""
    P7B = "p7b"
    """Certs-only PKCS #7 (RFC 5652) in PEM, as Windows and Java read it. It keeps no order."""
    TRUSTSTORE = "truststore"
    """PKCS #12 without keys. Each certificate is marked as trusted, or Java would not see it as an anchor."""


def encode_bundle(certificates: Sequence[NamedCertificate], form: BundleForm, *, password: bytes) -> bytes:
    """The certificates in the order given. `password` is for a truststore alone, whose aliases are the names.

    Raises Malformed(BAD_ARGUMENT) for several certificates as DER.
    """
    ders = [der for _, der in certificates]
    if form is BundleForm.PEM:
        return encode_certificates(ders)
    if form is BundleForm.P7B:
        return encode_block(encode_certs_only(ders), "PKCS7")
    if form is BundleForm.TRUSTSTORE:
        entries = [
            pkcs12.PKCS12Certificate(x509.load_der_x509_certificate(der), name.encode()) for name, der in certificates
        ]
        return pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(password))
    if len(ders) != 1:
        msg = f"form der holds one certificate and here are {len(ders)}; take form pem, p7b or truststore"
        raise Malformed(Reason.BAD_ARGUMENT, msg, limit=1, value=len(ders))
    return ders[0]
