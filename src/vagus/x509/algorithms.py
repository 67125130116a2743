"""The key and signature algorithms that Vagus knows, by name, OID and strength; signs and verifies nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from vagus.errors import Malformed
from vagus.x509 import der

if TYPE_CHECKING:
    from collections.abc import Mapping


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


POST_QUANTUM = frozenset({KeyAlgorithm.MLDSA44, KeyAlgorithm.MLDSA65, KeyAlgorithm.MLDSA87})
"""Keys whose signatures no known quantum computer can forge (FIPS 204)."""


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """A signature algorithm and its AlgorithmIdentifier.

    `identifier_der` is the whole DER AlgorithmIdentifier; `hash_name` is None where the algorithm hashes by itself.
    """

    name: str
    oid: str
    identifier_der: bytes
    hash_name: str | None


_HASHES = MappingProxyType(
    {
        "sha256": ("2.16.840.1.101.3.4.2.1", 32),
        "sha384": ("2.16.840.1.101.3.4.2.2", 48),
        "sha512": ("2.16.840.1.101.3.4.2.3", 64),
    }
)
_RSASSA_PSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"


def _bare(name: str, oid: str, hash_name: str | None = None) -> SignatureAlgorithm:
    """Parameters absent: RFC 5758 3.2 (ECDSA), RFC 8410 3 (EdDSA), RFC 9881 2 (ML-DSA)."""
    return SignatureAlgorithm(name, oid, der.sequence(der.object_identifier(oid)), hash_name)


def _rsa(name: str, oid: str, hash_name: str) -> SignatureAlgorithm:
    """Parameters NULL: RFC 4055 section 5."""
    return SignatureAlgorithm(name, oid, der.sequence(der.object_identifier(oid), der.NULL_DER), hash_name)


def _pss_identifier(hash_name: str, hash_parameters: bytes) -> bytes:
    """RFC 4055 3.1: hash, MGF1 over the same hash, salt as long as the hash, trailer by default."""
    hash_oid, size = _HASHES[hash_name]
    digest = der.sequence(der.object_identifier(hash_oid), hash_parameters)
    return der.sequence(
        der.object_identifier(_RSASSA_PSS),
        der.sequence(
            der.explicit(0, digest),
            der.explicit(1, der.sequence(der.object_identifier(_MGF1), digest)),
            der.explicit(2, der.integer(size)),
        ),
    )


def _pss(name: str, hash_name: str) -> SignatureAlgorithm:
    return SignatureAlgorithm(name, _RSASSA_PSS, _pss_identifier(hash_name, der.NULL_DER), hash_name)


ECDSA_SHA256 = _bare("ecdsa-sha256", "1.2.840.10045.4.3.2", "sha256")
ECDSA_SHA384 = _bare("ecdsa-sha384", "1.2.840.10045.4.3.3", "sha384")
ECDSA_SHA512 = _bare("ecdsa-sha512", "1.2.840.10045.4.3.4", "sha512")
RSA_SHA256 = _rsa("rsa-sha256", "1.2.840.113549.1.1.11", "sha256")
RSA_SHA384 = _rsa("rsa-sha384", "1.2.840.113549.1.1.12", "sha384")
RSA_SHA512 = _rsa("rsa-sha512", "1.2.840.113549.1.1.13", "sha512")
RSA_PSS_SHA256 = _pss("rsa-pss-sha256", "sha256")
RSA_PSS_SHA384 = _pss("rsa-pss-sha384", "sha384")
RSA_PSS_SHA512 = _pss("rsa-pss-sha512", "sha512")
ED25519 = _bare("ed25519", "1.3.101.112")
ED448 = _bare("ed448", "1.3.101.113")
MLDSA44 = _bare("ml-dsa-44", "2.16.840.1.101.3.4.3.17")
MLDSA65 = _bare("ml-dsa-65", "2.16.840.1.101.3.4.3.18")
MLDSA87 = _bare("ml-dsa-87", "2.16.840.1.101.3.4.3.19")

_EVERY_EC = (ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512)
_EVERY_RSA = (RSA_SHA256, RSA_SHA384, RSA_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512)

SIGNATURE_ALGORITHMS: Mapping[str, SignatureAlgorithm] = MappingProxyType(
    {one.name: one for one in (*_EVERY_EC, *_EVERY_RSA, ED25519, ED448, MLDSA44, MLDSA65, MLDSA87)}
)
"""Every signature algorithm that we verify, by its name here. SHA-1 and MD5 are left out on purpose."""

_BY_IDENTIFIER: Mapping[bytes, SignatureAlgorithm] = MappingProxyType(
    {
        **{one.identifier_der: one for one in SIGNATURE_ALGORITHMS.values()},
        # RFC 4055 5: absent parameters must be accepted like NULL.
        **{der.sequence(der.object_identifier(one.oid)): one for one in (RSA_SHA256, RSA_SHA384, RSA_SHA512)},
        # RFC 4055 2.1: absent parameters of the hash algorithm must be accepted like NULL.
        **{_pss_identifier(one.hash_name or "", b""): one for one in (RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512)},
    }
)

_ECDSA_WITH_NULL: Mapping[bytes, SignatureAlgorithm] = MappingProxyType(
    {der.sequence(der.object_identifier(one.oid), der.NULL_DER): one for one in _EVERY_EC}
)

# ECDSA uses a hash as wide as the curve, and RSA is PKCS#1 v1.5.
_DEFAULTS: Mapping[KeyAlgorithm, SignatureAlgorithm] = MappingProxyType(
    {
        KeyAlgorithm.P256: ECDSA_SHA256,
        KeyAlgorithm.P384: ECDSA_SHA384,
        KeyAlgorithm.P521: ECDSA_SHA512,
        KeyAlgorithm.RSA2048: RSA_SHA256,
        KeyAlgorithm.RSA3072: RSA_SHA256,
        KeyAlgorithm.RSA4096: RSA_SHA256,
        KeyAlgorithm.ED25519: ED25519,
        KeyAlgorithm.ED448: ED448,
        KeyAlgorithm.MLDSA44: MLDSA44,
        KeyAlgorithm.MLDSA65: MLDSA65,
        KeyAlgorithm.MLDSA87: MLDSA87,
    }
)


def default_signature_algorithm(key: KeyAlgorithm) -> SignatureAlgorithm:
    """What a key of this kind signs with where nothing else is asked for."""
    return _DEFAULTS[key]


def find_signature_algorithm(identifier_der: bytes) -> SignatureAlgorithm | None:
    """The algorithm that a whole DER AlgorithmIdentifier names, parameters included; None when we do not know it."""
    return _BY_IDENTIFIER.get(identifier_der)


def find_request_algorithm(identifier_der: bytes) -> SignatureAlgorithm | None:
    """As `find_signature_algorithm`, for the signature of a PKCS#10 request: there ECDSA may also have NULL parameters.

    Mbed TLS 2.x writes them, though RFC 5758 3.2 has the encoder omit them. A request's algorithm identifier enters no
    certificate and the signature covers none, so nothing but the client's encoding depends on it.
    """
    return find_signature_algorithm(identifier_der) or _ECDSA_WITH_NULL.get(identifier_der)


def explain_refusal(identifier_der: bytes) -> str:
    """What of a signature's AlgorithmIdentifier is not accepted, with the remedy, for a message."""
    try:
        parts = der.split_elements(der.content_of(identifier_der, der.SEQUENCE))
        oid = der.decode_object_identifier(parts[0][1])
    except (Malformed, IndexError):
        return f"{identifier_der[:32].hex() or '(none)'}, which is no algorithm; sign with SHA-256 or better"
    known = next((one for one in SIGNATURE_ALGORITHMS.values() if one.oid == oid), None)
    if known is None:
        return f"{oid}; sign with SHA-256 or better"
    named = "NULL" if [whole for _, _, whole in parts[1:]] == [der.NULL_DER] else "other than its RFC's"
    remedy = "write those of RFC 4055" if oid.startswith("1.2.840.113549.") else "leave the parameters out"
    return f"{known.name} ({oid}) with parameters {named}; {remedy} (RFC 4055, 5758, 8410, 9881)"
