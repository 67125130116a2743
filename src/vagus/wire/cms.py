"""Certs-only CMS SignedData (RFC 5652 section 5, RFC 8551 3.8) as DER; signs nothing and checks no certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vagus.errors import LimitExceeded, Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_MESSAGE: Final = 256 * 1024
MAX_CERTIFICATES: Final = 256
"""More than the authorities of a large hospital group plus the roll-over certificates of RFC 7030 4.1.3."""

_INTEGER, _SEQUENCE, _SET, _CONTEXT_0, _CONTEXT_1 = 0x02, 0x30, 0x31, 0xA0, 0xA1
_ID_DATA: Final = bytes.fromhex("06092a864886f70d010701")
_ID_SIGNED_DATA: Final = bytes.fromhex("06092a864886f70d010702")
_VERSION_1: Final = bytes.fromhex("020101")
_EMPTY_SET: Final = bytes.fromhex("3100")


def encode_certs_only(certificates: Iterable[bytes]) -> bytes:
    """A ContentInfo with a SignedData that carries `certificates` (DER) and nothing else.

    DER wants a SET OF sorted by its octets, so the order given is not the order kept.
    """
    carried = _tlv(_CONTEXT_0, b"".join(sorted(certificates)))
    content = _tlv(_SEQUENCE, _ID_DATA)
    signed_data = _tlv(_SEQUENCE, _VERSION_1 + _EMPTY_SET + content + carried + _EMPTY_SET)
    return _tlv(_SEQUENCE, _ID_SIGNED_DATA + _tlv(_CONTEXT_0, signed_data))


def decode_certs_only(message: bytes) -> tuple[bytes, ...]:
    """The DER certificates of a degenerate SignedData, in the order of the message.

    Taken as DER with one tolerance: the SET OF certificates may be unsorted, as most servers write it. Signers and
    content are refused: somebody who reads certs-only must not believe that anything was signed. CRLs are passed over.
    Raises LimitExceeded(TOO_LARGE|TOO_MANY), Malformed(NON_DER|BAD_ENCODING|BAD_VERSION).
    """
    if len(message) > MAX_MESSAGE:
        msg = f"CMS message of {len(message)} octets exceeds the limit of {MAX_MESSAGE}"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_MESSAGE, value=len(message))
    # ContentInfo ::= SEQUENCE { contentType OID, content [0] EXPLICIT } (RFC 5652 section 3)
    outer = _Reader(_Reader(message).last(_SEQUENCE))
    if outer.element() != _ID_SIGNED_DATA:
        raise Malformed(Reason.BAD_ENCODING, "the CMS content type is not id-signedData (1.2.840.113549.1.7.2)")
    signed_data = _Reader(_Reader(outer.last(_CONTEXT_0)).last(_SEQUENCE))
    # SignedData ::= SEQUENCE { version, digestAlgorithms, encapContentInfo, [0] certs, [1] crls, signerInfos } (5.1)
    version = signed_data.value(_INTEGER)
    if version not in {b"\x01", b"\x03"}:
        raise Malformed(Reason.BAD_VERSION, f"SignedData version {version.hex()} is not the 1 that certs-only has")
    signed_data.value(_SET)
    content = _Reader(signed_data.value(_SEQUENCE))
    if content.element() != _ID_DATA or not content.is_at_end:
        raise Malformed(Reason.BAD_ENCODING, "the SignedData carries content; certs-only has none (RFC 8551 3.8)")
    certificates = _decode_certificates(signed_data.value(_CONTEXT_0)) if signed_data.next_tag == _CONTEXT_0 else ()
    if signed_data.next_tag == _CONTEXT_1:
        signed_data.value(_CONTEXT_1)
    if signed_data.last(_SET):
        raise Malformed(Reason.BAD_ENCODING, "the SignedData has signers; certs-only has none (RFC 8551 3.8)")
    return certificates


def _decode_certificates(octets: bytes) -> tuple[bytes, ...]:
    reader = _Reader(octets)
    found: list[bytes] = []
    while not reader.is_at_end:
        if reader.next_tag != _SEQUENCE:
            raise Malformed(Reason.BAD_ENCODING, "the message carries something that is not an X.509 certificate")
        found.append(reader.element())
        if len(found) > MAX_CERTIFICATES:
            msg = f"the message carries more than the {MAX_CERTIFICATES} certificates that are read here"
            raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_CERTIFICATES)
    return tuple(found)


def _tlv(tag: int, value: bytes) -> bytes:
    """One DER element with a definite length in its shortest form (X.690 10.1)."""
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value


class _Reader:
    """Walks the elements of one constructed value. Every method raises Malformed(NON_DER) on what is not DER."""

    __slots__ = ("_at", "_octets")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._octets)

    @property
    def next_tag(self) -> int | None:
        return None if self.is_at_end else self._octets[self._at]

    def element(self) -> bytes:
        """The next element whole: tag, length, value."""
        start, _, end = self._bounds()
        self._at = end
        return self._octets[start:end]

    def value(self, tag: int) -> bytes:
        """The value of the next element, which must have `tag`."""
        start, inner, end = self._bounds()
        if self._octets[start] != tag:
            msg = f"DER element has tag 0x{self._octets[start]:02x} where 0x{tag:02x} belongs"
            raise Malformed(Reason.NON_DER, msg)
        self._at = end
        return self._octets[inner:end]

    def last(self, tag: int) -> bytes:
        """The value of the next element, after which nothing may follow."""
        value = self.value(tag)
        if not self.is_at_end:
            raise Malformed(Reason.NON_DER, f"{len(self._octets) - self._at} octets follow where the DER should end")
        return value

    def _bounds(self) -> tuple[int, int, int]:
        octets, start = self._octets, self._at
        if len(octets) - start < 2:
            raise Malformed(Reason.NON_DER, "the DER ends inside an element")
        size, inner = octets[start + 1], start + 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(octets[inner : inner + count], "big")
            inner += count
            # Indefinite (count 0), padded and over-long lengths are BER, not DER (X.690 10.1).
            if not 1 <= count <= 4 or size < 0x80 or size >> (8 * (count - 1)) == 0:
                raise Malformed(Reason.NON_DER, "a length is not in the one short form that DER allows")
        if inner + size > len(octets):
            raise Malformed(Reason.NON_DER, "the DER ends inside an element")
        return start, inner, inner + size
