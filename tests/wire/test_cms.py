"""Certs-only CMS: what we write, OpenSSL's parser reads; what is not certs-only DER is refused with its reason."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from tests.x509.chains import root
from vagus.errors import LimitExceeded, Malformed, VagusError
from vagus.reasons import Reason
from vagus.wire import cms
from vagus.x509 import der


@pytest.fixture(scope="module")
def certificates() -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(root(f"CN=certificate {number}").der) for number in range(3)]


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def test_what_we_write_others_read(certificates: list[x509.Certificate]) -> None:
    message = cms.encode_certs_only(_der(one) for one in certificates)
    assert {_der(one) for one in pkcs7.load_der_pkcs7_certificates(message)} == {_der(one) for one in certificates}


def test_what_others_write_we_read(certificates: list[x509.Certificate]) -> None:
    message = pkcs7.serialize_certificates(certificates, Encoding.DER)
    assert set(cms.decode_certs_only(message)) == {_der(one) for one in certificates}


def test_the_encoding_is_der_whatever_the_order(certificates: list[x509.Certificate]) -> None:
    in_order = [_der(one) for one in certificates]
    assert cms.encode_certs_only(in_order) == cms.encode_certs_only(in_order[::-1])


def test_no_certificate_is_an_empty_message() -> None:
    assert cms.decode_certs_only(cms.encode_certs_only([])) == ()


@given(st.lists(st.binary(max_size=300).map(lambda body: der.encode_tlv(0x30, body)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_what_is_encoded_decodes_to_itself(elements: list[bytes]) -> None:
    assert sorted(cms.decode_certs_only(cms.encode_certs_only(elements))) == sorted(elements)


@given(st.binary(max_size=200))
@settings(max_examples=120, deadline=None)
def test_any_bytes_decode_or_are_refused_by_our_own_error(message: bytes) -> None:
    with pytest.raises(VagusError):
        cms.decode_certs_only(message)


@given(st.integers(0, 500), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_a_changed_byte_never_raises_a_foreign_error(at: int, value: int) -> None:
    message = bytearray(cms.encode_certs_only([der.encode_tlv(0x30, b"x" * 40), der.encode_tlv(0x30, b"y" * 140)]))
    message[at % len(message)] = value
    try:
        cms.decode_certs_only(bytes(message))
    except VagusError as error:
        assert error.reason in {Reason.NON_DER, Reason.BAD_ENCODING, Reason.BAD_VERSION, Reason.TOO_MANY}


_NO_CONTENT = der.encode_tlv(0x30, cms._ID_DATA)
_NO_SIGNERS = b"\x31\x00"


def _signed_data(
    *certificates: bytes, version: bytes = b"\x02\x01\x01", content: bytes = _NO_CONTENT, signers: bytes = _NO_SIGNERS
) -> bytes:
    parts = b"".join((version, b"\x31\x00", content, *certificates, signers))
    return der.encode_tlv(0x30, cms._ID_SIGNED_DATA + der.encode_tlv(0xA0, der.encode_tlv(0x30, parts)))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", Reason.NON_DER),
        (b"\x30", Reason.NON_DER),
        (bytes.fromhex("3080" + "06092a864886f70d010702" + "0000"), Reason.NON_DER),  # indefinite length
        (bytes.fromhex("30810b" + "06092a864886f70d010702"), Reason.NON_DER),  # a long form that is too long
        (cms.encode_certs_only([]) + b"\x00", Reason.NON_DER),  # trailing bytes
        (der.encode_tlv(0x30, cms._ID_DATA + der.encode_tlv(0xA0, b"\x04\x00")), Reason.BAD_ENCODING),
        (_signed_data(version=b"\x02\x01\x07"), Reason.BAD_VERSION),
        (_signed_data(signers=b"\x31\x02\x30\x00"), Reason.BAD_ENCODING),
        (_signed_data(content=der.encode_tlv(0x30, cms._ID_DATA + b"\xa0\x02\x04\x00")), Reason.BAD_ENCODING),
        (_signed_data(b"\xa0\x02\xa1\x00"), Reason.BAD_ENCODING),
    ],
)
def test_what_is_not_certs_only_is_refused(message: bytes, reason: Reason) -> None:
    assert reason_of(cms.decode_certs_only, message, error=Malformed) is reason


def test_crls_beside_the_certificates_are_ignored() -> None:
    message = _signed_data(b"\xa0\x02\x30\x00", b"\xa1\x02\x30\x00")
    assert cms.decode_certs_only(message) == (b"\x30\x00",)


def test_limits_on_size_and_count() -> None:
    assert reason_of(cms.decode_certs_only, b"\x30" * (cms.MAX_MESSAGE + 1), error=LimitExceeded) is Reason.TOO_LARGE
    with refuses(Reason.TOO_MANY, LimitExceeded):
        cms.decode_certs_only(cms.encode_certs_only([b"\x30\x00"] * (cms.MAX_CERTIFICATES + 1)))
