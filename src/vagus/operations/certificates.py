"""Certificates: what an operator may read about those that this installation issued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.fleet.expiry import days_until, shown_state
from vagus.ledger.entries import conceal
from vagus.ledger.revocation_entries import find_revocation_entry
from vagus.operations.acts import Acts
from vagus.operations.devices import Device, find_named
from vagus.operations.local_account import list_operators
from vagus.operations.roles import Act, check_may, check_scope
from vagus.records.authorities import list_authorities
from vagus.records.certificates import HELD, REVOKED, CertificateRow, list_of_device
from vagus.records.installation import load_salt
from vagus.records.revocation.revocations import RevocationRow, find_revocation
from vagus.x509.crls.building import RevocationReason

if TYPE_CHECKING:
    from vagus.operations.actor import Actor
    from vagus.records.engine.database import Connection


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """A certificate of a device. `authority` is its issuer's reference, as in `h1/icu#2`; times are seconds since 1970.

    `state` is "expired" for one that was good when it ended; `days_left` is below zero after the end. The last three
    are None unless it is revoked or held. `revoked_by` is a hash where no account of this machine has that name.
    """

    authority: str
    serial: int
    profile: str
    state: str
    not_after: int
    days_left: int | None
    reason: str | None
    revoked_at: int | None
    revoked_by: str | None


class Certificates(Acts):
    """What an operator may do with certificates."""

    def list_of_device(self, actor: Actor, device: str) -> tuple[Device, tuple[DeviceCertificate, ...]]:
        """A device and every certificate that it ever had, the one that ends last first. Raises as `find_named`."""
        check_may(actor, Act.READ_CERTIFICATES)
        found = find_named(self.components.database, device)
        check_scope(actor, found.unit)
        at = int(self.components.clock.now().timestamp())
        with self.components.database.reading() as connection:
            references = {row.id: row.reference for row in list_authorities(connection)}
            rows = list_of_device(connection, str(found.id))
            return found, tuple(
                _describe(connection, one, references.get(one.authority_id, "?"), actor, at) for one in rows
            )


def _describe(connection: Connection, row: CertificateRow, authority: str, actor: Actor, at: int) -> DeviceCertificate:
    step = find_revocation(connection, row.leaf_index) if row.state in (REVOKED, HELD) else None
    return DeviceCertificate(
        authority=authority,
        serial=row.serial,
        profile=row.profile,
        state=shown_state(row.state, row.not_after, at=at),
        not_after=row.not_after,
        days_left=days_until(row.not_after, at=at),
        reason=None if step is None else RevocationReason(step.reason).spelling,
        revoked_at=None if step is None else step.revoked_at,
        revoked_by=None if step is None else _find_who(connection, step, actor),
    )


def _find_who(connection: Connection, step: RevocationRow, actor: Actor) -> str | None:
    """Who revoked: by name if it was the actor or an account of this machine, else as the ledger writes it."""
    found, salt = find_revocation_entry(connection, step.sequence, step.revoked_at), load_salt(connection)
    if found is None:
        return None
    who = found[1].by
    return next((name for name in (actor.id, *list_operators()) if conceal(salt, name) == who), who)
