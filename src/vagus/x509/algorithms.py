"""The key and signature algorithms this house knows, by name, OID and strength; signs and verifies nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class KeyAlgorithm(StrEnum):
    """Public-key algorithms with their parameter set, as profiles name them."""

    P256 = "p256"
    P384 = "p384"
    P521 = "p521"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"
    ED25519 = "ed25519"
    ED448 = "ed448"
    MLDSA44 = "mldsa44"
    MLDSA65 = "mldsa65"
    MLDSA87 = "mldsa87"


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """A signature algorithm as it stands in an AlgorithmIdentifier.

    `identifier_der` is the whole DER AlgorithmIdentifier; `hash_name` is None where the algorithm hashes by itself.
    """

    name: str
    oid: str
    identifier_der: bytes
    hash_name: str | None
