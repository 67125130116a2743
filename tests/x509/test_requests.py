"""A request gives its key: everything else in it is left out or refused."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from tests.x509 import chains
from tests.x509.hierarchy import sign
from vagus.errors import LimitExceeded, Malformed, NotTrusted, PolicyRefusal, VagusError
from vagus.reasons import Reason
from vagus.wire.cms import encode_certs_only
from vagus.x509 import der
from vagus.x509.algorithms import ECDSA_SHA256, SIGNATURE_ALGORITHMS, SignatureAlgorithm
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.requests import CertificateRequest, decode_request

SUBJECT = encode_subject(SubjectFields("Evil Corp", None, "pump-1"))


def request(
    *attributes: bytes,
    version: bytes = der.integer(0),
    subject: bytes = SUBJECT,
    spki: bytes | None = None,
    algorithm: SignatureAlgorithm = ECDSA_SHA256,
    message: bytes | None = None,
) -> bytes:
    """A request assembled by hand, signed by the P-256 key."""
    key = chains.key("p256")
    body = der.sequence(version, subject, spki or chains.spki(key), der.encode_tlv(0xA0, b"".join(attributes)))
    signature = sign(key, ECDSA_SHA256, body if message is None else message)
    return der.sequence(body, algorithm.identifier_der, der.bit_string(signature))


def private_der(form: PrivateFormat) -> bytes:
    return chains.key("p256").private_bytes(Encoding.DER, form, NoEncryption())


def attribute(oid: str, *values: bytes) -> bytes:
    return der.sequence(der.object_identifier(oid), der.set_of(values))


def asking(*extensions: bytes) -> bytes:
    return attribute("1.2.840.113549.1.9.14", der.sequence(*extensions))


def extension(oid: str, value: bytes) -> bytes:
    return der.sequence(der.object_identifier(oid), der.octet_string(value))


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa2048", "rsa4096", "mldsa44", "mldsa65", "mldsa87"])
def test_requests_of_every_kind_of_key_prove_possession(kind: str) -> None:
    key = chains.key(kind)
    digest = None if kind.startswith("mldsa") else hashes.SHA256()
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    decoded = decode_request(made.public_bytes(Encoding.DER))
    assert decoded.public_key.algorithm == kind
    assert decoded.public_key.spki_der == chains.spki(key)


def test_a_pss_request_proves_possession() -> None:
    key = chains.key("rsa2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    made = builder.sign(key, hashes.SHA256(), rsa_padding=scheme)
    assert decode_request(made.public_bytes(Encoding.DER)).public_key.algorithm == "rsa2048"


ALTERNATIVE_NAME = x509.ObjectIdentifier(chains.HOSTILE_NAMES.oid)


def hostile() -> x509.CertificateSigningRequest:
    """A request that asks for everything."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name.from_rfc4514_string("CN=*.h1.example,O=Root of all,C=CH"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=5), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING]), critical=True)
        .add_extension(x509.UnrecognizedExtension(ALTERNATIVE_NAME, chains.HOSTILE_NAMES.value), critical=True)
    )
    for number in range(10):
        builder = builder.add_attribute(x509.ObjectIdentifier(f"1.3.6.1.4.1.32473.7.{number}"), b"hostile")
    key = chains.key("p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"guess").sign(key, hashes.SHA256())


def test_hostile_names_are_not_taken_and_the_key_is() -> None:
    decoded = decode_request(hostile().public_bytes(Encoding.DER))
    assert decoded.public_key.spki_der == chains.spki(chains.key("p256"))
    assert decoded.alternative_names_der == chains.HOSTILE_NAMES.value


def test_a_nonsense_alternative_name_is_returned_as_it_is() -> None:
    decoded = decode_request(request(asking(extension("2.5.29.17", b"\xff\xff"))))
    assert decoded.alternative_names_der == b"\xff\xff"


def test_the_attributes_may_be_absent() -> None:
    key = chains.key("p256")
    body = der.sequence(der.integer(0), SUBJECT, chains.spki(key))
    made = der.sequence(body, ECDSA_SHA256.identifier_der, der.bit_string(sign(key, ECDSA_SHA256, body)))
    assert decode_request(made).subject_der == SUBJECT


MANY = [attribute(f"1.2.3.{number}", der.NULL_DER) for number in range(33)]


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (request(spki=chains.spki(chains.key("p256", 1))), NotTrusted, Reason.POP_FAILED),  # signed by another key
        (request(message=b"something else"), NotTrusted, Reason.POP_FAILED),  # changed after signing
        (request(version=der.integer(1)), Malformed, Reason.BAD_VERSION),
        (bytes(1_000_000), LimitExceeded, Reason.TOO_LARGE),
        (request(*MANY), LimitExceeded, Reason.TOO_MANY),
    ],
    ids=["other-key", "changed", "version", "oversized", "attributes"],
)
def test_a_request_with_a_fault_is_refused(content: bytes, kind: type[VagusError], reason: Reason) -> None:
    assert reason_of(decode_request, content, error=kind) is reason


