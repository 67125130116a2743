"""Renews OCSP responders and listener certificates when they are due, as a part of a serving process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vagus.authority.ocsp.responders import ResponderRenewal
from vagus.jobs.part import UPKEEP, UPKEEP_SECONDS, Part
from vagus.jobs.periodic import Task, attempt_each

if TYPE_CHECKING:
    from vagus.authority.issuers import Issuer, OpenIssuers
    from vagus.keystore.software import SoftwareKeystore
    from vagus.records.engine.commit_facts import RevocationEvent
    from vagus.server.listeners.current import CurrentListeners
    from vagus.server.ocsp_supply import OcspSupply
    from vagus.wiring import Installation

_LOG = logging.getLogger(__name__)
_SECONDS = 3600.0


def make_responder_renewal(installation: Installation, keystore: SoftwareKeystore, holder: str) -> ResponderRenewal:
    """Renewal under this process's name in leases."""
    shared = installation.database, installation.writer, installation.clock, installation.issuance
    return ResponderRenewal(*shared, keystore, holder=holder)


def renew_responders(renewal: ResponderRenewal, issuers: OpenIssuers, check_clock: Callable[[], None]) -> None:
    """Make or renew what is due before responders are opened. A failure is logged, and the hourly task tries again.

    One authority without a responder must not keep the responders of the others from responding.
    """

    def renew(issuer: Issuer) -> None:
        check_clock()
        renewal.renew_due(issuer)

    try:
        attempt_each("certificates", issuers.every(), renew)
    except ExceptionGroup as group:
        for error in group.exceptions:
            _LOG.error("a responder was not renewed: %s", error)


@dataclass(frozen=True, slots=True)
class CertificateRenewal:
    """All certificates that this process needs itself. `check_clock` raises Unavailable(CLOCK_AHEAD)."""

    issuers: OpenIssuers
    renewal: ResponderRenewal
    supply: OcspSupply
    listeners: CurrentListeners
    check_clock: Callable[[], None]

    def part(self) -> Part:
        """As the server runs it: hourly, and at once when the certificate of a listener is revoked."""
        task = Task("certificates", _SECONDS, self.renew, UPKEEP_SECONDS)
        return Part("certificates", [task], UPKEEP, wake=self._wake)

    def renew(self) -> None:
        """Replace what is due without a restart, while the clock can be right. Raises an ExceptionGroup."""
        acts: list[Callable[[], object]] = [partial(self.renewal.renew_due, issuer) for issuer in self.issuers.every()]
        acts += [self.supply.take_over, *self.listeners.renewals()]

        def act_in_time(act: Callable[[], object]) -> None:
            # check the clock first: no relying party accepts a certificate that a clock running ahead has dated
            self.check_clock()
            act()

        attempt_each("certificates", acts, act_in_time)

    def _wake(self, events: Sequence[RevocationEvent]) -> Sequence[str]:
        is_own = self.listeners.shows_any({event.serial for event in events})
        return ("certificates",) if is_own else ()
