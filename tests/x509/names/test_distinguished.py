"""Subjects are written canonically; names of others are only ever described."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from vagus.errors import Malformed, VagusError
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.names.distinguished import (
    GeneralName,
    GeneralNameForm,
    HardwareModule,
    SubjectFields,
    decode_general_names,
    decode_hardware_module,
    decode_name,
    describe_name,
    encode_hardware_module,
    encode_subject,
)

FULL = SubjectFields("Krankenhaus Zürich", "Intensive Care", "pump", country="CH", serial_number="AIP3-1")


def test_a_subject_reads_back_in_its_order() -> None:
    encoded = encode_subject(FULL)
    assert describe_name(encoded) == "C=CH, O=Krankenhaus Zürich, OU=Intensive Care, serialNumber=AIP3-1, CN=pump"
    assert [tag for ((_, tag, _),) in decode_name(encoded)] == [0x13, 0x0C, 0x0C, 0x13, 0x0C]


def test_a_subject_is_what_the_library_reads() -> None:
    name = x509.Name.from_rfc4514_string("CN=pump,OU=Intensive Care,O=Harbour")
    assert encode_subject(SubjectFields("Harbour", "Intensive Care", "pump")) == name.public_bytes()


@pytest.mark.parametrize(
    "fields",
    [
        SubjectFields(""),
        SubjectFields(" Harbour"),
        SubjectFields("Harbour\n"),
        SubjectFields("x" * 65),
        SubjectFields("Harbour", ""),
        SubjectFields("Harbour", "ICU", "a\x00b"),
        SubjectFields("Harbour", country="ch"),
        SubjectFields("Harbour", country="CHE"),
        SubjectFields("Harbour", country="ÄÖ"),
        SubjectFields("Harbour", serial_number="SN_1"),
        SubjectFields("\ud800"),
    ],
)
def test_fields_that_are_empty_long_or_unprintable_are_refused(fields: SubjectFields) -> None:
    with pytest.raises(Malformed) as refusal:
        encode_subject(fields)
    assert refusal.value.reason is Reason.NON_CANONICAL


@given(st.text(min_size=1, max_size=64), st.one_of(st.none(), st.text(min_size=1, max_size=64)))
def test_any_field_is_refused_or_comes_back(organisation: str, common_name: str | None) -> None:
    try:
        encoded = encode_subject(SubjectFields(organisation, None, common_name))
    except Malformed:
        return
    texts = [content.decode() for ((_, _, content),) in decode_name(encoded)]
    assert texts == [organisation, *([common_name] if common_name is not None else [])]


def test_odd_strings_of_others_are_described_and_never_fail() -> None:
    odd = der.sequence(
        der.set_of(
            [
                der.sequence(der.object_identifier("2.5.4.3"), der.encode_tlv(0x14, "Zürich".encode("latin-1"))),
                der.sequence(der.object_identifier("2.5.4.10"), der.encode_tlv(0x1E, "日本".encode("utf-16-be"))),
            ]
        ),
        der.set_of([der.sequence(der.object_identifier("1.2.3.4"), der.encode_tlv(0x0C, b"\xff\xfe"))]),
        der.set_of([der.sequence(der.object_identifier("2.5.4.11"), der.integer(7))]),
    )
    assert describe_name(odd) == "O=日本+CN=Zürich, 1.2.3.4=#fffe, OU=#07"


def test_a_line_feed_cannot_break_a_record() -> None:
    name = der.sequence(der.set_of([der.sequence(der.object_identifier("2.5.4.3"), der.encode_tlv(0x0C, b"a\nb"))]))
    assert describe_name(name) == "CN=#610a62"


@pytest.mark.parametrize(
    "octets",
    [
        der.sequence(der.integer(1)),
        der.sequence(der.set_of([])),
        der.sequence(der.set_of([der.integer(1)])),
        b"\x31\x00",
    ],
)
def test_what_is_no_name_is_refused(octets: bytes) -> None:
    with pytest.raises(Malformed):
        decode_name(octets)


def test_every_form_of_general_name_is_described() -> None:
    names = der.sequence(
        der.implicit(1, b"a@none.invalid"),
        der.implicit(2, b"pump.icu"),
        der.implicit(6, b"urn:uuid:1"),
        der.implicit(7, ipaddress.ip_address("10.1.0.7").packed),
        der.implicit(7, b"\x01\x02\x03"),
        der.implicit(8, bytes.fromhex("2a0304")),
        der.encode_tlv(0xA4, encode_subject(SubjectFields("Harbour"))),
        der.encode_tlv(0xA3, b""),
        der.encode_tlv(0xA5, b""),
        encode_hardware_module(HardwareModule("1.2.3", b"SN")),
    )
    assert [str(name) for name in decode_general_names(names)] == [
        "rfc822Name:a@none.invalid",
        "dNSName:pump.icu",
        "uniformResourceIdentifier:urn:uuid:1",
        "iPAddress:10.1.0.7",
        "iPAddress:#010203",
        "registeredID:1.2.3.4",
        "directoryName:O=Harbour",
        "x400Address:#",
        "ediPartyName:#",
        "otherName:#06082b06010505070804a00a300806022a030402534e",
    ]


@pytest.mark.parametrize("octets", [b"\x30\x00", der.sequence(der.integer(1)), der.sequence(b"\x89\x00"), b"\x05\x00"])
def test_what_is_no_general_names_is_refused(octets: bytes) -> None:
    with pytest.raises(Malformed):
        decode_general_names(octets)


def test_a_hardware_module_comes_back() -> None:
    module = HardwareModule("1.3.6.1.4.1.32473.9.1", b"AIP3-000001")
    (name,) = decode_general_names(der.sequence(encode_hardware_module(module)))
    assert decode_hardware_module(name) == module
    assert decode_hardware_module(GeneralName(GeneralNameForm.DNS_NAME, b"x")) is None


@pytest.mark.parametrize(
    "module", [HardwareModule("1.2.3", b""), HardwareModule("1.2.3", bytes(65)), HardwareModule("x", b"1")]
)
def test_a_hardware_module_without_type_or_serial_is_refused(module: HardwareModule) -> None:
    with pytest.raises(Malformed):
        encode_hardware_module(module)


@given(st.binary(max_size=200))
def test_arbitrary_octets_raise_only_our_errors(octets: bytes) -> None:
    for decode in (decode_name, describe_name, decode_general_names):
        try:
            decode(octets)
        except VagusError as fault:
            assert fault.reason in {Reason.NON_DER, Reason.BAD_ENCODING}


@given(
    st.lists(
        st.tuples(st.sampled_from([0xA0, 0x81, 0x82, 0xA3, 0xA4, 0x86, 0x87, 0x88]), st.binary(max_size=40)), min_size=1
    )
)
def test_describing_any_general_name_never_fails(parts: list[tuple[int, bytes]]) -> None:
    for name in decode_general_names(der.sequence(*(der.encode_tlv(tag, content) for tag, content in parts))):
        assert str(name).isprintable()
        with contextlib.suppress(VagusError):
            decode_hardware_module(name)
