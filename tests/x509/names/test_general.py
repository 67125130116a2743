"""GeneralNames are read by form or in order, and described for people without ever failing."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of
from vagus.errors import Malformed, VagusError
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.names.general import Form, decode_general_names
from vagus.x509.names.hardware_module import HardwareModule, decode_hardware_module, encode_hardware_module


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


@pytest.mark.parametrize("data", [b"\x30\x00", der.sequence(der.integer(1)), der.sequence(b"\x89\x00"), b"\x05\x00"])
def test_what_is_no_general_names_is_refused(data: bytes) -> None:
    assert reason_of(decode_general_names, data, error=Malformed) is Reason.NON_DER


def test_a_hardware_module_comes_back() -> None:
    module = HardwareModule("1.3.6.1.4.1.32473.9.1", b"AIP3-000001")
    (name,) = decode_general_names(der.sequence(encode_hardware_module(module)))
    assert decode_hardware_module(name.form, name.content) == module
    assert decode_hardware_module(Form.DNS, b"x") is None


@pytest.mark.parametrize(
    "module", [HardwareModule("1.2.3", b""), HardwareModule("1.2.3", bytes(65)), HardwareModule("x", b"1")]
)
def test_a_hardware_module_without_type_or_serial_is_refused(module: HardwareModule) -> None:
    with pytest.raises(Malformed):
        encode_hardware_module(module)


@given(
    st.lists(
        st.tuples(st.sampled_from([0xA0, 0x81, 0x82, 0xA3, 0xA4, 0x86, 0x87, 0x88]), st.binary(max_size=40)), min_size=1
    )
)
def test_any_general_name_is_described_or_refused(parts: list[tuple[int, bytes]]) -> None:
    for tag, content in parts:
        try:
            (name,) = decode_general_names(der.sequence(der.encode_tlv(tag, content)))
        except VagusError as fault:
            assert fault.reason is Reason.NON_DER
            continue
        assert str(name).isprintable()
        with contextlib.suppress(VagusError):
            decode_hardware_module(name.form, name.content)


def test_names_are_equal_by_form_and_bytes() -> None:
    """A renewal compares the names of request and certificate as sets (RFC 7030 4.2.2)."""
    directory = encode_subject(SubjectFields("Harbour"))
    names = [der.implicit(2, b"pump.icu"), der.encode_tlv(0xA4, directory)]
    assert set(decode_general_names(der.sequence(*names))) == set(decode_general_names(der.sequence(*names[::-1])))
    assert set(decode_general_names(der.sequence(names[0]))) != set(decode_general_names(der.sequence(*names)))
