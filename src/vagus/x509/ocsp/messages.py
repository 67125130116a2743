"""OCSP requests and responses decoded strictly (RFC 6960, nonces by RFC 9654); builds none and decides no status."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from types import MappingProxyType

from vagus.errors import LimitExceeded, Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509 import extensions as ext
from vagus.x509.certificates import Extension, PathCertificate, decode_certificate, read_extensions
from vagus.x509.keys import key_bytes
from vagus.x509.names.distinguished import DistinguishedName, decode_name
from vagus.x509.signatures import HASH_NAMES

# limit in bytes of an OCSP request: a signature with its certificates fits; RFC 5019 wants under 255
MAX_REQUEST = 16_384
MAX_RESPONSE = 262_144  # limit in bytes of an OCSP response: a post-quantum responder certificate and signature fit
MAX_ASKED = 16  # limit of certificates in one OCSP request
MAX_SINGLES = 256
MAX_RESPONDER_CERTIFICATES = 8
_BASIC = der.oid_contents("1.3.6.1.5.5.7.48.1.1")
NONCE = der.oid_contents("1.3.6.1.5.5.7.48.1.2")
_ACCEPTABLE_RESPONSES = der.oid_contents("1.3.6.1.5.5.7.48.1.4")
_KNOWN_RESPONSE_EXTENSIONS = frozenset(
    {
        NONCE,
        der.oid_contents("1.3.6.1.5.5.7.48.1.9"),  # extended revoked definition, RFC 6960 4.4.8
        der.oid_contents("1.3.6.1.5.5.7.48.1.6"),  # archive cutoff, RFC 6960 4.4.4
        der.oid_contents("1.3.6.1.5.5.7.48.1.3"),  # CRL references, RFC 6960 4.4.2
    }
)


class ResponseStatus(IntEnum):
    """4.2.1. Number 4 is not used."""

    SUCCESSFUL = 0
    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    SIG_REQUIRED = 5
    UNAUTHORIZED = 6


class CertStatus(IntEnum):
    """The CHOICE of CertStatus, by its context tag."""

    GOOD = 0
    REVOKED = 1
    UNKNOWN = 2


@dataclass(frozen=True, slots=True)
class CertId:
    """4.1.1: a certificate by hashes of its issuer's name and key and its serial number."""

    der: bytes  # the CertID byte for byte, as the response must repeat it
    hash_name: str  # hash of the CertID; "sha1" only names issuers and signs nothing; "" for an unknown hash
    name_hash: bytes
    key_hash: bytes
    serial: int
    serial_bytes: bytes

    def names(self, certificate: PathCertificate, issuer: PathCertificate) -> bool:
        """Whether it is `certificate`, issued by `issuer`. 4.1.1: the name is hashed as the issuer itself writes it."""
        if self.serial_bytes != certificate.serial_bytes or not self.hash_name:
            return False
        if not certificate.issuer.matches(issuer.subject):
            return False
        return self.name_hash == hashlib.new(self.hash_name, issuer.subject.der).digest() and (
            self.key_hash == hashlib.new(self.hash_name, key_bytes(issuer.spki_der)).digest()
        )


@dataclass(frozen=True, slots=True)
class OcspRequest:
    """What a client asks; its optional signature is not read (4.1.2: a responder may ignore it)."""

    asked: tuple[CertId, ...]
    nonce: bytes | None
    extensions: Mapping[bytes, Extension]


@dataclass(frozen=True, slots=True)
class SingleResponse:
    """What the responder says of one certificate."""

    cert_id: CertId
    status: CertStatus
    revoked_at: datetime | None
    revocation_reason: int | None
    this_update: datetime
    next_update: datetime | None


@dataclass(frozen=True, slots=True)
class OcspResponse:
    """A basic response that decoded; nothing in it is verified."""

    tbs_der: bytes
    sha256: bytes  # SHA-256 of the whole OCSP response
    algorithm_der: bytes
    signature: bytes
    responder_name: DistinguishedName | None
    responder_key_hash: bytes | None  # responderID by key: SHA-1 of the responder's key
    produced_at: datetime
    singles: tuple[SingleResponse, ...]
    nonce: bytes | None
    certificates: tuple[PathCertificate, ...]


# --- OCSP requests --------------------------------------------------------------------------------------------------


