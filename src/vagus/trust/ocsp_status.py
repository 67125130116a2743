"""The StatusSource over OCSP responses that were stapled or fetched elsewhere; requests none itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.x509.certificates import PathCertificate
from vagus.x509.ocsp.checks import DEFAULT_OCSP_RULES, OcspRules, check_response, is_for_ever, read_status
from vagus.x509.ocsp.messages import CertStatus, decode_ocsp_response
from vagus.x509.paths.search import Name
from vagus.x509.signatures import SignatureVerdicts

_FOR_EVER = datetime.max.replace(tzinfo=UTC), True


class OcspStatus:
    """A `StatusSource` over responses at hand. Safe to use from several threads.

    Each response is verified anew at each check (its signature only once). A response that says "revoked" is kept: a
    later one does not undo it, nor does an older one that says "good" and is still in date. RFC 6960 bounds such a
    replay by nextUpdate alone.
    """

    def __init__(self, *, rules: OcspRules = DEFAULT_OCSP_RULES, size: int = 4096) -> None:
        self._rules = replace(rules, nonce=None)
        self._verdicts = SignatureVerdicts()
        self._size = size
        self._lock = threading.Lock()
        self._responses: dict[bytes, bytes] = {}
        # by certificate: date and rank of the newest response; see `_rank`
        self._newest: dict[bytes, tuple[datetime, bool]] = {}

    def load(self, response_der: bytes, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """Take a response for `certificate` into use, whatever status it says.

        An older response than the one in use is ignored. Raises
        NotTrusted(OCSP_MISMATCH|OCSP_RESPONDER|BAD_SIGNATURE|OCSP_STALE|…) if it is not a response for it.
        """
        rank = self._rank(response_der, certificate, issuer, at)
        with self._lock:
            known = self._newest.get(certificate.sha256)
            if known is not None and rank < known:
                return
            if len(self._responses) >= self._size and certificate.sha256 not in self._responses:
                oldest = min(self._newest, key=lambda one: self._newest[one])
                del self._responses[oldest], self._newest[oldest]
            self._responses[certificate.sha256] = bytes(response_der)
            self._newest[certificate.sha256] = rank

    def load_any(self, response_der: bytes, certificates: Sequence[PathCertificate], at: datetime) -> None:
        """As `load`, for each of `certificates` that the response speaks of and whose issuer is among them.

        Raises NotTrusted(OCSP_MISMATCH) when it speaks of none, else as `load`.
        """
        cert_ids = [answer.cert_id for answer in decode_ocsp_response(response_der).singles]
        serials = {cert_id.serial_bytes for cert_id in cert_ids}
        by_name: dict[Name, list[PathCertificate]] = {}
        for one in certificates:
            by_name.setdefault(one.subject.relative_names, []).append(one)
        is_of_use = False
        for certificate in certificates:
            if certificate.serial_bytes in serials:
                for issuer in by_name.get(certificate.issuer.relative_names, ()):
                    if any(cert_id.names(certificate, issuer) for cert_id in cert_ids):
                        self.load(response_der, certificate, issuer, at)
                        is_of_use = True
        if not is_of_use:
            msg = "the OCSP response covers none of the certificates in the path; request the status of these"
            raise NotTrusted(Reason.OCSP_MISMATCH, msg)

    def _rank(
        self, response_der: bytes, certificate: PathCertificate, issuer: PathCertificate, at: datetime
    ) -> tuple[datetime, bool]:
        """Of two responses the higher rank is used: a revocation, else the later one; of one second, the bad one."""
        answer = read_status(response_der, certificate, issuer, at, self._verdicts, self._rules)
        return _FOR_EVER if is_for_ever(answer) else (answer.this_update, answer.status is not CertStatus.GOOD)

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """As `StatusSource.check_status`. Raises NotTrusted(STATUS_UNAVAILABLE) without a response."""
        response_der = self._responses.get(certificate.sha256)
        if response_der is None:
            msg = f"no OCSP response for certificate {certificate.label} is loaded; have it stapled, or load a CRL"
            raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg, certificate=certificate.label)
        check_response(response_der, certificate, issuer, at, self._verdicts, self._rules)
