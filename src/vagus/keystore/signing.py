"""The port that every signing key implements, software or PKCS#11; holds no key itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from vagus.x509.algorithms import SignatureAlgorithm


class Purpose(StrEnum):
    """What a signature is for. A CA key carries certificate and crl, every other key one purpose."""

    CERTIFICATE = "certificate"
    CRL = "crl"
    OCSP = "ocsp"
    CHECKPOINT = "checkpoint"
    TLS = "tls"
    DATA = "data"


class SigningKey(Protocol):
    """A private key bound to its purposes. Safe to use from several threads."""

    @property
    def key_id(self) -> str:
        """The name of the key inside its keystore."""
        ...

    @property
    def purposes(self) -> frozenset[Purpose]:
        """What it may sign; it refuses the rest."""
        ...

    @property
    def algorithm(self) -> SignatureAlgorithm:
        """What its signatures are."""
        ...

    @property
    def spki_der(self) -> bytes:
        """Its public key as DER SubjectPublicKeyInfo."""
        ...

    @property
    def is_reproducible(self) -> bool:
        """Whether the same message always gives the same signature bytes (RFC 6979 ECDSA, RSA PKCS#1 v1.5)."""
        ...

    def sign(self, purpose: Purpose, message: bytes) -> bytes:
        """The signature over `message` as a BIT STRING holds it.

        Raises NotAuthorised(PURPOSE_FORBIDDEN) when `purpose` is not one of its own.
        """
        ...
