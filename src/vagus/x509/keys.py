"""Decodes public keys, checks their strength (ROCA, Fermat) and verifies signatures by them; holds no private key."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from vagus.errors import Malformed, NotTrusted, PolicyRefusal
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.algorithms import KeyAlgorithm, SignatureAlgorithm, explain_refusal, find_signature_algorithm
from vagus.x509.signatures import CURVES, RAW_KEYS, bind, check_point, decode_scheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

LARGEST_KEY = 4096  # limit in bytes of a SubjectPublicKeyInfo: ML-DSA-87 needs 2,614, RSA-4096 550
_EC_PUBLIC_KEY = "1.2.840.10045.2.1"
_RSA_ENCRYPTION = "1.2.840.113549.1.1.1"

# Named curves under 256 bits (SEC 2, ANSI X9.62, RFC 5639), refused by name so that the message can say why.
_SMALL_CURVES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "1.3.132.0.6": ("secp112r1", 112),
        "1.3.132.0.7": ("secp112r2", 112),
        "1.3.132.0.28": ("secp128r1", 128),
        "1.3.132.0.29": ("secp128r2", 128),
        "1.3.132.0.9": ("secp160k1", 160),
        "1.3.132.0.8": ("secp160r1", 160),
        "1.3.132.0.30": ("secp160r2", 160),
        "1.3.132.0.31": ("secp192k1", 192),
        "1.2.840.10045.3.1.1": ("P-192", 192),
        "1.2.840.10045.3.1.2": ("prime192v2", 192),
        "1.2.840.10045.3.1.3": ("prime192v3", 192),
        "1.3.132.0.32": ("secp224k1", 224),
        "1.3.132.0.33": ("P-224", 224),
        "1.2.840.10045.3.1.4": ("prime239v1", 239),
        "1.2.840.10045.3.1.5": ("prime239v2", 239),
        "1.2.840.10045.3.1.6": ("prime239v3", 239),
        "1.3.132.0.4": ("sect113r1", 113),
        "1.3.132.0.5": ("sect113r2", 113),
        "1.3.132.0.22": ("sect131r1", 131),
        "1.3.132.0.23": ("sect131r2", 131),
        "1.3.132.0.1": ("sect163k1", 163),
        "1.3.132.0.2": ("sect163r1", 163),
        "1.3.132.0.15": ("sect163r2", 163),
        "1.3.132.0.24": ("sect193r1", 193),
        "1.3.132.0.25": ("sect193r2", 193),
        "1.3.132.0.26": ("sect233k1", 233),
        "1.3.132.0.27": ("sect233r1", 233),
        "1.3.132.0.3": ("sect239k1", 239),
        "1.3.36.3.3.2.8.1.1.1": ("brainpoolP160r1", 160),
        "1.3.36.3.3.2.8.1.1.3": ("brainpoolP192r1", 192),
        "1.3.36.3.3.2.8.1.1.5": ("brainpoolP224r1", 224),
    }
)
_SMALLEST_CURVE = 256

_RSA_SIZES = MappingProxyType({2048: KeyAlgorithm.RSA2048, 3072: KeyAlgorithm.RSA3072, 4096: KeyAlgorithm.RSA4096})
_RSA_ALGORITHMS = frozenset(_RSA_SIZES.values())
_SMALLEST_RSA = 2048
_SMALLEST_EXPONENT = 65537  # FIPS 186-5 A.1.1: an RSA exponent is odd, and 2^16 < e < 2^256
_LARGEST_EXPONENT_BITS = 256

# Every P-256 key starts with these bytes and differs only in the 64 after them, so only those are checked.
_P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_P256_LENGTH = 91


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that decoded strictly, in its one allowed encoding, so that its hash names it."""

    spki_der: bytes
    spki_sha256: bytes
    algorithm: KeyAlgorithm


def decode_public_key(spki_der: bytes) -> PublicKey:
    """A DER SubjectPublicKeyInfo (RFC 5280 4.1.2.7) of a kind that Vagus knows.

    Raises Malformed(NON_DER, BAD_ENCODING or EC_PARAMS) for what does not decode, and PolicyRefusal(WEAK_KEY or
    UNSUPPORTED_ALGORITHM) for a readable key that no profile may use: small curves, RSA under 2048 bits, DSA.
    """
    return open_public_key(spki_der)[0]


