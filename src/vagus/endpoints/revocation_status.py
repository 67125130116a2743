"""CRLs, OCSP responses and certificates of authorities over plain HTTP, as a table of routes; signs nothing.

    GET|HEAD /crl/{slug}/{generation}/{shard}.crl       RFC 5280 4.2.1.13; complete.crl, {shard}.delta.crl
    POST /ocsp, GET|HEAD /ocsp/{base64}                 RFC 6960 appendix A.1, RFC 5019; HEAD: RFC 9110 9.1
    GET|HEAD /ca/{slug}/{generation}.cer                RFC 5280 4.2.2.1, caIssuers

No TLS: everything here is signed or a certificate, and a client that checks a certificate cannot need one to do so.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, Protocol

from vagus.authority.crls.published import PublishedCrl
from vagus.authority.ocsp.responses import CachedResponse, SignedResponse
from vagus.clock import Clock
from vagus.endpoints.http import spell_name
from vagus.endpoints.routing import Request, Response, Route, RouteTable
from vagus.errors import LimitExceeded, Malformed, VagusError
from vagus.reasons import Reason
from vagus.x509.ocsp.messages import MAX_REQUEST, ResponseStatus

MAX_OCSP_PATH: Final = 4 * 1024
"""The largest base64 in a path; RFC 5019 section 5 sends more than 255 bytes by POST."""

OCSP_REQUEST: Final = "application/ocsp-request"
_OCSP_RESPONSE: Final = b"application/ocsp-response"
_CRL: Final = b"application/pkix-crl"  # RFC 2585 section 4.2: media type of a CRL
_CERTIFICATE: Final = b"application/pkix-cert"
_NO_STORE: Final = ((b"cache-control", b"no-store"),)

_FROM_BASE64URL: Final = str.maketrans("-_", "+/")
_OCSP_PATH = re.compile(r"/ocsp(?:/.*)?\Z", re.DOTALL)
_CRL_PATH = re.compile(r"/crl/([a-z0-9.-]{1,80})/([1-9][0-9]{0,3})/(complete|0|[1-9][0-9]{0,8})(\.delta)?\.crl\Z")
_CERTIFICATE_PATH = re.compile(r"/ca/([a-z0-9.-]{1,80})/([1-9][0-9]{0,3})\.cer\Z")

_log = logging.getLogger(__name__)


_TRY_LATER: Final = (
    Reason.UNSETTLED,
    Reason.RESTORE_UNSETTLED,
    Reason.STATUS_UNAVAILABLE,
    Reason.STATUS_STALE,
    Reason.KEY_NOT_OPEN,
    Reason.DATABASE_UNAVAILABLE,
    Reason.SEQUENCE_LOST,
    Reason.OVERLOADED,
    Reason.TIME_OUT,
    Reason.BUDGET_EXHAUSTED,
)
_MALFORMED: Final = (
    Reason.NON_DER,
    Reason.BAD_ENCODING,
    Reason.BAD_VERSION,
    Reason.BAD_REQUEST,
    Reason.BAD_ARGUMENT,
    Reason.BAD_EXTENSION,
    Reason.UNKNOWN_CRITICAL,
    Reason.TOO_LARGE,
    Reason.TOO_MANY,
    Reason.OCSP_INVALID,
    Reason.OCSP_NONCE,
    Reason.UNSUPPORTED_ALGORITHM,
)
_UNAUTHORIZED: Final = (  # RFC 5019 2.2.3: "unauthorized" says that this responder has no authoritative status
    Reason.AUTHORITY_UNKNOWN,
    Reason.NOT_FOUND,
    Reason.OCSP_MISMATCH,
    Reason.OCSP_RESPONDER,
    Reason.OCSP_STALE,  # the certificate of this responder has expired, so clients would refuse its responses
    Reason.KEY_OFFLINE,
)

OCSP_STATUS: Final[Mapping[Reason, ResponseStatus]] = MappingProxyType(
    dict.fromkeys(Reason, ResponseStatus.INTERNAL_ERROR)
    | dict.fromkeys(_TRY_LATER, ResponseStatus.TRY_LATER)
    | dict.fromkeys(_MALFORMED, ResponseStatus.MALFORMED_REQUEST)
    | dict.fromkeys(_UNAUTHORIZED, ResponseStatus.UNAUTHORIZED)
)
"""The OCSP status of each reason; a reason that is not named is a fault of ours, internalError."""


class Publications(Protocol):
    """Where CRLs and certificates come from: `PublishedCrls`, or `GuardedCrls` around it. `shard` -1 is the whole CRL.

    The `find_cached_` methods read memory, on the loop's thread. The others may wait for a database and are called on
    another thread.
    """

    def find_cached_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """The newest CRL of an authority's shard, from memory; None: ask `find_crl`."""
        ...

    def find_cached_certificate(self, name: str, generation: int) -> bytes | None:
        """The certificate of an authority, from memory; None: ask `find_certificate`."""
        ...

    def find_crl(self, name: str, generation: int, shard: int, *, is_delta: bool = False) -> PublishedCrl | None:
        """The newest CRL of an authority's shard; None where there is none."""
        ...

    def find_certificate(self, name: str, generation: int) -> bytes | None:
        """The certificate of an authority."""
        ...


