"""The inventory's rows, in and out, paged as people read them; `fleet.lifecycle` decides which state may follow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, exists, insert, select, tuple_, union_all, update

from vagus.identifiers import DeviceId, UnitName
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.query_hints import hidden
from vagus.records.engine.row_forms import DEVICE_ID, ITEMS_OR_NULL, UNIT, Codec, RowForm
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import certificates, device_contacts, devices, models


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One device. `unit` is the compartment that owns it, `place` where it is; times are seconds since 1970.

    `changed_at` moves with every change; `transferred_at` only with the unit, None where it never changed. `held_at` is
    None unless the device is on hold. `origin` says what added it, None where an earlier release did.
    """

    id: DeviceId
    unit: UnitName
    model: str
    profile: str
    maker_serial: str
    state: str
    added_at: int
    changed_at: int
    udi: str | None = None
    place: str | None = None
    host_names: tuple[str, ...] = ()
    transferred_at: int | None = None
    held_at: int | None = None
    origin: str | None = None


FROM_PLAN, FROM_MANIFEST, FROM_OPERATOR = "plan", "manifest", "single"
"""What adds devices (`DeviceRow.origin`)."""
DEVICE = RowForm(DeviceRow, id=DEVICE_ID, unit=UNIT, state=Codec(str, str), host_names=ITEMS_OR_NULL)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFilter:
    """Which devices a listing shows; what is None does not narrow."""

    unit: UnitName | None = None
    hospital: str | None = None
    state: str | None = None
    model: str | None = None
    profile: str | None = None
    category: str | None = None
    not_seen_since: int | None = None
    """Only those that no listener has admitted since this time (seconds since 1970 UTC), also never."""


_MOST_MODELS = 8
"""Of a category with more models, pages are found among all devices: it has many of them."""


class Place(NamedTuple):
    """Where a device stands in the order of `list_devices`."""

    unit: str
    model: str
    maker_serial: str


_INSERT = Statement(insert(devices), *DEVICE.names)
_BY_ID = Statement(select(devices).where(devices.c.id == bindparam("device")))
_BY_SERIAL = Statement(
    select(devices).where(devices.c.maker_serial == bindparam("serial"), hidden(devices.c.model == bindparam("model")))
)
_UNDER_ANCHOR = (
    select(devices)
    .join(models, models.c.name == devices.c.model)
    .where(devices.c.maker_serial == bindparam("serial"), hidden(models.c.anchor_sha256 == bindparam("anchor")))
    .order_by(devices.c.id)
)
_MOVE = Statement(
    update(devices)
    .where(devices.c.id == bindparam("device"), devices.c.state == bindparam("before"))
    .values(state=bindparam("after"), changed_at=bindparam("at"))
)
_MOVE_CERTIFICATES = Statement(
    update(certificates).where(certificates.c.device_id == bindparam("device")).values(unit=bindparam("new_unit"))
)


def insert_devices(connection: Connection, rows: Sequence[DeviceRow]) -> None:
    """Add devices whose ids, and whose models and maker serials together, are new."""
    _INSERT.change_many(connection, [DEVICE.values(row) for row in rows])


def find_device(connection: Connection, device_id: DeviceId) -> DeviceRow | None:
    """The device of this id."""
    return DEVICE.read_optional(_BY_ID.find(connection, device=device_id.text))


def query_device(database: Database, device_id: DeviceId) -> DeviceRow | None:
    """`find_device` with a connection of its own."""
    return DEVICE.read_optional(_BY_ID.query(database, device=device_id.text))


def find_device_by_serial(connection: Connection, model: str, maker_serial: str) -> DeviceRow | None:
    """The device that its maker numbered so."""
    return DEVICE.read_optional(_BY_SERIAL.find(connection, model=model, serial=maker_serial))


def list_devices_under_anchor(connection: Connection, anchor_sha256: bytes, maker_serial: str) -> tuple[DeviceRow, ...]:
    """The devices of this maker serial among the models that the anchor may vouch for: usually one or none."""
    rows = connection.execute(_UNDER_ANCHOR, {"anchor": anchor_sha256, "serial": maker_serial})
    return DEVICE.read_all(rows)


def list_devices(
    connection: Connection, narrow: DeviceFilter, *, after: Place | None = None, limit: int = 100
) -> tuple[DeviceRow, ...]:
    """The next `limit` devices by unit, model and serial after `after`: a page costs the same wherever it lies."""
    if narrow.category is not None and narrow.model is None:
        of_category = select(models.c.name).where(models.c.category == narrow.category)
        found, narrow = connection.execute(of_category).scalars().all(), replace(narrow, category=None)
        if not found:
            return ()
        if len(found) > _MOST_MODELS:
            return DEVICE.list(connection, _page(narrow, after, limit).where(hidden(devices.c.model.in_(found))))
        # a page of each model, by the indexes that begin with the model, and of these the first `limit`
        parts = [_page(replace(narrow, model=one), after, limit).subquery() for one in found]
        every = union_all(*(select(part) for part in parts)).subquery()
        return DEVICE.list(connection, select(every).order_by(*(every.c[name] for name in Place._fields)).limit(limit))
    return DEVICE.list(connection, _page(narrow, after, limit))


def place_of(device: DeviceRow) -> Place:
    """Where a device stands in that order."""
    return Place(str(device.unit), device.model, device.maker_serial)


