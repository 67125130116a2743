"""The PROXY protocol header of version 2 by which a raw upstream learns which device a stream comes from.

HAProxy's proxy-protocol.txt (2.2) is the specification. The header is made from the verdict, never from the subject of
the certificate: names in a subject are not held by name constraints.
"""

from __future__ import annotations

import re
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from vagus.errors import NotAuthorised
from vagus.fleet.admission import Admitted
from vagus.reasons import Reason
from vagus.tls import TLS_1_3, Peer

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
TYPE_DEVICE, TYPE_UNIT, TYPE_SERIAL = 0xE0, 0xE1, 0xE2
"""TLVs of our own, in the range for applications (2.2.8): device id, unit, and the maker's serial number, in UTF-8."""

_PROXY_COMMAND: Final = 0x21
_UNKNOWN, _TCP_4, _TCP_6 = 0x00, 0x11, 0x21
_AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL = 0x02, 0x03, 0x05, 0x20
_SSL_VERSION, _SSL_CN, _SSL_CIPHER = 0x21, 0x22, 0x23
_CLIENT_SSL, _CERTIFICATE_IN_CONNECTION, _CERTIFICATE_IN_SESSION = 0x01, 0x02, 0x04
_VERIFIED: Final = 0
_TLV_HEAD: Final = 3  # bytes of type and length
# The name that a client asks for is its own text. Only the characters of host names go into the upstream's logs.
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}\Z")

Address = tuple[str | int, ...]
"""Host and port, first in the tuple, as sockets give them."""


def proxy_header(
    peer: Peer, admitted: Admitted | None, source: Address | None, destination: Address | None, salt: bytes
) -> bytes:
    """The first bytes to the upstream for an admitted client that connected from `source` to `destination`.

    At most 1,200 bytes. The unique id is the device id and `salt`, at most 32 bytes. Addresses that are not known are
    left out, as the family UNSPEC. Raises NotAuthorised(CREDENTIAL_MISSING) without a certificate or a device: such a
    stream must not be relayed.
    """
    # 1. Only a peer with a certificate, whose device the inventory knows, is announced.
    if peer.leaf_der is None or admitted is None or admitted.device is None:
        msg = "the upstream takes a PROXY header and the client has no device to put into it; enrol it first"
        raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
    device = admitted.device
    # 2. Write the addresses, and all that the verdict has of the device.
    family, addresses = _encode_addresses(source, destination)
    name = str(device.id).encode("ascii")
    tlvs = [_tlv(_CRC32C, bytes(4)), _tlv(_UNIQUE_ID, b"%s-%s" % (name, salt.hex().encode("ascii")))]
    if peer.sni is not None and _HOST_NAME.match(peer.sni):
        tlvs.append(_tlv(_AUTHORITY, peer.sni.encode("ascii")))
    tlvs += [
        _tlv(_SSL, _encode_tls(peer, name)),
        _tlv(TYPE_DEVICE, name),
        _tlv(TYPE_UNIT, str(device.unit).encode("ascii")),
        _tlv(TYPE_SERIAL, device.maker_serial.encode("utf-8")),
    ]
    body = addresses + b"".join(tlvs)
    header = SIGNATURE + struct.pack("!BBH", _PROXY_COMMAND, family, len(body)) + body
    # 3. The checksum is of the whole header with zeros in its own place (2.2.3).
    at = len(SIGNATURE) + 4 + len(addresses) + _TLV_HEAD
    return header[:at] + struct.pack("!I", crc32c(header)) + header[at + 4 :]


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def _encode_tls(peer: Peer, name: bytes) -> bytes:
    """Section 2.2.6. In a resumed session the certificate was shown in an earlier connection."""
    client = _CLIENT_SSL | _CERTIFICATE_IN_SESSION | (0 if peer.resumed else _CERTIFICATE_IN_CONNECTION)
    version = b"TLSv1.3" if peer.version == TLS_1_3 else b"TLSv1.2"
    cipher = _tlv(_SSL_CIPHER, peer.cipher.encode("ascii", "replace"))
    return struct.pack("!BI", client, _VERIFIED) + _tlv(_SSL_VERSION, version) + cipher + _tlv(_SSL_CN, name)


def _encode_addresses(source: Address | None, destination: Address | None) -> tuple[int, bytes]:
    """The family and the address block; IPv4 that came over an IPv6 socket is written as IPv4."""
    if source is None or destination is None:
        return _UNKNOWN, b""
    hosts = [_plain(ip_address(str(each[0]))) for each in (source, destination)]
    ports = struct.pack("!HH", source[1], destination[1])
    if all(isinstance(host, IPv4Address) for host in hosts):
        return _TCP_4, b"".join(host.packed for host in hosts) + ports
    return _TCP_6, b"".join(_as_ipv6(host) for host in hosts) + ports


def _plain(host: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return host.ipv4_mapped or host if isinstance(host, IPv6Address) else host


def _as_ipv6(host: IPv4Address | IPv6Address) -> bytes:
    return host.packed if isinstance(host, IPv6Address) else bytes(10) + b"\xff\xff" + host.packed


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901 the register shifts
        table.append(value)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960 Appendix B (Castagnoli's polynomial)."""
    register = 0xFFFFFFFF
    for byte in data:
        register = _CRC_TABLE[(register ^ byte) & 0xFF] ^ register >> 8
    return register ^ 0xFFFFFFFF
