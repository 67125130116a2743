"""Loads certificates of any origin as `cryptography` objects, with our errors; verifies nothing."""

from __future__ import annotations

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
        msg = f"the certificate has {len(certificate_der)} bytes, {_LARGEST} are allowed; give one, not a bundle"
        raise Malformed(Reason.TOO_LARGE, msg, octets=len(certificate_der))
    try:
        with warnings.catch_warnings():
            # The library warns of certificates that break a rule but can be read; lints and the verifier judge these
            # rules.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return x509.load_der_x509_certificate(certificate_der)
    except (ValueError, x509.InvalidVersion) as fault:
        msg = f"the certificate is not DER ({fault}); export it as X.509 DER or PEM"
        raise Malformed(Reason.BAD_ENCODING, msg) from fault