def list_profiles_in(connection: Connection, units: Collection[str], *, beside: Collection[str] = ()) -> set[str]:
    """The profiles of the devices of these units, without those whose state is one of `beside`."""
    names = [str(unit) for unit in units]
    query = select(devices.c.profile).where(devices.c.unit.in_(names)).distinct()
    return set(connection.execute(query.where(devices.c.state.not_in([str(state) for state in beside]))).scalars())


def find_host_name(connection: Connection, name: str, *, beside: Collection[str] = ()) -> DeviceId | None:
    """The device that may show `name` as a server, without those whose state is one of `beside`."""
    states = [str(state) for state in beside]
    query = select(devices.c.id, devices.c.host_names).where(devices.c.host_names.is_not(None))
    for row in connection.execute(query.where(devices.c.state.not_in(states))):
        if name in json.loads(row.host_names):
            return DeviceId(row.id)
    return None


def list_profiles(connection: Connection) -> set[str]:
    """Every profile that a model or a device has."""
    return set(connection.execute(select(devices.c.profile).union(select(models.c.profile))).scalars())


def set_device_state(connection: Connection, device_id: DeviceId, *, before: str, after: str, at: int) -> bool:
    """Move a device from one state to another; False when it was not in `before` any more."""
    return _MOVE.change(connection, device=device_id.text, before=str(before), after=str(after), at=at) == 1


def set_device_unit(connection: Connection, device_id: DeviceId, unit: UnitName, *, at: int) -> None:
    """Give a device to another compartment; a search finds its certificates there from now on."""
    _change(connection, device_id, at=at, unit=str(unit), transferred_at=at)
    _MOVE_CERTIFICATES.change(connection, device=device_id.text, new_unit=str(unit))


def set_device_profile(connection: Connection, device_id: DeviceId, profile: str, *, at: int) -> None:
    """Let another profile decide what a device is given from now on."""
    _change(connection, device_id, at=at, profile=profile)


def set_device_host_names(connection: Connection, device_id: DeviceId, names: Sequence[str], *, at: int) -> None:
    """What a gateway or station may show as a server from now on."""
    _change(connection, device_id, at=at, host_names=ITEMS_OR_NULL.write(names))


def host_names_digest(names: Sequence[str]) -> bytes:
    """The SHA-256 of a device's host names, in their order, as the ledger commits to them."""
    return hashlib.sha256(json.dumps(list(names)).encode("ascii")).digest()


def set_device_hold(connection: Connection, device_id: DeviceId, held_at: int | None, *, at: int) -> None:
    """Put a device on hold since `held_at`, or end its hold (None)."""
    _change(connection, device_id, at=at, held_at=held_at)


def hold_digest(*, is_held: bool) -> bytes:
    """The SHA-256 by which the ledger commits to whether a device is on hold."""
    return hashlib.sha256(b"held" if is_held else b"free").digest()


def set_device_place(connection: Connection, device_id: DeviceId, place: str | None, *, at: int) -> None:
    """Store where a device is."""
    _change(connection, device_id, at=at, place=place)


def _change(connection: Connection, device_id: DeviceId, *, at: int, **values: object) -> None:
    connection.execute(devices.update().where(devices.c.id == str(device_id)).values(changed_at=at, **values))


def conditions_of(narrow: DeviceFilter) -> list[ColumnElement[bool]]:
    """What `narrow` demands of a row of `devices`, and for its category of the row of `models` joined to it."""
    wanted = {name: getattr(narrow, name) for name in ("unit", "state", "model", "profile")}
    conditions = [devices.c[name] == str(value) for name, value in wanted.items() if value is not None]
    if narrow.hospital is not None:
        # unit names are hospital/unit, and "0" is the character after "/", where the range ends
        conditions += [devices.c.unit >= f"{narrow.hospital}/", devices.c.unit < f"{narrow.hospital}0"]
    if narrow.category is not None:
        conditions.append(models.c.category == narrow.category)
    if narrow.not_seen_since is not None:
        seen = device_contacts.c.device_id == devices.c.id, device_contacts.c.seen_at >= narrow.not_seen_since
        conditions.append(~exists().where(*seen))
    return conditions


def _page(narrow: DeviceFilter, after: Place | None, limit: int) -> Select[Any]:
    order = [devices.c[name] for name in Place._fields]
    query = select(devices).order_by(*order).limit(limit)
    if narrow.category is not None:
        query = query.join(models, models.c.name == devices.c.model)
    if after is not None:
        # A column that is the same in `after` and in every row wanted says nothing. Without it, the others are the next
        # columns of the index that begins with it.
        fixed = {"unit": narrow.unit and str(narrow.unit), "model": narrow.model}
        left = [name for name in Place._fields if fixed.get(name) != getattr(after, name)]
        query = query.where(tuple_(*(devices.c[name] for name in left)) > tuple(getattr(after, name) for name in left))
        if narrow.hospital is not None and after.unit.startswith(f"{narrow.hospital}/"):
            # `after` bounds the range from below; a second bound could be taken for it, which begins with the hospital
            query, narrow = query.where(devices.c.unit < f"{narrow.hospital}0"), replace(narrow, hospital=None)
    return query.where(*conditions_of(narrow))
