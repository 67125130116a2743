"""EST as a device speaks it (RFC 7030, RFC 8951), over an exchange that is given; checks no chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from vagus.errors import Malformed, NotAuthorised, Unavailable, VagusError
from vagus.reasons import Reason
from vagus.wire import cms, est, problems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vagus_agent.http import Response

MAX_AUTHORITIES: Final = 32
"""More than any chain with the roll-over certificates of RFC 7030 4.1.3."""

# for a response whose own sentence has no remedy: two of them could contradict each other
_REMEDIES: Final = {
    Reason.TOKEN_SPENT: "ask for a new token",
    Reason.TOKEN_REUSED: "ask for a new token and find out who used this one",
    Reason.TOKEN_EXPIRED: "ask for a new token",
    Reason.TOKEN_INVALID: "check the token's spelling or ask for a new one",
    Reason.NOT_IN_INVENTORY: "have the device added to the hospital's inventory",
    Reason.DEVICE_STATE: "have the device's state changed in the inventory (commissioned or in service)",
    Reason.REVOKED: "the device was locked out on purpose; hand it to biomedical engineering",
    Reason.EXPIRED: "the certificate is over: enrol again with the maker's certificate or a token",
    Reason.CREDENTIAL_MISSING: "give --idevid-cert and --idevid-key, or --token",
}


class Exchange(Protocol):
    """One HTTP conversation with the server, already authenticated and checked."""

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """The response to one request."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """A one-time secret that enrols one device. Kept out of every representation."""

    text: str

    def __repr__(self) -> str:
        return "Token(…)"


def load_cacerts(exchange: Exchange) -> tuple[bytes, ...]:
    """The authorities' certificates, DER (RFC 7030 4.1)."""
    response = exchange.ask("GET", f"{est.ROOT}/cacerts", headers={"Accept": est.CERTS_ONLY})
    check_answer(response)
    return _decode_certificates(response)


def enrol(exchange: Exchange, request_der: bytes, token: Token | None) -> tuple[bytes, ...]:
    """The certificates given for a first request (RFC 7030 4.2.1), DER."""
    return _post(exchange, est.Operation.SIMPLEENROLL, request_der, token)


def reenrol(exchange: Exchange, request_der: bytes) -> tuple[bytes, ...]:
    """The certificates given for a renewal by the current certificate (RFC 7030 4.2.2), DER."""
    return _post(exchange, est.Operation.SIMPLEREENROLL, request_der, None)


def check_answer(response: Response) -> None:
    """Raises what a refusal means to a device, with the server's own reason where it gave one.

    NotAuthorised for a lasting refusal, Unavailable where the same request may succeed later.
    """
    if response.status in {200, 204}:
        return
    if response.status == 202:  # RFC 7030 4.2.3: a person must approve; the agent sends the same request again later
        msg = "the EST server took the request and waits for a person's approval; the agent asks again later"
        raise Unavailable(Reason.STATUS_UNAVAILABLE, msg, retry_after=_retry_after(response))
    reason, detail = _explain(response)
    remedy = None if "; " in detail else _REMEDIES.get(reason)
    said = f"the server responded {response.status} {reason}: {detail}"
    said = said if remedy is None else f"{said}; {remedy}"
    if response.status >= 500 or response.status in {408, 425, 429}:
        raise Unavailable(reason, said, status=response.status, retry_after=_retry_after(response))
    raise NotAuthorised(reason, said, status=response.status)


def _post(exchange: Exchange, operation: est.Operation, request_der: bytes, token: Token | None) -> tuple[bytes, ...]:
    headers = {"Content-Type": est.PKCS10, "Accept": est.CERTS_ONLY}
    if token is not None:
        headers["Authorization"] = est.encode_basic(est.BasicCredential("device", token.text))
    response = exchange.ask("POST", f"{est.ROOT}/{operation}", headers=headers, body=est.encode_body(request_der))
    check_answer(response)
    return _decode_certificates(response)


def _decode_certificates(response: Response) -> tuple[bytes, ...]:
    if not est.is_content_type(response.headers.get("content-type"), est.CERTS_ONLY):
        msg = f"the EST response is {response.headers.get('content-type')!r}, not certificates; is this the EST server?"
        raise Malformed(Reason.BAD_ENCODING, msg)
    certificates = cms.decode_certs_only(est.decode_body(response.body))
    if not certificates:
        raise Malformed(Reason.BAD_ENCODING, "the EST response holds no certificate; ask the server's operator")
    return certificates


def _explain(response: Response) -> tuple[Reason, str]:
    """The server's reason and sentence; a general reason by status where it gave none that this release knows."""
    general = {
        401: Reason.CREDENTIAL_MISSING,
        404: Reason.NOT_FOUND,
        405: Reason.METHOD_NOT_ALLOWED,
        413: Reason.TOO_LARGE,
    }.get(response.status, Reason.BAD_REQUEST if response.status < 500 else Reason.STATUS_UNAVAILABLE)
    try:
        problem = problems.decode_problem(response.body)
    except VagusError:
        text = response.body[:200].decode("ascii", "replace").strip()
        return general, "".join(c if c.isprintable() else " " for c in text) or "no explanation"
    reason = Reason(problem.reason) if problem.reason in Reason.__members__ else general
    return reason, "".join(c if c.isprintable() else " " for c in problem.detail)


def _retry_after(response: Response) -> int | None:
    text = response.headers.get("retry-after", "")
    return int(text) if text.isdigit() and len(text) <= 6 else None
