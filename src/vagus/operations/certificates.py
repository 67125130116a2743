"""Certificates: what an operator may read about those that this installation issued."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.operations.acts import Acts
from vagus.operations.devices import Device, find_named
from vagus.operations.roles import Act, check_may, check_scope
from vagus.records.authorities import list_authorities
from vagus.records.certificates import CertificateRow, list_of_device

if TYPE_CHECKING:
    from vagus.operations.actor import Actor


class Certificates(Acts):
    """What an operator may do with certificates."""

    def list_of_device(self, actor: Actor, device: str) -> tuple[Device, tuple[tuple[str, CertificateRow], ...]]:
        """A device and every certificate that it ever had, the oldest first. Raises as `find_named`.

        Each certificate comes with the reference of its issuer, as in `h1/icu#2`.
        """
        check_may(actor, Act.READ_CERTIFICATES)
        found = find_named(self.components.database, device)
        check_scope(actor, found.unit)
        with self.components.database.reading() as connection:
            references = {row.id: row.reference for row in list_authorities(connection)}
            rows = list_of_device(connection, str(found.id))
        return found, tuple((references.get(one.authority_id, "?"), one) for one in rows)
