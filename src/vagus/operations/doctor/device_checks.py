"""Checks of the devices' certificates: which ended or end soon and have not renewed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vagus.components import Components
from vagus.fleet.expiry import Situation, iterate_expiring
from vagus.operations.doctor.findings import Finding, State
from vagus.policy.values import spell_duration
from vagus.records.devices import DeviceFilter

_CHECK = "devices"


def check_expiry(components: Components) -> Iterator[Finding]:
    """No device certificate has ended, or ends within the critical time of the policy without having been renewed."""
    if components.settings.kind != "hospital":
        return
    at, critical = int(components.clock.now().timestamp()), components.pack.renewal.critical
    within, until = spell_duration(critical), at + int(critical.total_seconds())
    ended: Counter[str] = Counter()
    late: Counter[str] = Counter()
    for one in iterate_expiring(components.database, components.pack, at=at, until=until, narrow=DeviceFilter()):
        if one.situation is Situation.EXPIRED:
            ended[one.category] += 1
        elif one.situation is Situation.OVERDUE:
            late[one.category] += 1
    remedy = f"vagus report expiry --within {within} says which, and who does what"
    if ended:
        yield Finding(_CHECK, State.WARNING, f"certificates have expired: {_spell(ended)}", remedy)
    if late:
        finding = f"certificates end within {within} and have not been renewed: {_spell(late)}"
        yield Finding(_CHECK, State.WARNING, finding, remedy)
    if not ended and not late:
        yield Finding(_CHECK, State.WELL, f"no certificate has expired or ends within {within} without being renewed")


def _spell(counts: Counter[str]) -> str:
    """By category, the most first, as in `3 ventilator, 1 infusion-pump`."""
    return ", ".join(f"{number:,} {category}" for category, number in counts.most_common())
