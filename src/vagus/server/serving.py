"""The serving process from start to stop: keys opened, intents settled, lists signed, and only then doors opened."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

from vagus.authority.clock_bound import ClockBound
from vagus.authority.crls.files import CrlFiles
from vagus.authority.crls.published import FRESH_SECONDS, REFRESH_SECONDS, PublishedCrls
from vagus.authority.crls.publisher import CrlPublisher
from vagus.authority.issuers import Issuer, OpenIssuers, is_live
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, ResponderRenewal, open_responders
from vagus.authority.ocsp.responses import OcspResponses
from vagus.endpoints.http import ASGIApp
from vagus.endpoints.log_files import log_files_app
from vagus.endpoints.revocation_status import OcspReplies, status_app
from vagus.endpoints.routing import mount, under_prefix
from vagus.errors import Conflict
from vagus.jobs.kinds import work_kinds
from vagus.jobs.periodic import Jobs, Task, do_each
from vagus.jobs.runner import WorkRunner
from vagus.monitoring.http_fetch import HttpFetch
from vagus.monitoring.prober import Prober
from vagus.monitoring.status_watch import StatusWatch
from vagus.policy.plans import AuthorityKind, HospitalPlan, ListenerKind, Plan
from vagus.reasons import Reason
from vagus.records.authorities import ACTIVE, list_authorities
from vagus.records.revocation.revocations import RevocationEvent
from vagus.server.gateway_log import GatewayLog
from vagus.server.health import Health, health_app, note_clock, note_files
from vagus.server.listeners.building import BuiltListeners, ListenerBuilder, sequence_bound, status_spec
from vagus.server.listeners.reloading import NextListeners, Reloading
from vagus.server.log_publication import ledger_jobs, note_lacks
from vagus.server.metrics import metrics_app
from vagus.server.ocsp_supply import OcspSupply
from vagus.server.overload import LoadGauge, SheddingOcsp
from vagus.server.setback_watch import GuardedCrls, GuardedOcspResponses, SetbackWatch
from vagus.server.stapling import Stapler
from vagus.server.status_watching import statistics_tasks, watch_tasks
from vagus.transport.listeners import ListenerSpec, RunningListeners, run
from vagus.transport.ocsp_cache import OcspCache
from vagus.wiring import Installation

_LOG = logging.getLogger(__name__)
ALL = "all"
_HOUR = 3600.0
_LONG = 120.0  # every list of a million certificates is signed anew within 30 s of one core
_SWITCH_SECONDS = 0.001

Ready = Callable[[Mapping[str, object]], None]


@dataclass(slots=True)
class Serving:
    """The parts of one serving process, while it runs."""

    installation: Installation
    plan: Plan
    issuers: OpenIssuers
    desk: OcspResponses
    gate_log: GatewayLog
    publisher: CrlPublisher
    supply: OcspSupply
    lists: PublishedCrls
    gauge: LoadGauge
    holder: str
    """This process's name in leases."""
    sight: SetbackWatch
    doors: BuiltListeners = field(default_factory=BuiltListeners)
    builder: ListenerBuilder | None = None
    waits: dict[str, str] = field(default_factory=dict)
    """What an operator should know, by what it is about."""
    lacks: dict[str, str] = field(default_factory=dict)
    """What this process does not do, with the remedy."""
    changed: Callable[[], None] | None = None
    """Told once the listeners of another plan are open."""
    ledger: Jobs = field(default_factory=lambda: Jobs([]))
    """The thread that publishes the ledger, for which no list waits."""


