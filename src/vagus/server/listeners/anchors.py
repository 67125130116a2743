"""What the peers of TLS listeners are validated against: authorities, makers and their CRLs, and the clock's floor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from vagus.errors import NotTrusted
from vagus.fleet.admission import Admitted, Validators
from vagus.fleet.database_status import DatabaseStatus
from vagus.fleet.device_anchors import device_anchors, server_anchors
from vagus.fleet.maker_crls import FOLDER, MakerCrls
from vagus.fleet.verifier_memory import DurableCrlMemory, set_floor
from vagus.jobs.part import replace_notes
from vagus.policy.plan_files import PlannedListener
from vagus.reasons import Reason
from vagus.records.authorities import ACTIVE, RETIRED, AuthorityRow, list_authorities
from vagus.records.models import list_maker_anchors
from vagus.trust.anchors import AnchorSet, ClockFloor
from vagus.trust.validation import Validator
from vagus.wiring import Installation
from vagus.x509.budgets import Limits
from vagus.x509.certificates import decode_certificate
from vagus.x509.paths.search import LONGEST_CHAIN

_LOG = logging.getLogger(__name__)
_LIVE = frozenset({ACTIVE, RETIRED})
_CLOCK = "clock"
_SHOWN = Limits(certificates=LONGEST_CHAIN)
"""A peer is to send its own chain: OpenSSL takes 100 kB, and 250 small foreign certificates cost 10 ms to search."""


class Anchors:
    """The authorities and makers of one installation, read from its database and read again as they change.

    The upkeep thread refreshes; listeners read on the event loop. Each field that `refresh` changes is replaced as a
    whole, so a reader sees the old value or the new one.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._group_domain = installation.row.group_domain or ""
        self._floor = ClockFloor()
        set_floor(self._floor, installation.database)
        memory = DurableCrlMemory(installation.database, installation.writer)
        self._maker_crls = MakerCrls(installation.settings.folder / FOLDER, memory, self._floor, installation.clock.now)
        self._authorities, self._makers = self._read()
        self._maker_status = self._maker_crls.read(self._makers)
        self._issued_by = self._find_issuers()
        self.epoch = 0
        """Grows with each change."""

    def refresh(self, use: Callable[[], None]) -> bool:
        """Take in new generations, new makers and makers' new CRLs; whether there were any.

        `use` hands them to the listeners. Raises what reading and `use` raise; the next refresh then starts anew.
        """
        set_floor(self._floor, self._installation.database)
        found = self._read()
        if found == (self._authorities, self._makers) and not self._maker_crls.has_changed():
            return False
        self._authorities, self._makers = found
        try:
            self._maker_status = self._maker_crls.read(self._makers)
            # keep the issuers of removed anchors: open connections outlive their anchor
            self._issued_by = {**self._issued_by, **self._find_issuers()}
            use()
        except Exception:  # if this failed halfway, some listeners have the new anchors and others not: restore all
            self._maker_crls.forget()
            raise
        self.epoch += 1
        return True

    def reload_crls(self) -> None:
        """Let the next `refresh` read the makers' CRLs, whatever their files look like. From any thread."""
        self._maker_crls.forget()

    def crl_notes(self) -> dict[str, str]:
        """What an operator should know of the makers' CRLs, by file."""
        return self._maker_crls.problems()

    def note(self, waits: dict[str, str]) -> None:
        """Bring what /health says of makers' CRLs and of the clock up to date, and log what is new."""
        replace_notes(waits, self.crl_notes(), _LOG, prefix=f"{FOLDER}/")
        opens_at = self._floor.opens_at
        if self._installation.clock.now() >= opens_at:
            if waits.pop(_CLOCK, None) is not None:
                _LOG.warning("the clock shows a possible time again: the listeners admit peers")
            return
        msg = f"a CRL is dated {self._floor.moment:%Y-%m-%d %H:%M:%S}, ahead of the clock, so the listeners refuse"
        msg = f"{msg} every certificate until {opens_at:%Y-%m-%d %H:%M:%S} UTC; set the clock, or if it is"
        msg = f"{msg} right now run: vagus ca forget-dates"
        if waits.get(_CLOCK) != msg:
            _LOG.error("%s", msg)
        waits[_CLOCK] = msg

    def certificates_of(self, belongs: Callable[[AuthorityRow], bool]) -> tuple[bytes, ...]:
        """The certificates (DER) of the live authorities that `belongs` chooses."""
        return tuple(
            row.certificate_der for row in self._authorities if row.certificate_der is not None and belongs(row)
        )

    def make_validators(self, listener: PlannedListener, status: DatabaseStatus, *, is_enrolment: bool) -> Validators:
        """Validators with the anchors of `device_anchors`; an enrolment listener also takes servers and IDevIDs."""
        hospital = listener.hospital or ""
        anchors, known = device_anchors(self._authorities, hospital, listener.units, self._group_domain)
        devices = Validator(anchors, status, known=known, floor=self._floor, limits=_SHOWN)
        if not is_enrolment:
            return Validators(devices)
        servers = Validator(server_anchors(self._authorities, hospital), status, floor=self._floor, limits=_SHOWN)
        if not self._makers:
            return Validators(devices, servers)
        makers = Validator(AnchorSet.from_der(self._makers), self._maker_status, floor=self._floor, limits=_SHOWN)
        return Validators(devices, servers, makers)

    def check_anchor(self, admitted: Admitted) -> None:
        """Raises NotTrusted(REVOKED_CA): an anchor is not part of the path, yet the root may have revoked it.

        `refresh` drops it from the anchors two seconds later; open connections, and new ones until then, end here.
        """
        issued = None if admitted.identity is None else self._issued_by.get(admitted.identity.anchor_sha256)
        if issued is not None and self._installation.follower.find(*issued) is not None:
            msg = "the hospital's device authority is revoked; enrol this device once its next generation is certified"
            raise NotTrusted(Reason.REVOKED_CA, msg)

    def _read(self) -> tuple[tuple[AuthorityRow, ...], tuple[bytes, ...]]:
        """The live authorities that have a certificate, and the makers' anchors."""
        with self._installation.database.reading() as connection:
            every = list_authorities(connection)
            makers = tuple(row.certificate_der for row in list_maker_anchors(connection))
        return tuple(row for row in every if row.state in _LIVE and row.certificate_der is not None), makers

    def _find_issuers(self) -> Mapping[bytes, tuple[int, int]]:
        """For the digest of each authority's certificate: the id of its issuer, and its serial number."""
        found: dict[bytes, tuple[int, int]] = {}
        for row in self._authorities:
            if row.certificate_der is not None and row.parent_id is not None:
                certificate = decode_certificate(row.certificate_der)
                found[certificate.sha256] = (row.parent_id, certificate.serial)
        return found
