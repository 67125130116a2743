"""EST bodies and credentials as bytes and values (RFC 7030 as amended by RFC 8951); authenticates no peer.

A body is base64 of DER, on one line or wrapped, whatever Content-Transfer-Encoding says (RFC 8951 3.1 and 3.2.2);
bare DER is taken too, because embedded clients send it. Everything else is refused with what to change.
"""

from __future__ import annotations

import base64
import binascii
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
    text = body.strip(_WHITESPACE)
    # Base64 of a DER SEQUENCE always begins with "M", so the first byte distinguishes base64 from DER.
    if body[:1] == bytes((der.SEQUENCE,)):
        return body
    if not text:
        raise Malformed(Reason.BAD_ENCODING, "the EST body is empty; send base64 of the DER request")
    if text.startswith(b"-----"):
        msg = "the EST body is PEM; send the base64 without the BEGIN and END lines (RFC 7030 4.2.1)"
        raise Malformed(Reason.BAD_ENCODING, msg)
    return _decode_base64(text)


def _decode_base64(text: bytes) -> bytes:
    """Strict base64 (RFC 4648 section 4) with white space ignored. Raises Malformed(BAD_ENCODING)."""
    compact = text.translate(None, _WHITESPACE)
    try:
        decoded = base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    # RFC 4648 3.5: padding bits other than zero would give one request several spellings, so they are refused.
    if not decoded or base64.b64encode(decoded) != compact:
        msg = "the EST body is neither base64 nor DER; send base64 of the DER request, padded, in the standard alphabet"
        raise Malformed(Reason.BAD_ENCODING, msg)
    return decoded


def encode_body(der_bytes: bytes) -> bytes:
    """`der_bytes` as an EST body: base64 on one line, since strongSwan reads nothing else."""
    return base64.b64encode(der_bytes)


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