def open_public_key(spki_der: bytes) -> tuple[PublicKey, PublicKeyTypes]:
    """As `decode_public_key`, and the library's key, for callers that verify with it at once."""
    if len(spki_der) > LARGEST_KEY:
        msg = f"public key has {len(spki_der)} bytes, more than the {LARGEST_KEY} allowed; use P-256"
        raise Malformed(Reason.TOO_LARGE, msg, octets=len(spki_der))
    algorithm = read_key_algorithm(spki_der)
    try:
        key = load_der_public_key(spki_der)
    except (ValueError, UnsupportedAlgorithm) as fault:  # the key has a point off its curve, or a modulus of zero
        msg = f"the public key of kind {algorithm} is not valid ({fault}); make a new key pair"
        raise Malformed(Reason.BAD_ENCODING, msg, algorithm=algorithm) from fault
    return PublicKey(bytes(spki_der), hashlib.sha256(spki_der).digest(), algorithm), key


def read_key_algorithm(spki_der: bytes) -> KeyAlgorithm:
    """Which kind of key it is, its encoding checked byte by byte. Whether a point lies on its curve is not checked.

    Raises as `decode_public_key` does.
    """
    if len(spki_der) == _P256_LENGTH and spki_der.startswith(_P256_PREFIX):
        return KeyAlgorithm.P256
    parts = der.split_elements(der.content_of(spki_der, der.SEQUENCE))
    if [tag for tag, _, _ in parts] != [der.SEQUENCE, der.BIT_STRING]:
        msg = "a SubjectPublicKeyInfo is not an AlgorithmIdentifier and a BIT STRING (RFC 5280 4.1.2.7); send it so"
        raise Malformed(Reason.BAD_ENCODING, msg)
    identifier = der.split_elements(parts[0][1])
    bits = parts[1][1]
    if not identifier or identifier[0][0] != der.OBJECT_IDENTIFIER or len(identifier) > 2 or bits[:1] != b"\x00":
        msg = "the public key's AlgorithmIdentifier or BIT STRING breaks RFC 5280 4.1.1.2; make a new key pair"
        raise Malformed(Reason.BAD_ENCODING, msg)
    oid = der.decode_object_identifier(identifier[0][1])
    parameters = identifier[1] if len(identifier) == 2 else None
    if oid == _EC_PUBLIC_KEY:
        return _read_curve(parameters, bits[1:])
    if oid == _RSA_ENCRYPTION:
        return _read_rsa_size(parameters, bits[1:])
    if identifier[0][1] in RAW_KEYS:  # raw keys have no algorithm parameters (RFC 8410 3, RFC 9881 4)
        name, size = RAW_KEYS[identifier[0][1]]
        algorithm = KeyAlgorithm(name)
        if parameters is not None or len(bits) != 1 + size:
            msg = f"{algorithm} key must have no parameters and {size} bytes, got {len(bits) - 1}; make a new key pair"
            raise Malformed(Reason.BAD_ENCODING, msg, algorithm=algorithm)
        return algorithm
    msg = f"public key algorithm {oid} is not known here; use P-256, P-384, RSA-3072 or ML-DSA"
    raise PolicyRefusal(Reason.UNSUPPORTED_ALGORITHM, msg, algorithm=oid)


def _read_curve(parameters: tuple[int, bytes, bytes] | None, point: bytes) -> KeyAlgorithm:
    """RFC 5480 2.1.1: namedCurve only. Explicit parameters let a forger choose the generator (CVE-2020-0601)."""
    if parameters is None or parameters[0] != der.OBJECT_IDENTIFIER:
        msg = "EC key names no curve (explicit or inherited parameters, RFC 5480 2.1.1); use the named curve P-256"
        raise Malformed(Reason.EC_PARAMS, msg)
    oid = der.decode_object_identifier(parameters[1])
    if oid in _SMALL_CURVES:
        name, bits = _SMALL_CURVES[oid]
        msg = f"curve {name} has {bits} bits, fewer than the {_SMALLEST_CURVE} required; make a P-256 key"
        raise PolicyRefusal(Reason.WEAK_KEY, msg, curve=name, bits=bits)
    if parameters[1] not in CURVES:
        msg = f"elliptic curve {oid} is not known here; use P-256, P-384 or P-521"
        raise PolicyRefusal(Reason.UNSUPPORTED_ALGORITHM, msg, curve=oid)
    name, bits = CURVES[parameters[1]]
    check_point(name, bits, point)
    return KeyAlgorithm(name)


