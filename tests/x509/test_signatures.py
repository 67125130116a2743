"""Every algorithm that the verifier knows, each parameter of PSS, and everything else refused with its reason."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.simulator.refusals import reason_of, refuses
from tests.x509 import chains
from tests.x509.chains import Made, identifier, make, pss_identifier, root
from tests.x509.rule_sets import PROFILES
from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.keys import decode_public_key
from vagus.x509.signatures import SignatureVerdicts, decode_scheme, key_facts, verify_signed


def verify(made: Made, signer: Made, *, unsafe_legacy: bool = False) -> None:
    parsed = made.parsed
    signed = (parsed.algorithm_der, parsed.signature, parsed.tbs_der)
    verify_signed(chains.spki(signer.private), *signed, unsafe_legacy=unsafe_legacy)


KINDS = ["p256", "p384", "p521", "rsa2048", "ed25519", "ed448", "mldsa44", "mldsa65", "mldsa87"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_signature_verifies_and_a_flipped_bit_does_not(kind: str) -> None:
    made = root(private=chains.key(kind))
    verify(made, made)
    flipped = root(private=chains.key(kind), flip=200)
    assert reason_of(verify, flipped, flipped) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("kind", KINDS)
def test_another_key_of_the_kind_does_not_verify(kind: str) -> None:
    if kind == "rsa2048":
        pytest.skip("one RSA key is enough to make")
    made, other = root(private=chains.key(kind)), root(private=chains.key(kind, 1))
    assert reason_of(verify, made, other) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(("digest", "salt"), [("sha256", 32), ("sha256", 20), ("sha384", 48), ("sha512", 0)])
def test_the_parameters_of_pss_are_honoured(digest: str, salt: int) -> None:
    private = chains.key("rsa2048")
    made = root(private=private, algorithm=pss_identifier(digest, salt), pss=(digest, salt))
    verify(made, made)


def test_pss_with_other_parameters_than_the_signature_has_is_refused() -> None:
    private = chains.key("rsa2048")
    for wrong in (pss_identifier("sha256", 20), pss_identifier("sha384", 32), pss_identifier("sha256", 32, "sha384")):
        made = root(private=private, algorithm=wrong, pss=("sha256", 32))
        assert reason_of(verify, made, made) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "algorithm",
    [
        pss_identifier("sha256", 32, trailer=der.explicit(3, der.integer(2))),
        pss_identifier("sha256", 513),
        identifier("1.2.840.113549.1.1.10", der.sequence(der.explicit(0, identifier("1.2.3")))),
        identifier("1.2.840.113549.1.1.4", der.NULL_DER),
        identifier("1.2.3.4"),
        identifier("1.2.840.10045.4.3.2", der.NULL_DER),
        identifier("1.3.101.112", der.NULL_DER),
        identifier("1.2.840.113549.1.1.11", der.integer(1)),
        identifier("1.2.3", b"\x04\x82\x01\x00" + bytes(256)),
    ],
    ids=["trailer", "salt", "hash", "md5", "unknown", "ecdsa-null", "ed25519-null", "rsa-parameters", "long"],
)
def test_algorithms_and_parameters_that_are_not_verified_are_refused(algorithm: bytes) -> None:
    assert reason_of(decode_scheme, algorithm) is Reason.UNSUPPORTED_ALGORITHM


def test_null_after_an_algorithm_without_parameters_is_named() -> None:
    for oid in ("1.2.840.10045.4.3.2", "1.3.101.112", "2.16.840.1.101.3.4.3.18"):
        with refuses(Reason.UNSUPPORTED_ALGORITHM, NotTrusted, match="parameters NULL"):
            decode_scheme(identifier(oid, der.NULL_DER))


def test_compressed_and_hybrid_points_are_no_keys_here_as_in_requests() -> None:
    key = chains.key("p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    full = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    short = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    curve = identifier("1.2.840.10045.2.1", der.object_identifier("1.2.840.10045.3.1.7"))
    assert key_facts(der.sequence(curve, der.bit_string(full))).name == "p256"
    for point, form in ((short, "compressed"), (bytes((6 | full[-1] & 1,)) + full[1:], "hybrid"), (b"", "empty")):
        spki = der.sequence(curve, der.bit_string(point))
        for read in (key_facts, decode_public_key):
            with refuses(Reason.BAD_ENCODING, Malformed, match=form):
                read(spki)


def test_rsa_parameters_may_be_absent() -> None:
    assert decode_scheme(identifier("1.2.840.113549.1.1.11")).family == "rsa"


def test_sha1_is_verified_by_nothing_but_a_test() -> None:
    made = root(private=chains.key("rsa2048"), digest="sha1")
    assert reason_of(verify, made, made) is Reason.UNSUPPORTED_ALGORITHM
    verify(made, made, unsafe_legacy=True)
    by_default = root(private=chains.key("rsa2048"), algorithm=pss_identifier("sha1", 20), pss=("sha1", 20))
    assert reason_of(verify, by_default, by_default) is Reason.UNSUPPORTED_ALGORITHM
    assert not any(rules.unsafe_legacy or rules.unsafe_small_rsa for rules in PROFILES.values())


def test_a_signature_of_another_family_than_the_key_is_refused() -> None:
    ecdsa = root(private=chains.key("p256"))
    rsa = root(private=chains.key("rsa2048"))
    assert reason_of(verify, ecdsa, rsa) is Reason.SIG_ALG_MISMATCH
    ed = root(private=chains.key("ed25519"))
    assert reason_of(verify, ed, root(private=chains.key("ed448"))) is Reason.SIG_ALG_MISMATCH
    small, large = root(private=chains.key("mldsa44")), root(private=chains.key("mldsa65"))
    assert reason_of(verify, small, large) is Reason.SIG_ALG_MISMATCH


@pytest.mark.parametrize("kind", KINDS)
def test_the_facts_of_a_key_are_read(kind: str) -> None:
    assert key_facts(chains.spki(chains.key(kind))).name == kind


def rsa_key(modulus: int, exponent: int = 65537, parameters: bytes = der.NULL_DER) -> bytes:
    numbers = der.sequence(der.integer(modulus), der.integer(exponent))
    return der.sequence(identifier("1.2.840.113549.1.1.1", parameters), der.bit_string(numbers))


_ODD = (1 << 2047) + 1
_POINT = b"\x04" + bytes(64)


STRANGE_KEYS = {
    "even": (rsa_key(_ODD - 1), Reason.WEAK_KEY),
    "negative": (rsa_key(-_ODD), Reason.WEAK_KEY),
    "e=1": (rsa_key(_ODD, 1), Reason.WEAK_KEY),
    "e=4": (rsa_key(_ODD, 4), Reason.WEAK_KEY),
    "huge": (rsa_key((1 << 16384) + 1), Reason.UNSUPPORTED_ALGORITHM),
    "huge-e": (rsa_key(_ODD, (1 << 80) + 1), Reason.UNSUPPORTED_ALGORITHM),
    "no-null": (rsa_key(_ODD, 3, b""), Reason.NON_DER),
    "p192": (chains.spki(chains.key("p192")), Reason.WEAK_KEY),
    "explicit-curve": (
        der.sequence(identifier("1.2.840.10045.2.1", der.sequence(der.integer(1))), der.bit_string(_POINT)),
        Reason.EC_PARAMS,
    ),
    "implied-curve": (der.sequence(identifier("1.2.840.10045.2.1"), der.bit_string(_POINT)), Reason.EC_PARAMS),
    "short-ed25519": (der.sequence(identifier("1.3.101.112"), der.bit_string(bytes(31))), Reason.BAD_ENCODING),
    "unknown": (der.sequence(identifier("1.2.3"), der.bit_string(b"")), Reason.UNSUPPORTED_ALGORITHM),
    "unused-bits": (der.sequence(identifier("1.3.101.112"), b"\x03\x02\x01\x00"), Reason.NON_DER),
    "long": (der.sequence(identifier("1.2.3"), der.bit_string(bytes(20_000))), Reason.UNSUPPORTED_ALGORITHM),
}


@pytest.mark.parametrize(("spki", "reason"), STRANGE_KEYS.values(), ids=STRANGE_KEYS)
def test_weak_and_strange_keys_are_refused(spki: bytes, reason: Reason) -> None:
    assert reason_of(key_facts, spki) is reason


def test_a_point_off_the_curve_does_not_load() -> None:
    oid = der.object_identifier("1.2.840.10045.3.1.7")
    off = der.sequence(identifier("1.2.840.10045.2.1", oid), der.bit_string(b"\x04" + b"\1" * 64))
    made = root()
    signed = (made.parsed.algorithm_der, made.parsed.signature, made.parsed.tbs_der)
    assert reason_of(verify_signed, off, *signed) is Reason.WEAK_KEY


def test_a_key_bound_to_pss_verifies_pss_and_nothing_else() -> None:
    private = chains.key("rsa2048")
    plain = chains.spki(private)
    bits = plain[plain.index(b"\x03\x82") :]
    bound = der.sequence(identifier("1.2.840.113549.1.1.10"), bits)
    made = make("CN=x", private=private, algorithm=pss_identifier("sha256", 32), pss=("sha256", 32)).parsed
    verify_signed(bound, made.algorithm_der, made.signature, made.tbs_der)
    other = make("CN=x", private=private).parsed
    signed = (other.algorithm_der, other.signature, other.tbs_der)
    assert reason_of(verify_signed, bound, *signed) is Reason.SIG_ALG_MISMATCH


def test_verdicts_remember_successes_only_and_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []

    def count(spki_der: bytes, *signed: bytes, unsafe_legacy: bool) -> None:
        checked.append(spki_der)
        verify_signed(spki_der, *signed, unsafe_legacy=unsafe_legacy)

    monkeypatch.setattr("vagus.x509.signatures.verify_signed", count)
    verdicts = SignatureVerdicts(size=8)
    good, bad = root(private=chains.key("p256")), root(private=chains.key("p256"), flip=100)

    def ask(made: Made) -> int:
        """How many signatures were checked for this question."""
        before, parsed = len(checked), made.parsed
        signed = (parsed.algorithm_der, parsed.signature, parsed.tbs_der)
        verdicts.verify(parsed.sha256, parsed.spki_sha256, parsed.spki_der, signed, unsafe_legacy=False)
        return len(checked) - before

    assert [ask(good), ask(good)] == [1, 0]
    for asked in (2, 3):
        assert reason_of(ask, bad) is Reason.BAD_SIGNATURE
        assert len(checked) == asked
    for _ in range(20):
        ask(root(private=chains.key("p256")))
    assert ask(good) == 1
