"""Verifies signatures over certificates, CRLs and OCSP responses by algorithm identifier and SubjectPublicKeyInfo.

Wider than `keys`, which knows what Vagus issues: here every parameter of RSASSA-PSS is honoured, and conformance
tests can verify old algorithms by a switch that no policy can select.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509 import der

_EC_PUBLIC_KEY = der.oid_contents("1.2.840.10045.2.1")
_RSA_ENCRYPTION = der.oid_contents("1.2.840.113549.1.1.1")
_RSASSA_PSS = der.oid_contents("1.2.840.113549.1.1.10")
_MGF1 = der.oid_contents("1.2.840.113549.1.1.8")
_DSA = der.oid_contents("1.2.840.10040.4.1")
_MAX_KEY = 16_384  # limit in bytes of a SubjectPublicKeyInfo: SLH-DSA, Falcon and RSA-16384 need fewer
_MAX_IDENTIFIER = 256  # limit in bytes of an AlgorithmIdentifier: RSASSA-PSS needs some 70
_MAX_MODULUS = 8192  # bits of an RSA modulus: a larger key costs the verifier milliseconds for each signature
_MAX_EXPONENT = 64  # bits of an RSA exponent, for the same reason

_RawKey: TypeAlias = (
    ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
)
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 SHA-1 is used only with the switch for tests
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
HASH_NAMES = {
    der.oid_contents("1.3.14.3.2.26"): "sha1",
    der.oid_contents("2.16.840.1.101.3.4.2.1"): "sha256",
    der.oid_contents("2.16.840.1.101.3.4.2.2"): "sha384",
    der.oid_contents("2.16.840.1.101.3.4.2.3"): "sha512",
}
# contents of the curve's OID -> (curve name, bits)
CURVES = {
    der.oid_contents("1.2.840.10045.3.1.7"): ("p256", 256),
    der.oid_contents("1.3.132.0.34"): ("p384", 384),
    der.oid_contents("1.3.132.0.35"): ("p521", 521),
}
# contents of the key's OID -> (key name, bytes of the key)
RAW_KEYS = {
    der.oid_contents("1.3.101.112"): ("ed25519", 32),
    der.oid_contents("1.3.101.113"): ("ed448", 57),
    der.oid_contents("2.16.840.1.101.3.4.3.17"): ("mldsa44", 1312),
    der.oid_contents("2.16.840.1.101.3.4.3.18"): ("mldsa65", 1952),
    der.oid_contents("2.16.840.1.101.3.4.3.19"): ("mldsa87", 2592),
}
# OID of the signature algorithm -> (family, hash). Families without a hash have the key's own name.
_SCHEMES = {
    der.oid_contents("1.2.840.10045.4.3.2"): ("ecdsa", "sha256"),
    der.oid_contents("1.2.840.10045.4.3.3"): ("ecdsa", "sha384"),
    der.oid_contents("1.2.840.10045.4.3.4"): ("ecdsa", "sha512"),
    der.oid_contents("1.2.840.10045.4.1"): ("ecdsa", "sha1"),
    der.oid_contents("1.2.840.113549.1.1.11"): ("rsa", "sha256"),
    der.oid_contents("1.2.840.113549.1.1.12"): ("rsa", "sha384"),
    der.oid_contents("1.2.840.113549.1.1.13"): ("rsa", "sha512"),
    der.oid_contents("1.2.840.113549.1.1.5"): ("rsa", "sha1"),
    der.oid_contents("1.2.840.10040.4.3"): ("dsa", "sha1"),
    der.oid_contents("2.16.840.1.101.3.4.3.2"): ("dsa", "sha256"),
    **{oid: (name, "") for oid, (name, _) in RAW_KEYS.items()},
}
_ECDSA = {name: ec.ECDSA(digest) for name, digest in _HASHES.items()}
_PKCS1 = padding.PKCS1v15()
_RAW_TYPES: dict[str, type[_RawKey]] = {
    "ed25519": ed25519.Ed25519PublicKey,
    "ed448": ed448.Ed448PublicKey,
    "mldsa44": mldsa.MLDSA44PublicKey,
    "mldsa65": mldsa.MLDSA65PublicKey,
    "mldsa87": mldsa.MLDSA87PublicKey,
}


@dataclass(frozen=True, slots=True)
class Scheme:
    """What an AlgorithmIdentifier of a signature says. `is_legacy`: verified only with the test switch."""

    family: str
    hash_name: str
    is_legacy: bool = False
    salt_length: int = 0
    mask_hash: str = ""


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What rules on strength need to know of a key. `family` as in `Scheme`; `bits` is 0 for keys of one size."""

    family: str
    name: str
    bits: int
    exponent: int = 0
    is_legacy: bool = False


