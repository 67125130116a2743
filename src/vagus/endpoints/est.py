"""EST (RFC 7030, RFC 8951) as a raw ASGI application: decode, authenticate, one call, encode; decides nothing.

Left out on purpose: serverkeygen (a device makes its own key), fullcmc, and the tls-unique binding of RFC 7030 3.5,
which TLS 1.3 does not have.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from vagus.clock import Clock
from vagus.endpoints.http import (
    STATUS,
    ASGIApp,
    Receive,
    Scope,
    Send,
    answering_errors,
    read_body,
    send_problem,
    send_response,
)
from vagus.errors import LimitExceeded, Malformed, NotAuthorised, VagusError
from vagus.fleet.admission import Admitted
from vagus.fleet.enrolment.enrol import Enrolment, EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import read_evidence
from vagus.reasons import Reason
from vagus.wire import est
from vagus.wire.cms import encode_certs_only
from vagus.wire.est import EstPath, Operation
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.requests import decode_request

EST_STATUS: Final[Mapping[Reason, HTTPStatus]] = MappingProxyType(
    {
        **STATUS,
        # RFC 7030 3.2.3: 401 says that another credential could help; a stolen token is not such a case.
        Reason.TOKEN_REUSED: HTTPStatus.FORBIDDEN,
        # RFC 7030 4.2.3 knows 4xx for requests that are refused; 409 would invite a retry.
        Reason.KEY_REUSE: HTTPStatus.FORBIDDEN,
        Reason.NAMES_CHANGED: HTTPStatus.BAD_REQUEST,
    }
)
"""What each reason is on EST; a test holds that none is missing."""

CaCertificates = Callable[[str | None, Admitted | None], Sequence[bytes]]
"""The authorities' certificates for a label and a peer (None: somebody unknown), DER; KeyError for no such label."""

_PROTOCOL: Final = "est"  # in request ids and ledger entries: databases hold it
_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="est", charset="UTF-8"')
_METHODS: Final = {
    Operation.CACERTS: "GET",
    Operation.CSRATTRS: "GET",
    Operation.SIMPLEENROLL: "POST",
    Operation.SIMPLEREENROLL: "POST",
}


class _MediaType(Malformed):
    """A body of another type than the operation takes: 415, which no reason has for itself."""


class _Method(Malformed):
    """Another method than the operation has; `allow` is the right one."""

    allow: str = ""


def est_app(
    *,
    enrolment: Enrolment,
    ca_certificates: CaCertificates,
    clock: Clock,
    labels: frozenset[str] = frozenset({"server"}),
    csr_key: KeyAlgorithm = KeyAlgorithm.P256,
    is_wrapped: bool = False,
) -> ASGIApp:
    """The application under /.well-known/est. `labels` are those that exist beside none at all.

    `is_wrapped` writes base64 in lines, for listeners whose clients demand it.
    """
    door = _Door(enrolment, ca_certificates, clock, labels, csr_key, is_wrapped=is_wrapped)
    return answering_errors(door)