def test_a_request_signed_with_sha1_or_another_algorithm_is_refused() -> None:
    sha1 = SignatureAlgorithm(
        "ecdsa-sha1", "1.2.840.10045.4.1", der.sequence(der.object_identifier("1.2.840.10045.4.1")), "sha1"
    )
    rsa_sha256 = der.sequence(der.object_identifier("1.2.840.113549.1.1.11"), der.NULL_DER)
    for algorithm in (sha1, SignatureAlgorithm("rsa", "", rsa_sha256, "sha256")):
        assert reason_of(decode_request, request(algorithm=algorithm), error=NotTrusted) is Reason.POP_FAILED


def _with_parameters(oid: str, parameters: bytes = der.NULL_DER) -> SignatureAlgorithm:
    return SignatureAlgorithm("", oid, der.sequence(der.object_identifier(oid), parameters), None)


@pytest.mark.parametrize("kind", ["p256", "p384", "p521"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_null_after_ecdsa_in_a_request_changes_nothing(kind: str, digest: str) -> None:
    """As Mbed TLS 2.x writes it, although RFC 5758 3.2 has it left out."""
    key, algorithm = chains.key(kind), SIGNATURE_ALGORITHMS[f"ecdsa-{digest}"]
    body = der.sequence(der.integer(0), SUBJECT, chains.spki(key), der.encode_tlv(0xA0, b""))
    for identifier in (_with_parameters(algorithm.oid).identifier_der, algorithm.identifier_der):
        made = der.sequence(body, identifier, der.bit_string(sign(key, algorithm, body)))
        assert decode_request(made).public_key.spki_der == chains.spki(key)


def test_null_does_not_stand_for_a_signature() -> None:
    null = _with_parameters(ECDSA_SHA256.oid)
    assert reason_of(decode_request, request(algorithm=null, message=b"other"), error=NotTrusted) is Reason.POP_FAILED


@pytest.mark.parametrize(
    ("oid", "parameters", "said"),
    [
        ("1.3.101.112", der.NULL_DER, "NULL; leave the parameters out"),
        ("2.16.840.1.101.3.4.3.18", der.NULL_DER, "NULL; leave the parameters out"),
        (ECDSA_SHA256.oid, der.object_identifier("1.2.840.10045.3.1.7"), "other than its RFC's; leave the parameters"),
        (ECDSA_SHA256.oid, der.NULL_DER * 2, "other than its RFC's; leave the parameters out"),
        ("1.2.840.113549.1.1.11", der.sequence(), "other than its RFC's; write those of RFC 4055"),
        ("1.2.840.10045.4.1", der.NULL_DER, "1.2.840.10045.4.1; sign with SHA-256 or better"),
    ],
)
def test_other_parameters_are_refused_by_their_name(oid: str, parameters: bytes, said: str) -> None:
    with refuses(Reason.POP_FAILED, NotTrusted) as refused:
        decode_request(request(algorithm=_with_parameters(oid, parameters)))
    assert said in refused.value.message


def test_a_weak_key_is_refused_before_its_signature_is_checked() -> None:
    weak = der.sequence(
        der.sequence(der.object_identifier("1.2.840.10045.2.1"), der.object_identifier("1.3.132.0.33")),
        der.bit_string(b"\x04" + bytes(56)),
    )
    assert reason_of(decode_request, request(spki=weak), error=PolicyRefusal) is Reason.WEAK_KEY


@pytest.mark.parametrize(
    "attributes",
    [
        (der.integer(1),),
        (der.sequence(der.integer(1)),),
        (asking(der.integer(1)),),
        (asking(der.sequence(der.object_identifier("2.5.29.17"))),),
        (attribute("1.2.840.113549.1.9.14", der.integer(1)),),
    ],
)
def test_attributes_of_another_shape_are_refused(attributes: tuple[bytes, ...]) -> None:
    assert reason_of(decode_request, request(*attributes), error=Malformed) in {Reason.BAD_ENCODING, Reason.NON_DER}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x00",
        b"-----BEGIN CERTIFICATE REQUEST-----",
        base64.b64encode(request()),
        request()[:-1],
        request() + b"\x00",
        der.sequence(),
        der.sequence(der.sequence(), der.sequence(), der.bit_string(b"")),
        der.sequence(der.sequence(), ECDSA_SHA256.identifier_der, der.bit_string(b"", 1)),
    ],
)
def test_what_is_no_request_is_malformed(data: bytes) -> None:
    assert reason_of(decode_request, data, error=Malformed) in {Reason.NON_DER, Reason.BAD_ENCODING}


