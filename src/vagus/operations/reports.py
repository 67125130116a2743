"""Reports over the whole inventory, in pages: whose certificate ends soon, who has none, and who does what."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from vagus.fleet.expiry import Expiry, Situation, iterate_expiring, iterate_without
from vagus.identifiers import UnitName
from vagus.operations.acts import Acts
from vagus.operations.devices import DeviceQuery, decode_query
from vagus.operations.roles import Act, check_may, check_scope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from vagus.operations.actor import Actor

__all__ = ["Expiry", "ExpiryReport", "Reports", "Situation"]


@dataclass(frozen=True, slots=True)
class ExpiryReport:
    """What ends from `at` until `until` (seconds since 1970 UTC), or has ended.

    `rows` come from the database as they are read: first what ends, the earliest first, then devices without a
    certificate that lives.
    """

    at: int
    until: int
    rows: Iterator[Expiry]


class Reports(Acts):
    """What an operator may ask about the whole inventory."""

    def expiry(self, actor: Actor, query: DeviceQuery, within: timedelta) -> ExpiryReport:
        """Devices whose certificate ends within a period or that have none, with who does what.

        Raises Malformed(BAD_ARGUMENT) for a unit, hospital, model or category that does not exist.
        """
        check_may(actor, Act.READ_DEVICES)
        components = self.components
        if actor.scope is not None:  # before anything that says which units there are
            check_scope(actor, UnitName.parse(query.unit) if query.unit else None)
        with components.database.reading() as connection:
            narrow = decode_query(connection, query)
        at = int(components.clock.now().timestamp())
        until = at + int(within.total_seconds())
        ending = iterate_expiring(components.database, components.pack, at=at, until=until, narrow=narrow)
        without = iterate_without(components.database, components.pack, at=at, narrow=narrow)
        return ExpiryReport(at, until, chain(ending, without))