def decode_scheme(identifier_der: bytes) -> Scheme:
    """The scheme that a whole DER AlgorithmIdentifier names.

    Raises Malformed(NON_DER), NotTrusted(UNSUPPORTED_ALGORITHM) for what is not verified here, MD5 and the
    unknown among it, and for parameters that RFC 4055, 5758, 8410 and 9881 do not allow.
    """
    if len(identifier_der) > _MAX_IDENTIFIER:
        raise _unsupported(f"the signature algorithm identifier has {len(identifier_der)} bytes")
    return _decode_scheme(identifier_der)


@lru_cache(maxsize=256)
def _decode_scheme(identifier_der: bytes) -> Scheme:
    start, end = der.read_whole(identifier_der, der.SEQUENCE, "an AlgorithmIdentifier")
    first, last = der.read_expected(identifier_der, start, end, der.OBJECT_IDENTIFIER, "an algorithm")
    oid = identifier_der[first:last]
    parameters = identifier_der[last:end]
    if oid == _RSASSA_PSS:
        return _decode_pss(parameters)
    found = _SCHEMES.get(oid)
    if found is None:
        raise _unsupported(f"signature algorithm {der.oid_text(oid)} is not verified here")
    family, hash_name = found
    # RFC 4055 2.1: with RSA, parameters may be NULL or absent. RFC 5758, 8410, 9881: they are absent everywhere else.
    if parameters and not (family == "rsa" and parameters == der.NULL_DER):
        named = "NULL" if parameters == der.NULL_DER else "that its RFC does not allow"
        remedy = "have the signer write none" if family != "rsa" else "have the signer write NULL"
        msg = f"signature algorithm {der.oid_text(oid)} with parameters {named}; {remedy} (RFC 4055, 5758, 8410, 9881)"
        raise NotTrusted(Reason.UNSUPPORTED_ALGORITHM, msg)
    return Scheme(family, hash_name, is_legacy=hash_name == "sha1" or family == "dsa")


def _decode_pss(parameters: bytes) -> Scheme:
    """RFC 4055 3.1: each field by default SHA-1, MGF1 with SHA-1, 20, 1; DER leaves defaults out."""
    start, end = der.read_whole(parameters, der.SEQUENCE, "RSASSA-PSS-params")
    fields = der.read_optional(parameters, start, end, {0xA0, 0xA1, 0xA2, 0xA3}, "RSASSA-PSS-params")
    hash_name = _decode_hash(parameters[slice(*fields[0xA0])]) if 0xA0 in fields else "sha1"
    mask_hash = "sha1"
    if 0xA1 in fields:
        mask_start, mask_end = der.read_only(parameters, *fields[0xA1], der.SEQUENCE, "maskGenAlgorithm")
        first, last = der.read_expected(parameters, mask_start, mask_end, der.OBJECT_IDENTIFIER, "maskGenAlgorithm")
        if parameters[first:last] != _MGF1:
            raise _unsupported("the signature is RSASSA-PSS with a mask generation function other than MGF1")
        mask_hash = _decode_hash(parameters[last:mask_end])
    salt_length, trailer = (
        der.integer_value(
            parameters, *der.read_only(parameters, *fields[tag], der.INTEGER, "a PSS number"), "a PSS number"
        )
        if tag in fields
        else default
        for tag, default in ((0xA2, 20), (0xA3, 1))
    )
    if trailer != 1:
        raise _unsupported(f"the signature is RSASSA-PSS with trailer field {trailer}, and 1 is the only one there is")
    if not 0 <= salt_length <= 512:
        raise _unsupported(f"the signature is RSASSA-PSS with a salt of {salt_length} bytes")
    return Scheme("rsa-pss", hash_name, "sha1" in {hash_name, mask_hash}, salt_length, mask_hash)


