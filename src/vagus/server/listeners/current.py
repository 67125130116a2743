"""The listeners that a process serves now: built from the plan in force, and replaced when another plan is taken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from vagus.jobs.part import UPKEEP, Part, PartHealth
from vagus.jobs.periodic import Task
from vagus.policy.plan_files import ListenerKind, PlannedListener
from vagus.policy.plans import HospitalPlan, Plan
from vagus.server.listeners.building import BuiltListeners, ListenerBuilder, status_spec, tls_listeners
from vagus.server.listeners.reloading import NextListeners, Reloading
from vagus.transport.listeners import ListenerSpec, RunningListeners

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from vagus.endpoints.http import ASGIApp
    from vagus.server.issuer_updates import IssuerUpdates
    from vagus.transport.ocsp_cache import OcspCache
    from vagus.wiring import Installation

_LONGEST_SECONDS = 120.0


@dataclass(slots=True)
class CurrentListeners:
    """The plan that is served and its listeners.

    `status` is the application of the status listeners, with the cached OCSP responses that are handed out without it.

    Threads: `plan`, `built`, `builder` and `waits` are set before the threads start, and belong to the upkeep thread
    from then on. Other threads read `plan`, `addresses` and `running`, each of which is replaced as a whole.
    """

    installation: Installation
    plan: Plan
    status: tuple[ASGIApp, OcspCache]
    make_builder: Callable[[HospitalPlan], ListenerBuilder] | None = None
    """None on a status node, which has no TLS listener."""
    builder: ListenerBuilder | None = None
    built: BuiltListeners = field(default_factory=BuiltListeners)
    running: RunningListeners | None = None
    addresses: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """The bound host and port of each listener, once it is open."""
    waits: dict[str, str] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    """The listeners of `plan` that are not open, and why; replaced as a whole."""
    _announce: Callable[[], None] = lambda: None

    def build(self) -> list[ListenerSpec]:
        """What to open at the start. Raises as `ListenerBuilder.build`."""
        specs = [self._status_spec(one) for one in self._open_status().values()]
        if self.make_builder is not None and isinstance(self.plan, HospitalPlan):
            self.builder = self.make_builder(self.plan)
            self.built = self.builder.build(self.faults)
            self.faults = self.builder.shut
            self.waits.update(self.builder.warnings)
            self.builder.anchors.note(self.waits)
            specs += self.built.specs
        return specs

    def set_running(self, running: RunningListeners, announce: Callable[[], None]) -> None:
        """The listeners are open; on the event loop. `announce` is called after each change of them."""
        self.running, self.addresses, self._announce = running, running.addresses, announce

    def prepare(self, plan: Plan) -> NextListeners:
        """What another plan opens and closes; it is in force with the `commit` of the result. Raises as `build`."""
        before, after = self._open_status(), _status_listeners(plan)
        opened = [self._status_spec(one) for name, one in after.items() if before.get(name) != one]
        closed = [name for name, one in before.items() if after.get(name) != one]
        builder = self.builder
        ready = builder.prepare(plan, self.built) if builder is not None and isinstance(plan, HospitalPlan) else None
        if ready is not None:
            opened += ready.opened
            closed += ready.closed

        def commit() -> None:
            self.plan, self.faults = plan, {}
            if builder is not None and ready is not None:
                self.built = builder.adopt(ready)
            if self.running is not None:
                self.addresses = self.running.addresses
            self._announce()

        return NextListeners(opened, closed, commit)

    def widen(self, plan: Plan) -> bool:
        """Let the open listeners take the new units of another plan; whether the whole of its listeners is served then.

        Raises Misconfigured(BAD_PLAN), and then everything is as it was.
        """
        builder = self.builder
        if builder is None or not isinstance(plan, HospitalPlan):
            return False
        builder.widen(plan, self.built)
        served = {one.listener.name: one.listener for one in self.built.tls}
        is_whole = (self._open_status(), served) == (_status_listeners(plan), tls_listeners(plan)) and not self.faults
        if is_whole:
            self.built = builder.adopt(builder.prepare(plan, self.built))
            self.plan = plan
        return is_whole

    def refresh(self) -> None:
        """Take in new makers, makers' new CRLs and re-keyed authorities without a restart."""
        if self.builder is not None:
            self.builder.refresh(self.built)
            self.builder.anchors.note(self.waits)

    def renewals(self) -> list[Callable[[], object]]:
        """An act for each listener that renews its certificate where it is due."""
        builder = self.builder
        return [] if builder is None else [partial(builder.renew, one) for one in self.built.tls]

    def shows_any(self, serials: Collection[int]) -> bool:
        """Whether a listener's own certificate has one of these serial numbers."""
        return any(one.certificate.serial in serials for one in self.built.tls)

    @property
    def status_address(self) -> tuple[str, int] | None:
        """Where the first status listener is bound, if this process has one."""
        return next((self.addresses.get(name) for name in _status_listeners(self.plan)), None)

    def part(self) -> Part:
        """Open and refused connections."""
        return Part("listeners", health=self._report, metrics=self._measure)

    def anchors_part(self) -> Part:
        """The task that has the listeners trust new authorities and makers, at once after SIGHUP."""
        tasks = [Task("anchors", 2.0, self.refresh, _LONGEST_SECONDS)]
        return Part("anchors", tasks, UPKEEP, health=lambda: PartHealth(waits=dict(self.waits)), reload=self._reload)

    def _report(self) -> PartHealth:
        counts = {name: {"open": opened, "turned_away": away} for name, (opened, away) in self._counts().items()}
        return PartHealth({"listeners": counts}, lacks={f"listener {name}": why for name, why in self.faults.items()})

    def _measure(self) -> Iterable[Metric]:
        opened = GaugeMetricFamily("vagus_listener_connections", "Open connections.", labels=["listener"])
        turned = CounterMetricFamily("vagus_listener_turned_away", "Connections over a bound.", labels=["listener"])
        for name, (open_now, turned_away) in self._counts().items():
            opened.add_metric([name], open_now)
            turned.add_metric([name], turned_away)
        return opened, turned

    def _counts(self) -> Mapping[str, tuple[int, int]]:
        return {} if self.running is None else self.running.counts()

    def _reload(self) -> tuple[str, ...]:
        if self.builder is None:
            return ()
        self.builder.anchors.reload_crls()
        return ("anchors",)

    def _open_status(self) -> dict[str, PlannedListener]:
        return {name: one for name, one in _status_listeners(self.plan).items() if name not in self.faults}

    def _status_spec(self, listener: PlannedListener) -> ListenerSpec:
        return status_spec(self.installation, listener, *self.status)


