"""Certs-only CMS SignedData (RFC 5652 section 5, RFC 8551 3.8) as DER; signs nothing and checks no certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vagus.errors import LimitExceeded, Malformed
from vagus.reasons import Reason
from vagus.x509 import der

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_MESSAGE: Final = 256 * 1024
MAX_CERTIFICATES: Final = 256
"""More than the authorities of a large hospital group plus the roll-over certificates of RFC 7030 4.1.3."""

_CONTEXT_0, _CONTEXT_1 = 0xA0, 0xA1
_ID_DATA: Final = der.object_identifier("1.2.840.113549.1.7.1")
_ID_SIGNED_DATA: Final = der.object_identifier("1.2.840.113549.1.7.2")
_EMPTY_SET: Final = der.encode_tlv(der.SET, b"")
_VERSIONS: Final = frozenset({b"\x01", b"\x03"})


def encode_certs_only(certificates: Iterable[bytes]) -> bytes:
    """A ContentInfo with a SignedData that carries `certificates` (DER) and nothing else.

    DER wants a SET OF sorted by its bytes, so the order given is not the order written.
    """
    carried = der.encode_tlv(_CONTEXT_0, b"".join(sorted(certificates)))
    signed_data = der.sequence(der.integer(1), _EMPTY_SET, der.sequence(_ID_DATA), carried, _EMPTY_SET)
    return der.sequence(_ID_SIGNED_DATA, der.explicit(0, signed_data))


def decode_certs_only(message: bytes) -> tuple[bytes, ...]:
    """The DER certificates of a degenerate SignedData, in the order of the message.

    Taken as DER with one tolerance: the SET OF certificates may be unsorted, as most servers write it. Signers and
    content are refused: a reader of certs-only must not take anything in it for signed. CRLs are ignored.
    Raises LimitExceeded(TOO_LARGE|TOO_MANY), Malformed(NON_DER|BAD_ENCODING|BAD_VERSION).
    """
    der.check_size(message, MAX_MESSAGE, "CMS message", "send fewer certificates in it")
    # RFC 5652 section 3: ContentInfo ::= SEQUENCE { contentType OID, content [0] EXPLICIT }
    outer = der.split_elements(der.content_of(message, der.SEQUENCE))
    if len(outer) != 2 or outer[0][2] != _ID_SIGNED_DATA or outer[1][0] != _CONTEXT_0:
        raise Malformed(Reason.BAD_ENCODING, "the CMS content type is not id-signedData (1.2.840.113549.1.7.2)")
    # RFC 5652 5.1: SignedData ::= SEQUENCE { version, digestAlgorithms, encapContentInfo, [0] certs, [1] crls,
    # signerInfos }
    fields = der.split_elements(der.content_of(outer[1][1], der.SEQUENCE))
    tags = [tag for tag, _, _ in fields]
    optional = [tag for tag in (_CONTEXT_0, _CONTEXT_1) if tag in tags]
    if tags != [der.INTEGER, der.SET, der.SEQUENCE, *optional, der.SET]:
        raise Malformed(
            Reason.BAD_ENCODING, "the fields of the CMS message are not those of a SignedData (RFC 5652 5.1)"
        )
    (_, version, _), (_, content, _) = fields[0], fields[2]
    if version not in _VERSIONS:
        raise Malformed(Reason.BAD_VERSION, f"SignedData version {version.hex()} is not the 1 that certs-only has")
    if content != _ID_DATA:
        raise Malformed(Reason.BAD_ENCODING, "the SignedData carries content; certs-only has none (RFC 8551 3.8)")
    if fields[-1][1]:
        raise Malformed(Reason.BAD_ENCODING, "the SignedData has signers; certs-only has none (RFC 8551 3.8)")
    return _decode_certificates(fields[3][1]) if _CONTEXT_0 in optional else ()


def _decode_certificates(elements: bytes) -> tuple[bytes, ...]:
    found = der.split_elements(elements)
    if len(found) > MAX_CERTIFICATES:
        msg = f"the CMS message carries {len(found)} certificates, at most {MAX_CERTIFICATES} are read here"
        raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_CERTIFICATES, value=len(found))
    if any(tag != der.SEQUENCE for tag, _, _ in found):
        raise Malformed(Reason.BAD_ENCODING, "the CMS message carries something that is not an X.509 certificate")
    return tuple(whole for _, _, whole in found)
