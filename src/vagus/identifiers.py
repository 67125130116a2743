"""The names of devices, units and certificates as checked values; knows nothing of certificates' contents."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from vagus.clock import Entropy

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?\Z")
# a device id has 128 bits in 26 base32 characters, so the last character carries three bits
_DEVICE_ID = re.compile(r"[a-z2-7]{25}[aeimquy4]\Z")
_MAX_NAME = 128
_SERIAL_BYTES = 20
_MOST_DECIMAL_DIGITS = 49  # 2 to the power of 160 has as many


def check_label(text: str, what: str = "label") -> str:
    """`text` if it is one label of an identity name: 1-20 of a-z, 0-9 and inner hyphens.

    Raises Malformed(NON_CANONICAL).
    """
    if not _LABEL.match(text):
        msg = f"{what} {text!r} is not 1-20 characters of a-z, 0-9 and inner hyphens; rename it"
        raise Malformed(Reason.NON_CANONICAL, msg, value=text)
    return text


@dataclass(frozen=True, slots=True, order=True)
class UnitName:
    """An issuing compartment, written `hospital/unit`."""

    hospital: str
    unit: str

    @classmethod
    def parse(cls, text: str) -> UnitName:
        """The unit that `text` ("h1/icu") names. Raises Malformed(NON_CANONICAL)."""
        hospital, slash, unit = text.partition("/")
        if not slash:
            raise Malformed(
                Reason.NON_CANONICAL, f"unit {text!r} is not written hospital/unit, as in h1/icu", value=text
            )
        return cls(check_label(hospital, "hospital"), check_label(unit, "unit"))

    def domain(self, group_domain: str) -> str:
        """The subtree that this unit may name: `<unit>.<hospital>.<group domain>`."""
        return f"{self.unit}.{self.hospital}.{group_domain}"

    def __str__(self) -> str:
        return f"{self.hospital}/{self.unit}"


@dataclass(frozen=True, slots=True, order=True)
class DeviceId:
    """26 lower-case base32 characters of 128 random bits: the key of everything in the inventory."""

    text: str

    def __post_init__(self) -> None:
        if not _DEVICE_ID.match(self.text):
            msg = f"device id {self.text!r} is not 26 base32 characters (a-z, 2-7) of 128 bits"
            raise Malformed(Reason.NON_CANONICAL, msg, value=self.text)

    @classmethod
    def draw(cls, entropy: Entropy) -> DeviceId:
        """A new random identifier."""
        return cls(base64.b32encode(entropy(16)).decode("ascii").rstrip("=").lower())

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class DeviceName:
    """The identity of a device in a certificate: `<device id>.<unit>.<hospital>.<group domain>`."""

    device: DeviceId
    unit: UnitName
    group_domain: str

    @classmethod
    def parse(cls, dns_name: str, group_domain: str) -> DeviceName:
        """The identity that `dns_name` spells, byte for byte canonical.

        Raises Malformed(NON_CANONICAL) for another case, a trailing dot, a foreign domain or missing labels.
        """
        suffix = "." + group_domain
        parts = dns_name.removesuffix(suffix).split(".") if dns_name.endswith(suffix) else []
        if len(parts) != 3 or len(dns_name) > _MAX_NAME:
            form = f"<device id>.<unit>.<hospital>{suffix}"
            msg = f"identity name {dns_name!r} is not {form} of at most {_MAX_NAME} characters"
            raise Malformed(Reason.NON_CANONICAL, msg, value=dns_name)
        return cls(
            DeviceId(parts[0]), UnitName(check_label(parts[2], "hospital"), check_label(parts[1], "unit")), group_domain
        )

    def __str__(self) -> str:
        return f"{self.device}.{self.unit.domain(self.group_domain)}"


def draw_serial(entropy: Entropy) -> int:
    """A certificate serial number: 20 bytes, positive, at least 128 random bits (RFC 5280 4.1.2.2).

    The top byte is forced into 0x40-0x7f, so the number is positive and always exactly 20 bytes: 158 random bits.
    """
    raw = bytearray(entropy(_SERIAL_BYTES))
    raw[0] = (raw[0] & 0x3F) | 0x40
    return int.from_bytes(raw, "big")


def read_serial(text: str) -> tuple[int, ...]:
    """What a person may mean by `text` as a serial number; two numbers where digits alone can be read in two ways.

    `0x4a01`, `4A:01` and `4a01` are hexadecimal, `dec:18945` is decimal, and 18945 may be either: openssl and this
    program print hexadecimal, many tools print decimal. Hexadecimal comes first. Raises Malformed(BAD_ARGUMENT).
    """
    digits = text.strip().lower()
    found: list[int] = []
    if re.fullmatch("(0x)?[0-9a-f]+|[0-9a-f]{1,2}(:[0-9a-f]{1,2})+", digits):
        found.append(int(digits.removeprefix("0x").replace(":", ""), 16))
    if re.fullmatch(f"(dec:)?[0-9]{{1,{_MOST_DECIMAL_DIGITS}}}", digits):
        found.append(int(digits.removeprefix("dec:")))
    possible = tuple(dict.fromkeys(one for one in found if one < 1 << 8 * _SERIAL_BYTES))
    if not possible:
        msg = f"{text[:80]!r} is no certificate serial of at most 20 bytes; write hexadecimal (0x4a01, 4A:01)"
        raise Malformed(Reason.BAD_ARGUMENT, f"{msg} or decimal (dec:18945)", value=text[:80])
    return possible


def decode_serial(text: str) -> int:
    """As `read_serial`, for acts that cannot be undone: what can be read in two ways is refused with both readings.

    Raises Malformed(BAD_ARGUMENT).
    """
    first, *others = read_serial(text)
    if others:
        digits = text.strip()
        msg = f"serial {digits} can be read in two ways; write 0x{digits} for hexadecimal (decimal {first})"
        raise Malformed(Reason.BAD_ARGUMENT, f"{msg} or dec:{digits} for decimal (0x{others[0]:x})", value=digits)
    return first


def serial_bytes(serial: int) -> bytes:
    """The serial as stored in tables: big-endian, at least one byte, no leading zero byte."""
    return serial.to_bytes(max(1, (serial.bit_length() + 7) // 8), "big")


def serial_contents(serial: int) -> bytes:
    """The serial, not negative, as the contents of a DER INTEGER (X.690 8.3)."""
    return serial.to_bytes(serial.bit_length() // 8 + 1, "big")
