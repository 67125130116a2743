"""Turns the planned listeners into listeners that can be served: anchors, rules, applications; opens no socket."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from vagus.authority.issuers import OpenIssuers
from vagus.endpoints.est import est_app
from vagus.endpoints.gateway.decisions import Record
from vagus.endpoints.gateway.http_relay import HttpRelay
from vagus.endpoints.gateway.tcp_relay import tcp_relay
from vagus.endpoints.gateway.upstream import Upstream
from vagus.endpoints.http import ASGIApp
from vagus.endpoints.log_files import log_files_app
from vagus.endpoints.routing import RouteTable, mount
from vagus.errors import Misconfigured, NotTrusted
from vagus.fleet.admission import Admission, Admitted, ListenerRules, PeerCredential
from vagus.fleet.database_status import DatabaseStatus, bounds_for
from vagus.fleet.device_cache import DeviceCache
from vagus.fleet.enrolment.enrol import Enrolment
from vagus.fleet.lifecycle import HAS_ENDED
from vagus.fleet.maker_crls import FOLDER, MakerCrls, MakerCrlStatus
from vagus.fleet.verifier_memory import DurableCrlMemory, set_floor
from vagus.identifiers import DeviceId
from vagus.jobs.part import replace_notes
from vagus.policy.plans import HospitalPlan, ListenerKind, PlannedListener, split_address
from vagus.policy.values import Function
from vagus.reasons import Reason
from vagus.records.authorities import ACTIVE, RETIRED, AuthorityRow, list_authorities
from vagus.records.devices import find_device_by_serial, list_profiles_in
from vagus.records.models import list_maker_anchors
from vagus.server.listeners.certificates import ListenerCertificate, ListenerCertificates
from vagus.tls import TLS_1_2, TLS_1_3, Peer, ServerContext, ServerTls, Staple
from vagus.transport.limits import Limits
from vagus.transport.listeners import ListenerSpec
from vagus.transport.ocsp_cache import OcspCache
from vagus.trust.anchors import AnchorSet, ClockFloor
from vagus.trust.validation import Validator
from vagus.wiring import Installation
from vagus.x509.budgets import Limits as ValidationLimits
from vagus.x509.certificates import decode_certificate
from vagus.x509.paths.search import LONGEST_CHAIN

_LOG = logging.getLogger(__name__)
_LIVE = frozenset({ACTIVE, RETIRED})
_CLOCK = "clock"
_AWAY = timedelta(seconds=3)
"""Of the revocation sequence, which is asked for four times a second."""
_SHOWN = ValidationLimits(certificates=LONGEST_CHAIN)
"""A peer at a door is to send its own chain: OpenSSL takes 100 kB, and 250 small strangers cost 10 ms to search."""


@dataclass(slots=True)
class TlsListener:
    """A door whose certificate is renewed while it serves."""

    listener: PlannedListener
    context: ServerContext
    certificate: ListenerCertificate


@dataclass(slots=True)
class BuiltListeners:
    """The listeners of one process, and what must be looked after while they serve."""

    specs: list[ListenerSpec] = field(default_factory=list)
    tls: list[TlsListener] = field(default_factory=list)
    admissions: list[tuple[PlannedListener, Admission]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PreparedListeners:
    """What another plan makes of the doors. A listener that changes is both opened and closed."""

    plan: HospitalPlan
    certificates: ListenerCertificates
    doors: BuiltListeners
    opened: tuple[ListenerSpec, ...]
    closed: tuple[str, ...]


class ListenerBuilder:
    """Builds the doors of one serving process."""

    def __init__(
        self,
        installation: Installation,
        plan: HospitalPlan,
        issuers: OpenIssuers,
        *,
        record: Record,
        staple_of: Callable[[ListenerCertificate], Staple],
    ) -> None:
        self._house = installation
        self._plan = plan
        self._issuers = issuers
        self._record = record
        self._staple_of = staple_of
        self._certificates = ListenerCertificates(installation, plan, issuers)
        self._floor = ClockFloor()
        self._devices = DeviceCache(installation.database, installation.device_follower, self._is_away)
        # By function, and kept while anchors come and go: what they remember is all there is without the database.
        self._statuses: dict[Function | None, DatabaseStatus] = {}
        self._memory = DurableCrlMemory(installation.database, installation.writer)
        set_floor(self._floor, installation.database)
        self._lists = MakerCrls(
            installation.settings.folder / FOLDER, self._memory, self._floor, installation.clock.now
        )
        self._authorities, self._makers = self._look()
        self._births = self._read_lists()
        self._parents = self._find_parents()
        self._epoch = 0
        self.warnings: dict[str, str] = {}
        """What an operator should know of doors that were built, by listener."""

    def build(self) -> BuiltListeners:
        """Every TLS listener of the plan in force. Raises Misconfigured(BAD_PLAN), Unavailable(KEY_NOT_OPEN).

        A device that came beside the plan keeps no hospital from starting: `warnings` tells of it, and admission
        refuses that device alone below its TLS minimum.
        """
        doors = BuiltListeners()
        for listener in self._plan.listeners:
            if listener.kind is not ListenerKind.STATUS:
                self._check_tls_minimum(listener, asks_inventory=False)
                self._add(doors, listener)
                try:
                    self._check_tls_minimum(listener)
                except Misconfigured as warning:
                    self.warnings[f"listener {listener.name}"] = warning.message
        return doors

    def prepare(self, plan: HospitalPlan, doors: BuiltListeners) -> PreparedListeners:
        """What another plan makes of `doors`, which stay in force until `adopt`. Raises as `build`."""
        wanted = {one.name: one for one in plan.listeners if one.kind is not ListenerKind.STATUS}
        kept = {door.listener.name for door in doors.tls if wanted.get(door.listener.name) == door.listener}
        before = self._plan, self._certificates
        certificates = ListenerCertificates(self._house, plan, self._issuers)
        self._plan, self._certificates = plan, certificates
        fresh = BuiltListeners()
        try:
            for listener in wanted.values():
                self._check_tls_minimum(listener)  # the plan may have brought other devices behind one that is kept
                if listener.name not in kept:
                    self._add(fresh, listener)
        finally:
            self._plan, self._certificates = before
        after = BuiltListeners(
            [*(one for one in doors.specs if one.name in kept), *fresh.specs],
            [*(one for one in doors.tls if one.listener.name in kept), *fresh.tls],
            [*(one for one in doors.admissions if one[0].name in kept), *fresh.admissions],
        )
        closed = tuple(door.listener.name for door in doors.tls if door.listener.name not in kept)
        return PreparedListeners(plan, certificates, after, tuple(fresh.specs), closed)

    def adopt(self, ready: PreparedListeners) -> BuiltListeners:
        """The doors of the plan that was prepared, in force from now on."""
        self._plan, self._certificates = ready.plan, ready.certificates
        return ready.doors

    def refresh(self, doors: BuiltListeners) -> bool:
        """Let the doors know of new generations, new makers and makers' new lists; whether there were any."""
        set_floor(self._floor, self._house.database)
        found = self._look()
        if found == (self._authorities, self._makers) and not self._lists.has_changed():
            return False
        self._authorities, self._makers = found
        try:
            self._births = self._read_lists()
            self._parents = {**self._parents, **self._find_parents()}  # what is open outlives its anchor
            for listener, admission in doors.admissions:
                admission.use(*self._validators(listener))
        except Exception:  # half the doors may have heard: the next look begins anew
            self._lists.forget()
            raise
        self._epoch += 1
        return True

    def reload_crls(self) -> None:
        """Let the next `refresh` read the makers' lists, whatever their files look like. From any thread."""
        self._lists.forget()

    def told_of_makers(self) -> dict[str, str]:
        """What an operator should know of the makers' lists, by file."""
        return self._lists.problems()

    def tell(self, waits: dict[str, str]) -> None:
        """Bring what /health says of makers' lists and of the clock up to date, and say what is new in the log."""
        replace_notes(waits, self.told_of_makers(), _LOG, prefix=f"{FOLDER}/")
        opens_at = self._floor.opens_at
        if self._house.clock.now() >= opens_at:
            if waits.pop(_CLOCK, None) is not None:
                _LOG.warning("the clock shows what it can again: doors admit")
            return
        msg = (
            f"the doors refuse every certificate until {opens_at:%Y-%m-%d %H:%M:%S} UTC, for a list is dated "
            f"{self._floor.moment:%Y-%m-%d %H:%M:%S}; set the clock, or where it is right now: vagus ca forget-dates"
        )
        if waits.get(_CLOCK) != msg:
            _LOG.error("%s", msg)
        waits[_CLOCK] = msg

    def _read_lists(self) -> MakerCrlStatus:
        return self._lists.read(self._makers)

    def _look(self) -> tuple[tuple[AuthorityRow, ...], tuple[bytes, ...]]:
        """The authorities that live, and the makers' anchors."""
        with self._house.database.reading() as connection:
            every = list_authorities(connection)
            makers = tuple(row.certificate_der for row in list_maker_anchors(connection))
        return tuple(row for row in every if row.state in _LIVE and row.certificate_der is not None), makers

    def _find_parents(self) -> Mapping[bytes, tuple[int, int]]:
        """For the digest of each authority's certificate: who issued it, and its serial number."""
        found: dict[bytes, tuple[int, int]] = {}
        for row in self._authorities:
            if row.certificate_der is not None and row.parent_id is not None:
                certificate = decode_certificate(row.certificate_der)
                found[certificate.sha256] = (row.parent_id, certificate.serial)
        return found

    def _check_anchor(self, admitted: Admitted) -> None:
        """Raises NotTrusted(REVOKED_CA): a door's anchor stands on no path, yet the root may have revoked it.

        `refresh` drops it from the anchors two seconds later; what is open, and what comes until then, ends here.
        """
        issued = None if admitted.identity is None else self._parents.get(admitted.identity.anchor_sha256)
        if issued is not None and self._house.follower.find(*issued) is not None:
            msg = "the hospital's device authority is revoked; wait for its next generation and enrol there"
            raise NotTrusted(Reason.REVOKED_CA, msg)

    def renew(self, door: TlsListener) -> bool:
        """Swap in a new certificate where the door's is due; whether it was."""
        found = self._certificates.provide(door.listener)
        if found.certificate_der == door.certificate.certificate_der:
            return False
        door.certificate = found
        door.context.swap(credential=found.credential, staple=self._staple_of(found))
        return True

    def _add(self, doors: BuiltListeners, listener: PlannedListener) -> None:
        is_enrolment = listener.kind is ListenerKind.ENROLMENT
        certificate = self._certificates.provide(listener)
        settings = ServerTls(
            client_auth="optional" if is_enrolment else "required",
            minimum_version=TLS_1_2 if listener.tls_minimum == "1.2" else TLS_1_3,
            tickets=not is_enrolment and Function(listener.function) not in _always_closing(self._house),
            alpn=() if listener.kind is ListenerKind.RELAY_TCP else ("http/1.1",),
        )
        context = ServerContext(certificate.credential, settings, staple=self._staple_of(certificate))
        doors.tls.append(TlsListener(listener, context, certificate))
        installation = self._house
        validator, makers = self._validators(listener)
        status = self._status(listener)
        parts = (installation.database, installation.pack, installation.clock, validator)
        find_device = self._devices.find
        admission = Admission(*parts, makers=makers, find_lapse=status.find_lapse, find_device=find_device)
        doors.admissions.append((listener, admission))
        rules = self._rules(listener)

        def admit(peer: Peer, _source: str) -> Admitted:
            admitted = admission.admit(peer, rules)
            self._check_anchor(admitted)
            return admitted

        def check_in_memory(admitted: Admitted) -> None:
            # The revocation sequence of this installation does not cover a maker's certificates.
            if admitted.credential is PeerCredential.LDEVID and admitted.identity is not None:
                status.check_accepted(admitted.identity)
                self._check_anchor(admitted)

        app: ASGIApp | None = None
        stream, close = None, None
        if is_enrolment:
            app = mount(log_files_app(self._house.settings.log), self._est(listener))
        elif listener.upstream is not None and listener.kind is ListenerKind.RELAY_HTTP:
            relay = HttpRelay(Upstream(*listener.upstream), self._record)
            app, close = relay, relay.close
        elif listener.upstream is not None:
            stream = tcp_relay(Upstream(*listener.upstream))
        host, port = address_of(self._house, listener)
        doors.specs.append(
            ListenerSpec(
                name=listener.name,
                host=host,
                port=port,
                app=app,
                stream=stream,
                tls=context,
                admit=admit,
                position=self._position,
                quick_check=check_in_memory,
                record=self._record,
                limits=limits_of(self._house),
                close=close,
            )
        )

    def _position(self) -> object:
        """Moves with each revocation, each change of a device, and each change of anchors."""
        return self._house.follower.position, self._house.device_follower.position, self._epoch

    def _validators(self, listener: PlannedListener) -> tuple[Validator, Validator | None]:
        """Anchored in the hospital's own device CA: another hospital's certificates lead nowhere here.

        The second one is for birth certificates, at enrolment doors alone.
        """
        hospital = listener.hospital or ""
        anchors = AnchorSet.from_der(self._certificates_of(lambda row: row.name == hospital))
        known = self._certificates_of(lambda row: row.name in listener.units)
        status = self._status(listener)
        makers = None
        if listener.kind is ListenerKind.ENROLMENT and self._makers:
            makers = Validator(AnchorSet.from_der(self._makers), self._births, floor=self._floor, limits=_SHOWN)
        return Validator(anchors, status, known=known, floor=self._floor, limits=_SHOWN), makers

    def _status(self, listener: PlannedListener) -> DatabaseStatus:
        function = None if listener.kind is ListenerKind.ENROLMENT else Function(listener.function)
        found = self._statuses.get(function)
        if found is None:
            bound, grace = bounds_for(self._house.pack, function)
            found = DatabaseStatus(self._house.database, self._house.follower, bound=bound, grace=grace)
            self._statuses[function] = found
        return found

    def _is_away(self) -> bool:
        return self._house.follower.is_lost(self._house.clock.now(), _AWAY)

    def _rules(self, listener: PlannedListener) -> ListenerRules:
        if listener.kind is ListenerKind.ENROLMENT:
            return ListenerRules(
                function=None,
                group_domain=self._plan.group_domain,
                units=listener.units,
                needs_certificate=False,
                registration_authorities=self._registration_authorities(listener),
            )
        function = Function(listener.function)
        profiles = frozenset(profile for profile, rule in self._house.pack.rules.items() if function in rule.functions)
        return ListenerRules(
            function=function,
            group_domain=self._plan.group_domain,
            units=listener.units,
            profiles=profiles,
        )

    def _registration_authorities(self, listener: PlannedListener) -> frozenset[DeviceId]:
        found: set[DeviceId] = set()
        with self._house.database.reading() as connection:
            for model, serial in listener.registration_authorities:
                device = find_device_by_serial(connection, model, serial)
                if device is None:
                    msg = f"listeners.{listener.name}: registration authority {model}:{serial} is not in the inventory"
                    raise Misconfigured(Reason.BAD_PLAN, f"{msg}; add it or correct the plan", listener=listener.name)
                found.add(device.id)
        return frozenset(found)

    def _est(self, listener: PlannedListener) -> RouteTable:
        enrolment = Enrolment(
            self._house.database,
            self._house.writer,
            self._house.issuance,
            self._issuers,
            group_domain=self._plan.group_domain,
            token_repeat=self._house.pack.enrolment.token_replay,
        )
        return est_app(
            enrolment=enrolment,
            ca_certificates=lambda _label, admitted: self._ca_certificates(listener, admitted),
            clock=self._house.clock,
        )

    def _ca_certificates(self, listener: PlannedListener, admitted: Admitted | None) -> tuple[bytes, ...]:
        """RFC 7030 4.1.3: what a device needs to build its own path and to know our doors: no other hospital's.

        A device that is known gets its own compartment alone; a large hospital has more than a device can keep.
        """
        units = listener.units
        if admitted is not None and admitted.device is not None and admitted.unit is not None:
            units = frozenset({admitted.unit})
        hospital = listener.hospital or ""
        names = {*units, hospital, f"{hospital}/infra", "root"}
        return self._certificates_of(lambda row: row.name in names)

    def _certificates_of(self, belongs: Callable[[AuthorityRow], bool]) -> tuple[bytes, ...]:
        return tuple(
            row.certificate_der for row in self._authorities if row.certificate_der is not None and belongs(row)
        )

    def _check_tls_minimum(self, listener: PlannedListener, *, asks_inventory: bool = True) -> None:
        """TLS 1.2 shows the client's certificate in clear: never where implants or home devices connect.

        Both are asked: the plan, whose devices may come yet, and the inventory, which others fill too.
        Raises Misconfigured(BAD_PLAN).
        """
        if listener.tls_minimum != "1.2":
            return
        categories: Mapping[str, str] = {model.name: model.category for model in self._plan.models}
        profiles = {
            self._house.pack.profile_of_category(categories[group.model])
            for group in self._plan.devices
            if str(group.unit) in listener.units
        }
        if asks_inventory:
            with self._house.database.reading() as connection:
                profiles |= list_profiles_in(connection, listener.units, beside=HAS_ENDED)
        rules = self._house.pack.rules
        bare = sorted(name for name, rule in rules.items() if name in profiles and rule.tls_minimum == "1.3")
        if bare:
            msg = (
                f"listeners.{listener.name}.tls_minimum: its units have devices of profile {', '.join(bare)}, whose "
                f"certificates TLS 1.2 would show in clear; set 1.3, or leave their units out"
            )
            raise Misconfigured(Reason.BAD_PLAN, msg, listener=listener.name)