def decode_ocsp_request(request_der: bytes) -> OcspRequest:
    """The request that fills `request_der`.

    Raises Malformed(NON_DER|BAD_VERSION|BAD_REQUEST|UNKNOWN_CRITICAL), LimitExceeded(TOO_LARGE|TOO_MANY).
    """
    der.check_size(request_der, MAX_REQUEST, "OCSP request", "ask for fewer certificates")
    data = bytes(request_der)
    start, end = der.read_whole(data, der.SEQUENCE, "an OCSPRequest")
    first, last = der.read_expected(data, start, end, der.SEQUENCE, "tbsRequest")
    if last != end and der.read_element(data, last, end)[::2] != (0xA0, end):
        der.fail("an OCSPRequest ends with something other than its signature")
    asked: list[CertId] = []
    extensions: Mapping[bytes, Extension] = {}
    for tag, _, inner, outer in der.read_children(data, first, last):
        if tag == 0xA0:
            # RFC 6960 4.1.1: v1 is the default and the only version, and DER leaves defaults out.
            raise Malformed(Reason.BAD_VERSION, "the OCSP request states version 1; leave out this default")
        if tag == der.SEQUENCE and not asked:
            asked = _read_asked(data, inner, outer)
        elif tag == 0xA2 and asked:
            extensions = _read_request_extensions(data, inner, outer, "requestExtensions")
        elif tag != 0xA1:
            der.fail("tbsRequest holds an unknown field")
    if not asked:
        raise Malformed(Reason.BAD_REQUEST, "the OCSP request names no certificate; name at least one")
    return OcspRequest(tuple(asked), _nonce(extensions), MappingProxyType(dict(extensions)))


def _read_request_extensions(data: bytes, start: int, end: int, what: str) -> Mapping[bytes, Extension]:
    """4.1.2, 4.4: what is not known is ignored, but for what the client calls critical."""
    extensions = read_extensions(data, *der.read_only(data, start, end, der.SEQUENCE, what))
    for extension in extensions.values():
        if extension.is_critical and not _is_understood(extension):
            name = der.oid_text(extension.oid)
            msg = f"the OCSP request has the critical extension {name}, which is not known here; leave it out"
            raise Malformed(Reason.UNKNOWN_CRITICAL, msg, extension=name)
    return extensions


def _is_understood(extension: Extension) -> bool:
    if extension.oid == _ACCEPTABLE_RESPONSES:
        # RFC 6960 4.4.3: id-pkix-ocsp-basic is the only response type that exists.
        return _BASIC in ext.decode_oid_list(extension.value, "AcceptableResponses")
    return extension.oid == NONCE


def _read_asked(data: bytes, start: int, end: int) -> list[CertId]:
    asked = []
    for first, last in der.read_each(data, start, end, der.SEQUENCE, "a Request"):
        cert_id, after = _read_cert_id(data, first, last)
        if after != last:
            place = der.read_only(data, after, last, 0xA0, "singleRequestExtensions")
            _read_request_extensions(data, *place, "singleRequestExtensions")
        asked.append(cert_id)
        if len(asked) > MAX_ASKED:
            msg = f"the OCSP request names more than {MAX_ASKED} certificates; send several requests"
            raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_ASKED)
    return asked


def _read_cert_id(data: bytes, at: int, end: int) -> tuple[CertId, int]:
    start, stop = der.read_expected(data, at, end, der.SEQUENCE, "a CertID")
    algorithm_start, algorithm_end = der.read_expected(data, start, stop, der.SEQUENCE, "hashAlgorithm")
    oid_start, oid_end = der.read_expected(data, algorithm_start, algorithm_end, der.OBJECT_IDENTIFIER, "hashAlgorithm")
    name_start, name_end = der.read_expected(data, algorithm_end, stop, der.OCTET_STRING, "issuerNameHash")
    key_start, key_end = der.read_expected(data, name_end, stop, der.OCTET_STRING, "issuerKeyHash")
    serial_start, serial_end = der.read_only(data, key_end, stop, der.INTEGER, "serialNumber")
    has_plain_parameters = data[oid_end:algorithm_end] in {b"", der.NULL_DER}
    return CertId(
        der=data[at:stop],
        hash_name=HASH_NAMES.get(data[oid_start:oid_end], "") if has_plain_parameters else "",
        name_hash=data[name_start:name_end],
        key_hash=data[key_start:key_end],
        serial=der.integer_value(data, serial_start, serial_end, "serialNumber", longest=der.MAX_SERIAL),
        serial_bytes=data[serial_start:serial_end],
    ), stop


