"""Identity names are canonical byte for byte, or they are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of
from vagus.errors import Malformed
from vagus.identifiers import (
    DeviceId,
    DeviceName,
    UnitName,
    check_label,
    decode_serial,
    draw_serial,
    read_serial,
    serial_bytes,
)
from vagus.reasons import Reason
from vagus.testing import SeededEntropy

DOMAIN = "devices.example"


@given(st.binary(min_size=16, max_size=16))
def test_any_128_bits_make_a_device_id_that_parses_back(raw: bytes) -> None:
    device = DeviceId.draw(lambda _count: raw)
    assert DeviceId(str(device)) == device
    assert len(str(device)) == 26


@given(st.binary(min_size=16, max_size=16))
def test_a_device_name_parses_back_to_itself(raw: bytes) -> None:
    name = DeviceName(DeviceId.draw(lambda _count: raw), UnitName("h1", "icu"), DOMAIN)
    assert DeviceName.parse(str(name), DOMAIN) == name


@pytest.mark.parametrize(
    "changed",
    [
        lambda name: name.upper(),
        lambda name: name + ".",
        lambda name: "*" + name[1:],
        lambda name: "x." + name,
        lambda name: name.replace(".icu.", "."),
        lambda name: name.replace(DOMAIN, "devices.example.com"),
        lambda name: name.replace(".icu.", ".ic_u."),
        lambda name: name.replace(".icu.", ".-icu."),
        lambda name: name.replace(".icu.", "..icu."),
        lambda name: name + "\n",
        lambda name: name.replace("." + DOMAIN, DOMAIN),
    ],
)
def test_every_other_spelling_of_a_device_name_is_refused(changed: Callable[[str], str]) -> None:
    name = str(DeviceName(DeviceId.draw(SeededEntropy(1)), UnitName("h1", "icu"), DOMAIN))
    assert reason_of(DeviceName.parse, changed(name), DOMAIN, error=Malformed) is Reason.NON_CANONICAL


@given(st.text(max_size=30))
def test_labels_and_units_raise_only_our_error(text: str) -> None:
    for parse in (check_label, UnitName.parse, DeviceId):
        try:
            assert str(parse(text)) == text
        except Malformed as refused:
            assert refused.reason is Reason.NON_CANONICAL


def test_a_last_character_that_carries_more_than_128_bits_is_refused() -> None:
    with pytest.raises(Malformed):
        DeviceId("a" * 25 + "b")


@given(st.binary(min_size=20, max_size=20))
def test_serials_are_positive_and_twenty_bytes(raw: bytes) -> None:
    serial = draw_serial(lambda _count: raw)
    assert serial > 0
    assert len(serial_bytes(serial)) == 20
    assert serial_bytes(serial)[0] < 0x80
    assert serial_bytes(serial)[1:] == raw[1:]


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("1000", (0x1000, 1000)),
        ("285513222750778441919232283329085112611", None),
        ("5", (5,)),
        ("0", (0,)),
        ("4A:01", (0x4A01,)),
        ("10:00", (0x1000,)),
        ("0x1000", (0x1000,)),
        ("dec:1000", (1000,)),
        (" DEC:1000 ", (1000,)),
        ("4a01", (0x4A01,)),
        ("9" * 41, (int("9" * 41),)),
        (str((1 << 160) - 1), ((1 << 160) - 1,)),
    ],
)
def test_digits_alone_are_read_in_every_way_and_never_acted_on_in_one(
    text: str, readings: tuple[int, ...] | None
) -> None:
    expected = readings or (int(text, 16), int(text))
    assert read_serial(text) == expected
    if len(expected) == 1:
        assert decode_serial(text) == expected[0]
        return
    with pytest.raises(Malformed) as refused:
        decode_serial(text)
    for said in (f"0x{text}", f"dec:{text}", f"decimal {expected[0]}", f"0x{expected[1]:x}"):
        assert said in refused.value.message


@given(st.integers(min_value=0, max_value=(1 << 160) - 1))
def test_a_marked_serial_is_read_back_as_it_was(serial: int) -> None:
    assert decode_serial(f"0x{serial:x}") == decode_serial(f"dec:{serial}") == serial
    assert serial in read_serial(f"{serial:x}")
    assert serial in read_serial(str(serial))


@pytest.mark.parametrize(
    "text", ["", "0x", "dec:", "dec:ff", ":", "4a:", "1_2", "-5", "a" * 41, str(1 << 160), "\u0661"]
)
def test_what_is_no_serial_is_refused_with_both_forms(text: str) -> None:
    with pytest.raises(Malformed, match=r"0x4a01.*dec:18945"):
        read_serial(text)
