"""Which certificate of a device counts, and which certificates end by when, in pages; judges nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    ScalarSelect,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)

from vagus.records.certificates import BY_OPERATOR, HELD, ISSUED, SERVER_PROFILE
from vagus.records.devices import DEVICE, DeviceFilter, DeviceRow, conditions_of
from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import by_index, hidden, is_among, rows_after
from vagus.records.engine.tables import certificates, devices, models
from vagus.x509.profiles import SDC_PROFILES

KINDS: Final = ("device", "server", "sdc")
"""What a device may have at the same time: its own certificate, one as a server, and one for SDC peers."""

FIRST: Final = (0, -1)
"""The place before every certificate, for `list_ends`."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The certificate that counts for a device; times in seconds since 1970 UTC."""

    leaf_index: int
    state: str
    not_before: int
    not_after: int
    request_id: str

    @property
    def is_by_operator(self) -> bool:
        """Whether an operator had it made for a device that does not renew by itself."""
        return self.request_id.startswith(BY_OPERATOR)


@dataclass(frozen=True, slots=True)
class CertifiedDevice:
    """A device with the category of its model, and its certificate that counts, if it ever had one."""

    device: DeviceRow
    category: str
    newest: Newest | None


@dataclass(frozen=True, slots=True)
class End:
    """A certificate of some device and when it ends; `kind` is one of `KINDS`."""

    leaf_index: int
    not_before: int
    not_after: int
    device_id: str | None
    is_issued: bool
    kind: str
    request_id: str


_OWN = certificates.alias("own")


def list_ends(
    connection: Connection, *, until: int, after: tuple[int, int] = FIRST, count: int = 200
) -> tuple[End, ...]:
    """The next `count` certificates that end at `until` or earlier, after the place (notAfter, leaf index) `after`.

    Also those that were renewed, revoked, or belong to no device: so a page costs the same wherever it lies.
    """
    table, (ended, leaf) = certificates.c, after
    columns = (table.leaf_index, table.not_before, table.not_after, table.device_id)
    query = (
        select(*columns, table.state, _kind(certificates).label("kind"), table.request_id)
        .order_by(table.not_after, table.leaf_index)
        .limit(count)
    )
    # First those of the same second, which an equality finds in the index, then the later ones: one condition for
    # both would begin with the first of that second on every page.
    place = (table.not_after, table.leaf_index)
    found = list(connection.execute(query.where(*rows_after(connection, place, (ended, leaf)))))
    if len(found) < count:
        later = query.limit(count - len(found)).where(table.not_after > ended, table.not_after <= until)
        found += connection.execute(later)
    return tuple(
        End(row.leaf_index, row.not_before, row.not_after, row.device_id, row.state == ISSUED, row.kind, row.request_id)
        for row in found
        if row.not_after <= until
    )


def list_counting(
    connection: Connection, ends: Sequence[End], *, at: int, narrow: DeviceFilter
) -> dict[int, CertifiedDevice]:
    """Those of `ends` that count at the time `at` for a device that `narrow` selects, by leaf index.

    Of the certificates of one kind of a device one counts, as `list_newest` says.
    """
    found: dict[int, CertifiedDevice] = {}
    for kind in KINDS:
        issued = {end.leaf_index: end for end in ends if end.is_issued and end.kind == kind}
        owners = {end.device_id for end in issued.values() if end.device_id is not None}
        for row in _list_devices(connection, owners, at, _kind(_OWN) == kind, narrow) if owners else ():
            if (end := issued.get(row.newest)) is not None:
                newest = Newest(end.leaf_index, ISSUED, end.not_before, end.not_after, end.request_id)
                found[end.leaf_index] = CertifiedDevice(DEVICE.read(row), row.category, newest)
    return found