def _nonce(extensions: Mapping[bytes, Extension]) -> bytes | None:
    """RFC 9654 2.1: an OCTET STRING of 1 to 128 bytes inside extnValue; older clients put the bytes in bare."""
    extension = extensions.get(NONCE)
    if extension is None:
        return None
    value = extension.value
    if value[:3] == b"\x04\x81\x80" and len(value) == 3 + 128:  # 128 bytes: DER spells the length as 81 80
        value = value[3:]
    elif value[:1] == b"\x04" and len(value) >= 2 and value[1] == len(value) - 2:
        value = value[2:]
    if not 1 <= len(value) <= 128:
        msg = f"the OCSP nonce has {len(value)} bytes, and RFC 9654 allows 1 to 128; send 32"
        raise Malformed(Reason.BAD_REQUEST, msg, value=len(value))
    return value


# --- OCSP responses -------------------------------------------------------------------------------------------------


def decode_ocsp_response(response_der: bytes) -> OcspResponse:
    """The successful basic response that fills `response_der`.

    Raises NotTrusted(STATUS_UNAVAILABLE) for every other responseStatus (tryLater and unauthorized carry no status),
    NotTrusted(OCSP_INVALID) for critical extensions that are not known, Malformed(NON_DER|…),
    LimitExceeded(TOO_LARGE|TOO_MANY).
    """
    der.check_size(response_der, MAX_RESPONSE, "OCSP response", "send fewer certificates in it")
    data = bytes(response_der)
    start, end = der.read_whole(data, der.SEQUENCE, "an OCSPResponse")
    first, last = der.read_expected(data, start, end, der.ENUMERATED, "responseStatus")
    status = der.integer_value(data, first, last, "responseStatus")
    if status != ResponseStatus.SUCCESSFUL:
        msg = f"the OCSP responder sent the error status {status} and no certificate status; ask again later"
        raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg, status=status)
    outer = der.read_only(data, last, end, 0xA0, "responseBytes")
    bytes_start, bytes_end = der.read_only(data, *outer, der.SEQUENCE, "ResponseBytes")
    oid_start, oid_end = der.read_expected(data, bytes_start, bytes_end, der.OBJECT_IDENTIFIER, "responseType")
    if data[oid_start:oid_end] != _BASIC:
        raise NotTrusted(Reason.OCSP_INVALID, "the OCSP response is not basic (RFC 6960 4.2.1); request a basic one")
    basic_start, basic_end = der.read_only(data, oid_end, bytes_end, der.OCTET_STRING, "response")
    return _read_basic(data[basic_start:basic_end], hashlib.sha256(data).digest())


def _read_basic(data: bytes, digest: bytes) -> OcspResponse:
    start, end = der.read_whole(data, der.SEQUENCE, "a BasicOCSPResponse")
    _, tbs_end = der.read_expected(data, start, end, der.SEQUENCE, "tbsResponseData")
    _, algorithm_end = der.read_expected(data, tbs_end, end, der.SEQUENCE, "signatureAlgorithm")
    signature_start, signature_end = der.read_expected(data, algorithm_end, end, der.BIT_STRING, "signature")
    certificates: tuple[PathCertificate, ...] = ()
    if signature_end != end:
        certificates = _read_certificates(data, *der.read_only(data, signature_end, end, 0xA0, "certs"))
    tbs_der = data[start:tbs_end]
    name, key_hash, at = _read_responder(tbs_der)
    produced_at, at = _read_time(tbs_der, at, len(tbs_der), "producedAt")
    singles_start, singles_end = der.read_expected(tbs_der, at, len(tbs_der), der.SEQUENCE, "responses")
    extensions = _read_response_extensions(tbs_der, singles_end, len(tbs_der), 0xA1)
    return OcspResponse(
        tbs_der=tbs_der,
        sha256=digest,
        algorithm_der=data[tbs_end:algorithm_end],
        signature=der.whole_bytes(data, signature_start, signature_end, "signature"),
        responder_name=name,
        responder_key_hash=key_hash,
        produced_at=produced_at,
        singles=_read_singles(tbs_der, singles_start, singles_end),
        nonce=_nonce(extensions),
        certificates=certificates,
    )


