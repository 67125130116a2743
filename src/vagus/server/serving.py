"""The serving process from start to stop: addresses bound, keys opened, intents settled, CRLs signed, listeners opened.

A feature that runs in this process is one `Part` (jobs/part.py), made in a file of its own and listed in `_prepare`.
Nothing else here, in health.py or in metrics.py knows a feature.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vagus.addresses import join_address, split_address
from vagus.authority.crls.files import CrlFiles
from vagus.authority.crls.published import FRESH_SECONDS, PublishedCrls
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, open_responders
from vagus.authority.ocsp.responses import OcspResponses
from vagus.components import LOG_KEYSTORE
from vagus.endpoints.log_files import log_files_app
from vagus.endpoints.revocation_status import OcspReplies, status_app
from vagus.endpoints.routing import mount, under_prefix
from vagus.errors import Conflict, Misconfigured
from vagus.events.log import EventLog
from vagus.jobs.kinds import work_part
from vagus.jobs.part import Parts
from vagus.ledger.gateway_lines import FOLDER
from vagus.reasons import Reason
from vagus.server.certificate_ends import CertificateEnds
from vagus.server.certificate_renewal import CertificateRenewal, make_responder_renewal, renew_responders
from vagus.server.crl_publication import CrlPublication, crl_cache_part
from vagus.server.device_contacts import DeviceContacts
from vagus.server.event_log import event_part
from vagus.server.gateway_log import GatewayLog
from vagus.server.health import Health
from vagus.server.issuer_updates import IssuerUpdates, find_names
from vagus.server.listeners.building import ListenerBuilder, address_of
from vagus.server.listeners.certificates import GATE_KEYSTORE
from vagus.server.listeners.current import CurrentListeners, list_served, plan_part
from vagus.server.listeners.stapling import Stapler
from vagus.server.log_publication import ledger_part
from vagus.server.metrics import operator_pages
from vagus.server.ocsp_supply import OcspSupply
from vagus.server.overload import LoadGauge, SheddingOcsp
from vagus.server.readiness import notify
from vagus.server.revocation_sequence import sequence_bound, sequence_part
from vagus.server.setback_watch import GuardedCrls, GuardedOcspResponses, SetbackWatch
from vagus.server.status_watching import statistics_part, status_part
from vagus.server.unsigned_certificates import UnsignedCertificates
from vagus.transport.limits import limits_of
from vagus.transport.listeners import ListenerSpec, RunningListeners, run
from vagus.transport.ocsp_cache import OcspCache
from vagus.transport.reserved_addresses import ReservedAddresses

if TYPE_CHECKING:
    from vagus.authority.issuers import OpenIssuers
    from vagus.endpoints.gateway.decisions import ConnectionDecision
    from vagus.endpoints.http import ASGIApp
    from vagus.keystore.software import SoftwareKeystore
    from vagus.policy.plan_files import PlannedListener
    from vagus.policy.plans import Plan
    from vagus.wiring import Installation

_LOG = logging.getLogger(__name__)
_SWITCH_SECONDS = 0.001

Ready = Callable[[Mapping[str, object]], None]
Say = Callable[[str], None]


def serve(
    installation: Installation,
    *,
    issue_for: Sequence[str],
    is_status_only: bool,
    ready: Ready,
    say: Say = lambda _line: None,
) -> None:
    """Serve until SIGTERM; `ready` is given the bound addresses once every listener is open.

    `say` gets a line at each step that takes long. Raises Misconfigured(BAD_SETTINGS) for an address in use, at once,
    and what opening keys, settling and signing raise, before any listener opens.
    """
    # 1. Bind the addresses of the plan in force.
    plan = installation.planning.load_served()
    served = list_served(plan, is_status_only=is_status_only)
    faults = _find_faults(installation, plan, served, say)
    addresses = {one.name: address_of(installation, one) for one in served if one.name not in faults}
    if (health := installation.settings.serve.health) is not None:
        addresses["health"] = split_address(health)
    with ReservedAddresses(addresses) as reserved:
        _report_shut(reserved.absent, say)
        faults = {**faults, **reserved.absent}
        # 2. Ask whether this installation may issue: not after an unsettled restore.
        setback_watch = _watch_setbacks(installation)
        setback_watch.refresh()
        if not is_status_only:
            setback_watch.check()
            installation.set_backs.check_settled()
            installation.operations.installation.adopt_policy(installation.actor)
        # 3. Open the keystores of the named authorities, and of no other.
        issuers = _open_issuers(installation, find_names(installation, issue_for), say)
        # 4. Settle the intents that a crash left open, before any client can ask for their status.
        if not is_status_only:
            report = installation.issuance.settle(issuers)
            if report.signed or report.revoked:
                _LOG.warning("settled open intents: %d signed, %d revoked", len(report.signed), len(report.revoked))
        # 5. Make the parts and run the first turn of their tasks, so that CRLs and responses exist before peers ask
        # for them.
        say("signing CRLs and OCSP responders that are due")
        listeners, parts = _prepare(
            installation, plan, issuers, setback_watch, issue_for=tuple(issue_for), is_status_only=is_status_only
        )
        parts.take_first_turns()
        # 6. Build the TLS listeners of the plan, and serve.
        listeners.faults = faults
        specs = listeners.build() + _health_specs(installation, parts, faults)
        for name in listeners.faults.keys() - faults.keys():
            _LOG.error("listener %s is not opened: %s", name, listeners.faults[name])
        if not specs:
            msg = "the plan has no listener that this process can open; add one under [[listeners]] and apply the plan"
            raise Conflict(Reason.BAD_PLAN, msg)

        def announce() -> None:
            bound = {name: join_address(*address) for name, address in listeners.addresses.items()}
            ready({"ready": True, "listeners": bound, "issuers": sorted(one.reference for one in issuers.every())})
            notify("READY=1")

        _run(installation, specs, listeners, parts, announce=announce, release=reserved.release)


def _find_faults(
    installation: Installation, plan: Plan, served: Sequence[PlannedListener], say: Say
) -> Mapping[str, str]:
    """The listeners that stay shut, so that the others open all the same. Raises Misconfigured(BAD_PLAN) if all do."""
    found = installation.find_listener_faults(plan, asks_inventory=False)
    faults = {one.name: found[one.name] for one in served if one.name in found}
    if faults and len(faults) == len(served):
        raise Misconfigured(Reason.BAD_PLAN, "\n".join(faults.values()), listener=", ".join(faults))
    _report_shut(faults, say)
    return faults


def _report_shut(faults: Mapping[str, str], say: Say) -> None:
    for name, why in faults.items():
        _LOG.error("listener %s is not opened: %s", name, why)
        say(f"listener {name} is not opened: {why}")


def _run(
    installation: Installation,
    specs: Sequence[ListenerSpec],
    listeners: CurrentListeners,
    parts: Parts,
    *,
    announce: Callable[[], None],
    release: Callable[[str], None],
) -> None:
    # 1. Follow revocations and changes of devices from here on, so that no connection misses one.
    installation.follower.start()
    installation.device_follower.start()
    installation.follower.subscribe(parts.wake)

    def started(running: RunningListeners) -> None:
        # 3. All sockets are open: start the parts' threads, and give the caller the addresses.
        listeners.set_running(running, announce)
        _spare_the_loop()
        parts.start()
        announce()

    # 2. Open the sockets on the event loop, which this call runs until SIGTERM.
    feeds, devices = [installation.follower.subscribe], [installation.device_follower.subscribe]
    try:
        run(
            specs,
            clock=installation.clock,
            feeds=feeds,
            devices=devices,
            started=started,
            hung_up=parts.reload,
            release=release,
        )
    finally:
        # 4. Stop in reverse order: running tasks, threads, then what they used.
        notify("STOPPING=1")
        parts.stop()


def _open_issuers(installation: Installation, names: Sequence[str], say: Say) -> OpenIssuers:
    """The named authorities; keys of other keystores that will be opened are derived too, which takes as long."""
    say(f"opening the keys of {len(names)} authorities")
    reported = time.monotonic()

    def count(done: int, of: int) -> None:
        nonlocal reported
        if time.monotonic() - reported >= 1.0:
            reported = time.monotonic()
            say(f"{done} of {of} keys derived from passphrases")

    issuers = installation.open_issuers(names, count)
    installation.derive_keys((LOG_KEYSTORE, OCSP_KEYSTORE, GATE_KEYSTORE), count)
    return issuers


def _prepare(
    installation: Installation,
    plan: Plan,
    issuers: OpenIssuers,
    setback_watch: SetbackWatch,
    *,
    issue_for: tuple[str, ...],
    is_status_only: bool,
) -> tuple[CurrentListeners, Parts]:
    """What the features share, and every feature's part in the order of first turns and starts."""
    # 1. Make or renew the OCSP responders of the open authorities; then every responder on record can sign.
    holder = f"serve-{installation.entropy(8).hex()}"  # the name under which this process takes leases
    bound = installation.make_clock_bound()
    keystore = installation.keystore_or_new(OCSP_KEYSTORE)
    renewal = None if is_status_only else make_responder_renewal(installation, keystore, holder)
    if renewal is not None:
        renew_responders(renewal, issuers, bound.check_only)
    responses = _open_responses(installation, keystore)
    # 2. Make what listeners send out: cached CRLs and OCSP responses.
    crls = PublishedCrls(installation.database, installation.clock, fresh_seconds=FRESH_SECONDS)
    crls.follow(installation.writer)
    gauge = LoadGauge(installation.settings.serve.overload_seconds)
    gateway_log = GatewayLog(installation.settings.folder / FOLDER, installation.clock, installation.writer)
    source = SheddingOcsp(GuardedOcspResponses(responses, setback_watch), gauge)
    status = _status_app(installation, plan, source, GuardedCrls(crls, setback_watch, installation.database))
    listeners = CurrentListeners(installation, plan, status)
    # 3. Make the parts from these.
    events = EventLog()
    events.follow(installation.writer)
    supply = OcspSupply(responses, installation.database, keystore, installation.clock)
    publication = CrlPublication.of(installation, issuers, setback_watch, holder=holder, bound=bound)
    updates = IssuerUpdates(installation, issuers, issue_for)
    parts = [event_part(events), sequence_part(installation), publication.part()]
    parts += [supply.part(), gateway_log.part()]
    if renewal is not None:
        staple_of = Stapler(responses, setback_watch, installation.clock).of
        contacts = DeviceContacts(installation.clock, installation.writer)
        listeners.make_builder = partial(
            ListenerBuilder,
            installation,
            issuers=issuers,
            record=partial(_record, gateway_log, contacts),
            note_seen=contacts.note_seen,
            staple_of=staple_of,
        )
        parts.append(contacts.part())
        certificates = CertificateRenewal(issuers, renewal, supply, listeners, publication.publisher.check_clock)
        updates.renew = certificates.renew
        parts += [publication.clock_part(), certificates.part(), listeners.anchors_part()]
    parts += [updates.part(), listeners.part(), plan_part(listeners, updates), setback_watch.part(), gauge.part()]
    parts += [ledger_part(installation, setback_watch.is_settled_now, is_status_only=is_status_only)]
    parts += [crl_cache_part(crls), status_part(installation, listeners, crls.state)]
    parts += [statistics_part(installation.database)]
    issuance = None if renewal is None else installation.issuance
    parts += UnsignedCertificates(installation.database, issuance, issuers, setback_watch.is_settled_now).parts()
    if not is_status_only:
        parts += [work_part(installation), CertificateEnds(installation.database, installation.clock).part()]
    return listeners, Parts(parts)