def _read_rsa_size(parameters: tuple[int, bytes, bytes] | None, content: bytes) -> KeyAlgorithm:
    """RFC 3279 2.3.1: parameters NULL, modulus and exponent as positive INTEGERs."""
    if parameters is None or parameters[2] != der.NULL_DER:
        msg = "RSA key's parameters must be NULL (RFC 3279 2.3.1); make a new key pair"
        raise Malformed(Reason.BAD_ENCODING, msg)
    modulus, exponent = _read_rsa(content)
    bits = modulus.bit_length()
    if bits < _SMALLEST_RSA:
        msg = f"RSA modulus has {bits} bits, fewer than the {_SMALLEST_RSA} required; make a P-256 or RSA-3072 key"
        raise PolicyRefusal(Reason.WEAK_KEY, msg, bits=bits)
    if bits not in _RSA_SIZES:
        msg = f"RSA modulus has {bits} bits; allowed are 2048, 3072 and 4096; make a P-256 or RSA-3072 key"
        raise PolicyRefusal(Reason.UNSUPPORTED_ALGORITHM, msg, bits=bits)
    if modulus % 2 == 0:
        raise PolicyRefusal(Reason.WEAK_KEY, "RSA modulus is even, so it is factored; make a new key pair", bits=bits)
    if exponent % 2 == 0 or exponent < _SMALLEST_EXPONENT or exponent.bit_length() > _LARGEST_EXPONENT_BITS:
        shown = str(exponent) if exponent.bit_length() <= 64 else f"of {exponent.bit_length()} bits"
        msg = f"RSA exponent {shown} is not odd from 65537 to 2^256 (FIPS 186-5 A.1.1); make a new key with 65537"
        raise PolicyRefusal(Reason.WEAK_KEY, msg, bits=bits)
    return _RSA_SIZES[bits]


def _read_rsa(content: bytes) -> tuple[int, int]:
    numbers = der.split_elements(der.content_of(content, der.SEQUENCE))
    if [tag for tag, _, _ in numbers] != [der.INTEGER, der.INTEGER]:
        raise Malformed(Reason.BAD_ENCODING, "RSA key is not a modulus and an exponent; make a new key pair")
    for _, number, whole in numbers:
        if not number or number[0] & 0x80 or der.integer(int.from_bytes(number, "big")) != whole:
            raise Malformed(Reason.NON_DER, "RSA modulus or exponent is negative or padded; make a new key pair")
    return int.from_bytes(numbers[0][1], "big"), int.from_bytes(numbers[1][1], "big")


# --- the strength of public keys ------------------------------------------------------------------------------------

_SMALL_PRIMES = tuple(n for n in range(3, 752, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2)))
_PRIMORIAL = math.prod(_SMALL_PRIMES)
_FERMAT_ROUNDS = 100  # CA/Browser Forum BR 6.1.1.3 asks for 100 rounds of Fermat's factorisation


def _roca_markers() -> tuple[tuple[int, frozenset[int]], ...]:
    """For each prime p up to 167, the powers of 65537 modulo p, where they do not fill the whole group."""
    found: list[tuple[int, frozenset[int]]] = []
    for prime in _SMALL_PRIMES:
        if prime > 167:
            break
        powers, value = set[int](), 1
        while value not in powers:
            powers.add(value)
            value = value * 65537 % prime
        if len(powers) < prime - 1:
            found.append((prime, frozenset(powers)))
    return tuple(found)


_ROCA = _roca_markers()


def check_key_strength(key: PublicKey, allowed: frozenset[KeyAlgorithm]) -> None:
    """Whether a profile that allows `allowed` may certify this key.

    Raises PolicyRefusal(UNSUPPORTED_ALGORITHM) for another algorithm and PolicyRefusal(WEAK_KEY) for an RSA modulus
    with a small factor, factors too close to each other (Fermat) or the mark of CVE-2017-15361 (ROCA).
    """
    if key.algorithm not in allowed:
        names = ", ".join(sorted(allowed))
        msg = f"key algorithm {key.algorithm} is not allowed by the profile, which allows {names}; make such a key"
        raise PolicyRefusal(Reason.UNSUPPORTED_ALGORITHM, msg, algorithm=key.algorithm)
    if key.algorithm not in _RSA_ALGORITHMS:
        return  # EC and ML-DSA keys that decode have no weak values to search for
    outer = der.split_elements(der.content_of(key.spki_der, der.SEQUENCE))
    modulus, _ = _read_rsa(outer[1][1][1:])
    _check_modulus(modulus)