def test_non_shortest_lengths_are_refused() -> None:
    good = request()
    assert good[1] == 0x81
    padded = bytes((0x30, 0x82, 0x00, good[2])) + good[3:]
    assert reason_of(decode_request, padded, error=Malformed) is Reason.NON_DER


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_our_errors(data: bytes) -> None:
    with pytest.raises(VagusError):
        decode_request(data)


GOOD = request(asking(extension("2.5.29.17", der.sequence(der.implicit(2, b"pump")))), attribute("1.2.3", der.NULL_DER))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (chains.root().der, "a certificate"),
        (encode_certs_only([chains.root().der]), "CMS or PKCS#7"),
        (private_der(PrivateFormat.PKCS8), "a private key, which must not leave its device"),
        (private_der(PrivateFormat.TraditionalOpenSSL), "a private key, which must not leave its device"),
        (chains.spki(chains.key("p256")), "a public key alone"),
        (der.sequence(der.integer(1)), "no CertificationRequest"),
    ],
    ids=["certificate", "PKCS#7", "PKCS#8", "traditional", "public key", "nothing known"],
)
def test_what_was_sent_in_place_of_a_request_is_named(data: bytes, said: str) -> None:
    assert reason_of(decode_request, data, error=Malformed, match=said) is Reason.BAD_ENCODING


WHOLE = decode_request(GOOD)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300)
def test_no_changed_byte_passes_as_the_signed_request(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    try:
        decoded: CertificateRequest = decode_request(bytes(data))
    except VagusError:
        return
    # only the randomness of the signature may differ, never what was signed
    assert (decoded.public_key, decoded.subject_der) == (WHOLE.public_key, WHOLE.subject_der)


@given(st.binary(max_size=60))
@settings(max_examples=150)
def test_signed_nonsense_raises_only_our_errors(nonsense: bytes) -> None:
    try:
        decode_request(request(nonsense, subject=der.sequence(nonsense)))
        decode_request(request(asking(extension("2.5.29.17", nonsense))))
    except VagusError:
        pass