def _status_listeners(plan: Plan) -> dict[str, PlannedListener]:
    return {one.name: one for one in plan.listeners if one.kind is ListenerKind.STATUS}


def list_served(plan: Plan, *, is_status_only: bool) -> tuple[PlannedListener, ...]:
    """The listeners of a plan that a process opens."""
    tls = tls_listeners(plan) if isinstance(plan, HospitalPlan) and not is_status_only else {}
    return (*_status_listeners(plan).values(), *tls.values())


def plan_part(listeners: CurrentListeners, updates: IssuerUpdates) -> Part:
    """Takes in what operators changed: authorities by itself, the plan's listeners at SIGHUP."""
    installation = listeners.installation
    reloading = Reloading(
        installation.settings.plan,
        load=installation.planning.load_served,
        prepare=listeners.prepare,
        refresh_issuers=updates.refresh,
        plan=listeners.plan,
        is_whole=lambda: not listeners.faults,
        widen=listeners.widen,
    )

    def start() -> None:
        reloading.running = listeners.running

    def reload() -> tuple[str, ...]:
        reloading.ask()
        return ("plan",)

    task = Task("plan", 2.0, reloading.refresh, _LONGEST_SECONDS)
    return Part("plan", [task], UPKEEP, health=reloading.health, start=start, reload=reload)
