"""EST bodies and credentials as bytes and values (RFC 7030 as amended by RFC 8951); authenticates no peer.

A body is base64 of DER, on one line or wrapped, whatever Content-Transfer-Encoding says (RFC 8951 3.1 and 3.2.2);
bare DER is taken too, because embedded clients send it. Everything else is refused with what to change.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final

from vagus.errors import LimitExceeded, Malformed
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.algorithms import KeyAlgorithm

MAX_BODY: Final = 64 * 1024
"""The largest body in bytes that a decoder reads: an RSA-4096 or ML-DSA-87 request is under 12 kB."""

ROOT: Final = "/.well-known/est"
PKCS10: Final = "application/pkcs10"
# RFC 7030 4.2.3: the media type of a certs-only response; the client libest needs its parameter.
CERTS_ONLY: Final = "application/pkcs7-mime; smime-type=certs-only"
CSR_ATTRIBUTES: Final = "application/csrattrs"

_WHITESPACE = b" \t\r\n"
_MAX_HEADER = 1024


@unique
class Operation(StrEnum):
    """What RFC 7030 3.2.2 lets a client ask for; serverkeygen and fullcmc are left out on purpose."""

    CACERTS = "cacerts"
    SIMPLEENROLL = "simpleenroll"
    SIMPLEREENROLL = "simplereenroll"
    CSRATTRS = "csrattrs"


@dataclass(frozen=True, slots=True)
class BasicCredential:
    """What HTTP Basic carried (RFC 7617). No representation shows the password."""

    user: str
    password: str = field(repr=False)


def decode_body(body: bytes, *, limit: int = MAX_BODY) -> bytes:
    """The DER inside an EST body: base64 on one line or wrapped, or bare DER.

    Raises LimitExceeded(TOO_LARGE) above `limit` bytes and Malformed(BAD_ENCODING).
    """
    if len(body) > limit:
        msg = f"an EST body of {len(body)} bytes exceeds the limit of {limit} bytes; send the request alone"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=limit, value=len(body))
    # Base64 of a DER SEQUENCE always begins with "M", so the first byte distinguishes base64 from DER.
    if body[:1] == bytes((der.SEQUENCE,)):
        end = _find_end(body)
        if 0 < end < len(body) and not body[end:].strip(_WHITESPACE):
            msg = f"the EST body is DER with {len(body) - end} bytes of line end or space after it; send the DER alone"
            raise Malformed(Reason.BAD_ENCODING, msg)
        return body
    text = body.strip(_WHITESPACE)
    compact = text.translate(None, _WHITESPACE)
    decoded = _decode_base64(compact)
    # Form encoding makes spaces of plus signs: passed over like line ends, they would leave other bytes.
    with_plus = _decode_base64(body.translate(None, b"\t\r\n").replace(b" ", b"+"))
    is_form = b" " in text and _find_end(with_plus) == len(with_plus)
    if decoded and not is_form and decoded[:1] == bytes((der.SEQUENCE,)):
        return decoded
    seen = "it has spaces where base64 has plus signs, as form encoding (curl -d) leaves them; use --data-binary"
    raise Malformed(Reason.BAD_ENCODING, f"the EST body is not read: {seen if is_form else _describe(text, decoded)}")


_SEEN: Final[Sequence[tuple[re.Pattern[bytes], str]]] = tuple(
    (re.compile(pattern, re.DOTALL), said)
    for pattern, said in (
        (rb"\Z", "it is empty; send base64 of the DER request"),
        (rb"\xef\xbb\xbf|\xff\xfe|\xfe\xff", "it begins with a byte order mark (BOM); save it as plain ASCII"),
        (rb"-----BEGIN", "it is PEM; send the base64 without the BEGIN and END lines (RFC 7030 4.2.1)"),
        (rb".*-----BEGIN", "it is text and then PEM, as openssl req -text writes; send the base64 between the lines"),
        (rb"\x1f\x8b", "it is compressed with gzip; send it uncompressed"),
        (rb".*\x00\Z", "it ends with a zero byte, the end of a string in C; send the characters before it alone"),
        (rb"[\"'<{]", "it is quoted or inside another format; send the base64 alone"),
        (rb"[^%]*%[0-9A-Fa-f]{2}", "it is percent-encoded like a form or URL; send the base64 as it is"),
        (rb"[A-Za-z0-9+/\s]*[-_]", "it is base64url; send base64 in the standard alphabet (RFC 4648 section 4)"),
    )
)


def _describe(text: bytes, decoded: bytes) -> str:
    """What a body that is no base64 of a SEQUENCE is instead, with the remedy."""
    for pattern, said in _SEEN:
        if pattern.match(text):
            return said
    if decoded.startswith(b"-----BEGIN"):
        return "it is base64 of PEM; send base64 of the DER request"
    if _decode_base64(decoded.translate(None, _WHITESPACE))[:1] == bytes((der.SEQUENCE,)):
        return "it is base64 twice; encode the DER request once"
    if decoded:
        return "it is base64 of something other than a DER request; send PKCS#10"
    return "it is neither base64 nor DER; send base64 of the DER request, padded, in the standard alphabet"


def _decode_base64(compact: bytes) -> bytes:
    """Strict base64 (RFC 4648 section 4) without white space; b"" for anything else."""
    try:
        decoded = base64.b64decode(compact, validate=True)
    except ValueError:  # binascii.Error is one
        return b""
    # RFC 4648 3.5: padding bits other than zero would give one request several spellings, so they are refused.
    return decoded if base64.b64encode(decoded) == compact else b""


def _find_end(data: bytes) -> int:
    """Where the DER element that begins `data` ends; -1 where it does not decode or is cut off."""
    try:
        return der.read_element(data, 0, len(data))[2]
    except Malformed:
        return -1


def encode_body(der_bytes: bytes) -> bytes:
    """`der_bytes` as an EST body: base64 on one line, since strongSwan reads nothing else."""
    return base64.b64encode(der_bytes)


def encode_lines(der_bytes: bytes) -> bytes:
    """`der_bytes` as an EST body in lines of 64 characters, as OpenSSL's own decoder and so libest need it."""
    text = base64.b64encode(der_bytes)
    return b"".join(text[at : at + 64] + b"\n" for at in range(0, len(text), 64))