class _Door:
    """One application; holds no state of a request."""

    def __init__(
        self,
        enrolment: Enrolment,
        ca_certificates: CaCertificates,
        clock: Clock,
        labels: frozenset[str],
        csr_key: KeyAlgorithm,
        *,
        is_wrapped: bool,
    ) -> None:
        self._enrolment = enrolment
        self._ca_certificates = ca_certificates
        self._clock = clock
        self._labels = labels
        self._csr_attributes = est.encode_csr_attributes(csr_key)
        self._is_wrapped = is_wrapped
        self._waiting: _Commits | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, receive, send)
        except VagusError as error:
            await _refuse(send, error)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # 1. Which operation (RFC 7030 3.2.2).
        path = est.decode_path(scope["path"])
        if path.label is not None and path.label not in self._labels:
            raise Malformed(Reason.NOT_FOUND, f"there is no EST label {path.label}; leave it out")
        _check_method(scope["method"], path.operation)
        # 2. Whose connection: the verdict was reached before the first byte. A refused peer is never anonymous.
        admitted = _admitted(scope)
        match path.operation:
            case Operation.CACERTS:
                await self._cacerts(path, admitted, send)
            case Operation.CSRATTRS:
                await self._send_body(send, est.CSR_ATTRIBUTES, self._csr_attributes)
            case Operation.SIMPLEENROLL:
                await self._enrol(scope, receive, send, path, admitted, Kind.ENROL)
            case Operation.SIMPLEREENROLL:
                await self._enrol(scope, receive, send, path, admitted, Kind.RENEW)

    async def _cacerts(self, path: EstPath, admitted: Admitted | None, send: Send) -> None:
        """RFC 7030 4.1: for everybody, whether known or not."""
        certificates = self._ca_certificates(path.label, admitted)
        await self._send_body(send, est.CERTS_ONLY, encode_certs_only(certificates))

    async def _enrol(
        self, scope: Scope, receive: Receive, send: Send, path: EstPath, admitted: Admitted | None, kind: Kind
    ) -> None:
        headers = dict(scope["headers"])
        # 3. A credential, before anything of the body is worth an effort (RFC 7030 3.2.3).
        credential = _basic(headers.get(b"authorization"))
        if credential is None and (admitted is None or admitted.device is None):
            msg = "no credential: show the maker's or the current certificate, or send a one-time token as Basic"
            raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
        # 4. The request (RFC 7030 4.2.1, RFC 8951 3.1): Content-Transfer-Encoding is ignored.
        if not est.is_content_type(headers.get(b"content-type", b"").decode("latin-1"), est.PKCS10):
            raise _MediaType(Reason.BAD_REQUEST, f"the body must be {est.PKCS10}; set Content-Type so")
        csr = decode_request(est.decode_body(await read_body(scope, receive, est.MAX_BODY)))
        token, user = (None, None) if credential is None else (credential.password, credential.user)
        evidence = read_evidence(admitted, token, user)
        # 5. The one call; the answer leaves after the commit that covers it.
        pending = self._enrolment.begin(
            EnrolmentRequest(
                csr=csr,
                kind=kind,
                evidence=evidence,
                protocol=_PROTOCOL,
                label=path.label,
            ),
            self._clock.now(),
            is_patient=True,
        )
        await self._commits().wait_for(pending.committed)
        issued = pending.finish()
        # 6. RFC 7030 4.2.3: the issued certificate alone.
        await self._send_body(send, est.CERTS_ONLY, encode_certs_only((issued.der,)))

    def _commits(self) -> _Commits:
        loop = asyncio.get_running_loop()
        if self._waiting is None or self._waiting.loop is not loop:
            self._waiting = _Commits(loop, self._enrolment.hurry)
        return self._waiting

    async def _send_body(self, send: Send, content_type: str, der: bytes) -> None:
        body = est.encode_body(der, is_wrapped=self._is_wrapped)
        headers = [
            (b"content-type", content_type.encode("ascii")),
            (b"content-length", b"%d" % len(body)),
            (b"content-transfer-encoding", b"base64"),  # RFC 8951 wants none; clients of RFC 7030 do (libest)
            (b"cache-control", b"no-store"),
        ]
        await send_response(send, 200, headers, body)


class _Commits:
    """Lets requests wait for commits, with one wake of the writer a turn of the loop, and one of the loop a commit.

    asyncio.wrap_future wakes it for each: a system call and a change of threads, more than a signature costs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, hurry: Callable[[], None]) -> None:
        self.loop = loop
        self._hurry = hurry
        self._is_hurry_due = False
        self._resolved: deque[asyncio.Future[None]] = deque()
        self._is_called = False

    async def wait_for(self, committed: Future[Any]) -> None:
        """Return once `committed` has its result or its error; neither is looked at here."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        committed.add_done_callback(lambda _: self._note(waiter))
        if not self._is_hurry_due:
            self._is_hurry_due = True
            self.loop.call_soon(self._hurry_once)  # behind every request that this turn of the loop still begins
        await waiter

    def _hurry_once(self) -> None:
        self._is_hurry_due = False
        self._hurry()

    def _note(self, waiter: asyncio.Future[None]) -> None:
        """On the writing thread. The order matters: what is appended before the look at the flag is released."""
        self._resolved.append(waiter)
        if not self._is_called:
            self._is_called = True
            self.loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._is_called = False
        while self._resolved:
            waiter = self._resolved.popleft()
            if not waiter.done():  # its request may have been cancelled
                waiter.set_result(None)


def _admitted(scope: Scope) -> Admitted | None:
    """What the listener's verdict found of the peer."""
    admitted = (scope.get("extensions", {}).get("tls") or {}).get("admitted")
    return admitted if isinstance(admitted, Admitted) else None


def _basic(header: bytes | None) -> est.BasicCredential | None:
    """The Basic credential. Raises NotAuthorised(CREDENTIAL_MISSING) for another scheme, Malformed(BAD_ENCODING)."""
    if header is None:
        return None
    credential = est.decode_basic(header.decode("latin-1"))
    if credential is None:
        msg = "only HTTP Basic with a one-time token is taken here (RFC 7030 3.2.3)"
        raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
    return credential


def _check_method(method: str, operation: Operation) -> None:
    expected = _METHODS[operation]
    if method != expected:
        error = _Method(Reason.METHOD_NOT_ALLOWED, f"{operation} takes {expected}, not {method[:16]!r}")
        error.allow = expected
        raise error


async def _refuse(send: Send, error: VagusError) -> None:
    """One table, and the header fields that some statuses must have."""
    status = EST_STATUS.get(error.reason, HTTPStatus.INTERNAL_SERVER_ERROR)
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, _MediaType):
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        headers.append((b"accept", est.PKCS10.encode("ascii")))  # RFC 9110 15.5.16
    if isinstance(error, _Method):
        headers.append((b"allow", error.allow.encode("ascii")))
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append(_CHALLENGE)
    await send_problem(send, error, status=status, headers=headers, close=isinstance(error, LimitExceeded))