def serve(installation: Installation, *, issue_for: Sequence[str], is_status_only: bool, ready: Ready) -> None:
    """Serve until SIGTERM; `ready` is told the bound addresses once every listener is open.

    Raises what opening keys, settling and signing raise, before any listener opens.
    """
    # 1. The plan in force, and whether this system may issue at all.
    plan = installation.planning.load_served()
    files = CrlFiles(installation.database, installation.settings.published)
    log = installation.settings.log
    sight = SetbackWatch(
        installation.database,
        files,
        log,
        is_behind=installation.set_backs.is_behind,
        mark=installation.set_backs.mark,
        waits={},
    )
    sight.look()
    if not is_status_only:
        sight.check()
        installation.set_backs.check_settled()
        installation.operations.installation.adopt_policy(installation.actor)
    # 2. The keys that were named, and no other.
    issuers = installation.open_issuers(_names(installation, issue_for))
    # 3. Intents that a crash left open are closed before anybody can ask about them.
    if not is_status_only:
        report = installation.issuance.settle(issuers)
        if report.signed or report.revoked:
            _LOG.warning("settled open intents: %d signed, %d revoked", len(report.signed), len(report.revoked))
    # 4. Responders, lists, ledger: what peers will ask for is there before they can.
    serving = _prepare(installation, plan, issuers, sight, is_status_only=is_status_only)
    _tell_unopened(serving)
    reloading = Reloading(
        installation.settings.plan,
        load=installation.planning.load_served,
        prepare=partial(_prepare_plan, serving),
        look_at_issuers=partial(_take_issuers, serving, tuple(issue_for), is_status_only=is_status_only),
        plan=plan,
        waits=serving.waits,
    )
    jobs = Jobs([*_tasks(serving, is_status_only=is_status_only), Task("plan", 2.0, reloading.look, _LONG)])
    jobs.run_all()
    serving.ledger = ledger_jobs(installation, partial(_is_settled, serving))
    serving.ledger.run_all()
    # 5. The doors.
    status = _status_parts(serving)
    specs = [status_spec(installation, one, *status) for one in plan.listeners if one.kind is ListenerKind.STATUS]
    if isinstance(plan, HospitalPlan) and not is_status_only:
        stapler = Stapler(serving.desk, sight, installation.clock)
        serving.builder = ListenerBuilder(
            installation, plan, issuers, record=serving.gate_log.record, staple_of=stapler.of
        )
        serving.doors = serving.builder.build()
        serving.waits.update(serving.builder.warnings)
        serving.builder.tell(serving.waits)
        specs += serving.doors.specs
    runner = None if is_status_only else _runner(installation)
    _run(serving, specs, jobs, runner, reloading, ready)


