"""Keys decode in one spelling only, and weak ones are refused with the reason."""

from __future__ import annotations

import hashlib
import math
import random

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import SubjectKeyIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from tests.x509 import chains
from tests.x509.hierarchy import public_key
from vagus.errors import Malformed, PolicyRefusal, VagusError
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.keys import check_key_strength, decode_public_key, key_identifier, read_key_algorithm

EC_OID = der.object_identifier("1.2.840.10045.2.1")
RSA_OID = der.object_identifier("1.2.840.113549.1.1.1")
P256_OID = der.object_identifier("1.2.840.10045.3.1.7")
EVERY = frozenset(KeyAlgorithm)


def ec_key(parameters: bytes, point: bytes) -> bytes:
    return der.sequence(der.sequence(EC_OID, parameters), der.bit_string(point))


def rsa_key(modulus: int, exponent: int = 65537, parameters: bytes = der.NULL_DER) -> bytes:
    numbers = der.sequence(der.integer(modulus), der.integer(exponent))
    return der.sequence(der.sequence(RSA_OID, parameters), der.bit_string(numbers))


def coprime(bits: int, seed: int) -> int:
    """An odd number of exactly this many bits without small factors (not a prime: nothing here needs one)."""
    source = random.Random(seed)
    while True:
        found = source.getrandbits(bits) | 1 | 3 << (bits - 2)
        if all(found % prime for prime in range(3, 752, 2)):
            return found


@pytest.mark.parametrize(
    "kind", ["p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096", "mldsa44", "mldsa65", "mldsa87"]
)
def test_every_kind_of_key_decodes_to_its_name(kind: str) -> None:
    spki = chains.spki(chains.key(kind))
    key = decode_public_key(spki)
    assert (key.algorithm, key.spki_der, key.spki_sha256) == (kind, spki, hashlib.sha256(spki).digest())
    assert read_key_algorithm(spki) is key.algorithm
    check_key_strength(key, EVERY)


def test_edwards_keys_decode_for_verification_but_a_profile_without_them_refuses() -> None:
    for private in (ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()):
        key = decode_public_key(chains.spki(private))
        with refuses(Reason.UNSUPPORTED_ALGORITHM, PolicyRefusal, match="p256"):
            check_key_strength(key, frozenset({KeyAlgorithm.P256}))


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "mldsa44"])
def test_the_key_identifier_is_the_one_that_the_library_computes(kind: str) -> None:
    private = chains.key(kind)
    assert key_identifier(chains.spki(private)) == SubjectKeyIdentifier.from_public_key(private.public_key()).digest