def _record(gateway_log: GatewayLog, contacts: DeviceContacts, decision: ConnectionDecision) -> None:
    gateway_log.record(decision)
    contacts.note_decision(decision)


def _open_responses(installation: Installation, keystore: SoftwareKeystore) -> OcspResponses:
    with installation.database.reading() as connection:
        responders = open_responders(connection, keystore)
    return OcspResponses(
        installation.database,
        installation.follower,
        installation.pack.ocsp,
        responders,
        sequence_bound=sequence_bound(installation),
    )


def _status_app(
    installation: Installation, plan: Plan, source: SheddingOcsp, crls: GuardedCrls
) -> tuple[ASGIApp, OcspCache]:
    """The application of the status listeners, and the OCSP responses that are handed out without it."""
    replies = OcspReplies(source, installation.clock, installation.pack.ocsp.http_max_age)
    app = mount(log_files_app(installation.settings.log), status_app(publications=crls, ocsp=replies))
    prefix = urlsplit(plan.status_url).path
    return under_prefix(prefix, app), OcspCache(replies, prefix)


def _watch_setbacks(installation: Installation) -> SetbackWatch:
    return SetbackWatch(
        installation.database,
        CrlFiles(installation.database, installation.settings.published),
        installation.settings.log,
        is_log_longer=installation.set_backs.is_behind,
        mark=installation.set_backs.mark,
    )


def _health_specs(installation: Installation, parts: Parts, shut: Mapping[str, str]) -> list[ListenerSpec]:
    """The address for operators, if the settings name one."""
    if installation.settings.serve.health is None or "health" in shut:
        return []
    health, serve = Health(parts), installation.settings.serve
    host, port = split_address(installation.settings.serve.health)
    return [ListenerSpec("health", host, port, app=operator_pages(health), limits=limits_of(serve))]


def _spare_the_loop() -> None:
    """Keep the interpreter from stopping the event loop for long."""
    # A database act releases the interpreter at each statement. A short switch interval gives it back soon, even while
    # other tasks sign.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Freeze what is loaded now: the garbage collector need not walk a hundred thousand revocations.
    gc.collect()
    gc.freeze()