def _run(
    serving: Serving,
    specs: list[ListenerSpec],
    jobs: Jobs,
    runner: WorkRunner | None,
    reloading: Reloading,
    ready: Ready,
) -> None:
    installation = serving.installation
    installation.follower.start()
    installation.device_follower.start()
    installation.follower.subscribe(partial(_hear, serving, jobs))
    running: list[RunningListeners] = []
    watch = _watch(installation)
    watch.kept_lists = serving.lists.state
    # Each has its thread: no list may come late because a fetch or a folder hangs, or another takes its time.
    showing = Jobs([Task("newest-lists", REFRESH_SECONDS, serving.lists.refresh, _LONG)])
    watching = Jobs([*watch_tasks(watch, installation.settings.serve), *statistics_tasks(installation.database)])
    working = Jobs([] if runner is None else [Task("work", 1.0, runner.run_next, None)])
    threads = (jobs, serving.ledger, showing, watching, working)
    bound, waits = sequence_bound(installation), reloading.waits
    counts = partial(_counts, running)
    if runner is not None:  # a status node issues nothing that could lack a checkpoint
        serving.lacks.update(note_lacks(installation))
    told = (waits, serving.lacks, _graces(installation))
    health = Health(installation.clock, installation.follower, threads, bound, counts, watch, serving.gauge, *told)
    specs += _operators(installation, health)
    if not specs:
        msg = "the plan has no listener that this process could open; add one under [[listeners]]"
        raise Conflict(Reason.BAD_PLAN, msg)

    def tell() -> None:
        ready(_facts(serving, running[0]))

    def changed() -> None:
        watch.prober = _prober(serving, running[0])
        tell()

    def started(now: RunningListeners) -> None:
        running.append(now)
        reloading.running, serving.changed = now, changed
        watch.prober = _prober(serving, now)
        serving.gauge.start()
        # An act gives the interpreter away at each statement: it must not wait long for it behind lists and sweeps.
        sys.setswitchinterval(_SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # what is loaded now stays: no collection of garbage need walk a hundred thousand revocations
        for each in threads:
            each.start()
        tell()

    try:
        feeds, devices = [installation.follower.subscribe], [installation.device_follower.subscribe]
        hung_up = partial(_read_again, serving, reloading, jobs)
        run(specs, clock=installation.clock, feeds=feeds, devices=devices, started=started, hung_up=hung_up)
    finally:
        watch.stop()
        if runner is not None:
            runner.stop()
        _stop(serving, threads[::-1])


def _read_again(serving: Serving, reloading: Reloading, jobs: Jobs) -> None:
    """SIGHUP: the plan and makers' lists."""
    reloading.ask()
    jobs.nudge("plan")
    if serving.builder is not None:
        serving.builder.reload_crls()
        jobs.nudge("anchors")


def _watch(installation: Installation) -> StatusWatch:
    keystores, seconds = installation.settings.keystores, installation.settings.serve.probe_seconds
    return StatusWatch(installation.pack, installation.database, installation.clock, keystores, probe_seconds=seconds)


def _graces(installation: Installation) -> dict[str, tuple[timedelta, timedelta]]:
    return {function.value: (rule.status_max_age, rule.grace) for function, rule in installation.pack.functions.items()}


def _counts(running: Sequence[RunningListeners]) -> Mapping[str, tuple[int, int]]:
    return running[0].counts() if running else {}


def _facts(serving: Serving, running: RunningListeners) -> dict[str, object]:
    """What the ready line says: where each door is bound, and for whom this process issues."""
    addresses = {name: f"{host}:{port}" for name, (host, port) in running.addresses.items()}
    issuers = sorted(one.reference for one in serving.issuers.every())
    return {"ready": True, "listeners": addresses, "issuers": issuers}


def _stop(serving: Serving, threads: Sequence[Jobs]) -> None:
    """End the threads, then what they used; leases go back so that another process need not wait for their end."""
    for each in threads:
        each.stop()
    serving.gate_log.close()
    for issuer in serving.issuers.every():
        serving.publisher.release(issuer)


def _hear(serving: Serving, jobs: Jobs, events: Sequence[RevocationEvent]) -> None:
    """Lists follow a revocation at once, and a door whose own certificate was revoked gets another one."""
    jobs.nudge("lists")
    if not {event.serial for event in events}.isdisjoint(door.certificate.serial for door in serving.doors.tls):
        jobs.nudge("certificates")


def _operators(installation: Installation, health: Health) -> list[ListenerSpec]:
    """The address for operators, if the settings name one."""
    if installation.settings.serve.health is None:
        return []
    host, _, port = installation.settings.serve.health.rpartition(":")
    app = metrics_app(health, health_app(health))
    return [ListenerSpec(name="health", host=host.strip("[]"), port=int(port), app=app)]


def _names(installation: Installation, issue_for: Sequence[str]) -> tuple[str, ...]:
    """The names given, or every active online authority for `all`."""
    if tuple(issue_for) != (ALL,):
        return tuple(dict.fromkeys(issue_for))
    with installation.database.reading() as connection:
        active = list_authorities(connection, state=ACTIVE)
    return tuple(dict.fromkeys(row.name for row in active if not AuthorityKind(row.kind).is_offline))


def _prepare(
    installation: Installation, plan: Plan, issuers: OpenIssuers, sight: SetbackWatch, *, is_status_only: bool
) -> Serving:
    """Responders of the open authorities are made or renewed; all that are on record answer."""
    keystore = installation.keystore_or_new(OCSP_KEYSTORE)
    holder = f"serve-{installation.entropy(8).hex()}"
    bound = installation.make_clock_bound()
    if not is_status_only:
        renewal = ResponderRenewal(
            installation.database,
            installation.writer,
            installation.clock,
            installation.issuance,
            keystore,
            holder=holder,
        )
        _renew_first(renewal, issuers, bound)
    with installation.database.reading() as connection:
        responders = open_responders(connection, keystore)
    desk = OcspResponses(
        installation.database,
        installation.follower,
        installation.pack.ocsp,
        responders,
        sequence_bound=sequence_bound(installation),
    )
    gate_log = GatewayLog(installation.settings.folder / "gates", installation.clock, installation.writer)
    publisher = CrlPublisher(
        installation.pack,
        installation.database,
        installation.writer,
        installation.clock,
        folder=installation.settings.published,
        holder=holder,
        bound=bound,
    )
    supply = OcspSupply(desk, installation.database, keystore, installation.clock)
    gauge = LoadGauge(installation.settings.serve.overload_seconds)
    publisher.files = sight.files  # one memory of the folder
    lists = PublishedCrls(installation.database, installation.clock, fresh_seconds=FRESH_SECONDS)
    lists.follow(installation.writer)
    return Serving(
        installation, plan, issuers, desk, gate_log, publisher, supply, lists, gauge, holder, sight, waits=sight.waits
    )


def _renew_first(renewal: ResponderRenewal, issuers: OpenIssuers, bound: ClockBound) -> None:
    """One authority without a responder keeps no other silent: the task `certificates` tries and tells of it again."""

    def in_time(issuer: Issuer) -> None:
        bound.check_only()
        renewal.renew_due(issuer)

    try:
        do_each("certificates", issuers.every(), in_time)
    except ExceptionGroup as group:
        for error in group.exceptions:
            _LOG.error("a responder was not renewed: %s", error)


def _tasks(serving: Serving, *, is_status_only: bool) -> list[Task]:
    tasks = [
        Task("lists", 1.0, partial(_publish_lists, serving), _LONG),
        Task("files", 1.0, partial(_write_files, serving), _LONG),
        Task("responders", 10.0, serving.supply.take_over),
        Task("answers", 60.0, serving.supply.presign),
        Task("gates", 5.0, serving.gate_log.flush),
    ]
    if not is_status_only:
        tasks.append(Task("clock", 60.0, partial(note_clock, serving.waits, serving.publisher.check_clock)))
        tasks.append(Task("certificates", _HOUR, partial(_renew, serving), _LONG))
        tasks.append(Task("anchors", 2.0, partial(_refresh, serving), _LONG))
    return tasks


def _runner(installation: Installation) -> WorkRunner:
    """Runs the durable jobs of every kind, under a name that no other process has."""
    node = f"serve-{installation.entropy(8).hex()}"
    return WorkRunner(installation.database, installation.writer, installation.clock, node, work_kinds(installation))


def _prober(serving: Serving, running: RunningListeners) -> Prober | None:
    """Fetches at the status URL as the world does, or at this process's own status listener."""
    installation = serving.installation
    name = next((one.name for one in serving.plan.listeners if one.kind is ListenerKind.STATUS), None)
    own = None if name is None else running.addresses.get(name)
    is_own = installation.settings.serve.probe == "listener"
    if is_own and own is None:
        return None
    return Prober(
        installation.pack,
        installation.database,
        installation.clock,
        installation.entropy,
        HttpFetch(own if is_own else None),
        status_url=serving.plan.status_url,
        writer=installation.writer,
        through_caches=not is_own,
    )


def _publish_lists(serving: Serving) -> None:
    if not _is_settled(serving):
        return  # a new list would not name what was revoked in the gap, and take the place of one that does
    do_each("lists", serving.issuers.every(), serving.publisher.publish_due)


def _write_files(serving: Serving) -> float | None:
    """Static servers hand out the files of whoever signs; others answer from memory, and nobody needs theirs."""
    is_needed = bool(serving.issuers.every())
    return note_files(serving.lacks, partial(_follow_table, serving), is_needed=is_needed)


def _follow_table(serving: Serving) -> None:
    """The folder follows the table, whoever signed: another server, a ceremony, or this one before a crash."""
    files = serving.publisher.files
    if files is not None and _is_settled(serving):  # what a restored table says may be older than what is out
        do_each("files", files.find_outdated(), files.write)


def _is_settled(serving: Serving) -> bool:
    """Asked again each time: an operator may close the gap while this process serves."""
    return serving.sight.look_again()


def _renew(serving: Serving) -> None:
    """Responders and door certificates past their time get new ones without a restart, while the clock can be right."""
    installation = serving.installation
    keystore = installation.keystore(OCSP_KEYSTORE)
    parts = (installation.database, installation.writer, installation.clock, installation.issuance, keystore)
    renewal = ResponderRenewal(*parts, holder=serving.holder)
    acts: list[Callable[[], object]] = [partial(renewal.renew_due, issuer) for issuer in serving.issuers.every()]
    acts.append(serving.supply.take_over)
    if serving.builder is not None:
        acts += [partial(serving.builder.renew, door) for door in serving.doors.tls]

    def in_time(act: Callable[[], object]) -> None:
        serving.publisher.check_clock()  # nobody believes what a clock that is ahead dates
        act()

    do_each("certificates", acts, in_time)


def _take_issuers(serving: Serving, issue_for: tuple[str, ...], *, is_status_only: bool) -> tuple[str, ...]:
    """New generations, and with `all` new authorities, are opened here as at a start; gives what came or went."""
    installation = serving.installation
    names = _names(installation, issue_for)
    with installation.database.reading() as connection:
        at = int(installation.clock.now().timestamp())
        live = [row for row in list_authorities(connection) if row.name in names and is_live(row, at)]
    known = {one.reference for one in serving.issuers.every()} | set(serving.issuers.unopened)
    if {row.reference for row in live} == known:
        return ()
    changed = serving.issuers.take_over(installation.open_issuers({row.name for row in live}))
    _tell_unopened(serving)
    if not is_status_only:
        try:
            _renew(serving)
        except ExceptionGroup:  # the issuers are taken over all the same; the hourly task tries what failed again
            _LOG.exception("not every responder and door of the new authorities has its certificate")
    return changed


def _tell_unopened(serving: Serving) -> None:
    """Generations that have ended and whose keys are not to be had stop nothing; an operator may retire them."""
    told = {f"authority {reference}": why for reference, why in serving.issuers.unopened.items()}
    for about in [about for about in serving.waits if about.startswith("authority ") and about not in told]:
        del serving.waits[about]
    for about, why in told.items():
        if serving.waits.get(about) != why:
            _LOG.warning("%s: %s", about, why)
        serving.waits[about] = why


def _prepare_plan(serving: Serving, plan: Plan) -> NextListeners:
    """What another plan opens and closes, plain listeners and doors."""
    before = {one.name: one for one in serving.plan.listeners if one.kind is ListenerKind.STATUS}
    after = {one.name: one for one in plan.listeners if one.kind is ListenerKind.STATUS}
    status = _status_parts(serving)
    opened = [status_spec(serving.installation, one, *status) for name, one in after.items() if before.get(name) != one]
    closed = [name for name, one in before.items() if after.get(name) != one]
    builder = serving.builder
    ready = builder.prepare(plan, serving.doors) if builder is not None and isinstance(plan, HospitalPlan) else None
    if ready is not None:
        opened += ready.opened
        closed += ready.closed

    def commit() -> None:
        serving.plan = plan
        if builder is not None and ready is not None:
            serving.doors = builder.adopt(ready)
        if serving.changed is not None:
            serving.changed()

    return NextListeners(opened, closed, commit)


def _refresh(serving: Serving) -> None:
    """A maker whose manifest or list came a moment ago, an authority that was re-keyed: no restart for them."""
    if serving.builder is not None:
        serving.builder.refresh(serving.doors)
        serving.builder.tell(serving.waits)


def _status_parts(serving: Serving) -> tuple[ASGIApp, OcspCache]:
    """The application of the status listeners, and the OCSP answers that are given without it."""
    installation = serving.installation
    source = SheddingOcsp(GuardedOcspResponses(serving.desk, serving.sight), serving.gauge)
    replies = OcspReplies(source, installation.clock, installation.pack.ocsp.http_max_age)
    lists = GuardedCrls(serving.lists, serving.sight, installation.database)
    app = status_app(publications=lists, ocsp=replies)
    prefix = urlsplit(serving.plan.status_url).path
    return under_prefix(prefix, mount(log_files_app(installation.settings.log), app)), OcspCache(replies, prefix)
