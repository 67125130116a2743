"""EST (RFC 7030, RFC 8951) as a table of routes: decode, authenticate, one call, encode; decides nothing.

Left out on purpose: serverkeygen (a device makes its own key), fullcmc, and the tls-unique binding of RFC 7030 3.5,
which TLS 1.3 does not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from vagus.clock import Clock
from vagus.endpoints.commit_waiter import CommitWaiter
from vagus.endpoints.http import STATUS
from vagus.endpoints.routing import Handler, Request, Response, Route, RouteTable
from vagus.errors import NotAuthorised
from vagus.fleet.admission import Admitted
from vagus.fleet.enrolment.enrol import Enrolment, EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import read_evidence
from vagus.reasons import Reason
from vagus.wire import est
from vagus.wire.cms import encode_certs_only
from vagus.wire.est import Operation
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.requests import decode_request

EST_STATUS: Final[Mapping[Reason, HTTPStatus]] = MappingProxyType(
    {
        **STATUS,
        # RFC 7030 3.2.3: 401 invites the client to send another credential, which is no remedy for a token that another
        # key has used.
        Reason.TOKEN_REUSED: HTTPStatus.FORBIDDEN,
        # RFC 7030 4.2.3: refused requests get 4xx. 409 is avoided, for clients would take it as an invitation to retry.
        Reason.KEY_REUSE: HTTPStatus.FORBIDDEN,
        Reason.NAMES_CHANGED: HTTPStatus.BAD_REQUEST,
    }
)
"""The status of each reason on EST; a test checks that none is missing."""

CaCertificates = Callable[[str | None, Admitted | None], Sequence[bytes]]
"""The authorities' certificates (DER) for a label and a peer, which is None for an anonymous one."""

# Never change this text: request ids and ledger entries in existing databases contain it.
_PROTOCOL: Final = "est"
_LABEL: Final = "server|sdc"
_CHALLENGE: Final = b'Basic realm="est", charset="UTF-8"'


def est_app(
    *,
    enrolment: Enrolment,
    ca_certificates: CaCertificates,
    clock: Clock,
    wanted_key: KeyAlgorithm = KeyAlgorithm.P256,
    is_wrapped: bool = False,
) -> RouteTable:
    """The routes under /.well-known/est, with or without the label (RFC 7030 3.2.2).

    `wanted_key` is what clients are asked for (4.5); the profile of a device decides what it may have. `is_wrapped`
    sends base64 in lines, which clients of RFC 7030 such as libest need and strongSwan does not read.
    """
    handlers = _EstHandlers(enrolment, ca_certificates, clock, wanted_key, is_wrapped=is_wrapped)

    def path(operation: Operation) -> re.Pattern[str]:
        return re.compile(rf"{re.escape(est.ROOT)}/(?:({_LABEL})/)?{operation}\Z")

    return RouteTable(
        routes=(
            Route(path(Operation.CACERTS), handlers.send_ca_certificates),
            Route(path(Operation.CSRATTRS), handlers.send_csr_attributes),
            _enrolling(path(Operation.SIMPLEENROLL), partial(handlers.enrol, kind=Kind.ENROL)),
            _enrolling(path(Operation.SIMPLEREENROLL), partial(handlers.enrol, kind=Kind.RENEW)),
        ),
        root=f"{est.ROOT}/",
        statuses=EST_STATUS,
        challenge=_CHALLENGE,
        not_found=f"no EST operation at this path; offered under {est.ROOT}/[label/] are {', '.join(Operation)}",
    )


def _enrolling(path: re.Pattern[str], handler: Handler) -> Route:
    return Route(path, handler, ("POST",), media_type=est.PKCS10, body_limit=est.MAX_BODY)


class _EstHandlers:
    """The handlers of one table; they hold no state of a request."""

    def __init__(
        self,
        enrolment: Enrolment,
        ca_certificates: CaCertificates,
        clock: Clock,
        wanted_key: KeyAlgorithm,
        *,
        is_wrapped: bool,
    ) -> None:
        self._enrolment = enrolment
        self._ca_certificates = ca_certificates
        self._clock = clock
        self._csr_attributes = est.encode_csr_attributes(wanted_key)
        self._commits = CommitWaiter(enrolment.hurry)
        self._encode = est.encode_lines if is_wrapped else est.encode_body

    async def send_ca_certificates(self, request: Request) -> Response:
        """RFC 7030 4.1: for anonymous peers too."""
        certificates = self._ca_certificates(request.found[1], request.admitted)
        return self._respond(est.CERTS_ONLY, encode_certs_only(certificates))

    async def send_csr_attributes(self, _request: Request) -> Response:
        """RFC 7030 4.5."""
        return self._respond(est.CSR_ATTRIBUTES, self._csr_attributes)

    async def enrol(self, request: Request, *, kind: Kind) -> Response:
        """RFC 7030 4.2. The verdict on the peer was reached before its first byte: a refused one never comes here."""
        admitted = request.admitted
        # 1. Authenticate the client before the body is read (RFC 7030 3.2.3).
        credential = _basic(request.headers.get(b"authorization"))
        if credential is None and (admitted is None or admitted.device is None):
            msg = "the EST request has no credential; show a client certificate, or send a one-time token as HTTP Basic"
            raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
        token, user = (None, None) if credential is None else (credential.password, credential.user)
        # 2. Decode the request (RFC 7030 4.2.1). RFC 8951 3.1 has Content-Transfer-Encoding ignored.
        csr = decode_request(est.decode_body(await request.read_body()))
        # 3. Make the one call into the fleet. The response leaves only after the commit that covers the certificate.
        pending = self._enrolment.begin(
            EnrolmentRequest(
                csr=csr,
                kind=kind,
                evidence=read_evidence(admitted, token, user),
                protocol=_PROTOCOL,
                label=request.found[1],
            ),
            self._clock.now(),
            is_patient=True,
        )
        await self._commits.wait_for(pending.committed)
        # 4. Respond with the issued certificate alone (RFC 7030 4.2.3).
        return self._respond(est.CERTS_ONLY, encode_certs_only((pending.finish().der,)))

    def _respond(self, content_type: str, der: bytes) -> Response:
        headers = (
            # RFC 8951 asks for no such field, but RFC 7030 clients such as libest need it
            (b"content-transfer-encoding", b"base64"),
            (b"cache-control", b"no-store"),
        )
        return Response(HTTPStatus.OK, content_type.encode("ascii"), self._encode(der), headers)


def _basic(header: bytes | None) -> est.BasicCredential | None:
    """The Basic credential. Raises NotAuthorised(CREDENTIAL_MISSING) for another scheme, Malformed(BAD_ENCODING)."""
    if header is None:
        return None
    credential = est.decode_basic(header.decode("latin-1"))
    if credential is None:
        msg = "the EST credential is not HTTP Basic; send a one-time token as HTTP Basic (RFC 7030 3.2.3)"
        raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
    return credential
