"""What a request says about its device is found wherever it stands, and sorted by what it can mean."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID, ObjectIdentifier

from tests.simulator.orders import new_key, signing_request
from tests.simulator.refusals import refuses
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.names.hardware_module import HARDWARE_MODULE_NAME, HardwareModule, encode_hardware_module
from vagus.x509.names.requested import RequestedNames, read_requested_names

MICROSOFT = ObjectIdentifier("1.3.6.1.4.1.311.2.1.14")


def name(*attributes: tuple[ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in attributes])


def hardware(serial: bytes) -> x509.OtherName:
    module = der.split_elements(encode_hardware_module(HardwareModule("1.2.3", serial)))[0][1]
    return x509.OtherName(ObjectIdentifier(HARDWARE_MODULE_NAME), der.split_elements(module)[1][1])


def read(subject: x509.Name | None = None, *names: x509.GeneralName) -> RequestedNames:
    alternative = x509.SubjectAlternativeName(names) if names else None
    return read_requested_names(signing_request(new_key(), subject or x509.Name([]), alternative))


def test_a_request_without_names_says_nothing() -> None:
    assert read() == RequestedNames([], [], [])


def test_serial_numbers_are_those_of_the_subject_the_hardware_module_and_a_directory_name() -> None:
    subject = name((NameOID.SERIAL_NUMBER, "A-1"), (NameOID.SERIAL_NUMBER, "A-2"))
    inner = x509.DirectoryName(name((NameOID.SERIAL_NUMBER, "A-3")))
    assert read(subject, hardware(b"A-4"), inner).serials == ["A-1", "A-2", "A-4", "A-3"]
    assert read(None, hardware(b"\x01\xff")).serials == ["01ff"], "a serial number that is no text"


def test_names_are_common_names_user_ids_and_those_of_the_alternative_name() -> None:
    subject = name((NameOID.COMMON_NAME, "pump"), (NameOID.USER_ID, "u"), (NameOID.DN_QUALIFIER, "q"))
    names = (
        x509.DNSName("a.example"),
        x509.UniformResourceIdentifier("urn:dev:ser:A-1"),
        x509.RFC822Name("a@b.example"),
        x509.OtherName(ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x03upn"),
        x509.DirectoryName(name((NameOID.COMMON_NAME, "inner"))),
    )
    found = read(subject, *names)
    assert found.names == ["pump", "u", "q", "a.example", "urn:dev:ser:A-1", "a@b.example", "upn", "inner"]
    assert (found.serials, found.others) == ([], [])


def test_other_texts_are_kept_apart() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        name((NameOID.ORGANIZATION_NAME, "Aorta"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "Line 1"))
    )
    builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")
    builder = builder.add_extension(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b"\x0c\x01x"), critical=False)
    builder = builder.add_extension(x509.UnrecognizedExtension(ObjectIdentifier("1.2.4"), b"A-1"), critical=False)
    request = builder.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.DER)
    found = read_requested_names(request)
    assert (found.serials, found.names) == ([], [])
    assert sorted(found.others) == ["A-1", "Aorta", "Line 1", "secret", "x"]


def test_a_second_alternative_name_and_one_in_the_attribute_of_older_windows_are_read_too() -> None:
    request = signing_request(new_key(), x509.Name([]), x509.SubjectAlternativeName([x509.DNSName("a.example")]))
    outer = der.split_elements(der.content_of(request, der.SEQUENCE))
    parts = [whole for _, _, whole in der.split_elements(outer[0][1])]
    (attribute,) = der.split_elements(der.split_elements(parts[3])[0][1])
    older = attribute[2].replace(
        der.object_identifier("1.2.840.113549.1.9.14"), der.object_identifier(MICROSOFT.dotted_string)
    )
    # the older attribute's name is longer by one byte
    older = der.sequence(*(whole for _, _, whole in der.split_elements(older[2:])))
    both = der.sequence(*parts[:3], der.encode_tlv(0xA0, attribute[2] + older.replace(b"a.example", b"b.example")))
    assert read_requested_names(der.sequence(both, *(one[2] for one in outer[1:]))).names == ["a.example", "b.example"]


@pytest.mark.parametrize("kind", ["sequences", "octet strings"])
def test_a_request_that_is_nested_without_end_is_refused(kind: str) -> None:
    value = b"\x0c\x01x"
    for _ in range(5_000):
        value = der.sequence(value) if kind == "sequences" else der.octet_string(value)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    extension = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), value)
    request = builder.add_extension(extension, critical=False).sign(new_key(), hashes.SHA256())
    with refuses(Reason.BAD_ENCODING, Malformed, match="levels"):
        read_requested_names(request.public_bytes(Encoding.DER))