def _check_modulus(modulus: int) -> None:
    # 1. The RSA modulus has no small prime factor (SP 800-89 5.3.3).
    if math.gcd(modulus, _PRIMORIAL) != 1:
        raise _weak("has a factor below 752")
    # 2. The RSA modulus has no ROCA fingerprint (CVE-2017-15361): primes of the form k*M + (65537^a mod M) leave it in
    # every small residue.
    if all(modulus % prime in powers for prime, powers in _ROCA):
        raise _weak("has the ROCA fingerprint (CVE-2017-15361): a faulty chip made it")
    # 3. Fermat's method does not factor the RSA modulus: it finds primes that lie close together.
    middle = math.isqrt(modulus)
    middle += middle * middle < modulus
    for _ in range(_FERMAT_ROUNDS):
        rest = middle * middle - modulus
        root = math.isqrt(rest)
        if root * root == rest:
            raise _weak(f"is factored by Fermat's method within {_FERMAT_ROUNDS} steps: its primes lie too close")
        middle += 1


def _weak(why: str) -> PolicyRefusal:
    return PolicyRefusal(Reason.WEAK_KEY, f"RSA modulus {why}; make a new key pair with another library or device")


# --- key identifiers and signatures ---------------------------------------------------------------------------------


@lru_cache(maxsize=256)  # the template and the lints ask for the same key
def key_identifier(spki_der: bytes) -> bytes:
    """SHA-1 of the key's BIT STRING content: the key identifier of RFC 5280 4.2.1.2 method 1, the KeyHash of RFC 6960.

    It names the key and protects nothing. Raises Malformed(NON_DER).
    """
    return hashlib.sha1(key_bytes(spki_der), usedforsecurity=False).digest()


def key_bytes(spki_der: bytes) -> bytes:
    """The bytes of subjectPublicKey without its unused-bits byte, over which keys are hashed (RFC 6960 4.1.1).

    Raises Malformed(NON_DER).
    """
    start, end = der.read_whole(spki_der, der.SEQUENCE, "subjectPublicKeyInfo")
    _, algorithm_end = der.read_expected(spki_der, start, end, der.SEQUENCE, "algorithm of the key")
    bits_start, bits_end = der.read_expected(spki_der, algorithm_end, end, der.BIT_STRING, "subjectPublicKey")
    return der.whole_bytes(spki_der, bits_start, bits_end, "subjectPublicKey")


_cached_key = lru_cache(maxsize=4096)(open_public_key)


def verify_signature(spki_der: bytes, algorithm_identifier_der: bytes, signature: bytes, message: bytes) -> None:
    """That `signature` over `message` was made by the private half of `spki_der`, with the algorithm it names.

    Keys seen before are not decoded again. Raises NotTrusted(BAD_SIGNATURE or UNSUPPORTED_ALGORITHM), and what
    `decode_public_key` raises.
    """
    algorithm = find_signature_algorithm(algorithm_identifier_der)
    if algorithm is None:
        msg = f"the signature is not accepted: {explain_refusal(algorithm_identifier_der)}"
        raise NotTrusted(Reason.UNSUPPORTED_ALGORITHM, msg)
    check_signature(_cached_key(bytes(spki_der))[1], algorithm, signature, message)


def check_signature(key: PublicKeyTypes, algorithm: SignatureAlgorithm, signature: bytes, message: bytes) -> None:
    """One verification with a key that is already open. Raises NotTrusted(BAD_SIGNATURE or SIG_ALG_MISMATCH)."""
    verify = bind(key, decode_scheme(algorithm.identifier_der))
    if verify is None:
        msg = f"a key of type {type(key).__name__} cannot make a signature of kind {algorithm.name}"
        raise NotTrusted(Reason.SIG_ALG_MISMATCH, msg, algorithm=algorithm.name)
    try:
        verify(signature, message)
    except InvalidSignature as fault:
        msg = f"the {algorithm.name} signature does not verify with this key"
        raise NotTrusted(Reason.BAD_SIGNATURE, msg, algorithm=algorithm.name) from fault
