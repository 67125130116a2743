"""Runs every check of the doctor, in the order in which they depend on one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from vagus.errors import VagusError
from vagus.operations.acts import Acts
from vagus.operations.doctor import device_checks, host_checks, plan_checks, record_checks, status_checks
from vagus.operations.doctor.findings import Finding, State
from vagus.operations.roles import Act, check_may

if TYPE_CHECKING:
    from vagus.components import Components
    from vagus.operations.actor import Actor


class Doctor(Acts):
    """What an operator may ask about the health of the installation."""

    def diagnose(self, actor: Actor, *, connect_to: tuple[str, int] | None = None) -> Iterator[Finding]:
        """Every finding. A check that fails to run is itself a finding.

        `connect_to` (host, port) is asked for what is published in place of the status URL's own host.
        """
        check_may(actor, Act.DIAGNOSE)
        _ = self.components.database  # an empty database is refused, and no check could say more of it
        return _run(self.components, connect_to)


def _run(components: Components, connect_to: tuple[str, int] | None) -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[Components], Iterator[Finding]]], ...] = (
        ("permissions", host_checks.check_permissions),
        ("operators", host_checks.check_operators),
        ("policy pack", host_checks.check_policy),
        ("keystores", host_checks.check_keystores),
        ("database", host_checks.check_durability),
        ("fsync", host_checks.check_fsync),
        ("clock", host_checks.check_clock),
        ("ledger", record_checks.check_ledger),
        ("restore", record_checks.check_restore),
        ("ceremony", record_checks.check_ceremonies),
        ("authorities", record_checks.check_authorities),
        ("signatures", record_checks.check_unsigned),
        ("plan", plan_checks.check_plan),
        ("devices", device_checks.check_expiry),
        ("makers' lists", record_checks.check_makers),
        ("work", record_checks.check_work),
        ("emergency lists", record_checks.check_emergency_crls),
        ("status", status_checks.check_status),
        ("published", partial(status_checks.check_published, connect_to=connect_to)),
    )
    for name, check in checks:
        try:
            yield from check(components)
        except VagusError as error:
            yield Finding(name, State.FAILING, error.message)
        except OSError as error:
            yield Finding(name, State.FAILING, f"{error.filename or ''}: {error.strerror or error}")
