"""Reads what an installation has (units, models, devices, authorities) for the comparison with a plan; no rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select, update

from vagus.records.certificates import IS_BIRTH
from vagus.records.engine.query_hints import hidden
from vagus.records.engine.tables import authorities, certificates, devices, installation, models, units

_OWNERS = 500
_LIVE = ("intended", "issued", "held")
_OWN_PROFILES = ("ocsp", "root", "device-ca", "issuing-ca", "sdc-ca", "infrastructure-ca", "line-ca", "tls-server")


@dataclass(frozen=True, slots=True)
class ExistingAuthorityRow:
    """The newest generation of an authority, and how many certificates of any of its generations are still good.

    Its own responder's and listeners' certificates and those of authorities beneath it do not count.
    """

    name: str
    kind: str
    state: str
    generation: int
    live: int


@dataclass(frozen=True, slots=True)
class ExistingDeviceRow:
    """The columns of a device that a plan names."""

    id: str
    unit: str
    model: str
    maker_serial: str
    place: str | None
    profile: str
    host_names: tuple[str, ...]
    state: str
    origin: str | None


def list_existing_authorities(connection: Connection, *, at: int) -> tuple[ExistingAuthorityRow, ...]:
    """Every authority by name, with its live certificates at `at` (seconds since 1970)."""
    issuer = certificates.c.authority_id
    each = connection.execute(select(issuer, func.count()).where(_is_live(at)).group_by(issuer))
    # a SQLAlchemy Row is no pair for `dict()`
    counts: dict[int, int] = {authority_id: live for authority_id, live in each}  # noqa: C416
    table = authorities.c
    query = select(table.id, table.name, table.kind, table.state, table.generation)
    newest: dict[str, ExistingAuthorityRow] = {}
    for row in connection.execute(query.order_by(table.name, table.generation)):
        before = newest.get(row.name)
        live = counts.get(row.id, 0) + (0 if before is None else before.live)
        newest[row.name] = ExistingAuthorityRow(row.name, row.kind, row.state, row.generation, live)
    return tuple(newest.values())


def count_live(connection: Connection, name: str, *, at: int) -> int:
    """As `ExistingAuthorityRow.live`, of one authority."""
    generations = connection.execute(select(authorities.c.id).where(authorities.c.name == name)).scalars().all()
    query = select(func.count()).where(certificates.c.authority_id.in_(generations), _is_live(at))
    return int(connection.execute(query).scalar_one())


def _is_live(at: int) -> ColumnElement[bool]:
    table = certificates.c
    return hidden(table.state.in_(_LIVE), table.not_after > at, table.profile.not_in(_OWN_PROFILES))


def list_existing_devices(connection: Connection) -> tuple[ExistingDeviceRow, ...]:
    """Every device of the inventory, narrow."""
    table = devices.c
    plain = (table.id, table.unit, table.model, table.maker_serial, table.place, table.profile)
    return tuple(
        ExistingDeviceRow(*row[:-3], tuple(json.loads(row[-3])) if row[-3] else (), *row[-2:])
        for row in connection.execute(select(*plain, table.host_names, table.state, table.origin))
    )


def list_known_serials(connection: Connection, model: str, serials: Sequence[str]) -> frozenset[str]:
    """Which of these serial numbers of a model are in the inventory already."""
    query = select(devices.c.maker_serial).where(devices.c.maker_serial.in_(serials), hidden(devices.c.model == model))
    return frozenset(connection.execute(query).scalars())


def link_parent(connection: Connection, name: str, parent: str) -> bool:
    """Write down which authority a waiting request is for, once that one exists; False when there was nothing to do.

    Requests of online authorities may be made before the ceremony that makes the offline key above them.
    """
    newest = (
        select(authorities.c.id).where(authorities.c.name == parent).order_by(authorities.c.generation.desc()).limit(1)
    )
    above = connection.execute(newest).scalar_one_or_none()
    if above is None:
        return False
    waiting = update(authorities).where(
        authorities.c.name == name, authorities.c.state == "requested", authorities.c.parent_id.is_(None)
    )
    return connection.execute(waiting.values(parent_id=above)).rowcount > 0


def list_fingerprints(connection: Connection, owners: Sequence[str]) -> dict[str, bytes]:
    """The SHA-256 of the newest birth certificate of each of these owners that has a signed one."""
    found: dict[str, bytes] = {}
    for at in range(0, len(owners), _OWNERS):
        query = (
            select(certificates.c.owner, certificates.c.fingerprint)
            .where(IS_BIRTH, certificates.c.owner.in_(owners[at : at + _OWNERS]))
            .where(hidden(certificates.c.fingerprint.is_not(None)))
            .order_by(certificates.c.leaf_index)
        )
        found.update({row.owner: bytes(row.fingerprint) for row in connection.execute(query)})
    return found


def set_group_domain(connection: Connection, domain: str) -> None:
    """Note the domain under which all identities of the group lie; it never changes once certificates carry it."""
    connection.execute(update(installation).where(installation.c.id == 1).values(group_domain=domain))


def export_rows(connection: Connection) -> dict[str, list[dict[str, object]]]:
    """Authorities, units, models and devices, by name, as plain values: two equal installations give equal rows."""
    plain = (
        (authorities, (authorities.c.name, authorities.c.generation)),
        (units, (units.c.name,)),
        (models, (models.c.name,)),
        (devices, (devices.c.id,)),
    )
    return {
        table.name: [
            {name: _plain(value) for name, value in row.items() if name != "id" or table is devices}
            for row in connection.execute(select(table).order_by(*order)).mappings()
        ]
        for table, order in plain
    }


def _plain(value: object) -> object:
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else value