def _read_time(data: bytes, at: int, end: int, what: str) -> tuple[datetime, int]:
    first, last = der.read_expected(data, at, end, der.GENERALIZED_TIME, what)
    return der.time_value(data, der.GENERALIZED_TIME, first, last, what), last


def _read_responder(tbs_der: bytes) -> tuple[DistinguishedName | None, bytes | None, int]:
    start, end = der.read_whole(tbs_der, der.SEQUENCE, "tbsResponseData")
    tag, first, last = der.read_element(tbs_der, start, end)
    if tag == 0xA0:
        der.fail("the version of an OCSP response is v1, its default, and must be left out")
    if tag == 0xA1:
        return decode_name(tbs_der[first:last]), None, last
    if tag != 0xA2:
        der.fail("a ResponderID is neither a name nor a key hash")
    key_start, key_end = der.read_only(tbs_der, first, last, der.OCTET_STRING, "KeyHash")
    return None, tbs_der[key_start:key_end], last


def _read_certificates(data: bytes, start: int, end: int) -> tuple[PathCertificate, ...]:
    first, last = der.read_expected(data, start, end, der.SEQUENCE, "certs")
    children = der.read_children(data, first, last)
    if last != end or len(children) > MAX_RESPONDER_CERTIFICATES:
        msg = f"the OCSP response has more than {MAX_RESPONDER_CERTIFICATES} certificates; one is enough"
        raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_RESPONDER_CERTIFICATES)
    return tuple(decode_certificate(data[at:stop]) for _, at, _, stop in children)


def _read_response_extensions(data: bytes, at: int, end: int, tag: int) -> Mapping[bytes, Extension]:
    if at == end:
        return {}
    what = "extensions of an OCSP response"
    tagged = der.read_only(data, at, end, tag, what)
    extensions = read_extensions(data, *der.read_only(data, *tagged, der.SEQUENCE, what))
    for oid, extension in extensions.items():
        if extension.is_critical and oid not in _KNOWN_RESPONSE_EXTENSIONS:
            msg = f"the OCSP response has the critical extension {der.oid_text(oid)}, which is not known here"
            raise NotTrusted(Reason.OCSP_INVALID, msg)
    return extensions


def _read_singles(data: bytes, start: int, end: int) -> tuple[SingleResponse, ...]:
    singles = []
    for place in der.read_each(data, start, end, der.SEQUENCE, "a SingleResponse"):
        singles.append(_read_single(data, *place))
        if len(singles) > MAX_SINGLES:
            msg = f"the OCSP response covers more than {MAX_SINGLES} certificates; request fewer"
            raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_SINGLES)
    return tuple(singles)


def _read_single(data: bytes, start: int, end: int) -> SingleResponse:
    cert_id, at = _read_cert_id(data, start, end)
    tag, first, last = der.read_element(data, at, end)
    revoked_at = reason = next_update = None
    if tag in {0x80, 0x82}:
        status = CertStatus.GOOD if tag == 0x80 else CertStatus.UNKNOWN
        if first != last:
            der.fail("good or unknown with contents")
    elif tag == 0xA1:
        status = CertStatus.REVOKED
        revoked_at, time_end = _read_time(data, first, last, "revocationTime")
        if time_end != last:
            tagged = der.read_only(data, time_end, last, 0xA0, "revocationReason")
            place = der.read_only(data, *tagged, der.ENUMERATED, "revocationReason")
            reason = der.integer_value(data, *place, "revocationReason")
    else:
        der.fail("a CertStatus that does not exist")
    this_update, at = _read_time(data, last, end, "thisUpdate")
    if at < end and data[at] == 0xA0:
        _, inner, at = der.read_element(data, at, end)
        first, last = der.read_only(data, inner, at, der.GENERALIZED_TIME, "nextUpdate")
        next_update = der.time_value(data, der.GENERALIZED_TIME, first, last, "nextUpdate")
    _read_response_extensions(data, at, end, 0xA1)
    return SingleResponse(cert_id, status, revoked_at, reason, this_update, next_update)
