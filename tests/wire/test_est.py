"""EST bodies, paths and credentials: every spelling that clients use is read, everything else says what to change."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import LimitExceeded, Malformed, VagusError
from vagus.reasons import Reason
from vagus.wire import est
from vagus.x509.algorithms import KeyAlgorithm

DER = bytes.fromhex("3003020105")


@pytest.mark.parametrize(
    "body",
    [
        base64.b64encode(DER),
        base64.b64encode(DER) + b"\n",
        b"\r\n" + base64.b64encode(DER) + b"\r\n",
        base64.encodebytes(DER),
        DER,
    ],
)
def test_a_body_is_read_in_every_spelling_that_clients_use(body: bytes) -> None:
    assert est.decode_body(body) == DER


@given(st.binary(min_size=1, max_size=400))
@settings(max_examples=80, deadline=None)
def test_what_is_encoded_decodes_to_itself_on_one_line_and_on_several(tail: bytes) -> None:
    der = b"\x30" + tail
    assert b"\n" not in est.encode_body(der)
    assert est.decode_body(est.encode_body(der)) == est.decode_body(base64.encodebytes(der)) == der
    assert est.decode_body(est.encode_lines(der)) == der
    assert {len(line) for line in est.encode_lines(der).split(b"\n")[:-2]} <= {64}


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_body_decodes_or_is_refused_by_our_own_error(body: bytes) -> None:
    try:
        assert est.decode_body(body)
    except VagusError as error:
        assert error.reason is Reason.BAD_ENCODING


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \r\n",
        b"-----BEGIN CERTIFICATE REQUEST-----\nMAMCAQU=\n-----END CERTIFICATE REQUEST-----",
        b"MAMCAQU",  # no padding
        b"MAMCAQV=",  # bits in the padding
        b"MAMC-_U=",  # the URL alphabet
        b"MAMCAQU=MAMCAQU=",
        b"MAMCAQU=\x00",
        b"hello",
    ],
)
def test_a_body_that_is_neither_base64_nor_der_is_refused(body: bytes) -> None:
    assert reason_of(est.decode_body, body, error=Malformed) is Reason.BAD_ENCODING


REQUEST = bytes.fromhex("3082010430820100") + bytes(range(252)) + b"\xfb\xff\xfe>"
PEM = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(REQUEST) + b"-----END CERTIFICATE REQUEST-----\n"
TEXT = base64.b64encode(REQUEST)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "it is empty"),
        (b"\xef\xbb\xbf" + TEXT, "byte order mark"),
        (TEXT.decode().encode("utf-16"), "byte order mark"),
        (PEM, "it is PEM"),
        (b"Certificate Request:\n    Data:\n" + PEM, "text and then PEM, as openssl req -text writes"),
        (TEXT.replace(b"+", b" "), "spaces where base64 has plus signs"),
        (TEXT.replace(b"+", b"%2B"), "percent-encoded"),
        (TEXT.replace(b"+", b"-").replace(b"/", b"_"), "base64url"),
        (TEXT + b"\x00", "ends with a zero byte"),
        (b'"' + TEXT + b'"', "quoted"),
        (b'{"csr":"' + TEXT + b'"}', "quoted or inside another format"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (base64.b64encode(TEXT), "base64 twice"),
        (base64.b64encode(PEM), "base64 of PEM"),
        (base64.b64encode(b"words"), "other than a DER request"),
        (REQUEST + b"\n", "DER with 1 bytes of line end or space after it"),
        (REQUEST + b"\r\n ", "DER with 3 bytes of line end or space after it"),
        (b"words!", "neither base64 nor DER"),
    ],
)
def test_a_refusal_names_what_the_body_is(body: bytes, said: str) -> None:
    assert reason_of(est.decode_body, body, error=Malformed, match=said) is Reason.BAD_ENCODING


def test_plus_signs_and_spaces_between_lines_are_read() -> None:
    assert b"+" in TEXT
    assert est.decode_body(TEXT) == REQUEST
    assert est.decode_body(TEXT[:64] + b" \r\n\t" + TEXT[64:] + b" ") == REQUEST


def test_bytes_other_than_line_ends_after_der_are_left_to_its_decoder() -> None:
    assert est.decode_body(REQUEST + b"\x00") == REQUEST + b"\x00"


def test_a_body_above_the_limit_is_refused_before_it_is_decoded() -> None:
    with refuses(Reason.TOO_LARGE, LimitExceeded) as caught:
        est.decode_body(b"A" * (est.MAX_BODY + 1))
    assert caught.value.facts["limit"] == est.MAX_BODY


def test_a_content_type_is_compared_without_case_and_parameters() -> None:
    assert est.is_content_type("Application/PKCS10; charset=us-ascii", est.PKCS10)
    assert est.is_content_type("application/pkcs7-mime", est.CERTS_ONLY)
    assert not est.is_content_type("application/pkcs10x", est.PKCS10)
    assert not est.is_content_type(None, est.PKCS10)


@given(st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), max_size=40), st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_basic_credential_survives_the_header(user: str, password: str) -> None:
    try:
        password.encode()
    except UnicodeEncodeError:
        return
    credential = est.BasicCredential(user, password)
    assert est.decode_basic(est.encode_basic(credential)) == credential


def test_a_basic_credential_never_shows_its_password() -> None:
    assert "hunter2" not in repr(est.BasicCredential("est", "hunter2"))


def test_another_scheme_is_no_basic_credential() -> None:
    assert est.decode_basic("Digest username=x") is None


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic bm9jb2xvbg==", "Basic /w==", "basic " + "QUFB" * 1000])
def test_a_broken_basic_credential_is_refused(header: str) -> None:
    assert reason_of(est.decode_basic, header, error=Malformed) is Reason.BAD_ENCODING


def test_csr_attributes_ask_for_the_key_of_the_profile() -> None:
    asked = {key: est.encode_csr_attributes(key) for key in KeyAlgorithm}
    assert len(set(asked.values())) == len(KeyAlgorithm)
    assert asked[KeyAlgorithm.P256] == bytes.fromhex(
        "30173015" + "06072a8648ce3d0201" + "310a" + "06082a8648ce3d030107"
    )
    assert all(der[0] == 0x30 and der[1] == len(der) - 2 for der in asked.values())
