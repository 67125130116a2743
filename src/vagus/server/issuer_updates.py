"""Opens authorities that came while the process serves, and closes those that went; opens no listener."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vagus.authority.issuers import OpenIssuers, is_live
from vagus.jobs.part import Part, PartHealth, replace_notes
from vagus.policy.plans import AuthorityKind
from vagus.records.authorities import ACTIVE, list_authorities

if TYPE_CHECKING:
    from vagus.wiring import Installation

_LOG = logging.getLogger(__name__)
ALL = "all"


def find_names(installation: Installation, issue_for: Sequence[str]) -> tuple[str, ...]:
    """The names given; for `all` every active online authority, and for a hospital every one of the hospital."""
    with installation.database.reading() as connection:
        listed = list_authorities(connection)
    hospitals = {row.name for row in listed if row.kind == AuthorityKind.DEVICE_CA}
    online = [row.name for row in listed if row.state == ACTIVE and not AuthorityKind(row.kind).is_offline]
    if tuple(issue_for) == (ALL,):
        return tuple(dict.fromkeys(online))
    found: list[str] = []
    for name in issue_for:
        found += [one for one in online if one.startswith(f"{name}/")] if name in hospitals else [name]
    return tuple(dict.fromkeys(found))


@dataclass(slots=True)
class IssuerUpdates:
    """Keeps `issuers` in step with the table; called on the upkeep thread, which writes `waits`.

    `renew` makes the responders of new authorities, and raises an ExceptionGroup. A status node has no `renew`.
    """

    installation: Installation
    issuers: OpenIssuers
    issue_for: tuple[str, ...]
    renew: Callable[[], None] = lambda: None
    waits: dict[str, str] = field(default_factory=dict)

    def part(self) -> Part:
        """Shows which generations are not open. The plan's task calls `refresh`, before it takes another plan."""
        self.note_unopened()
        return Part("issuers", health=lambda: PartHealth(waits=dict(self.waits)))

    def refresh(self) -> tuple[str, ...]:
        """Open new generations, and with `all` new authorities, as at a start; returns what came or went."""
        names = find_names(self.installation, self.issue_for)
        with self.installation.database.reading() as connection:
            at = int(self.installation.clock.now().timestamp())
            live = [row for row in list_authorities(connection) if row.name in names and is_live(row, at)]
        known = {one.reference for one in self.issuers.every()} | set(self.issuers.unopened)
        if {row.reference for row in live} == known:
            return ()
        changed = self.issuers.take_over(self.installation.open_issuers({row.name for row in live}))
        self.note_unopened()
        try:
            self.renew()
        # the open issuers are used all the same, and the hourly task renews the failed responders
        except ExceptionGroup:
            _LOG.exception("some responders and listeners of the new authorities have no certificate yet")
        return changed

    def note_unopened(self) -> None:
        """Report generations that have ended and whose keys cannot be opened. An operator may retire them."""
        unopened = {f"authority {reference}": why for reference, why in self.issuers.unopened.items()}
        replace_notes(self.waits, unopened, _LOG)
