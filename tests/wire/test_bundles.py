"""Certificates for other software: each form holds the same certificates, and a truststore marks them as trusted."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7, pkcs12

from tests.simulator.est_server import Hierarchy
from tests.simulator.refusals import refuses
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.wire.bundles import BundleForm, encode_bundle, encode_pkcs12

SECRET = b"changeit"
_AES_256 = bytes.fromhex("060960864801650304012a")  # aes256-CBC, RFC 3565 4.1
_TRIPLE_DES = bytes.fromhex("060a2a864886f70d010c0103")  # pbeWithSHAAnd3-KeyTripleDES-CBC, RFC 7292 appendix C


def _ders() -> list[bytes]:
    authority = Hierarchy()
    certificates = (authority.infrastructure.certificate, authority.root.certificate)
    return [one.public_bytes(Encoding.DER) for one in certificates]


DERS = _ders()
NAMED = [(f"h1/{at}#1", der) for at, der in enumerate(DERS)]


def plain(certificates: list[x509.Certificate]) -> list[bytes]:
    return [one.public_bytes(Encoding.DER) for one in certificates]


def test_pem_keeps_the_order() -> None:
    made = encode_bundle(NAMED, BundleForm.PEM, password=SECRET)
    assert plain(x509.load_pem_x509_certificates(made)) == DERS


def test_der_is_one_certificate_as_it_is() -> None:
    assert encode_bundle(NAMED[:1], BundleForm.DER, password=SECRET) == DERS[0]
    with refuses(Reason.BAD_ARGUMENT, Malformed, match="holds one certificate and here are 2; take form pem"):
        encode_bundle(NAMED, BundleForm.DER, password=SECRET)


def test_p7b_holds_them_all() -> None:
    made = encode_bundle(NAMED, BundleForm.P7B, password=SECRET)
    assert sorted(plain(pkcs7.load_pem_pkcs7_certificates(made))) == sorted(DERS)


def test_a_truststore_holds_them_under_their_names_without_a_key() -> None:
    made = encode_bundle(NAMED, BundleForm.TRUSTSTORE, password=SECRET)
    store = pkcs12.load_pkcs12(made, SECRET)
    assert (store.key, store.cert) == (None, None)
    found = {one.friendly_name: one.certificate.public_bytes(Encoding.DER) for one in store.additional_certs}
    assert found == {name.encode(): der for name, der in NAMED}


def test_p7b_is_pem_as_windows_and_java_read_it() -> None:
    lines = encode_bundle(NAMED, BundleForm.P7B, password=SECRET).splitlines()
    assert (lines[0], lines[-1]) == (b"-----BEGIN PKCS7-----", b"-----END PKCS7-----")
    assert max(map(len, lines)) == 64
    assert base64.b64decode(b"".join(lines[1:-1]))[0] == 0x30


@pytest.mark.parametrize("is_legacy", [False, True])
def test_pkcs12_holds_a_key_with_its_certificate_and_those_above_it(is_legacy: bool) -> None:
    authority = Hierarchy()
    chain = [authority.infrastructure.certificate, authority.root.certificate]
    ders = [one.public_bytes(Encoding.DER) for one in chain]
    key = authority.infrastructure.key
    pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    made = encode_pkcs12(pkcs8, ders, name="Pump 1", password=SECRET, is_legacy=is_legacy)
    store = pkcs12.load_pkcs12(made, SECRET)
    assert store.cert is not None
    assert (store.cert.certificate, store.cert.friendly_name) == (chain[0], b"Pump 1")
    assert [one.certificate for one in store.additional_certs] == chain[1:]
    assert store.key is not None
    assert store.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == pkcs8
    assert (_TRIPLE_DES in made, _AES_256 in made) == (is_legacy, not is_legacy)
    with refuses(Reason.BAD_ARGUMENT, Malformed, match="needs a password"):
        encode_pkcs12(pkcs8, ders, name="Pump 1", password=b"", is_legacy=is_legacy)
