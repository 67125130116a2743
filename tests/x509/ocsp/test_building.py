"""OCSP answers are built as RFC 6960 has them; a library reads back what went in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import refuses
from tests.x509.chains import name, root, spki
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509.algorithms import ECDSA_SHA256
from vagus.x509.crls.building import RevocationReason
from vagus.x509.der import bit_string, octet_string
from vagus.x509.keys import key_identifier
from vagus.x509.ocsp.building import SingleStatus, build_response_tbs, cert_id, wrap_signed
from vagus.x509.ocsp.messages import decode_ocsp_response

AT = datetime(2027, 3, 1, 12, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = spki(KEY)
NAME = name("CN=CA")
CERTIFICATE = root("CN=CA", private=KEY, serial=1).der
REASONS = [None, *(one for one in RevocationReason if one is not RevocationReason.REMOVE_FROM_CRL)]


def response(answers: list[SingleStatus], nonce: bytes | None = None) -> bytes:
    value = None if nonce is None else octet_string(nonce)
    tbs = build_response_tbs(answers, key_identifier(SPKI), AT, value)
    signature = bit_string(KEY.sign(tbs, ec.ECDSA(hashes.SHA256())))
    return wrap_signed(tbs + ECDSA_SHA256.identifier_der + signature, CERTIFICATE)


def answer(serial: int, hash_name: str, **changes: object) -> SingleStatus:
    fields: dict[str, object] = {
        "cert_id_der": cert_id(NAME, SPKI, serial, hash_name),
        "is_known": True,
        "revoked_at": None,
        "reason": None,
        "this_update": AT,
        "next_update": AT + timedelta(hours=12),
        **changes,
    }
    return SingleStatus(**fields)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    serial=st.integers(1, (1 << 159) - 1),
    hash_name=st.sampled_from(["sha1", "sha256"]),
    reason=st.sampled_from(REASONS),
    is_known=st.booleans(),
    nonce=st.none() | st.binary(min_size=1, max_size=128),
)
def test_what_goes_in_is_what_a_library_reads(
    serial: int, hash_name: str, reason: RevocationReason | None, is_known: bool, nonce: bytes | None
) -> None:
    revoked_at = None if reason is None else AT - timedelta(days=3)
    der = response([answer(serial, hash_name, reason=reason, revoked_at=revoked_at, is_known=is_known)], nonce)
    found = ocsp.load_der_ocsp_response(der)
    assert found.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    KEY.public_key().verify(found.signature, found.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert found.serial_number == serial
    assert found.hash_algorithm.name == hash_name
    assert found.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()).digest
    assert (found.produced_at_utc, found.this_update_utc) == (AT, AT)
    assert found.next_update_utc == AT + timedelta(hours=12)
    if not is_known:
        assert found.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    elif reason is None:
        assert found.certificate_status is ocsp.OCSPCertStatus.GOOD
    else:
        assert found.certificate_status is ocsp.OCSPCertStatus.REVOKED
        assert found.revocation_time_utc == revoked_at
        spelt = None if reason is RevocationReason.UNSPECIFIED else reason.spelling
        assert (found.revocation_reason.value if found.revocation_reason else None) == spelt
    if nonce is not None:
        assert found.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce
    assert [one.public_bytes(Encoding.DER) for one in found.certificates] == [CERTIFICATE]


def test_our_own_decoder_reads_several_statuses_in_order() -> None:
    found = decode_ocsp_response(response([answer(serial, "sha256") for serial in (5, 6, 7)]))
    assert [one.cert_id.serial for one in found.singles] == [5, 6, 7]


def test_the_common_certificate_id_is_what_the_library_makes() -> None:
    certificate = x509.load_der_x509_certificate(CERTIFICATE)
    for hash_name, algorithm in (("sha1", hashes.SHA1()), ("sha256", hashes.SHA256())):
        request = ocsp.OCSPRequestBuilder().add_certificate(certificate, certificate, algorithm).build()
        assert cert_id(NAME, SPKI, 1, hash_name) in request.public_bytes(Encoding.DER)


@pytest.mark.parametrize("nonce", [b"", octet_string(b"n" * 129)])
def test_a_nonce_beyond_rfc_9654_is_refused(nonce: bytes) -> None:
    with refuses(Reason.OCSP_NONCE, Malformed):
        build_response_tbs([answer(1, "sha1")], b"h" * 20, AT, nonce)
