"""Signature algorithms are known by their whole identifier, parameters included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulator.refusals import refuses
from tests.x509 import chains
from tests.x509.hierarchy import sign
from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509 import algorithms, der
from vagus.x509.algorithms import RSA_PSS_SHA256, RSA_SHA256, SIGNATURE_ALGORITHMS, find_signature_algorithm
from vagus.x509.keys import verify_signature


def test_every_algorithm_is_found_by_its_identifier() -> None:
    for algorithm in SIGNATURE_ALGORITHMS.values():
        assert find_signature_algorithm(algorithm.identifier_der) is algorithm


def test_every_key_has_a_default_algorithm() -> None:
    for key in algorithms.KeyAlgorithm:
        assert algorithms.default_signature_algorithm(key).name in SIGNATURE_ALGORITHMS
    assert algorithms.default_signature_algorithm(algorithms.KeyAlgorithm.P384).hash_name == "sha384"


@pytest.mark.parametrize(
    "identifier",
    [
        der.sequence(der.object_identifier("1.2.840.113549.1.1.5"), der.NULL_DER),  # sha1WithRSAEncryption
        der.sequence(der.object_identifier("1.2.840.10045.4.1")),  # ecdsa-with-SHA1
        der.sequence(der.object_identifier("1.2.840.10045.4.3.2"), der.NULL_DER),  # RFC 5758 3.2: parameters absent
        der.sequence(der.object_identifier("1.2.840.113549.1.1.10")),  # PSS by default means SHA-1
        RSA_SHA256.identifier_der[:-2],
        der.sequence(der.object_identifier(RSA_SHA256.oid), der.sequence()),
        b"",
    ],
)
def test_what_we_do_not_verify_is_not_found(identifier: bytes) -> None:
    assert find_signature_algorithm(identifier) is None
    with refuses(Reason.UNSUPPORTED_ALGORITHM, NotTrusted):
        verify_signature(chains.spki(chains.key("p256")), identifier, b"signature", b"message")


def test_pkcs1_is_known_with_parameters_null_and_absent() -> None:
    assert find_signature_algorithm(der.sequence(der.object_identifier(RSA_SHA256.oid))) is RSA_SHA256


def test_pss_is_known_with_hash_parameters_null_and_absent() -> None:
    null = RSA_PSS_SHA256.identifier_der
    digest = der.sequence(der.object_identifier("2.16.840.1.101.3.4.2.1"))
    absent = der.sequence(
        der.object_identifier("1.2.840.113549.1.1.10"),
        der.sequence(
            der.explicit(0, digest),
            der.explicit(1, der.sequence(der.object_identifier("1.2.840.113549.1.1.8"), digest)),
            der.explicit(2, der.integer(32)),
        ),
    )
    assert null != absent
    assert find_signature_algorithm(absent) is RSA_PSS_SHA256


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in ("p256", "p384", "p521") for name in SIGNATURE_ALGORITHMS if "ecdsa" in name),
        *(("rsa2048", name) for name in SIGNATURE_ALGORITHMS if "rsa" in name),
        ("mldsa44", "ml-dsa-44"),
        ("mldsa65", "ml-dsa-65"),
        ("mldsa87", "ml-dsa-87"),
    ],
)
def test_signatures_of_every_kind_verify_and_fail_when_one_bit_differs(kind: str, name: str) -> None:
    algorithm, key = SIGNATURE_ALGORITHMS[name], chains.key(kind)
    signature = sign(key, algorithm, b"message")
    verify_signature(chains.spki(key), algorithm.identifier_der, signature, b"message")
    for wrong, message in ((signature, b"massage"), (signature[:-1] + bytes((signature[-1] ^ 1,)), b"message")):
        with refuses(Reason.BAD_SIGNATURE, NotTrusted):
            verify_signature(chains.spki(key), algorithm.identifier_der, wrong, message)


@pytest.mark.parametrize(
    ("file", "name", "count"),
    [
        ("ecdsa_secp256r1_sha256_test.json", "ecdsa-sha256", 484),
        ("ed25519_test.json", "ed25519", 151),
        ("mldsa_44_verify_test.json", "ml-dsa-44", 150),
    ],
)
def test_verdicts_are_those_of_wycheproof(vectors: Path, file: str, name: str, count: int) -> None:
    identifier = SIGNATURE_ALGORITHMS[name].identifier_der
    seen = 0
    for group in json.loads((vectors / "wycheproof" / file).read_text())["testGroups"]:
        if "publicKeyDer" not in group:
            continue  # a key that no SubjectPublicKeyInfo can hold
        for case in group["tests"]:
            if case.get("ctx"):
                continue  # certificates sign with the empty context (RFC 9881 section 3)
            seen += 1
            signature, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
            try:
                verify_signature(bytes.fromhex(group["publicKeyDer"]), identifier, signature, message)
                verdict = "valid"
            except (NotTrusted, Malformed) as refusal:
                is_bad_key = "IncorrectPublicKeyLength" in case["flags"]
                assert refusal.reason is (Reason.BAD_ENCODING if is_bad_key else Reason.BAD_SIGNATURE)
                verdict = "invalid"
            assert verdict == case["result"], (case["tcId"], case["comment"])
    assert seen >= count


def test_a_key_of_another_kind_is_a_mismatch() -> None:
    with refuses(Reason.SIG_ALG_MISMATCH, NotTrusted):
        verify_signature(chains.spki(chains.key("p256")), RSA_SHA256.identifier_der, b"x", b"message")
