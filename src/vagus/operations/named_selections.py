"""What a revocation plan selects, by the names that people use in place of row numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.records.authorities import list_authorities
from vagus.records.certificates import find_by_leaf

if TYPE_CHECKING:
    from vagus.records.engine.database import Connection
    from vagus.records.revocation.selections import Selection


@dataclass(frozen=True, slots=True)
class NamedSelection:
    """Each way of naming by itself: what is not named is empty or None. Times are in seconds since 1970 UTC.

    `serials` are written as `h1/icu#1:4a01`, `authorities` as `h1/icu#1`. With `of_devices` only devices' certificates
    are meant, of the `units` if there are any.
    """

    serials: tuple[str, ...]
    devices: tuple[str, ...]
    units: tuple[str, ...]
    authorities: tuple[str, ...]
    model: str | None
    first_serial: str | None
    last_serial: str | None
    key_sha256: bytes | None
    profile: str | None
    issued_from: int | None
    issued_until: int | None
    of_devices: bool


def name_selection(connection: Connection, selection: Selection) -> NamedSelection:
    """The names of what a selection holds by row numbers."""
    known = {one.id: one for one in list_authorities(connection)}
    found = [find_by_leaf(connection, leaf) for leaf in selection.leaves]
    issuers = [known[one] for one in selection.authority_ids if one in known]
    units = {one.name for one in issuers if one.kind == "issuing_ca"} if selection.of_devices else set()
    return NamedSelection(
        serials=tuple(f"{known[one.authority_id].reference}:{one.serial:x}" for one in found if one is not None),
        devices=tuple(one.removeprefix("device:") for one in selection.owners),
        units=tuple(sorted(units)),
        authorities=tuple(one.reference for one in issuers),
        model=selection.model,
        first_serial=selection.first_serial,
        last_serial=selection.last_serial,
        key_sha256=selection.spki_sha256,
        profile=selection.profile,
        issued_from=selection.issued_from,
        issued_until=selection.issued_until,
        of_devices=selection.of_devices,
    )
