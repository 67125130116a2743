"""Certificates of any origin from DER or PEM, with our errors; trusts nothing and verifies nothing."""

from __future__ import annotations

import base64
import warnings

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import Certificate

_LARGEST = 64 * 1024


def decode_certificate(certificate_der: bytes) -> Certificate:
    """The certificate in `certificate_der`. Raises Malformed(BAD_ENCODING or TOO_LARGE)."""
    if len(certificate_der) > _LARGEST:
        msg = f"a certificate of {len(certificate_der)} octets exceeds the {_LARGEST} that we read"
        raise Malformed(Reason.TOO_LARGE, msg, octets=len(certificate_der))
    try:
        with warnings.catch_warnings():
            # The library warns of oddities that it reads all the same; lints and the verifier judge them.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return x509.load_der_x509_certificate(certificate_der)
    except ValueError as fault:
        msg = f"not a DER certificate ({fault}); export it as X.509 DER or PEM"
        raise Malformed(Reason.BAD_ENCODING, msg) from fault


def decode_certificates_pem(pem: bytes) -> tuple[bytes, ...]:
    """The DER of every certificate in a PEM file, in the order of the file; text between them is passed over.

    Raises Malformed(BAD_ENCODING) when there is none or one does not decode.
    """
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    found: list[bytes] = []
    for part in pem.split(begin)[1:]:
        body, mark, _ = part.partition(end)
        try:
            der = base64.b64decode(b"".join(body.split()), validate=True) if mark else b""
        except ValueError:
            der = b""
        if not der:
            raise Malformed(Reason.BAD_ENCODING, "a PEM certificate is cut off or not base64; export it again")
        decode_certificate(der)
        found.append(der)
    if not found:
        raise Malformed(Reason.BAD_ENCODING, "there is no PEM certificate in this file; export it as such")
    return tuple(found)


def encode_pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    """DER as PEM (RFC 7468): CERTIFICATE, X509 CRL, CERTIFICATE REQUEST."""
    text = base64.b64encode(der).decode("ascii")
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode("ascii")
