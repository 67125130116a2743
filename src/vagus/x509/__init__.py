"""What a certificate is: pure values and rules; no I/O, no clock, no private key at rest.

Floors above take the library's certificate type from here, so that `cryptography` stays behind this door.
"""

from cryptography.x509 import Certificate, CertificateRevocationList, CertificateSigningRequest

__all__ = ["Certificate", "CertificateRevocationList", "CertificateSigningRequest"]