@pytest.mark.parametrize(
    ("oid", "name", "bits"),
    [
        ("1.3.132.0.6", "secp112r1", 112),
        ("1.3.132.0.28", "secp128r1", 128),
        ("1.3.132.0.8", "secp160r1", 160),
        ("1.2.840.10045.3.1.1", "P-192", 192),
        ("1.3.132.0.33", "P-224", 224),
        ("1.3.36.3.3.2.8.1.1.5", "brainpoolP224r1", 224),
    ],
)
def test_curves_under_256_bits_are_refused_with_the_reason(oid: str, name: str, bits: int) -> None:
    with refuses(Reason.WEAK_KEY, PolicyRefusal) as refusal:
        decode_public_key(ec_key(der.object_identifier(oid), b"\x04" + bytes(2 * ((bits + 7) // 8))))
    assert name in refusal.value.message
    assert f"{bits} bits, fewer than the 256 required" in refusal.value.message
    assert "P-256" in refusal.value.message


@pytest.mark.parametrize(
    "parameters",
    [
        b"",
        der.NULL_DER,  # implicitCurve
        der.sequence(der.integer(1), der.sequence()),  # specifiedCurve, CVE-2020-0601
    ],
)
def test_a_key_that_names_no_curve_is_refused(parameters: bytes) -> None:
    assert reason_of(decode_public_key, ec_key(parameters, b"\x04" + bytes(64)), error=Malformed) is Reason.EC_PARAMS


def test_an_unknown_curve_is_refused() -> None:
    spki = chains.spki(ec.generate_private_key(ec.SECP256K1()))
    assert reason_of(decode_public_key, spki, error=PolicyRefusal) is Reason.UNSUPPORTED_ALGORITHM


def test_compressed_hybrid_and_off_curve_points_are_refused() -> None:
    private = chains.key("p256")
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    full = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    short = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    hybrid = bytes((6 | full[-1] & 1,)) + full[1:]
    off = full[:-1] + bytes((full[-1] ^ 1,))
    for point in (short, hybrid, off, b"\x00", b"", full + b"\x00"):
        assert reason_of(decode_public_key, ec_key(P256_OID, point), error=Malformed) is Reason.BAD_ENCODING


@pytest.mark.parametrize("bits", [512, 1024, 2047])
def test_short_rsa_moduli_are_refused(bits: int) -> None:
    with refuses(Reason.WEAK_KEY, PolicyRefusal, match=f"{bits} bits, fewer than the 2048"):
        decode_public_key(rsa_key(coprime(bits, bits)))


@pytest.mark.parametrize("bits", [2049, 2560, 8192, 16384])
def test_odd_rsa_sizes_are_refused_before_any_work(bits: int) -> None:
    with refuses(Reason.UNSUPPORTED_ALGORITHM, PolicyRefusal):
        decode_public_key(rsa_key(coprime(bits, bits)))


@pytest.mark.parametrize("exponent", [1, 2, 3, 17, 65535, 65536, 65538, (1 << 256) + 1])
def test_bad_rsa_exponents_are_refused(exponent: int) -> None:
    with refuses(Reason.WEAK_KEY, PolicyRefusal, match="exponent"):
        decode_public_key(rsa_key(coprime(2048, 1), exponent))


def test_an_even_modulus_is_refused() -> None:
    assert reason_of(decode_public_key, rsa_key(coprime(2048, 1) - 1), error=PolicyRefusal) is Reason.WEAK_KEY


def refused(modulus: int) -> str:
    key = decode_public_key(rsa_key(modulus))
    with refuses(Reason.WEAK_KEY, PolicyRefusal) as refusal:
        check_key_strength(key, EVERY)
    return refusal.value.message


def test_a_modulus_with_a_small_factor_is_refused() -> None:
    found = coprime(2038, 2) * 751
    assert found.bit_length() == 2048
    assert "factor below 752" in refused(found)


def test_a_modulus_with_the_roca_mark_is_refused() -> None:
    primes = [n for n in range(2, 702) if all(n % d for d in range(2, int(n**0.5) + 1))]
    product = math.prod(primes)  # as the faulty library took it for keys of 2048 bits: 126 primes up to 701
    assert len(primes) == 126

    def factor(seed: int) -> int:
        step = random.Random(seed).getrandbits(54) | 1 << 53
        return step * product + pow(65537, seed, product)

    found = next(
        modulus for seed in range(1000, 4000) if (modulus := factor(seed) * factor(2 * seed)).bit_length() == 2048
    )
    assert "ROCA" in refused(found)


def test_a_modulus_of_two_close_primes_is_refused() -> None:
    first = coprime(1024, 3)
    second = first + 2
    while any(second % prime == 0 for prime in range(3, 752, 2)):
        second += 2
    assert "Fermat" in refused(first * second)
    assert "Fermat" in refused(first * first)


def test_good_rsa_keys_pass() -> None:
    check_key_strength(public_key("rsa2048"), EVERY)


@pytest.mark.parametrize(
    "spki",
    [
        rsa_key(coprime(2048, 1), parameters=b""),
        der.sequence(der.sequence(RSA_OID, der.NULL_DER), der.bit_string(der.sequence(der.integer(5)))),
        der.sequence(der.sequence(RSA_OID, der.NULL_DER), der.bit_string(b"\x30\x07\x02\x02\x00\x05\x02\x01\x03")),
        rsa_key(-5, 3),
        der.sequence(der.sequence(EC_OID, P256_OID), der.bit_string(b"\x04" + bytes(63), 1)),
        der.sequence(der.sequence(der.object_identifier("1.3.101.112"), der.NULL_DER), der.bit_string(bytes(32))),
        der.sequence(der.sequence(der.object_identifier("2.16.840.1.101.3.4.3.17")), der.bit_string(bytes(1311))),
        der.sequence(der.sequence(EC_OID, P256_OID)),
        der.sequence(),
        b"",
        b"\x05\x00",
    ],
)
def test_what_is_not_a_key_in_its_one_spelling_is_malformed(spki: bytes) -> None:
    assert reason_of(decode_public_key, spki, error=Malformed) in {Reason.BAD_ENCODING, Reason.NON_DER}


def test_bytes_after_a_key_are_refused() -> None:
    assert reason_of(decode_public_key, chains.spki(chains.key("p256")) + b"\x00", error=Malformed) is Reason.NON_DER


def test_an_oversized_key_is_refused_unread() -> None:
    assert reason_of(decode_public_key, bytes(5000), error=Malformed) is Reason.TOO_LARGE


def test_keys_that_sign_nothing_here_are_refused_by_name() -> None:
    exchange = x25519.X25519PrivateKey.generate().public_key()
    old = dsa.generate_private_key(1024).public_key()
    for key in (exchange, old):
        with refuses(Reason.UNSUPPORTED_ALGORITHM, PolicyRefusal):
            decode_public_key(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_our_errors(data: bytes) -> None:
    with pytest.raises(VagusError):
        decode_public_key(data)


@given(st.sampled_from(["p256", "p384", "rsa2048", "mldsa44"]), st.data())
@settings(max_examples=200)
def test_a_changed_byte_gives_another_key_or_our_error(kind: str, data: st.DataObject) -> None:
    spki = bytearray(chains.spki(chains.key(kind)))
    place = data.draw(st.integers(0, len(spki) - 1))
    spki[place] ^= data.draw(st.integers(1, 255))
    try:
        key = decode_public_key(bytes(spki))
    except VagusError:
        return
    assert key.spki_sha256 != public_key(kind).spki_sha256
