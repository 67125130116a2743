"""One rule for every PEM file that is read: which labels count, which blocks are skipped, and what is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.refusals import refuses
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509.pem import (
    CERTIFICATE,
    CRL,
    REQUEST,
    decode_blocks,
    decode_one,
    decode_one_or_base64,
    decode_pem,
    encode_block,
    encode_certificates,
    list_labels,
)

ONE, OTHER = b"\x30\x03\x02\x01\x01", b"\x30\x03\x02\x01\x02"
KEY = encode_block(b"\x30\x03\x02\x01\x09", "PRIVATE KEY")


@given(st.lists(st.binary(min_size=1), min_size=1, max_size=4), st.sampled_from([CERTIFICATE, REQUEST, CRL]))
def test_what_is_written_is_read_again(ders: list[bytes], label: str) -> None:
    assert decode_pem(b"".join(encode_block(der, label) for der in ders), label) == tuple(ders)


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("CERTIFICATE", CERTIFICATE),
        ("X509 CERTIFICATE", CERTIFICATE),
        ("X.509 CERTIFICATE", CERTIFICATE),
        ("CERTIFICATE REQUEST", REQUEST),
        ("NEW CERTIFICATE REQUEST", REQUEST),
        ("X509 CRL", CRL),
    ],
)
def test_labels_in_wide_use_count_as_the_present_ones(written: str, label: str) -> None:
    """RFC 7468 5.1, 6 and 7."""
    assert decode_blocks(encode_block(ONE, written), label) == (ONE,)


@pytest.mark.parametrize(
    ("written", "label", "remedy"),
    [
        ("TRUSTED CERTIFICATE", CERTIFICATE, "openssl x509"),
        ("PKCS7", CERTIFICATE, "openssl pkcs7"),
        ("CMS", CERTIFICATE, "export it as CERTIFICATE"),
        ("ATTRIBUTE CERTIFICATE", CERTIFICATE, "export it as CERTIFICATE"),
        ("Certificate", CERTIFICATE, "export it as CERTIFICATE"),
        ("CRL", CRL, "export it as X509 CRL"),
        ("PKCS7", CRL, "openssl pkcs7"),
        ("OLD CERTIFICATE REQUEST", REQUEST, "export it as CERTIFICATE REQUEST"),
        ("RSA PUBLIC KEY", "PUBLIC KEY", "export it as PUBLIC KEY"),
    ],
)
def test_another_form_of_what_is_wanted_is_refused_and_never_passed_over(written: str, label: str, remedy: str) -> None:
    other, wanted = encode_block(OTHER, written), encode_block(ONE, label)
    for text in (other, other + wanted, wanted + other):
        with refuses(Reason.BAD_ENCODING, Malformed, match=rf"is a {written}, which is not read as {label}.*{remedy}"):
            decode_blocks(text, label)
    assert decode_blocks(wanted, label) == (ONE,)


@pytest.mark.parametrize("beside", ["PRIVATE KEY", "EC PARAMETERS", "DH PARAMETERS", "CERTIFICATE REQUEST", "X509 CRL"])
def test_blocks_of_other_things_and_text_between_blocks_are_skipped(beside: str) -> None:
    text = (
        b"Bag Attributes\n  friendlyName: a - b\n"
        + encode_block(OTHER, beside)
        + b"text\n"
        + encode_certificates([ONE])
    )
    assert decode_blocks(text, CERTIFICATE) == (ONE,)


def test_line_ends_a_byte_order_mark_and_blocks_on_one_line_do_not_matter() -> None:
    text = encode_certificates([ONE, OTHER])
    for written in (
        text.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + text,
        text.replace(b"-----\n-----", b"----------"),
        text.replace(b"\n", b"\n  "),
    ):
        assert decode_blocks(written, CERTIFICATE) == (ONE, OTHER)


def test_a_file_without_what_is_wanted_is_refused_with_the_labels_that_it_has() -> None:
    with refuses(Reason.BAD_ENCODING, Malformed, match=r"a PEM block X509 CRL; it has PRIVATE KEY, CERTIFICATE; give"):
        decode_blocks(KEY + encode_certificates([ONE, OTHER]), CRL)
    with refuses(Reason.BAD_ENCODING, Malformed, match="it has no PEM block at all"):
        decode_blocks(b"hello", CRL)
    assert list_labels(KEY + b"-----BEGIN CERTIFICATE-----\n") == ("PRIVATE KEY", "CERTIFICATE")


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ((b"-----END CERTIFICATE-----\n", b"", -1), "CERTIFICATE in line 4 has no END"),
        ((b"-----END CERTIFICATE-----\n", b"", 0), "CERTIFICATE in line 1 has no END"),
        ((b"-----BEGIN", b"----BEGIN", 0), "END CERTIFICATE in line 3 has no BEGIN"),
        ((b"-----BEGIN", b"----BEGIN", -1), "END CERTIFICATE in line 6 has no BEGIN"),
        ((b"END CERTIFICATE", b"END X509 CRL", 0), "END X509 CRL in line 3 has no BEGIN"),
        ((b"MAMC", b"MAM!", 0), "CERTIFICATE in line 1 is not base64"),
        ((b"MAMC", b"MAM!", -1), "CERTIFICATE in line 4 is not base64"),
    ],
)
def test_a_damaged_block_is_refused_and_never_passed_over(damage: tuple[bytes, bytes, int], finding: str) -> None:
    old, new, which = damage
    text = encode_certificates([ONE, OTHER])
    at = text.find(old) if which == 0 else text.rfind(old)
    with refuses(Reason.BAD_ENCODING, Malformed, match=finding):
        decode_blocks(text[:at] + new + text[at + len(old) :], CERTIFICATE)
    assert decode_blocks(text, CERTIFICATE) == (ONE, OTHER)


def test_where_one_object_is_wanted_none_of_several_is_chosen() -> None:
    assert decode_one(ONE, CERTIFICATE) == decode_one(KEY + encode_certificates([ONE]), CERTIFICATE) == ONE
    with refuses(Reason.BAD_ENCODING, Malformed, match="2 blocks CERTIFICATE, and one is wanted"):
        decode_one(encode_certificates([ONE, OTHER]), CERTIFICATE)


def test_der_is_taken_as_it_is_except_where_pem_alone_is_read() -> None:
    assert decode_blocks(ONE, CERTIFICATE) == (ONE,)
    with refuses(Reason.BAD_ENCODING, Malformed):
        decode_pem(ONE, CERTIFICATE)


@pytest.mark.parametrize("piece", [b"-----BEGIN CERTIFICATE-----\n", b"-----", b"-----BEGIN ", b"-----END X-----\n"])
def test_a_large_file_of_boundaries_is_refused_in_one_pass(piece: bytes) -> None:
    with refuses(Reason.BAD_ENCODING, Malformed):
        decode_blocks(b" " + piece * (4_000_000 // len(piece)), CERTIFICATE)


def test_more_blocks_than_the_limit_are_refused() -> None:
    with refuses(Reason.TOO_MANY, Malformed):
        decode_blocks(encode_block(b"\x30" + base64.b64decode("AA=="), CERTIFICATE) * 10_001, CERTIFICATE)


def test_base64_without_its_boundaries_is_read_where_web_pages_show_it_so() -> None:
    block = encode_certificates([ONE])
    bare = b"".join(block.splitlines(keepends=True)[1:-1])
    for text in (bare, b"\r\n " + bare.replace(b"\n", b"\r\n"), block, ONE):
        assert decode_one_or_base64(text, CERTIFICATE) == ONE
    for text in (bare[:-3], bare + b"!", b"", b"  ", block[:-20], encode_certificates([ONE, OTHER])):
        with refuses(Reason.BAD_ENCODING, Malformed):
            decode_one_or_base64(text, CERTIFICATE)
