"""OCSP responses that our own listeners staple to their certificates (RFC 6066 section 8); signs none itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from vagus.authority.ocsp.responses import OcspResponses
from vagus.clock import Clock
from vagus.errors import VagusError
from vagus.server.listeners.certificates import ListenerCertificate
from vagus.server.setback_watch import GuardedOcspResponses, SetbackWatch
from vagus.tls import Staple
from vagus.x509 import der
from vagus.x509.certificates import decode_certificate
from vagus.x509.ocsp.building import cert_id

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Stapler:
    """Gives a listener the newest OCSP response about its own certificate, and none while OCSP is kept back."""

    responses: OcspResponses
    setback_watch: SetbackWatch
    clock: Clock

    def of(self, certificate: ListenerCertificate) -> Staple:
        """A staple for one certificate; empty where there is no response, for the handshake must go on without it."""
        issuer = decode_certificate(certificate.issuer_der)
        asked = cert_id(issuer.subject.der, issuer.spki_der, certificate.serial)
        # an OCSP request for one certificate, without optional fields (RFC 6960 4.1.1)
        request_der = der.sequence(der.sequence(der.sequence(der.sequence(asked))))
        responses = GuardedOcspResponses(self.responses, self.setback_watch)

        def staple() -> bytes:
            try:
                return responses.respond(request_der, self.clock.now()).response_der
            except VagusError as error:
                _LOG.warning("no OCSP response to staple: %s", error.message)
                return b""

        return staple
