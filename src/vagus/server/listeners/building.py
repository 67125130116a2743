"""Builds the TLS listeners of a plan, and what another plan changes in them; opens no socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType

from vagus.addresses import split_address
from vagus.authority.issuers import OpenIssuers
from vagus.endpoints.gateway.decisions import Record
from vagus.endpoints.http import ASGIApp
from vagus.errors import Malformed, Misconfigured, PolicyRefusal
from vagus.fleet.admission import Admission, Admitted, ListenerRules, PeerCredential, Validators
from vagus.fleet.database_status import DatabaseStatus, bounds_for
from vagus.fleet.device_cache import DeviceCache
from vagus.policy.plan_files import PlannedListener
from vagus.policy.plans import HospitalPlan
from vagus.policy.values import Function
from vagus.server.listeners.anchors import Anchors
from vagus.server.listeners.certificates import ListenerCertificate, ListenerCertificates
from vagus.server.listeners.kinds import LISTENER_KINDS, KindOfListener, ListenerInputs
from vagus.tls import Peer, ServerContext, Staple
from vagus.transport.limits import limits_of
from vagus.transport.listeners import ListenerSpec
from vagus.transport.ocsp_cache import OcspCache
from vagus.wiring import Installation

_AWAY = timedelta(seconds=3)
"""From this age on the revocation sequence counts as lost; it is read four times a second."""


@dataclass(slots=True)
class TlsListener:
    """A listener whose certificate is renewed while it serves."""

    listener: PlannedListener
    context: ServerContext
    certificate: ListenerCertificate
    rules: ListenerRules


@dataclass(slots=True)
class BuiltListeners:
    """The TLS listeners of one process, and the parts of them that change while they serve."""

    specs: list[ListenerSpec] = field(default_factory=list)
    tls: list[TlsListener] = field(default_factory=list)
    admissions: list[tuple[PlannedListener, Admission]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PreparedListeners:
    """What another plan makes of the listeners. A listener that changes is both opened and closed."""

    inputs: ListenerInputs
    listeners: BuiltListeners
    opened: tuple[ListenerSpec, ...]
    closed: tuple[str, ...]


class ListenerBuilder:
    """Builds the TLS listeners of one serving process, and keeps their anchors and certificates up to date."""

    def __init__(
        self,
        installation: Installation,
        plan: HospitalPlan,
        issuers: OpenIssuers,
        *,
        record: Record,
        note_seen: Callable[[str, Admitted], None],
        staple_of: Callable[[ListenerCertificate], Staple],
    ) -> None:
        self.anchors = Anchors(installation)
        self.warnings: dict[str, str] = {}
        """What an operator should know of the listeners that were built, by listener."""
        self.shut: Mapping[str, str] = {}
        """The listeners that were not built, and why."""
        self._installation = installation
        certificates = ListenerCertificates(installation, plan, issuers)
        self._inputs = ListenerInputs(installation, plan, issuers, record, self.anchors, certificates)
        self._staple_of = staple_of
        self._note_seen = note_seen
        self._devices = DeviceCache(installation.database, installation.device_follower, self._is_sequence_lost)
        # Device caches by function. They outlive a change of anchors: while the database is down, nothing else is known
        # of devices.
        self._statuses: dict[Function | None, DatabaseStatus] = {}

    def build(self, faults: Mapping[str, str] = MappingProxyType({})) -> BuiltListeners:
        """Every TLS listener of the plan in force beside those with `faults`. Raises Unavailable(KEY_NOT_OPEN).

        What no check foresaw keeps that listener shut and no other one; `shut` says why. A device of the inventory that
        no plan names must not keep a hospital from starting: `warnings` names it, and admission refuses that device
        alone below its TLS minimum.
        """
        built = BuiltListeners()
        self.shut = dict(faults)
        for listener in tls_listeners(self._inputs.plan).values():
            if listener.name in faults:
                continue
            try:
                self._add(built, self._inputs, listener)
            except (Misconfigured, PolicyRefusal, Malformed) as error:
                self.shut[listener.name] = error.message
        for name, warning in self._installation.find_listener_faults(self._inputs.plan).items():
            if name not in self.shut:
                self.warnings[f"listener {name}"] = warning
        return built

    def prepare(self, plan: HospitalPlan, current: BuiltListeners) -> PreparedListeners:
        """What another plan makes of `current`, which stay in force until `adopt`. Raises as `build`."""
        certificates = ListenerCertificates(self._installation, plan, self._inputs.issuers)
        inputs = replace(self._inputs, plan=plan, certificates=certificates)
        # check unchanged listeners too: the plan may have given them devices of another profile
        self._installation.check_served(plan)
        wanted = tls_listeners(plan)
        kept = {one.listener.name for one in current.tls if wanted.get(one.listener.name) == one.listener}
        fresh = BuiltListeners()
        for listener in wanted.values():
            if listener.name not in kept:
                self._add(fresh, inputs, listener)
        after = BuiltListeners(
            [*(one for one in current.specs if one.name in kept), *fresh.specs],
            [*(one for one in current.tls if one.listener.name in kept), *fresh.tls],
            [*(one for one in current.admissions if one[0].name in kept), *fresh.admissions],
        )
        closed = tuple(one.listener.name for one in current.tls if one.listener.name not in kept)
        return PreparedListeners(inputs, after, tuple(fresh.specs), closed)

    def widen(self, plan: HospitalPlan, built: BuiltListeners) -> None:
        """Let open listeners take units that the plan gives them beside what they have; nothing else of them changes.

        Their sockets and connections stay. Raises Misconfigured(BAD_PLAN), and then nothing has changed.
        """
        wanted, inputs = tls_listeners(plan), replace(self._inputs, plan=plan)
        found = [(one, wanted.get(one.listener.name)) for one in built.tls]
        wider = [(one, new) for one, new in found if new is not None and new.is_wider_than(one.listener)]
        if not wider:
            return
        # 1. The same check as for a listener that is opened: TLS 1.2 stays forbidden where a new unit asks for 1.3.
        self._installation.check_served(plan)
        ready = [(one, new, LISTENER_KINDS[new.kind].rules_of(inputs, new)) for one, new in wider]
        # 2. Validators first: rules that admit a unit are of no use without its authority.
        named = {new.name: new for _, new, _ in ready}
        for place, (listener, admission) in enumerate(built.admissions):
            if listener.name in named:
                admission.use(self._validators(named[listener.name]))
                built.admissions[place] = named[listener.name], admission
        for one, new, rules in ready:
            one.listener, one.rules = new, rules
        # 3. Connections that were refused for their unit are judged anew.
        self.anchors.epoch += 1

    def adopt(self, ready: PreparedListeners) -> BuiltListeners:
        """The listeners of the plan that was prepared, in force from now on."""
        self._inputs = ready.inputs
        return ready.listeners

    def refresh(self, built: BuiltListeners) -> bool:
        """Let the listeners take new generations, new makers and makers' new CRLs; whether there were any."""

        def use() -> None:
            for listener, admission in built.admissions:
                admission.use(self._validators(listener))

        return self.anchors.refresh(use)

    def renew(self, one: TlsListener) -> bool:
        """Swap in a new certificate where the listener's is due; whether it was."""
        found = self._inputs.certificates.provide(one.listener)
        if found.certificate_der == one.certificate.certificate_der:
            return False
        one.certificate = found
        one.context.swap(credential=found.credential, staple=self._staple_of(found))
        return True

    def _add(self, built: BuiltListeners, inputs: ListenerInputs, listener: PlannedListener) -> None:
        kind, installation = LISTENER_KINDS[listener.kind], self._installation
        certificate = inputs.certificates.provide(listener)
        context = ServerContext(
            certificate.credential, kind.tls_of(inputs, listener), staple=self._staple_of(certificate)
        )
        status = self._status(kind, listener)
        admission = Admission(
            installation.database,
            installation.pack,
            installation.clock,
            self._validators(listener),
            find_lapse=status.find_lapse,
            find_device=self._devices.find,
            find_earlier=status.find_earlier,
        )
        serving = TlsListener(listener, context, certificate, kind.rules_of(inputs, listener))
        check_anchor = self.anchors.check_anchor
        note_seen = self._note_seen

        def admit(peer: Peer, _source: str) -> Admitted:
            admitted = admission.admit(peer, serving.rules)
            check_anchor(admitted)
            note_seen(listener.name, admitted)
            return admitted

        def check_in_memory(admitted: Admitted) -> None:
            # The revocation sequence of this installation does not cover a maker's certificates; the maker's CRLs do.
            if admitted.credential is not PeerCredential.IDEVID and admitted.identity is not None:
                status.check_accepted(admitted.identity)
                check_anchor(admitted)

        service = kind.serve(inputs, listener)
        built.tls.append(serving)
        built.admissions.append((listener, admission))
        built.specs.append(
            ListenerSpec(
                listener.name,
                *address_of(installation, listener),
                app=service.app,
                stream=service.stream,
                close=service.close,
                tls=context,
                admit=admit,
                position=self._position,
                quick_check=check_in_memory,
                record=inputs.record,
                limits=limits_of(installation.settings.serve),
            )
        )

    def _position(self) -> object:
        """Moves with each revocation, each change of a device, and each change of anchors."""
        installation = self._installation
        return installation.follower.position, installation.device_follower.position, self.anchors.epoch

    def _validators(self, listener: PlannedListener) -> Validators:
        kind = LISTENER_KINDS[listener.kind]
        return self.anchors.make_validators(listener, self._status(kind, listener), is_enrolment=kind.is_enrolment)

    def _status(self, kind: KindOfListener, listener: PlannedListener) -> DatabaseStatus:
        function, installation = kind.function_of(listener), self._installation
        found = self._statuses.get(function)
        if found is None:
            bound, grace = bounds_for(installation.pack, function)
            found = DatabaseStatus(installation.database, installation.follower, bound=bound, grace=grace)
            self._statuses[function] = found
        return found

    def _is_sequence_lost(self) -> bool:
        return self._installation.follower.is_lost(self._installation.clock.now(), _AWAY)


def tls_listeners(plan: HospitalPlan) -> dict[str, PlannedListener]:
    """The listeners of a plan that have TLS, by name."""
    return {one.name: one for one in plan.listeners if one.kind in LISTENER_KINDS}


def status_spec(installation: Installation, listener: PlannedListener, app: ASGIApp, cache: OcspCache) -> ListenerSpec:
    """The plain listener of CRLs and OCSP responses."""
    address, limits = address_of(installation, listener), limits_of(installation.settings.serve)
    return ListenerSpec(listener.name, *address, app=app, ocsp_cache=cache, limits=limits)


def address_of(installation: Installation, listener: PlannedListener) -> tuple[str, int]:
    """Where a listener binds: the settings of this node may put it elsewhere than the plan."""
    address = installation.settings.serve.addresses.get(listener.name)
    return listener.address if address is None else split_address(address)
