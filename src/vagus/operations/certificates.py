"""Certificates: what an operator may read about those that this installation issued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.operations.acts import Acts
from vagus.operations.devices import find_named
from vagus.operations.roles import Act, check_may, check_scope
from vagus.records.authorities import list_authorities
from vagus.records.certificates import list_of_device

if TYPE_CHECKING:
    from vagus.operations.actor import Actor
    from vagus.operations.devices import Device


@dataclass(frozen=True, slots=True)
class IssuedTo:
    """A certificate that a device has or had; `authority` is its issuer's reference, as in `h1/icu#2`.

    `not_after` is in seconds since 1970 UTC.
    """

    authority: str
    serial: int
    state: str
    not_after: int
    profile: str


class Certificates(Acts):
    """What an operator may do with certificates."""

    def list_of_device(self, actor: Actor, device: str) -> tuple[Device, tuple[IssuedTo, ...]]:
        """A device and every certificate that it ever had, the oldest first. Raises as `find_named`."""
        check_may(actor, Act.READ_CERTIFICATES)
        found = find_named(self.components.database, device)
        check_scope(actor, found.unit)
        with self.components.database.reading() as connection:
            references = {row.id: row.reference for row in list_authorities(connection)}
            rows = list_of_device(connection, str(found.id))
        return found, tuple(
            IssuedTo(references.get(one.authority_id, "?"), one.serial, one.state, one.not_after, one.profile)
            for one in rows
        )
