"""What all HTTP listeners share: problem responses, reason to status, bounded bodies, checks against smuggling."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vagus.errors import LimitExceeded, Malformed, Unavailable, VagusError
from vagus.events.log import REFUSALS
from vagus.reasons import Reason
from vagus.wire.problems import CONTENT_TYPE, Problem, encode_problem, problem_from

# The types of ASGI (asgi.readthedocs.io), which other modules import from here.
__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send"]

Headers = Sequence[tuple[bytes, bytes]]

_log = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 5
_MAX_LENGTH_DIGITS: Final = 18

_BAD_REQUEST: Final = (
    Reason.NON_DER,
    Reason.BAD_ENCODING,
    Reason.BAD_VERSION,
    Reason.BAD_REQUEST,
    Reason.BAD_ARGUMENT,
    Reason.BUDGET_EXHAUSTED,
    # RFC 6585 4: 429 is for too many requests in a time, and clients would send the same request again
    Reason.TOO_MANY,
    Reason.WEAK_KEY,
    Reason.KEY_MISMATCH,
    Reason.EC_PARAMS,
    Reason.UNSUPPORTED_ALGORITHM,
    Reason.POP_FAILED,
    Reason.NAMES_CHANGED,
    Reason.SMUGGLING,
    Reason.TLS_HANDSHAKE,
)
_UNAUTHENTICATED: Final = (
    Reason.CREDENTIAL_MISSING,
    Reason.TOKEN_INVALID,
    Reason.TOKEN_EXPIRED,
    Reason.TOKEN_REUSED,
    Reason.TOKEN_SPENT,
)
_FORBIDDEN: Final = (
    Reason.KEY_BLOCKED,
    Reason.UNTRUSTED_ANCHOR,
    Reason.NO_PATH,
    Reason.BAD_SIGNATURE,
    Reason.SIG_ALG_MISMATCH,
    Reason.NAME_CHAINING,
    Reason.NOT_A_CA,
    Reason.PATHLEN,
    Reason.KEY_USAGE,
    Reason.UNKNOWN_CRITICAL,
    Reason.BAD_EXTENSION,
    Reason.NAME_CONSTRAINT,
    Reason.POLICY_REQUIRED,
    Reason.POLICY_MAPPING,
    Reason.PROFILE_VIOLATION,
    Reason.EXPIRED,
    Reason.EXPIRED_CA,
    Reason.NOT_YET_VALID,
    Reason.REVOKED,
    Reason.REVOKED_CA,
    Reason.ON_HOLD,
    Reason.CRL_ROLLBACK,
    Reason.CRL_INVALID,
    Reason.CRL_SCOPE,
    Reason.OCSP_INVALID,
    Reason.OCSP_STALE,
    Reason.OCSP_NONCE,
    Reason.OCSP_RESPONDER,
    Reason.OCSP_MISMATCH,
    Reason.NOT_ISSUED,
    Reason.NAME_MISMATCH,
    Reason.NON_CANONICAL,
    Reason.NAME_FORM,
    Reason.IDENTITY_MISSING,
    Reason.IDENTITY_AMBIGUOUS,
    Reason.ROLE_MISSING,
    Reason.ROLE_FORBIDDEN,
    Reason.WRONG_COMPARTMENT,
    Reason.POLICY_VIOLATION,
    Reason.LIFETIME_TOO_LONG,
    Reason.OUTLIVES_ISSUER,
    Reason.LINT,
    Reason.NOT_IN_INVENTORY,
    Reason.DEVICE_STATE,
    Reason.NOT_RENEWABLE,
    Reason.PURPOSE_FORBIDDEN,
    Reason.ACT_FORBIDDEN,
)
_CONFLICT: Final = (
    Reason.KEY_REUSE,
    Reason.CEREMONY_NEEDED,
    Reason.APPROVAL_MISSING,
    Reason.AUTHORITY_IN_USE,
    Reason.ALREADY_EXISTS,
    Reason.LEASE_LOST,
)
_UNAVAILABLE: Final = (
    Reason.CLOCK_ROLLBACK,
    Reason.CLOCK_AHEAD,
    Reason.STATUS_UNAVAILABLE,
    Reason.STATUS_STALE,
    Reason.STATUS_BEHIND,
    Reason.STATUS_OVERDUE,
    Reason.STATUS_INCOMPLETE,
    Reason.STATUS_UNTRUE,
    Reason.STATUS_DOUBTFUL,
    Reason.SNAPSHOT_INVALID,
    Reason.SNAPSHOT_ROLLBACK,
    Reason.UNSETTLED,
    # an operator will close the restore gap, so a device that asks again later gets its response
    Reason.RESTORE_UNSETTLED,
    Reason.KEY_OFFLINE,
    Reason.KEY_NOT_OPEN,
    Reason.DATABASE_UNAVAILABLE,
    Reason.OVERLOADED,
    Reason.SEQUENCE_LOST,
)
_OUR_FAULT: Final = (
    Reason.BAD_SETTINGS,
    Reason.BAD_PLAN,
    Reason.BAD_PACK,
    Reason.KEYSTORE_DAMAGED,
    Reason.PASSPHRASE_WRONG,
    Reason.PERMISSIONS_TOO_OPEN,
    Reason.DURABILITY_WEAK,
    Reason.SCHEMA_MISMATCH,
    Reason.DATABASE_IN_USE,
    Reason.LOG_TAMPERED,
    Reason.LOG_TRUNCATED,
    Reason.CHECKPOINT_INVALID,
    Reason.BACKUP_DAMAGED,
)

STATUS: Final[Mapping[Reason, HTTPStatus]] = MappingProxyType(
    dict.fromkeys(_BAD_REQUEST, HTTPStatus.BAD_REQUEST)
    | dict.fromkeys(_UNAUTHENTICATED, HTTPStatus.UNAUTHORIZED)
    | dict.fromkeys(_FORBIDDEN, HTTPStatus.FORBIDDEN)
    | dict.fromkeys(_CONFLICT, HTTPStatus.CONFLICT)
    | dict.fromkeys(_UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE)
    | dict.fromkeys(_OUR_FAULT, HTTPStatus.INTERNAL_SERVER_ERROR)
    | {
        Reason.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Reason.TIME_OUT: HTTPStatus.REQUEST_TIMEOUT,
        Reason.NOT_FOUND: HTTPStatus.NOT_FOUND,
        Reason.AUTHORITY_UNKNOWN: HTTPStatus.NOT_FOUND,
        Reason.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
        Reason.UPGRADE_REFUSED: HTTPStatus.NOT_IMPLEMENTED,
        Reason.UPSTREAM_UNREACHABLE: HTTPStatus.BAD_GATEWAY,
        Reason.UPSTREAM_TIME_OUT: HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""The status of each reason, where a protocol has no other one for it; a test checks that none is missing."""


