"""A question that was decoded once is known by all but its nonce, and never taken for another one."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from vagus.authority.ocsp.requests import RequestDecoder
from vagus.errors import VagusError
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.der import oid_contents
from vagus.x509.ocsp.building import NONCE
from vagus.x509.ocsp.messages import CertId, decode_ocsp_request

NONCES = st.sampled_from([1, 16, 31, 32, 33, 128]).flatmap(lambda size: st.binary(min_size=size, max_size=size))


def question(nonce: bytes | None, serial: int = 7) -> bytes:
    """As another library writes it."""
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(b"n" * 20, b"k" * 20, serial, hashes.SHA1())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def bare(value: bytes, after: bytes = b"") -> bytes:
    """A nonce as clients before RFC 8954 write it, its bytes directly in extnValue; `after` is another extension."""
    identifier = der.content_of(question(None), der.SEQUENCE)
    asked = der.content_of(identifier, der.SEQUENCE)
    nonce = der.sequence(der.object_identifier(NONCE), der.octet_string(value))
    return der.sequence(der.sequence(asked, der.explicit(2, der.sequence(nonce, after))))


def decoded(request_der: bytes) -> tuple[tuple[CertId, ...], bytes | None] | Reason:
    try:
        request = decode_ocsp_request(request_der)
    except VagusError as error:
        return error.reason
    nonce = request.extensions.get(oid_contents(NONCE))
    return request.asked, None if nonce is None else nonce.value


def recalled(memory: RequestDecoder, request_der: bytes) -> tuple[tuple[CertId, ...], bytes | None] | Reason:
    try:
        return memory.decode(request_der)
    except VagusError as error:
        return error.reason


def test_another_nonce_is_found_without_decoding_again() -> None:
    memory = RequestDecoder()
    first, _ = memory.decode(question(b"a" * 32))
    again, nonce = memory.decode(question(b"b" * 32))
    assert again is first
    assert nonce == der.octet_string(b"b" * 32)
    assert len(memory) == 1


@pytest.mark.parametrize("request_der", [question(None), question(b"n" * 128), question(b"n" * 33), bare(b"n" * 32)])
def test_other_forms_are_decoded_each_time(request_der: bytes) -> None:
    memory = RequestDecoder()
    memory.decode(request_der)
    assert len(memory) == 0


def test_bytes_after_the_nonce_are_no_part_of_it() -> None:
    memory = RequestDecoder()
    other = der.sequence(der.object_identifier("1.3.6.1.5.5.7.48.1.4"), der.octet_string(b"\x04\x20" + b"x" * 32))
    request_der = bare(b"\x04\x10" + b"n" * 16, other)
    assert memory.decode(request_der) == decoded(request_der)
    assert len(memory) == 0


@given(first=NONCES, second=NONCES, serial=st.integers(1, 3), at=st.integers(0, 140), octet=st.integers(0, 255))
def test_it_gives_what_decoding_gives(first: bytes, second: bytes, serial: int, at: int, octet: int) -> None:
    memory = RequestDecoder()
    mangled = bytearray(question(second, serial))
    mangled[min(at, len(mangled) - 1)] = octet
    for one in (question(first), question(second), question(second, serial), bytes(mangled), bytes(mangled[:at])):
        assert recalled(memory, one) == decoded(one)
        assert recalled(memory, one) == decoded(one)


@given(values=st.lists(st.binary(min_size=30, max_size=34), max_size=4), inner=NONCES)
def test_bare_nonces_that_look_like_wrapped_ones_are_not_confused(values: list[bytes], inner: bytes) -> None:
    memory = RequestDecoder()
    for value in (*values, der.octet_string(inner), b"\x04\x1e" + bytes(30), b"\x04\x20" + bytes(30)):
        assert recalled(memory, bare(value)) == decoded(bare(value))


def test_what_is_remembered_has_a_bound() -> None:
    memory = RequestDecoder(most_remembered=3)
    for serial in range(1, 10):
        memory.decode(question(b"n" * 32, serial))
        assert len(memory) <= 3
    asked, _ = memory.decode(question(b"n" * 16, 9))
    assert asked[0].serial == 9
