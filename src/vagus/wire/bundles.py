"""Certificates as one file for other software: PEM, DER, PKCS #7, PKCS #12, truststore; decides nothing about trust."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    PrivateFormat,
    load_der_private_key,
    pkcs12,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.wire.cms import encode_certs_only
from vagus.x509.pem import encode_block, encode_certificates

_ROUNDS = 100_000
_OLD_ROUNDS = 2048  # as OpenSSL 1.x wrote it: small devices derive keys slowly

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


def encode_pkcs12(
    pkcs8_der: bytes, certificates: Sequence[bytes], *, name: str, password: bytes, is_legacy: bool
) -> bytes:
    """A private key with its certificate and those above it, nearest first, as PKCS #12 (RFC 7292).

    Key and certificates are encrypted by PBES2 with AES-256-CBC, and the MAC is HMAC-SHA-256. `is_legacy`: three-key
    triple DES by PKCS #12's own scheme with a MAC of SHA-1, which devices read that know nothing newer.
    `name` is the friendly name of the key. Raises Malformed(BAD_ARGUMENT) for an empty password.
    """
    if not password:
        raise Malformed(Reason.BAD_ARGUMENT, "a PKCS#12 file needs a password; give one of 8 characters or more")
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(_OLD_ROUNDS if is_legacy else _ROUNDS)
    if is_legacy:
        builder = builder.key_cert_algorithm(PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(SHA1())  # noqa: S303 old form
    else:
        builder = builder.key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC).hmac_hash(SHA256())
    leaf, *above = (x509.load_der_x509_certificate(one) for one in certificates)
    key = load_der_private_key(pkcs8_der, password=None)
    return pkcs12.serialize_key_and_certificates(name.encode(), key, leaf, above, builder.build(password))  # type: ignore[arg-type]