def _decode_hash(identifier_der: bytes) -> str:
    start, end = der.read_whole(identifier_der, der.SEQUENCE, "a hash algorithm")
    first, last = der.read_expected(identifier_der, start, end, der.OBJECT_IDENTIFIER, "a hash algorithm")
    name = HASH_NAMES.get(identifier_der[first:last])
    if name is None or identifier_der[last:end] not in {b"", der.NULL_DER}:
        raise _unsupported(
            f"hash algorithm {der.oid_text(identifier_der[first:last])} or its parameters are not accepted"
        )
    return name


def _unsupported(what: str) -> NotTrusted:
    return NotTrusted(Reason.UNSUPPORTED_ALGORITHM, f"{what}; use ECDSA or RSA with SHA-2, EdDSA or ML-DSA")


def key_facts(spki_der: bytes) -> KeyFacts:
    """What kind of key a SubjectPublicKeyInfo holds, without loading it.

    Raises Malformed(NON_DER|EC_PARAMS|BAD_ENCODING), NotTrusted(WEAK_KEY) for curves under 256 bits and unreadable RSA
    numbers, NotTrusted(UNSUPPORTED_ALGORITHM).
    """
    if len(spki_der) > _MAX_KEY:
        raise _unsupported(f"the public key has {len(spki_der)} bytes, more than {_MAX_KEY}")
    return _key_facts(spki_der)


@lru_cache(maxsize=4096)
def _key_facts(spki_der: bytes) -> KeyFacts:
    start, end = der.read_whole(spki_der, der.SEQUENCE, "subjectPublicKeyInfo")
    algorithm_start, algorithm_end = der.read_expected(spki_der, start, end, der.SEQUENCE, "algorithm of the key")
    bits_start, bits_end = der.read_only(spki_der, algorithm_end, end, der.BIT_STRING, "subjectPublicKey")
    key = der.whole_bytes(spki_der, bits_start, bits_end, "subjectPublicKey")
    oid_start, oid_end = der.read_expected(
        spki_der, algorithm_start, algorithm_end, der.OBJECT_IDENTIFIER, "algorithm of the key"
    )
    oid = spki_der[oid_start:oid_end]
    parameters = spki_der[oid_end:algorithm_end]
    if oid == _EC_PUBLIC_KEY:
        return _curve_facts(parameters, key)
    if oid in {_RSA_ENCRYPTION, _RSASSA_PSS}:
        return _rsa_facts(oid, parameters, key)
    if oid == _DSA:
        return KeyFacts("dsa", "dsa", 0, is_legacy=True)
    raw = RAW_KEYS.get(oid)
    if raw is None:
        raise _unsupported(f"the public key algorithm {der.oid_text(oid)} is not known here")
    name, size = raw
    if parameters or len(key) != size:
        raise Malformed(Reason.BAD_ENCODING, f"the {name} public key is not {size} bytes alone; make it anew")
    return KeyFacts(name, name, 0)


def _curve_facts(parameters: bytes, point: bytes) -> KeyFacts:
    """RFC 5480 2.1.1: namedCurve only; explicit parameters let a forger choose the generator (CVE-2020-0601)."""
    if parameters[:1] != b"\x06":
        msg = "EC key whose curve is explicit or implied (RFC 5480 2.1.1); use the named curve P-256"
        raise Malformed(Reason.EC_PARAMS, msg)
    start, end = der.read_whole(parameters, der.OBJECT_IDENTIFIER, "namedCurve")
    curve = CURVES.get(parameters[start:end])
    if curve is None:
        name = der.oid_text(parameters[start:end])
        msg = f"the EC key is on curve {name}, but only P-256, P-384 and P-521 are strong enough and known; use these"
        raise NotTrusted(Reason.WEAK_KEY, msg, curve=name)
    check_point(*curve, point)
    return KeyFacts("ecdsa", *curve)


