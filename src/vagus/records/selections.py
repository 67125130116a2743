"""Many certificates at once: which, how many, and page by page; decides nothing about them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Select, String, and_, cast, func, literal, select, true

from vagus.records.certificates import HELD, INTENDED, ISSUED, REVOKED, CertificateRow, read_row
from vagus.records.database import Connection
from vagus.records.tables import authorities, certificates, devices

LIVE = (INTENDED, ISSUED, HELD)
_HELD_ALONE = (HELD,)
_STATES = (INTENDED, ISSUED, HELD, REVOKED)
_DEVICE = "device:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Certificates for which all that is given holds; `issued_from` and `issued_until` in seconds, both inclusive.

    `model` and the makers' serials, from `first_serial` to `last_serial` as texts, are looked up in the inventory.
    `of_devices` leaves out what authorities, responders and our own doors bear; alone it selects too much.
    """

    authority_ids: tuple[int, ...] = ()
    owners: tuple[str, ...] = ()
    profile: str | None = None
    spki_sha256: bytes | None = None
    issued_from: int | None = None
    issued_until: int | None = None
    leaves: tuple[int, ...] = ()
    model: str | None = None
    first_serial: str | None = None
    last_serial: str | None = None
    of_devices: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is asked, which would be every certificate there is."""
        narrow = self.authority_ids or self.owners or self.leaves or self.model
        return not (narrow or self.profile or self.spki_sha256 or self.issued_from)

    def encode(self) -> str:
        """As it is kept: JSON with sorted keys."""
        found = asdict(self)
        found["spki_sha256"] = None if self.spki_sha256 is None else self.spki_sha256.hex()
        return json.dumps(found, sort_keys=True)

    @classmethod
    def decode(cls, text: str) -> Selection:
        """What `encode` wrote."""
        found = json.loads(text)
        return cls(
            authority_ids=tuple(found["authority_ids"]),
            owners=tuple(found["owners"]),
            profile=found["profile"],
            spki_sha256=None if found["spki_sha256"] is None else bytes.fromhex(found["spki_sha256"]),
            issued_from=found["issued_from"],
            issued_until=found["issued_until"],
            leaves=tuple(found.get("leaves", ())),
            model=found.get("model"),
            first_serial=found.get("first_serial"),
            last_serial=found.get("last_serial"),
            of_devices=found.get("of_devices", False),
        )


@dataclass(frozen=True, slots=True)
class SelectionCount:
    """How much a selection is: of one authority, shard and profile."""

    authority_id: int
    shard: int
    profile: str
    certificates: int
    devices: int


def count_selected(
    connection: Connection, selection: Selection, *, alive_at: int, states: tuple[str, ...] = LIVE, after: int = -1
) -> tuple[SelectionCount, ...]:
    """What a selection holds now behind leaf `after`, by authority, shard and profile.

    Devices that have several certificates count in each.
    """
    group = (certificates.c.authority_id, certificates.c.shard, certificates.c.profile)
    query = (
        select(
            *group,
            func.count().label("certificates"),
            func.count(certificates.c.device_id.distinct()).label("devices"),
        )
        .where(*_conditions(selection, alive_at, states), *([certificates.c.leaf_index > after] if after >= 0 else ()))
        .group_by(*group)
        .order_by(*group)
    )
    return tuple(
        SelectionCount(row.authority_id, row.shard, row.profile, row.certificates, row.devices)
        for row in connection.execute(query)
    )


def list_selected(
    connection: Connection,
    selection: Selection,
    *,
    alive_at: int,
    after: int,
    until: int,
    count: int,
    states: tuple[str, ...] = LIVE,
) -> tuple[CertificateRow, ...]:
    """A selection by leaf: from behind leaf `after` up to leaf `until`, at most `count`."""
    query = (
        select(certificates)
        .where(*_conditions(selection, alive_at, states))
        .where(certificates.c.leaf_index > after, certificates.c.leaf_index <= until)
        .order_by(certificates.c.leaf_index)
        .limit(count)
    )
    return tuple(read_row(found) for found in connection.execute(query))


def count_but_own(
    connection: Connection, selection: Selection, *, alive_at: int, states: tuple[str, ...], is_of_authorities: bool
) -> int:
    """How many certificates a selection holds, without those of roots for themselves.

    Without `is_of_authorities`, also without those of other authorities.
    """
    own = (
        select(authorities.c.id)
        .where(
            authorities.c.id == certificates.c.authority_id,
            certificates.c.owner
            == literal("authority:") + authorities.c.name + "#" + cast(authorities.c.generation, String),
        )
        .exists()
    )
    query = select(func.count()).select_from(certificates).where(*_conditions(selection, alive_at, states))
    is_authority = certificates.c.owner.startswith("authority:")
    left_out = and_(is_authority, own) if is_of_authorities else is_authority
    return int(connection.execute(query.where(~left_out)).scalar_one())


def has_any(connection: Connection, selection: Selection, authority_id: int, *, alive_at: int) -> bool:
    """Whether a selection holds anything of an authority that is not past, whatever became of it."""
    conditions = _conditions(selection, alive_at, _STATES)
    query = select(certificates.c.leaf_index).where(*conditions, certificates.c.authority_id == authority_id).limit(1)
    return connection.execute(query).one_or_none() is not None


def newest_leaf(connection: Connection) -> int:
    """The leaf of the certificate that was intended last; -1 before the first."""
    newest = connection.execute(select(func.max(certificates.c.leaf_index))).scalar()
    return -1 if newest is None else int(newest)


def _conditions(selection: Selection, alive_at: int, states: tuple[str, ...]) -> list[ColumnElement[bool]]:
    found = [certificates.c.not_after > alive_at, _is_one_of(states)]
    if selection.authority_ids:
        found.append(certificates.c.authority_id.in_(selection.authority_ids))
    if selection.owners:
        found += _owned_by(selection.owners)
    if selection.profile is not None:
        found.append(certificates.c.profile == selection.profile)
    if selection.spki_sha256 is not None:
        found.append(certificates.c.spki_sha256 == selection.spki_sha256)
    if selection.issued_from is not None:
        found.append(certificates.c.not_before >= selection.issued_from)
    if selection.issued_until is not None:
        found.append(certificates.c.not_before <= selection.issued_until)
    if selection.leaves:
        found.append(certificates.c.leaf_index.in_(selection.leaves))
    if selection.of_devices:
        found.append(certificates.c.device_id.is_not(None))
    if selection.model is not None:  # in SQL, so that a model of a million devices is no longer than one of ten
        found.append(certificates.c.device_id.in_(_devices_of(selection)))
    return found


def _owned_by(owners: tuple[str, ...]) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [certificates.c.owner.in_(owners)]
    if all(one.startswith(_DEVICE) for one in owners):  # devices have an index, owners none
        found.append(certificates.c.device_id.in_([one.removeprefix(_DEVICE) for one in owners]))
    return found


def _is_one_of(states: tuple[str, ...]) -> ColumnElement[bool]:
    """Said by the states that are out, unless few are in: an index of states leads through nearly every certificate."""
    if states == _HELD_ALONE:
        return certificates.c.state.in_(states)
    if states == _STATES:
        return true()
    return certificates.c.state.not_in([one for one in _STATES if one not in states])


def _devices_of(selection: Selection) -> Select[tuple[str]]:
    query = select(devices.c.id).where(devices.c.model == selection.model)
    if selection.first_serial is not None:
        query = query.where(
            devices.c.maker_serial >= selection.first_serial,
            func.length(devices.c.maker_serial) == len(selection.first_serial),  # as texts, 10 lies between 1 and 2
        )
    if selection.last_serial is not None:
        query = query.where(devices.c.maker_serial <= selection.last_serial)
    return query