def status_spec(installation: Installation, listener: PlannedListener, app: ASGIApp, cache: OcspCache) -> ListenerSpec:
    """The plain listener of lists and answers."""
    host, port = address_of(installation, listener)
    return ListenerSpec(listener.name, host, port, app, ocsp_cache=cache, limits=limits_of(installation))


def address_of(installation: Installation, listener: PlannedListener) -> tuple[str, int]:
    """Where a listener binds: the settings of this node may put it elsewhere than the plan."""
    address = installation.settings.serve.addresses.get(listener.name)
    if address is not None:
        return split_address(address)
    return listener.address


def limits_of(installation: Installation) -> Limits:
    """The bounds of the settings."""
    serve = installation.settings.serve
    return Limits(
        handshake_seconds=serve.handshake_seconds,
        header_seconds=serve.header_seconds,
        stall_seconds=serve.stall_seconds,
        body_octets_per_second=serve.body_octets_per_second,
        connections=serve.connections,
        connections_per_source=serve.connections_per_source,
    )


def sequence_bound(installation: Installation) -> timedelta:
    """How long this node may not know the newest revocation before it says so."""
    return timedelta(seconds=installation.settings.serve.sequence_bound_seconds)


def _always_closing(installation: Installation) -> frozenset[Function]:
    """Functions without session tickets: every connection is a full handshake (design section 8)."""
    return frozenset(function for function, rule in installation.pack.functions.items() if rule.always_closes)
