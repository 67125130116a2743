"""What a certificate is: pure values and rules; no I/O, no clock, no private key at rest.

Layers above import the library's certificate types from here, so that only this package imports `cryptography`
for X.509.
"""

from cryptography.x509 import Certificate, CertificateRevocationList, CertificateSigningRequest

__all__ = ["Certificate", "CertificateRevocationList", "CertificateSigningRequest"]
