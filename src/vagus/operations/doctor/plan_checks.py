"""The check of the plan in force: every listener of it can be served, and those that cannot are named."""

from __future__ import annotations

from collections.abc import Iterator

from vagus.components import Components
from vagus.operations.doctor.findings import Finding, State

_REMEDY = "correct the plan; vagus plan apply PLAN; then SIGHUP to vagus serve"


def check_plan(components: Components) -> Iterator[Finding]:
    """The same check as of `vagus plan check` and `vagus serve`, for the plan that was applied."""
    if not components.settings.plan.exists():
        return
    plan = components.planning.load_served()
    shut = components.find_listener_faults(plan, asks_inventory=False)
    for name, why in shut.items():
        yield Finding("plan", State.FAILING, f"listener {name} is not served: {why}", _REMEDY)
    for name, why in components.find_listener_faults(plan).items():
        if name not in shut:
            yield Finding("plan", State.WARNING, f"listener {name} refuses some devices: {why}", _REMEDY)
    if not shut:
        yield Finding("plan", State.WELL, f"its {len(plan.listeners)} listeners can be served")
