"""OCSP requests and responses: what decodes and what does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.simulator.refusals import reason_of
from tests.x509 import chains
from tests.x509.chains import AT, Ext, named, ocsp_id, ocsp_request, ocsp_response, revoked, root, wrap_response
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.ocsp.messages import CertStatus, decode_ocsp_request, decode_ocsp_response

ROOT = root()


LEAF = ROOT.leaf()
ID = ocsp_id(LEAF, ROOT)


refused_request = partial(reason_of, decode_ocsp_request)
refused_response = partial(reason_of, decode_ocsp_response)


@pytest.mark.parametrize("hash_oid", ["1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1"])
def test_a_request_names_its_certificate(hash_oid: str) -> None:
    request = decode_ocsp_request(ocsp_request(ocsp_id(LEAF, ROOT, hash_oid=hash_oid)))
    (asked,) = request.asked
    assert asked.names(LEAF.parsed, ROOT.parsed)
    assert asked.serial == LEAF.parsed.serial
    assert asked.der == ocsp_id(LEAF, ROOT, hash_oid=hash_oid)
    assert not asked.names(ROOT.leaf().parsed, ROOT.parsed)
    assert not asked.names(LEAF.parsed, root().parsed)
    assert not asked.names(LEAF.parsed, root("CN=Other").parsed)
    assert request.nonce is None


def test_a_hash_that_is_not_known_names_nothing() -> None:
    request = decode_ocsp_request(ocsp_request(ocsp_id(LEAF, ROOT, hash_oid="1.2.3.4")))
    assert not request.asked[0].names(LEAF.parsed, ROOT.parsed)


@pytest.mark.parametrize("bare", [False, True])
def test_the_nonce_is_read_in_both_wrappings(bare: bool) -> None:
    value = bytes(range(1, 33))
    request = decode_ocsp_request(ocsp_request(ID, extensions=[chains.nonce(value, bare=bare)]))
    assert request.nonce == value


BASIC, ANOTHER_TYPE = (der.object_identifier(oid) for oid in ("1.3.6.1.5.5.7.48.1.1", "1.2.3.4"))


WITH_DEFAULT_VERSION = der.sequence(der.sequence(der.explicit(0, der.integer(0)), der.sequence(der.sequence(ID))))


def acceptable(*types: bytes, critical: bool = True) -> Ext:
    """The response types that the client understands (RFC 6960 4.4.3)."""
    return Ext("1.3.6.1.5.5.7.48.1.4", der.sequence(*types), critical)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (der.sequence(der.sequence(der.sequence())), Reason.BAD_REQUEST),
        (ocsp_request(*[ID] * 17), Reason.TOO_MANY),
        (ocsp_request(ID, extensions=[chains.nonce(b"")]), Reason.BAD_REQUEST),
        (ocsp_request(ID, extensions=[chains.nonce(bytes(129))]), Reason.BAD_REQUEST),
        (WITH_DEFAULT_VERSION, Reason.BAD_VERSION),
        (der.sequence(der.sequence(der.integer(1))), Reason.NON_DER),
        (ocsp_request(ID, signature=der.NULL_DER), Reason.NON_DER),
        (ocsp_request(ID + der.NULL_DER), Reason.NON_DER),
        (ocsp_request(ID + der.explicit(0, der.NULL_DER)), Reason.NON_DER),
        (ocsp_request(ID + der.explicit(0, der.sequence(der.NULL_DER))), Reason.NON_DER),
        (ocsp_request(ID, extensions=[acceptable(der.NULL_DER)]), Reason.NON_DER),
        (ocsp_request(ID) + b"\0", Reason.NON_DER),
        (ocsp_request(ID[:-1]), Reason.NON_DER),
        (b"", Reason.NON_DER),
        (bytes(16_385), Reason.TOO_LARGE),
    ],
    ids=named,
)
def test_what_is_no_request_is_refused(content: bytes, reason: Reason) -> None:
    assert refused_request(content) is reason


def of_one_certificate(extension: Ext) -> bytes:
    """A request with a singleRequestExtension."""
    return ocsp_request(ID + der.explicit(0, der.sequence(extension.encode())))


@pytest.mark.parametrize("place", [lambda one: ocsp_request(ID, extensions=[one]), of_one_certificate])
def test_a_critical_extension_that_is_not_understood_is_refused(place: Callable[[Ext], bytes]) -> None:
    """RFC 6960 4.1.2; any other that is not known is ignored."""
    locator = Ext("1.3.6.1.5.5.7.48.1.7", der.sequence(ROOT.subject), critical=True)
    for extension in (Ext(chains.UNKNOWN, der.NULL_DER, critical=True), locator, acceptable(ANOTHER_TYPE)):
        assert refused_request(place(extension)) is Reason.UNKNOWN_CRITICAL
    ignored = Ext(chains.UNKNOWN, der.NULL_DER)
    for extension in (ignored, acceptable(ANOTHER_TYPE, BASIC), acceptable(ANOTHER_TYPE, critical=False)):
        assert len(decode_ocsp_request(place(extension)).asked) == 1


def test_a_critical_nonce_is_a_nonce() -> None:
    value = bytes(range(32))
    nonce = Ext("1.3.6.1.5.5.7.48.1.2", der.octet_string(value), critical=True)
    assert decode_ocsp_request(ocsp_request(ID, extensions=[nonce])).nonce == value


def test_a_signed_request_is_read_without_its_signature() -> None:
    signed = ocsp_request(ID, signature=der.explicit(0, der.sequence(b"")))
    assert decode_ocsp_request(signed).asked[0].names(LEAF.parsed, ROOT.parsed)


def test_a_response_is_read() -> None:
    response = decode_ocsp_response(ocsp_response(ROOT, ID, revoked(1), extensions=[chains.nonce(b"n" * 16)]))
    (answer,) = response.singles
    assert answer.status is CertStatus.REVOKED
    assert answer.revocation_reason == 1
    assert answer.revoked_at is not None
    assert response.nonce == b"n" * 16
    assert response.produced_at < AT
    assert response.responder_key_hash is not None
    assert decode_ocsp_response(ocsp_response(ROOT, ID, by_name=True)).responder_name is not None


@pytest.mark.parametrize("status", [1, 2, 3, 5, 6, 9])
def test_every_other_response_status_carries_no_certificate_status(status: int) -> None:
    """C32: tryLater and unauthorized are not good."""
    assert refused_response(wrap_response(b"", status)) is Reason.STATUS_UNAVAILABLE


GOOD_RESPONSE = ocsp_response(ROOT, ID)
_OTHER_BYTES = der.explicit(0, der.sequence(der.object_identifier("1.2.3"), der.octet_string(b"")))
OF_ANOTHER_TYPE = der.sequence(der.encode_tlv(0x0A, b"\0"), _OTHER_BYTES)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (ocsp_response(ROOT, ID, extensions=[Ext(chains.UNKNOWN, b"", critical=True)]), Reason.OCSP_INVALID),
        (ocsp_response(ROOT, ID, b"\x83\x00"), Reason.NON_DER),
        (ocsp_response(ROOT, ID, der.implicit(0, b"\0")), Reason.NON_DER),
        (ocsp_response(ROOT, ID, responder=der.explicit(3, b"")), Reason.NON_DER),
        (ocsp_response(ROOT, ID, responder=der.explicit(0, der.integer(0))), Reason.NON_DER),
        (ocsp_response(ROOT, ID, certificates=[ROOT] * 9), Reason.TOO_MANY),
        (GOOD_RESPONSE + b"\0", Reason.NON_DER),
        (GOOD_RESPONSE[:-3], Reason.NON_DER),
        (bytes(300_000), Reason.TOO_LARGE),
        (OF_ANOTHER_TYPE, Reason.OCSP_INVALID),
    ],
    ids=named,
)
def test_what_is_no_response_is_refused(content: bytes, reason: Reason) -> None:
    assert refused_response(content) is reason