def list_newest(connection: Connection, device_ids: Collection[str], *, at: int) -> dict[str, CertifiedDevice]:
    """The devices by id, each with its certificate that counts at the time `at`.

    That is the one that ends last among those that live: issued and not ended. Where none lives, it is the last that is
    held or has ended, else the last of all.
    """
    rows = _list_devices(connection, device_ids, at, true(), DeviceFilter())
    leaves = [row.newest for row in rows if row.newest is not None]
    query = select(*(certificates.c[name] for name in Newest.__slots__))
    with by_index(connection):
        every = connection.execute(query.where(is_among(connection, certificates.c.leaf_index, leaves)))
        newest = {one.leaf_index: Newest(*one) for one in every}
    return {row.id: CertifiedDevice(DEVICE.read(row), row.category, newest.get(row.newest)) for row in rows}


def count_ends(
    connection: Connection, *, at: int, bounds: Sequence[int], beside: Collection[str] = ()
) -> dict[tuple[str, int], int]:
    """How many devices' certificates that count have ended or end soon, by unit and bound.

    Devices in the states `beside` are left out.

    `bounds` are ascending times; a certificate counts under the first that is not earlier than its end.
    """
    table, newer = certificates.c, certificates.alias("newer")
    bucket = case(*((table.not_after <= bound, bound) for bound in bounds))
    is_newer = or_(
        newer.c.not_after > table.not_after,
        and_(newer.c.not_after == table.not_after, newer.c.leaf_index > table.leaf_index),
    )
    counts = or_(newer.c.state == ISSUED, and_(newer.c.state == HELD, table.not_after < at))
    is_same_kind = _kind(newer) == _kind(certificates)
    replaced = exists().where(newer.c.device_id == table.device_id, hidden(is_newer, counts, is_same_kind))
    query = (
        select(devices.c.unit, bucket.label("bound"), func.count().label("number"))
        .select_from(certificates.join(devices, devices.c.id == table.device_id))
        .where(
            table.not_after <= bounds[-1],
            hidden(table.state == ISSUED),
            ~replaced,
            devices.c.state.not_in([str(one) for one in beside]),
        )
        .group_by(devices.c.unit, bucket)
    )
    return {(row.unit, row.bound): row.number for row in connection.execute(query)}


def _kind(table: FromClause) -> ColumnElement[str]:
    profile = table.c.profile
    return case((profile == SERVER_PROFILE, "server"), (profile.in_(SDC_PROFILES), "sdc"), else_="device")


def _list_devices(
    connection: Connection, device_ids: Collection[str], at: int, kind: ColumnElement[bool], narrow: DeviceFilter
) -> Sequence[Any]:
    """Rows of the devices with their category and, as `newest`, the leaf of their certificate of that kind."""
    query = (
        select(devices, models.c.category, _newest(connection, at, kind).label("newest"))
        .select_from(devices.join(models, models.c.name == devices.c.model))
        .where(is_among(connection, devices.c.id, list(device_ids)), hidden(true(), *conditions_of(narrow)))
    )
    with by_index(connection):
        return connection.execute(query).all()


def _newest(connection: Connection, at: int, kind: ColumnElement[bool]) -> ColumnElement[int]:
    """The leaf of the certificate of that kind that counts, for the row of `devices` around it: three index lookups."""
    is_sqlite = connection.dialect.name == "sqlite"

    def pick(ends_from: int, *wanted: ColumnElement[bool]) -> ScalarSelect[int]:
        # PostgreSQL gets a row comparison, as `rows_after` says: the end alone could be looked up among all devices'.
        place, lowest = tuple_(_OWN.c.device_id, _OWN.c.not_after), tuple_(devices.c.id, literal(ends_from))
        return (
            select(_OWN.c.leaf_index)
            .where(_OWN.c.device_id == devices.c.id if is_sqlite else _OWN.c.device_id <= devices.c.id)
            .where(_OWN.c.not_after >= ends_from if is_sqlite else place >= lowest, hidden(kind, *wanted))
            .order_by(_OWN.c.device_id.desc(), _OWN.c.not_after.desc(), _OWN.c.leaf_index.desc())
            .limit(1)
            .correlate(devices)
            .scalar_subquery()
        )

    return func.coalesce(pick(at, _OWN.c.state == ISSUED), pick(0, _OWN.c.state.in_((ISSUED, HELD))), pick(0))
