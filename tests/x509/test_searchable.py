"""The names and the kind of key that a certificate is searched by."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.simulator.orders import new_key
from vagus.errors import Malformed
from vagus.x509 import der
from vagus.x509.searchable import LONGEST_NAME, names_beside_device, read_search_facts, search_name

DEVICE = "a" * 26
Subject = dict[x509.ObjectIdentifier, str]


def tbs(subject: Subject, names: list[x509.GeneralName], key: ec.EllipticCurve | int = 2048) -> bytes:
    """The TBS of a certificate with these names; a number asks for an RSA key of that size."""
    signer = new_key()
    own = rsa.generate_private_key(65537, key) if isinstance(key, int) else ec.generate_private_key(key)
    name = x509.Name([x509.NameAttribute(oid, text) for oid, text in subject.items()])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(5)
    builder = builder.public_key(own.public_key()).not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    builder = builder.not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256()).tbs_certificate_bytes


def device_tbs(key: ec.EllipticCurve) -> bytes:
    return tbs({NameOID.COMMON_NAME: DEVICE}, [x509.DNSName(f"{DEVICE}.icu.h1.test.example")], key)


def server_tbs() -> bytes:
    address = x509.IPAddress(ipaddress.ip_address("192.0.2.7"))
    return tbs({NameOID.COMMON_NAME: DEVICE}, [x509.DNSName("GW.h1.test.example"), address])


def idevid_tbs() -> bytes:
    module = der.sequence(der.object_identifier("1.3.6.1.4.1.99"), der.octet_string(b"AIP3-000007"))
    name = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), module)
    return tbs({NameOID.ORGANIZATION_NAME: "Maker", NameOID.SERIAL_NUMBER: "AIP3-000007"}, [name], ec.SECP256R1())


def test_the_usual_device_certificate_needs_no_name_beside_its_device() -> None:
    facts = read_search_facts(device_tbs(ec.SECP384R1()))
    assert facts.subject == f"CN={DEVICE}"
    assert facts.names == (DEVICE, f"{DEVICE}.icu.h1.test.example")
    assert facts.key_algorithm == "p384"
    assert names_beside_device(facts.names, DEVICE) == ()


def test_host_names_and_addresses_of_a_server_are_names() -> None:
    facts = read_search_facts(server_tbs())
    assert facts.alternative_names == ("GW.h1.test.example", "192.0.2.7")
    assert facts.key_algorithm == "rsa2048"
    assert names_beside_device(facts.names, DEVICE) == ("192.0.2.7", "gw.h1.test.example")
    assert DEVICE in names_beside_device(facts.names, None)


def test_a_makers_certificate_has_its_serial_number_as_subject_and_module() -> None:
    facts = read_search_facts(idevid_tbs())
    assert (facts.subject_names, facts.alternative_names) == (("AIP3-000007",), ("AIP3-000007",))
    assert facts.subject == "O=Maker, serialNumber=AIP3-000007"


def test_a_key_that_is_not_known_here_has_no_kind() -> None:
    assert read_search_facts(tbs({}, [], 1024)).key_algorithm is None


def test_a_long_name_is_cut_and_case_and_spaces_are_folded() -> None:
    assert search_name("  GW  One ") == "gw one"
    assert len(search_name("x" * 999)) == LONGEST_NAME
    assert names_beside_device([" ", "A", "a"], None) == ("a",)


def test_what_is_no_tbs_is_refused() -> None:
    with pytest.raises(Malformed):
        read_search_facts(b"\x30\x03no")
