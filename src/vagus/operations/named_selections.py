"""What a revocation plan selects, by the names that people use in place of row numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.fleet.line.selection import BIRTH, serial_of
from vagus.records.authorities import list_authorities
from vagus.records.certificates import find_by_leaf

if TYPE_CHECKING:
    from vagus.records.engine.database import Connection
    from vagus.records.revocation.selections import Selection


@dataclass(frozen=True, slots=True)
class NamedSelection:
    """Each way of naming by itself: what is not named is empty.

    `serials` are written as `h1/icu#1:4a01`, `authorities` as `h1/icu#1`. With `selection.of_devices` only devices'
    certificates are meant, of the `units` if there are any. `births` are serial numbers of devices on a maker's line,
    single ones and runs as `FIRST..LAST`.
    """

    serials: tuple[str, ...]
    devices: tuple[str, ...]
    units: tuple[str, ...]
    authorities: tuple[str, ...]
    births: tuple[str, ...]
    selection: Selection
    """Holds the rest, which names nothing by row numbers."""


def name_selection(connection: Connection, selection: Selection) -> NamedSelection:
    """The names of what a selection holds by row numbers."""
    known = {one.id: one for one in list_authorities(connection)}
    found = [find_by_leaf(connection, leaf) for leaf in selection.leaves]
    issuers = [known[one] for one in selection.authority_ids if one in known]
    units = {one.name for one in issuers if one.kind == "issuing_ca"} if selection.of_devices else set()
    return NamedSelection(
        serials=tuple(f"{known[one.authority_id].reference}:{one.serial:x}" for one in found if one is not None),
        devices=tuple(one.removeprefix("device:") for one in selection.owners if one.startswith("device:")),
        units=tuple(sorted(units)),
        authorities=tuple(one.reference for one in issuers),
        births=(
            *(serial_of(one) for one in selection.owners if one.startswith(BIRTH)),
            *(f"{serial_of(first)}..{serial_of(last)}" for first, last in selection.owner_ranges),
        ),
        selection=selection,
    )
