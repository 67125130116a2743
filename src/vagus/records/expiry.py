"""Which certificate of a device counts, and which certificates end by when, in pages; judges nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, ScalarSelect, and_, case, exists, func, or_, select, true

from vagus.identifiers import DeviceId
from vagus.records.certificates import HELD, ISSUED
from vagus.records.devices import DEVICE, DeviceFilter, DeviceRow, conditions_of
from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import hidden, is_among
from vagus.records.engine.tables import certificates, devices, models

SERVER_PROFILE: Final = "tls-server"
"""Certificates of this profile are what a gateway or station shows as a server, beside its device certificate."""

FIRST: Final = (0, -1)
"""The place before every certificate, for `list_ends`."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The certificate that counts for a device; times in seconds since 1970 UTC."""

    leaf_index: int
    state: str
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True)
class CertifiedDevice:
    """A device with the category of its model, and its certificate that counts, if it ever had one."""

    device: DeviceRow
    category: str
    newest: Newest | None


@dataclass(frozen=True, slots=True)
class End:
    """A certificate of some device and when it ends; `is_server` for one of `SERVER_PROFILE`."""

    leaf_index: int
    not_after: int
    device_id: str | None
    is_issued: bool
    is_server: bool


def list_ends(
    connection: Connection, *, until: int, after: tuple[int, int] = FIRST, count: int = 200
) -> tuple[End, ...]:
    """The next `count` certificates that end at `until` or earlier, after the place (notAfter, leaf index) `after`.

    Also those that were renewed, revoked, or belong to no device: so a page costs the same wherever it lies.
    """
    table, (ended, leaf) = certificates.c, after
    columns = (table.leaf_index, table.not_after, table.device_id, table.state, table.profile)
    query = select(*columns).order_by(table.not_after, table.leaf_index).limit(count)
    # First those of the same second, which an equality finds in the index, then the later ones: one condition for
    # both would begin with the first of that second on every page.
    found = list(connection.execute(query.where(table.not_after == ended, table.leaf_index > leaf)))
    if len(found) < count:
        later = query.limit(count - len(found)).where(table.not_after > ended, table.not_after <= until)
        found += connection.execute(later)
    return tuple(
        End(row.leaf_index, row.not_after, row.device_id, row.state == ISSUED, row.profile == SERVER_PROFILE)
        for row in found
        if row.not_after <= until
    )


def list_newest(
    connection: Connection,
    device_ids: Collection[str],
    *,
    at: int,
    narrow: DeviceFilter | None = None,
    is_server: bool | None = None,
) -> dict[str, CertifiedDevice]:
    """Those of the devices that `narrow` selects, by id, each with its certificate that counts at the time `at`.

    That is the one that ends last among those that live: issued and not ended. Where none lives, it is the last that is
    held or has ended, else the last of all. With `is_server` only server certificates count, or only the others.
    """
    newest = _newest(at, is_server)
    columns = [certificates.c[name].label(f"newest_{name}") for name in Newest.__slots__]
    query = (
        select(devices, models.c.category, *columns)
        .select_from(
            devices.join(models, models.c.name == devices.c.model).outerjoin(
                certificates, certificates.c.leaf_index == newest
            )
        )
        .where(is_among(connection, devices.c.id, list(device_ids)))
    )
    if narrow is not None and (wanted := conditions_of(narrow)):
        query = query.where(hidden(*wanted))
    return {
        row.id: CertifiedDevice(
            DEVICE.read(row),
            row.category,
            None
            if row.newest_leaf_index is None
            else Newest(row.newest_leaf_index, row.newest_state, row.newest_not_before, row.newest_not_after),
        )
        for row in connection.execute(query)
    }


def find_newest(connection: Connection, device_id: DeviceId, *, at: int) -> CertifiedDevice | None:
    """`list_newest` for one device."""
    return list_newest(connection, [device_id.text], at=at).get(device_id.text)


def count_ends(connection: Connection, *, at: int, bounds: Sequence[int]) -> dict[tuple[str, int], int]:
    """How many devices' certificates that count have ended or end soon, by unit and bound.

    `bounds` are ascending times; a certificate counts under the first that is not earlier than its end.
    """
    table, newer = certificates.c, certificates.alias("newer")
    bucket = case(*((table.not_after <= bound, bound) for bound in bounds))
    is_newer = or_(
        newer.c.not_after > table.not_after,
        and_(newer.c.not_after == table.not_after, newer.c.leaf_index > table.leaf_index),
    )
    counts = or_(newer.c.state == ISSUED, and_(newer.c.state == HELD, table.not_after < at))
    is_same_kind = (newer.c.profile == SERVER_PROFILE) == (table.profile == SERVER_PROFILE)
    replaced = exists().where(newer.c.device_id == table.device_id, hidden(is_newer, counts, is_same_kind))
    query = (
        select(devices.c.unit, bucket.label("bound"), func.count().label("number"))
        .select_from(certificates.join(devices, devices.c.id == table.device_id))
        .where(table.not_after <= bounds[-1], hidden(table.state == ISSUED), ~replaced)
        .group_by(devices.c.unit, bucket)
    )
    return {(row.unit, row.bound): row.number for row in connection.execute(query)}


def _newest(at: int, is_server: bool | None) -> ColumnElement[int]:
    """The leaf of the certificate that counts, for the row of `devices` around it; each part is one index lookup."""
    own = certificates.alias("own")
    kind = own.c.profile == SERVER_PROFILE if is_server else own.c.profile != SERVER_PROFILE
    if is_server is None:
        kind = true()

    def pick(*wanted: ColumnElement[bool]) -> ScalarSelect[int]:
        return (
            select(own.c.leaf_index)
            .where(own.c.device_id == devices.c.id, *wanted)
            .order_by(own.c.not_after.desc(), own.c.leaf_index.desc())
            .limit(1)
            .correlate(devices)
            .scalar_subquery()
        )

    return func.coalesce(
        pick(own.c.not_after >= at, hidden(kind, own.c.state == ISSUED)),
        pick(hidden(kind, own.c.state.in_((ISSUED, HELD)))),
        pick(hidden(kind)),
    )