class OcspSource(Protocol):
    """Who responds to OCSP requests: `OcspResponses`, and what guards it (setback, load)."""

    def respond(self, request_der: bytes, at: datetime) -> SignedResponse:
        """The response to a request. Raises VagusError, which OCSP_STATUS turns into an OCSP error."""
        ...

    def find_cached(self, request_der: bytes, at: datetime) -> CachedResponse | None:
        """What `respond` would give without signing or refusing anything, as the cached object, or None."""
        ...


@dataclass(frozen=True, slots=True)
class OcspReply:
    """The HTTP response to one OCSP request. `fields` are those beside type, length and Date."""

    status: HTTPStatus
    fields: Sequence[tuple[bytes, bytes]]
    body: bytes

    @property
    def ends_connection(self) -> bool:
        """Whether the connection ends with it: the rest of what was sent is not worth reading."""
        return self.status is not HTTPStatus.OK

    def encode(self) -> bytes:
        """All of it after status line and Date."""
        lines = [spell_name(name) + b": " + value + b"\r\n" for name, value in self.fields]
        head = b"Content-Type: %b\r\nContent-Length: %d\r\n" % (_OCSP_RESPONSE, len(self.body))
        return b"".join([head, *lines, b"\r\n", self.body])


class OcspReplies:
    """Turns OCSP requests into HTTP responses, errors included; reads no HTTP."""

    def __init__(self, source: OcspSource, clock: Clock, max_age: timedelta) -> None:
        self.source = source
        self.clock = clock
        self.max_age = max_age

    def reply(self, request_der: bytes) -> OcspReply:
        """The reply to one request; never raises."""
        at = self.clock.now()
        try:
            response = self.source.respond(request_der, at)
        except VagusError as error:
            return refusal_of(error)
        except Exception:  # noqa: BLE001 an OCSP client understands OCSP errors alone, so every failure becomes one
            _log.exception("an OCSP request failed through our own fault")
            return _refuse(ResponseStatus.INTERNAL_ERROR)
        return self.reply_with(response, at)

    def reply_with(self, response: SignedResponse, at: datetime) -> OcspReply:
        """The reply that carries `response`.

        RFC 5019 section 6: a response to a nonce is for one client. POST is not cached, but its headers do no harm.
        """
        body = response.response_der
        if response.next_update is None:
            return OcspReply(HTTPStatus.OK, _NO_STORE, body)
        digest = hashlib.sha256(body).digest()
        fields = _caching(digest, response.this_update, response.next_update, at, self.max_age)
        return OcspReply(HTTPStatus.OK, fields, body)


def status_app(*, publications: Publications, ocsp: OcspReplies) -> RouteTable:
    """The routes; CRLs may be cached for as long as OCSP responses are (`http_max_age` of the policy pack)."""
    handlers = _StatusHandlers(publications, ocsp)
    return RouteTable(
        routes=(
            Route(
                _OCSP_PATH,
                handlers.respond_to_ocsp,
                ("GET", "HEAD", "POST"),
                media_type=OCSP_REQUEST,
                is_media_type_optional=True,  # many OCSP clients send no Accept field
                body_limit=MAX_REQUEST,
            ),
            Route(_CRL_PATH, handlers.send_crl),
            Route(_CERTIFICATE_PATH, handlers.send_certificate),
        ),
    )


def encode_ocsp_error(status: ResponseStatus) -> bytes:
    """OCSPResponse with a status and nothing else (RFC 6960 4.2.1)."""
    return bytes((0x30, 0x03, 0x0A, 0x01, status))