def status_of(error: VagusError) -> HTTPStatus:
    """The status that `error` has on HTTP."""
    return STATUS.get(error.reason, HTTPStatus.INTERNAL_SERVER_ERROR)


def problem_headers(error: VagusError, status: int, size: int) -> list[tuple[bytes, bytes]]:
    """The header fields of a problem: type, length, no caching, and when to come back."""
    headers = [
        (b"content-type", CONTENT_TYPE.encode("ascii")),
        (b"content-length", b"%d" % size),
        (b"cache-control", b"no-store"),
    ]
    if isinstance(error, Unavailable) or status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"%d" % _RETRY_SECONDS))
    return headers


async def send_response(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    """One whole response; Content-Length is the caller's."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_problem(
    send: Send, error: VagusError, *, status: int | None = None, headers: Headers = (), close: bool = False
) -> None:
    """Send `error` as a problem document (RFC 9457); `close` ends the connection after it."""
    REFUSALS.note(error.reason)
    chosen = int(status or status_of(error))
    body = encode_problem(problem_from(error, chosen))
    fields = [*problem_headers(error, chosen, len(body)), *headers]
    if close:
        fields.append((b"connection", b"close"))
    await send_response(send, chosen, fields, body)


def refusing(error: VagusError, *, status: int | None = None) -> ASGIApp:
    """An application that responds to every request with `error`, and ends the connection."""

    async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_problem(send, error, status=status, close=True)

    return refuse


def reporting_errors(app: ASGIApp) -> ASGIApp:
    """`app`, with its errors sent as problems; one that is no VagusError is logged, and its problem has no detail.

    After the response has begun, an error can no longer be sent: it is raised, and the server cuts the connection.
    """

    async def reporting(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watching(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, watching)
        except VagusError as error:
            if has_begun:
                raise
            # The rest of a body that is too large is not read: the connection ends with the error response.
            await send_problem(send, error, close=isinstance(error, LimitExceeded))
        except Exception:
            if has_begun:
                raise
            _log.exception("an HTTP application failed; the client got a 500 without the cause")
            body = encode_problem(Problem(500, "INTERNAL", "this request failed through our own fault; it was logged"))
            fields = [(b"content-type", CONTENT_TYPE.encode("ascii")), (b"content-length", b"%d" % len(body))]
            await send_response(send, 500, [*fields, (b"connection", b"close")], body)

    return reporting


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole request body, at most `limit` bytes.

    A declared length over the limit is refused before a byte is read. Raises LimitExceeded(TOO_LARGE), and
    Malformed(BAD_REQUEST) when the client leaves in the middle.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:_MAX_LENGTH_DIGITS]) > limit:
            raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Malformed(Reason.BAD_REQUEST, "the client closed the connection before its request body was complete")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limit: int) -> LimitExceeded:
    return LimitExceeded(
        Reason.TOO_LARGE, f"the body exceeds the limit of {limit} bytes; send a smaller one", limit=limit
    )


def check_framing(http_version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse what two HTTP implementations could cut in different places, before anyone acts on it.

    Header names are lower case. Raises Malformed(SMUGGLING) and Malformed(BAD_REQUEST).
    """
    lengths: list[bytes] = []
    codings: list[bytes] = []
    hosts = 0
    for name, value in headers:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"host":
            hosts += 1
        elif name.replace(b"_", b"-") in {b"content-length", b"transfer-encoding"}:
            raise _smuggling("a header name that some servers read as Content-Length or Transfer-Encoding")
    # 1. RFC 9112 6.3: both length fields together are how requests are smuggled; no honest client sends them.
    if lengths and codings:
        raise _smuggling("both Content-Length and Transfer-Encoding")
    # 2. RFC 9112 6.1: Transfer-Encoding is chunked, alone and once, and only in HTTP/1.1.
    if codings and (http_version != "1.1" or [each.strip(b" \t").lower() for each in codings] != [b"chunked"]):
        raise _smuggling("a Transfer-Encoding other than a single 'chunked' on HTTP/1.1")
    # 3. RFC 9110 8.6: Content-Length is one number of digits only.
    if lengths and (len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _MAX_LENGTH_DIGITS):
        raise _smuggling("a Content-Length that is not one plain number")
    # 4. RFC 9112 3.2: an HTTP/1.1 request has exactly one Host field.
    if hosts > 1 or (http_version == "1.1" and hosts != 1):
        raise Malformed(Reason.BAD_REQUEST, f"the request has {hosts} Host fields; send one (RFC 9112 3.2)")


_ABSOLUTE: Final = re.compile(
    rb"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?\Z"
)
_AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")


def read_target(target: bytes, scheme: str) -> tuple[bytes, bytes | None]:
    """A request target as a path with its query, and the host that it names; None for the origin form (RFC 9112 3.2).

    A server accepts the absolute form, and its host takes the place of the Host field (3.2.2). So no server after this
    one gets two hosts to choose from. `scheme` is what the listener speaks. Raises Malformed(BAD_REQUEST).
    """
    # 1. The origin form and the asterisk form are what clients send to a server.
    if target.startswith(b"/") or target == b"*":
        return target, None
    found = _ABSOLUTE.match(target)
    if found is None:
        raise Malformed(Reason.BAD_REQUEST, "the request target is neither a path nor a URL; send the path alone")
    # 2. RFC 9110 7.4: https counts on a secured connection alone; http over TLS and all other schemes are not ours.
    if found["scheme"].lower() != scheme.encode("ascii"):
        msg = f"the request target is a URL of another scheme than {scheme}, which this listener speaks; send the path"
        raise Malformed(Reason.BAD_REQUEST, msg)
    # 3. RFC 9110 4.2.1, 4.2.4: an empty host is refused, and so is userinfo, which makes hosts look like others.
    if _AUTHORITY.match(found["authority"]) is None:
        msg = "the request target is a URL whose host is no plain host[:port]; leave user names out, or send the path"
        raise Malformed(Reason.BAD_REQUEST, msg)
    # 4. RFC 9112 3.2.1: an empty path is "/".
    return (found["path"] or b"/") + (found["query"] or b""), found["authority"]


_SPELLINGS: Final[Mapping[bytes, bytes]] = MappingProxyType(
    {name.lower(): name for name in (b"ETag", b"WWW-Authenticate", b"TE", b"DAV", b"MIME-Version", b"Content-MD5")}
)


@lru_cache(maxsize=512)
def spell_name(name: bytes) -> bytes:
    """A header name as the RFCs write it; HTTP ignores case (RFC 9110 5.1), but clients such as libest do not."""
    lowered = name.lower()
    return _SPELLINGS.get(lowered) or b"-".join(part.capitalize() for part in lowered.split(b"-"))


def spell_head(head: bytes) -> bytes:
    """A response's head, from the status line to the empty line, with its names spelt by `spell_name`."""
    first, *lines = head.split(b"\r\n")
    parts = (line.partition(b":") for line in lines)
    return b"\r\n".join([first, *(spell_name(name) + colon + value for name, colon, value in parts)])


def _smuggling(what: str) -> Malformed:
    return Malformed(Reason.SMUGGLING, f"the request has {what}; servers disagree about where such a request ends")
