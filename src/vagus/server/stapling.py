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
    """Gives a door the newest OCSP answer about its own certificate, and none where nobody may be called good."""

    desk: OcspResponses
    sight: SetbackWatch
    clock: Clock

    def of(self, certificate: ListenerCertificate) -> Staple:
        """A staple for one certificate; empty where no answer can be had, for a handshake must not fail for it."""
        issuer = decode_certificate(certificate.issuer_der)
        asked = cert_id(issuer.subject.der, issuer.spki_der, certificate.serial)
        request_der = der.sequence(der.sequence(der.sequence(der.sequence(asked))))  # one certificate, nothing optional
        desk = GuardedOcspResponses(self.desk, self.sight)

        def staple() -> bytes:
            try:
                return desk.respond(request_der, self.clock.now()).response_der
            except VagusError as error:
                _LOG.warning("no OCSP answer to staple: %s", error.message)
                return b""

        return staple
