"""Lots: the devices that model, serials and units name together; which of them an act still concerns, and lots locked.

The queries for a page of devices walk the primary key, whatever the lot: all pages together cost one scan of the table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, func, insert, select, update

from vagus.records.authorities import list_authorities
from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import by_index, hidden
from vagus.records.engine.row_forms import ITEMS, RowForm
from vagus.records.engine.tables import certificates, devices, lot_locks
from vagus.records.revocation.selections import Selection

LOT_LOCKED, LOT_ENDED = "lot-locked", "lot-lock-ended"
"""The acts of a lock in the ledger, with `LotLockRow.subject` and `digest`."""
_DEVICE = "device:"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLot:
    """Devices for which all that is given holds; serials are compared as texts of one length, as in `Selection`."""

    model: str | None = None
    first_serial: str | None = None
    last_serial: str | None = None
    units: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()

    def has(self, unit: str, model: str, serial: str) -> bool:
        """Whether a device of this unit, model and maker's serial is in it; `ids` do not count."""
        first, last = self.first_serial or serial, self.last_serial or serial
        is_in_range = len(first) == len(serial) and first <= serial <= last
        return self.model in {None, model} and is_in_range and (not self.units or unit in self.units)

    def covers(self, other: DeviceLot) -> bool:
        """Whether every device that `other` may ever have is in it too."""
        if self.ids or self.model not in {None, other.model}:
            return False
        if self.units and not (other.units and set(self.units) >= set(other.units)):
            return False
        first, last = self.first_serial, self.last_serial
        if first is None or last is None:
            return True
        start, end = other.first_serial, other.last_serial
        return start is not None and end is not None and len(first) == len(start) and first <= start and end <= last


@dataclass(frozen=True, slots=True, kw_only=True)
class Without:
    """Devices that have none of the certificates of a selection: not expired at `alive_at`, up to leaf `until`."""

    selection: Selection
    alive_at: int
    until: int
    states: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which devices of a lot an act concerns now; what is None does not narrow.

    `held_until`: only those on hold since then or earlier. `is_held` False: only those that are not on hold.
    """

    states: Collection[str] | None = None
    is_held: bool | None = None
    held_until: int | None = None
    without: Without | None = None


def lot_of(connection: Connection, selection: Selection) -> DeviceLot | None:
    """The devices that a selection names; None for one that names certificates by what only certificates have."""
    by_certificate = selection.leaves or selection.profile or selection.spki_sha256 or selection.issued_from
    is_by_authority = bool(selection.authority_ids) and not selection.of_devices
    if (
        by_certificate
        or selection.owner_ranges
        or is_by_authority
        or not all(one.startswith(_DEVICE) for one in selection.owners)
    ):
        return None
    ids = set(selection.authority_ids)
    return DeviceLot(
        model=selection.model,
        first_serial=selection.first_serial,
        last_serial=selection.last_serial,
        units=tuple(sorted({one.name for one in list_authorities(connection) if one.id in ids})),
        ids=tuple(sorted(one.removeprefix(_DEVICE) for one in selection.owners)),
    )


def list_wanted(
    connection: Connection, lot: DeviceLot, wanted: Wanted, *, after: str = "", count: int
) -> tuple[str, ...]:
    """The ids of the next `count` devices after the id `after`, rising."""
    query = select(devices.c.id).where(devices.c.id > after, hidden(*_conditions(lot, wanted)))
    if lot.ids:
        query = query.where(devices.c.id.in_(lot.ids))
    with by_index(connection):
        return tuple(connection.execute(query.order_by(devices.c.id).limit(count)).scalars())


def count_wanted(connection: Connection, lot: DeviceLot, wanted: Wanted, by: str = "profile") -> dict[str, int]:
    """How many devices of a lot an act concerns, by the column `by`; scans the table once."""
    query = select(devices.c[by].label("word")).where(hidden(*_conditions(lot, wanted)))
    if lot.ids:
        query = query.where(devices.c.id.in_(lot.ids))
    held = query.cte().prefix_with("MATERIALIZED", dialect="postgresql")
    with by_index(connection):
        found = connection.execute(select(held.c.word, func.count().label("several")).group_by(held.c.word)).all()
    return {one.word: one.several for one in found}


def _conditions(lot: DeviceLot, wanted: Wanted) -> list[ColumnElement[bool]]:
    own = devices.c
    found: list[ColumnElement[bool]] = [own.id.is_not(None)]
    if lot.model is not None:
        found.append(own.model == lot.model)
    if lot.first_serial is not None and lot.last_serial is not None:
        serial = own.maker_serial
        # lengths first, because as texts "10" lies between "1" and "2"
        found += [func.length(serial) == len(lot.first_serial), serial >= lot.first_serial, serial <= lot.last_serial]
    if lot.units:
        found.append(own.unit.in_(lot.units))
    if wanted.states is not None:
        found.append(own.state.in_(sorted(str(one) for one in wanted.states)))
    if wanted.is_held is not None:
        found.append(own.held_at.is_not(None) if wanted.is_held else own.held_at.is_(None))
    if wanted.held_until is not None:
        found.append(own.held_at <= wanted.held_until)
    if wanted.without is not None:
        found.append(_has_none(wanted.without))
    return found


def _has_none(without: Without) -> ColumnElement[bool]:
    """A scalar subquery, so that a planner looks the certificates of each device up by their index."""
    table = certificates.c
    conditions = [
        table.state.in_(without.states),
        table.not_after > without.alive_at,
        table.leaf_index <= without.until,
    ]
    if without.selection.authority_ids:
        conditions.append(table.authority_id.in_(without.selection.authority_ids))
    query = select(table.leaf_index).where(table.device_id == devices.c.id, hidden(*conditions)).limit(1)
    return query.scalar_subquery().is_(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LotLockRow:
    """A lot that is recalled or on hold (`is_hold`): its devices that are added later are so too, until `ended_at`."""

    id: int = 0
    model: str
    first_serial: str | None
    last_serial: str | None
    units: tuple[str, ...]
    is_hold: bool
    made_by: str
    made_at: int
    ended_at: int | None = None

    @property
    def lot(self) -> DeviceLot:
        """Which devices are meant."""
        first, last = self.first_serial, self.last_serial
        return DeviceLot(model=self.model, first_serial=first, last_serial=last, units=self.units)

    @property
    def subject(self) -> str:
        """How the ledger names the lock."""
        return f"job:lot-lock-{self.id}"

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the row, as the ledger commits to it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).digest()


_FORM = RowForm(LotLockRow, units=ITEMS)


def insert_lot_lock(connection: Connection, row: LotLockRow) -> int:
    """Store a lock; gives its id (that of `row` is not read)."""
    values = {name: value for name, value in _FORM.values(row).items() if name != "id"}
    return int((connection.execute(insert(lot_locks).values(**values)).inserted_primary_key or (0,))[0])


def list_lot_locks(connection: Connection, models: Collection[str] | None = None) -> tuple[LotLockRow, ...]:
    """The locks in force, of these models or of all, the oldest first."""
    query = select(lot_locks).where(lot_locks.c.ended_at.is_(None)).order_by(lot_locks.c.id)
    return _FORM.list(connection, query if models is None else query.where(lot_locks.c.model.in_(sorted(models))))


def end_lot_lock(connection: Connection, lock_id: int, *, at: int) -> None:
    """From now on, devices of the lot come in as all others."""
    connection.execute(update(lot_locks).where(lot_locks.c.id == lock_id).values(ended_at=at))