def check_point(curve: str, bits: int, point: bytes) -> None:
    """That a public point of a curve of so many bits is uncompressed (RFC 5480 2.2); compressed ones MAY be refused.

    With compressed and hybrid points one key would have several hashes, and a shared or blocked key would go unnoticed.
    Raises Malformed(BAD_ENCODING).
    """
    size = (bits + 7) // 8
    if len(point) == 1 + 2 * size and point[0] == 0x04:
        return
    forms = {2: "compressed", 3: "compressed", 6: "hybrid", 7: "hybrid"}
    form = forms.get(point[0], "of an unknown form") if point else "empty"
    msg = f"the {curve} key's point is {form}, {len(point)} bytes; encode it uncompressed: 04, then {2 * size} bytes"
    raise Malformed(Reason.BAD_ENCODING, f"{msg} (RFC 5480 2.2)", algorithm=curve)


def _rsa_facts(oid: bytes, parameters: bytes, key: bytes) -> KeyFacts:
    start, end = der.read_whole(key, der.SEQUENCE, "RSAPublicKey")
    first, last = der.read_expected(key, start, end, der.INTEGER, "modulus")
    modulus = der.integer_value(key, first, last, "modulus", longest=_MAX_KEY)
    first, last = der.read_only(key, last, end, der.INTEGER, "publicExponent")
    exponent = der.integer_value(key, first, last, "publicExponent", longest=_MAX_KEY)
    if oid == _RSA_ENCRYPTION and parameters != der.NULL_DER:
        der.fail("parameters of an RSA key that are not NULL (RFC 3279 2.3.1)")
    if modulus <= 0 or modulus % 2 == 0 or exponent < 3 or exponent % 2 == 0:
        raise NotTrusted(Reason.WEAK_KEY, "RSA key with an even or negative modulus or a bad exponent; make it anew")
    if modulus.bit_length() > _MAX_MODULUS or exponent.bit_length() > _MAX_EXPONENT:
        msg = f"RSA key over {_MAX_MODULUS} bits or with an exponent over {_MAX_EXPONENT}; use RSA-3072 and 65537"
        raise NotTrusted(Reason.UNSUPPORTED_ALGORITHM, msg, bits=modulus.bit_length())
    family = "rsa" if oid == _RSA_ENCRYPTION else "rsa-pss"
    return KeyFacts(family, f"rsa{modulus.bit_length()}", modulus.bit_length(), exponent)


Verify = Callable[[bytes, bytes], None]


@lru_cache(maxsize=4096)
def _verifier(spki_der: bytes, algorithm_der: bytes) -> Verify:
    """A function of (signature, message) for this key and algorithm; made once per pair, since loading costs."""
    scheme = decode_scheme(algorithm_der)
    facts = key_facts(spki_der)
    allowed = {scheme.family, "rsa"} if scheme.family == "rsa-pss" else {scheme.family}
    if facts.family not in allowed:
        msg = f"a {scheme.family} signature cannot come from a {facts.name} key; re-issue with the key's own algorithm"
        raise NotTrusted(Reason.SIG_ALG_MISMATCH, msg, algorithm=scheme.family, key=facts.name)
    try:
        key = load_der_public_key(_plain_rsa(spki_der) if facts.family == "rsa-pss" else spki_der)
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = f"{facts.name} public key does not load: the point or modulus is not of its group; make it anew"
        raise NotTrusted(Reason.WEAK_KEY, msg) from error
    verify = bind(key, scheme)
    if verify is None:
        raise _unsupported(f"a public key of type {type(key).__name__} verifies no signature here")
    return verify


