"""Requests the OCSP status of one certificate as a client does, and judges the response by the certificate's row."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING
from urllib.parse import quote

from vagus.errors import VagusError
from vagus.monitoring.defects import Defect, as_defect
from vagus.reasons import Reason
from vagus.records.revocation import revocations, status_facts
from vagus.x509 import der
from vagus.x509.crls.scope import distribution_points
from vagus.x509.ocsp.building import cert_id
from vagus.x509.ocsp.checks import OcspRules, check_response

if TYPE_CHECKING:
    from vagus.clock import Clock
    from vagus.monitoring.http_fetch import Fetch
    from vagus.records.engine.database import Connection
    from vagus.x509.certificates import PathCertificate
    from vagus.x509.ocsp.messages import SingleResponse
    from vagus.x509.signatures import SignatureVerdicts

_NONCE = "1.3.6.1.5.5.7.48.1.2"
_BAD = frozenset({Reason.REVOKED, Reason.ON_HOLD})


class Expected(Enum):
    """The status that a response must have, by the table."""

    GOOD = auto()
    REVOKED = auto()
    EITHER = auto()  # the status changed so recently that the old and the new response are both right


Judge = Callable[[], Expected]


@dataclass(frozen=True, slots=True)
class Question:
    """One certificate and the URL of a responder. Asked by POST with a nonce, or by GET without, as caches allow.

    A response older than `oldest` has been replaced: a cache that still hands it out would hide a revocation.
    """

    place: str
    issuer: PathCertificate
    certificate: PathCertificate
    nonce: bytes | None
    oldest: timedelta

    @property
    def request_der(self) -> bytes:
        """The OCSPRequest as common clients write it (RFC 6960 4.1.1, RFC 9654 2.1)."""
        asked = cert_id(self.issuer.subject.der, self.issuer.spki_der, self.certificate.serial)
        parts = [der.sequence(der.sequence(asked))]
        if self.nonce is not None:
            extension = der.sequence(der.object_identifier(_NONCE), der.octet_string(der.octet_string(self.nonce)))
            parts.append(der.explicit(2, der.sequence(extension)))
        return der.sequence(der.sequence(*parts))

    def ask(self, fetch: Fetch) -> bytes:
        """The response's bytes (RFC 6960 A.1; RFC 5019 5 for GET). Raises Unavailable(STATUS_UNAVAILABLE)."""
        if self.nonce is not None:
            return fetch(self.place, self.request_der)
        return fetch(f"{self.place}/{quote(base64.b64encode(self.request_der), safe='')}", None)


def expect(connection: Connection, authority_id: int, serial: int, *, settled_at: int, latest: int) -> Expected:
    """The status that a response must have; for a change after `settled_at` (seconds), either.

    A change that is dated after `latest` counts as an old one: only a clock that ran ahead can have dated it.
    """
    row = revocations.find_revoked_serial(connection, authority_id, serial)
    if row is not None:
        return Expected.EITHER if settled_at < row.revoked_at <= latest else Expected.REVOKED
    is_fresh = serial in status_facts.list_released(connection, authority_id, since=settled_at)
    return Expected.EITHER if is_fresh else Expected.GOOD


def probe_response(
    question: Question, fetch: Fetch, judge: Judge, clock: Clock, verdicts: SignatureVerdicts
) -> Defect | None:
    """Ask, verify, compare."""
    place, label = question.place, f"certificate {question.certificate.label}"
    response: SingleResponse | None = None
    try:
        raw = question.ask(fetch)
        rules = OcspRules(nonce=question.nonce)
        response = check_response(raw, question.certificate, question.issuer, clock.now(), verdicts, rules)
    except VagusError as error:
        if error.reason is Reason.NOT_ISSUED:
            sentence = f"{label} was issued, but OCSP does not know it: it is refused everywhere"
            return Defect(Reason.STATUS_UNTRUE, place, sentence)
        if error.reason not in _BAD:
            return as_defect(error, place)
    expected = judge()
    if response is None:
        is_wrong = expected is Expected.GOOD
        sentence = f"OCSP says that {label} is revoked; it is not"
        return Defect(Reason.STATUS_UNTRUE, place, sentence) if is_wrong else None
    if expected is Expected.REVOKED:
        return Defect(Reason.STATUS_INCOMPLETE, place, f"OCSP says that {label} is good; it is not")
    if clock.now() - response.this_update > question.oldest:
        sentence = f"the OCSP response about {label} was signed at {response.this_update:%Y-%m-%d %H:%M}Z"
        return Defect(Reason.STATUS_OVERDUE, place, f"{sentence}, newer ones exist; which cache holds it?")
    return None


def crl_urls(certificate: PathCertificate) -> tuple[str, ...]:
    """Where a certificate says that its CRL is."""
    points = distribution_points(certificate)
    return tuple(uri for point in points if point.full_name is not None for uri in point.full_name.uris)
