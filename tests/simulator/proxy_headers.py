"""Reads PROXY headers of version 2 as an upstream does, from the specification alone and with nothing of ours."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MAGIC = bytes.fromhex("0d0a0d0a000d0a515549540a")
_ADDRESS_BYTES = {0x00: 0, 0x11: 4, 0x21: 16}


@dataclass(frozen=True)
class ProxyHeader:
    """One header as its receiver understands it; `rest` is what came behind it."""

    family: int
    source: tuple[str, int] | None
    destination: tuple[str, int] | None
    values: dict[int, bytes]
    client: int
    verify: int
    tls: dict[int, bytes]
    size: int
    rest: bytes


def _values(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while data:
        kind, size = data[0], int.from_bytes(data[1:3], "big")
        assert len(data) >= 3 + size, "a value that ends behind its header"
        assert kind not in found, f"type {kind:#x} twice"
        found[kind], data = data[3 : 3 + size], data[3 + size :]
    return found


def bitwise_crc32c(data: bytes) -> int:
    """RFC 4960 Appendix B, bit by bit and most significant bit first: another way than by a table."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= int(f"{byte:08b}"[::-1], 2) << 24
        for _ in range(8):
            register = (register << 1 ^ (0x1EDC6F41 if register >> 31 else 0)) & 0xFFFFFFFF
    return int(f"{register:032b}"[::-1], 2) ^ 0xFFFFFFFF


def read_proxy_header(data: bytes) -> ProxyHeader:
    """The header at the beginning of a stream; an assertion fails where a receiver would cut the connection."""
    assert data[:12] == MAGIC, data[:40]
    assert data[12] == 0x21, "not version 2 and the command PROXY"
    family, size = data[13], 16 + int.from_bytes(data[14:16], "big")
    assert len(data) >= size, "a part of a header"
    width = _ADDRESS_BYTES[family]
    ends = data[16 : 16 + 2 * width + (4 if width else 0)]
    source = destination = None
    if width:
        hosts = [str(ipaddress.ip_address(ends[at : at + width])) for at in (0, width)]
        ports = [int.from_bytes(ends[at : at + 2], "big") for at in (2 * width, 2 * width + 2)]
        source, destination = zip(hosts, ports, strict=True)
    values = _values(data[16 + len(ends) : size])
    at = data.index(b"\x03\x00\x04", 16 + len(ends)) + 3
    zeroed = data[:at] + bytes(4) + data[at + 4 : size]
    assert int.from_bytes(values[0x03], "big") == bitwise_crc32c(zeroed), "the checksum is wrong"
    ssl = values[0x20]
    verify = int.from_bytes(ssl[1:5], "big")
    return ProxyHeader(family, source, destination, values, ssl[0], verify, _values(ssl[5:]), size, data[size:])