def bind(key: object, scheme: Scheme) -> Verify | None:
    """A function of (signature, message) for an open key; None where such a key makes no such signature."""
    if isinstance(key, ec.EllipticCurvePublicKey) and scheme.family == "ecdsa":
        curve, ecdsa = key, _ECDSA[scheme.hash_name]
        return lambda signature, message: curve.verify(signature, message, ecdsa)
    if isinstance(key, rsa.RSAPublicKey) and scheme.family in {"rsa", "rsa-pss"}:
        modulus, digest = key, _HASHES[scheme.hash_name]
        pad: padding.PKCS1v15 | padding.PSS = _PKCS1
        if scheme.family == "rsa-pss":
            pad = _pss_padding(scheme)
        return lambda signature, message: modulus.verify(signature, message, pad, digest)
    if isinstance(key, dsa.DSAPublicKey) and scheme.family == "dsa":
        old, old_digest = key, _HASHES[scheme.hash_name]
        return lambda signature, message: old.verify(signature, message, old_digest)
    raw = _RAW_TYPES.get(scheme.family)
    return key.verify if raw is not None and isinstance(key, raw) else None


@lru_cache(maxsize=256)
def _pss_padding(scheme: Scheme) -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(_HASHES[scheme.mask_hash]), salt_length=scheme.salt_length)


def _plain_rsa(spki_der: bytes) -> bytes:
    """An id-RSASSA-PSS key (RFC 4055 1.2) as id-rsaEncryption, which is all that the library loads."""
    start, end = der.read_whole(spki_der, der.SEQUENCE, "subjectPublicKeyInfo")
    _, algorithm_end = der.read_expected(spki_der, start, end, der.SEQUENCE, "algorithm of the key")
    identifier = bytes.fromhex("300d06092a864886f70d0101010500")
    body = identifier + spki_der[algorithm_end:end]
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


def verify_signed(
    spki_der: bytes, algorithm_der: bytes, signature: bytes, message: bytes, *, unsafe_legacy: bool = False
) -> None:
    """Whether `signature` over `message` comes from the key.

    `unsafe_legacy` admits SHA-1 and DSA and exists for old test vectors; no profile of the product sets it.
    Raises NotTrusted(BAD_SIGNATURE|SIG_ALG_MISMATCH|UNSUPPORTED_ALGORITHM|WEAK_KEY), Malformed(NON_DER|EC_PARAMS).
    """
    if not unsafe_legacy and decode_scheme(algorithm_der).is_legacy:
        raise _unsupported("the signature uses SHA-1 or DSA")
    key_facts(spki_der)  # this bounds the key's size before the key enters a cache
    verify = _verifier(spki_der, algorithm_der)
    try:
        verify(signature, message)
    except InvalidSignature:
        msg = "a signature does not verify with the key of the presumed signer; the signed object was changed or forged"
        raise NotTrusted(Reason.BAD_SIGNATURE, msg) from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = "a signature cannot be checked with this key: impossible parameters; re-issue"
        raise NotTrusted(Reason.BAD_SIGNATURE, msg) from error


class SignatureVerdicts:
    """Remembers which (object, key) pairs verified, by content hash; a good signature never turns bad.

    Only successes are stored, so a flood of forgeries cannot push them out. Safe to use from several threads: a lost
    update costs one more verification.
    """

    def __init__(self, size: int = 65_536) -> None:
        self._size = size
        self._good: dict[tuple[bytes, bytes, bool], None] = {}

    def unsafe_believe(self, signed_sha256: bytes, spki_sha256: bytes) -> None:
        """Take the signature by this key over this object for good: for trial certificates that nothing signs."""
        self._good[signed_sha256, spki_sha256, False] = None

    def verify(
        self,
        signed_sha256: bytes,
        spki_sha256: bytes,
        spki_der: bytes,
        signed: tuple[bytes, bytes, bytes],
        *,
        unsafe_legacy: bool,
    ) -> None:
        """Check `signed` = (algorithm identifier, signature, message) once per object and key. As `verify_signed`."""
        key = (signed_sha256, spki_sha256, unsafe_legacy)
        if key in self._good:
            return
        verify_signed(spki_der, *signed, unsafe_legacy=unsafe_legacy)
        if len(self._good) >= self._size:
            for old in list(self._good)[: self._size // 8]:
                self._good.pop(old, None)
        self._good[key] = None