class _StatusHandlers:
    """The handlers of one table; they hold no state of a request."""

    def __init__(self, publications: Publications, ocsp: OcspReplies) -> None:
        self._publications = publications
        self._ocsp = ocsp

    async def send_crl(self, request: Request) -> Response:
        """The newest CRL of a shard, complete or delta."""
        slug, generation, shard, delta = request.found.groups()
        place = _name_of(slug), int(generation), -1 if shard == "complete" else int(shard)
        source, is_delta = self._publications, delta is not None
        found = source.find_cached_crl(*place, is_delta=is_delta)
        if found is None:
            found = await asyncio.to_thread(source.find_crl, *place, is_delta=is_delta)
        if found is None:
            raise Malformed(Reason.NOT_FOUND, "no CRL is at this path; take the URL in the certificate")
        at, max_age = self._ocsp.clock.now(), self._ocsp.max_age
        headers = _caching(found.sha256, found.this_update, found.next_update, at, max_age)
        return _if_changed(request, Response(HTTPStatus.OK, _CRL, found.crl_der, headers))

    async def send_certificate(self, request: Request) -> Response:
        """The certificate of an authority."""
        slug, generation = request.found.groups()
        named, source = (_name_of(slug), int(generation)), self._publications
        certificate = source.find_cached_certificate(*named)
        if certificate is None:
            certificate = await asyncio.to_thread(source.find_certificate, *named)
        if certificate is None:
            raise Malformed(Reason.NOT_FOUND, "no authority's certificate is at this path; take the URL in caIssuers")
        headers = [(b"etag", _etag(hashlib.sha256(certificate).digest())), (b"cache-control", b"public, max-age=86400")]
        return _if_changed(request, Response(HTTPStatus.OK, _CERTIFICATE, certificate, headers))

    async def respond_to_ocsp(self, request: Request) -> Response:
        """RFC 6960 appendix A.1. An OCSP client understands OCSP alone, so errors are OCSP responses too."""
        try:
            request_der = await request.read_body() if request.method == "POST" else _decode_path(request.path)
        except VagusError as error:
            reply = refusal_of(error)
        else:
            reply = self._ocsp.reply(request_der)
        # Compare by ETag alone, not by date: a response "good" and a response "revoked" may be signed within one
        # second.
        return _if_changed(request, Response(reply.status, _OCSP_RESPONSE, reply.body, reply.fields), is_dated=False)


def _decode_path(path: str) -> bytes:
    """The request of a GET (RFC 6960 A.1): base64 after /ocsp/, percent-encoded or, as many send it, not.

    Clients that put it into a URL also send base64url (RFC 4648 section 5), whose two characters base64 does not have.

    Raises LimitExceeded(TOO_LARGE), Malformed(BAD_ENCODING).
    """
    text = path.removeprefix("/ocsp").lstrip("/")
    if len(text) > MAX_OCSP_PATH:
        msg = f"the OCSP request in the path has {len(text)} characters, {MAX_OCSP_PATH} are allowed; send it by POST"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_OCSP_PATH, value=len(text))
    try:
        plain = text.translate(_FROM_BASE64URL).encode("ascii")
        decoded = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        decoded = b""
    if not decoded:
        raise Malformed(Reason.BAD_ENCODING, "the path holds no base64 of an OCSP request (RFC 6960 A.1)")
    return decoded


def refusal_of(error: VagusError) -> OcspReply:
    """HTTP 200 with an OCSP status, as RFC 6960 A.2 has it; only what no OCSP client sends is an HTTP error."""
    is_too_large = isinstance(error, LimitExceeded) and error.reason is Reason.TOO_LARGE
    return _refuse(OCSP_STATUS[error.reason], is_too_large=is_too_large)


def _refuse(status: ResponseStatus, *, is_too_large: bool = False) -> OcspReply:
    body = encode_ocsp_error(status)
    if not is_too_large:
        return OcspReply(HTTPStatus.OK, _NO_STORE, body)
    fields = (*_NO_STORE, (b"connection", b"close"))  # the rest of a refused body is not read, so the connection ends
    return OcspReply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, fields, body)


def _caching(
    sha256: bytes, this_update: datetime, next_update: datetime, at: datetime, max_age: timedelta
) -> list[tuple[bytes, bytes]]:
    """RFC 5019 section 6.2. No cache may outlive nextUpdate, and none may keep it longer than the policy's age."""
    age = max(0, int(min(next_update - at, max_age).total_seconds()))
    return [
        (b"etag", _etag(sha256)),
        (b"last-modified", _http_date(this_update)),
        (b"expires", _http_date(next_update)),
        (b"cache-control", b"public, max-age=%d, no-transform, must-revalidate" % age),
    ]


def _if_changed(request: Request, response: Response, *, is_dated: bool = True) -> Response:
    """`response`, or 304 where the client has it already (RFC 9110 13.1.2, 13.1.3).

    `is_dated`: whether two bodies under one address never carry the same Last-Modified (RFC 9110 8.8.2.2).
    """
    own = dict(response.headers)
    wanted = request.headers.get(b"if-none-match")
    if wanted is not None:
        tags = {tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")}
        is_known = b"*" in tags or own.get(b"etag") in tags
    else:
        since = request.headers.get(b"if-modified-since")
        is_known = is_dated and since is not None and since == own.get(b"last-modified")
    if is_known and b"etag" in own and request.method != "POST":
        return Response(HTTPStatus.NOT_MODIFIED, headers=response.headers)
    return response


def _name_of(slug: str) -> str:
    """The authority that a slug names: labels have no dots, so exactly one name gives this slug."""
    return slug.replace(".", "/")


def _etag(sha256: bytes) -> bytes:
    return b'"' + sha256[:20].hex().encode("ascii") + b'"'


@lru_cache(maxsize=4096)
def _http_date(moment: datetime) -> bytes:
    return format_datetime(moment.astimezone(UTC).replace(microsecond=0), usegmt=True).encode("ascii")