def is_content_type(header: str | None, expected: str) -> bool:
    """Whether a Content-Type header names `expected`; parameters and case are ignored (RFC 9110 8.3.1)."""
    return header is not None and header.partition(";")[0].strip().lower() == expected.partition(";")[0]


def decode_basic(header: str) -> BasicCredential | None:
    """What an Authorization header of scheme Basic carries; None for another scheme (RFC 7617 section 2).

    Raises Malformed(BAD_ENCODING) when it says Basic and does not decode.
    """
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        if len(value) > _MAX_HEADER:
            raise ValueError
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
        if not colon:
            raise ValueError
    except ValueError:  # binascii.Error and UnicodeDecodeError are subclasses of ValueError
        msg = f"the Basic credential is not base64 of user:password within {_MAX_HEADER} characters"
        raise Malformed(Reason.BAD_ENCODING, msg) from None
    return BasicCredential(user, password)


def encode_basic(credential: BasicCredential) -> str:
    """The Authorization header that carries `credential`."""
    return "Basic " + base64.b64encode(f"{credential.user}:{credential.password}".encode()).decode("ascii")


def encode_csr_attributes(key: KeyAlgorithm) -> bytes:
    """CsrAttrs (RFC 7030 4.5.2) that asks for a key of this kind and for nothing else: the profile gives the rest.

    Curves: Attribute { id-ecPublicKey, { curve } }; RSA: Attribute { rsaEncryption, { bits } }; where the key's OID
    says all (EdDSA, ML-DSA), that OID alone.
    """
    if key in _CURVES:
        wanted = der.sequence(_EC_PUBLIC_KEY, der.set_of([der.object_identifier(_CURVES[key])]))
    elif key in _RSA_BITS:
        wanted = der.sequence(_RSA_ENCRYPTION, der.set_of([der.integer(_RSA_BITS[key])]))
    else:
        wanted = der.object_identifier(_BARE_OIDS[key])
    return der.sequence(wanted)


_EC_PUBLIC_KEY: Final = der.object_identifier("1.2.840.10045.2.1")
_RSA_ENCRYPTION: Final = der.object_identifier("1.2.840.113549.1.1.1")
_CURVES: Final = {
    KeyAlgorithm.P256: "1.2.840.10045.3.1.7",
    KeyAlgorithm.P384: "1.3.132.0.34",
    KeyAlgorithm.P521: "1.3.132.0.35",
}
_RSA_BITS: Final = {KeyAlgorithm.RSA2048: 2048, KeyAlgorithm.RSA3072: 3072, KeyAlgorithm.RSA4096: 4096}
_BARE_OIDS: Final = {
    KeyAlgorithm.ED25519: "1.3.101.112",
    KeyAlgorithm.ED448: "1.3.101.113",
    KeyAlgorithm.MLDSA44: "2.16.840.1.101.3.4.3.17",
    KeyAlgorithm.MLDSA65: "2.16.840.1.101.3.4.3.18",
    KeyAlgorithm.MLDSA87: "2.16.840.1.101.3.4.3.19",
}
