"""Finds and counts certificates by unit, model, batch, profile, key ...: the SQL of a revocation plan's selection.

A query costs no more than the certificates and the devices of its model together, whatever the database believes about
its tables. With the statistics of a nearly empty table, a planner may scan all certificates for each device of a
recall. Three rules prevent this:

1. A query is one statement that may scan everything once, or many statements that each enter one index.
2. Such a statement names one condition in the open, and that one has an index. `hidden` covers all others;
   `IndexedTable` and `by_index` fix the index.
3. Model and maker's serial of a device are looked up apart from certificates. A join of both could begin at either end.

`_parts` splits a selection by these rules. Every query below runs over its parts and adds them up.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BindParameter,
    ColumnElement,
    Select,
    String,
    and_,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy import true as everything

from vagus.records.certificates import CERTIFICATE, HELD, INTENDED, ISSUED, REVOKED, CertificateRow, find_by_leaf
from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import PAGE, IndexedTable, by_index, hidden, is_among, paged
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import ByteOrdered, authorities, certificates, devices, revocations
from vagus.x509.crls.building import RevocationReason

LIVE = (INTENDED, ISSUED, HELD)
_STATES = (INTENDED, ISSUED, HELD, REVOKED)
REVOKED_FOR_LESS = "revoked for less"
"""A state for queries, besides those of rows: revoked for a reason other than compromise, so that a compromise may
still replace it (it is the strongest reason)."""
_COMPROMISES = tuple(int(reason) for reason in RevocationReason if reason.is_compromise)
_DEVICE = "device:"
_HASHED = "sha256:"
"""The prefix of an owner that a restore knows from the log alone, where owners are salted hashes."""
_FETCHED = 5000
"""Rows that PostgreSQL sends at once where a statement gives very many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Certificates for which all that is given holds; `issued_from` and `issued_until` in seconds, both inclusive.

    `model` and the makers' serials, from `first_serial` to `last_serial` as texts, are looked up in the inventory.
    `of_devices` leaves out the certificates of authorities, responders and our own listeners; it does not narrow enough
    to stand alone. `owner_ranges` are owners from a first to a last of the same length, compared as bytes.
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
    owner_ranges: tuple[tuple[str, str], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing narrows it: it would be every certificate there is."""
        narrow = self.authority_ids or self.owners or self.owner_ranges or self.leaves or self.model
        return not (narrow or self.profile or self.spki_sha256 or self.issued_from)

    def encode(self) -> str:
        """As stored: JSON with sorted keys."""
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
            owner_ranges=tuple((first, last) for first, last in found.get("owner_ranges", ())),
        )


@dataclass(frozen=True, slots=True)
class SelectionCount:
    """How many certificates a selection has of one authority, shard and profile."""

    authority_id: int
    shard: int
    profile: str
    certificates: int


_BY_DEVICE = IndexedTable("certificates", "certificates_by_device", certificates.c)
_BY_AUTHORITY = IndexedTable("certificates", "certificates_by_authority", certificates.c)


class _Part(NamedTuple):
    """One statement's part of a selection: the table it reads, and the one condition in the open (rule 2)."""

    table: Any
    condition: ColumnElement[bool]

    @property
    def is_one_of_many(self) -> bool:
        return self.table is _BY_DEVICE

    def select(self, selection: Selection, alive_at: int, states: tuple[str, ...], *columns: ColumnElement[Any]) -> CTE:
        """The part's rows as a table of their own, which PostgreSQL makes first where many parts are asked for."""
        is_wanted = hidden(*_conditions(self.table.c, selection, alive_at, states))
        held = select(*columns).where(self.condition, is_wanted).cte()
        return held.prefix_with("MATERIALIZED", dialect="postgresql") if self.is_one_of_many else held


def count_selected(
    connection: Connection, selection: Selection, *, alive_at: int, states: tuple[str, ...] = LIVE
) -> tuple[SelectionCount, ...]:
    """How many certificates a selection has now, by authority, shard and profile."""
    found: dict[tuple[int, int, str], int] = {}
    for part in _parts(connection, selection):
        own = part.table.c
        held = part.select(selection, alive_at, states, own.authority_id, own.shard, own.profile)
        group = (held.c.authority_id, held.c.shard, held.c.profile)
        for authority_id, shard, profile, several in connection.execute(select(*group, func.count()).group_by(*group)):
            name = (authority_id, shard, profile)
            found[name] = found.get(name, 0) + several
    return tuple(SelectionCount(*name, found[name]) for name in sorted(found))


def count_devices(
    connection: Connection, selection: Selection, *, alive_at: int, states: tuple[str, ...] = LIVE
) -> int:
    """How many devices have a certificate of a selection now, each counted once."""
    total = 0
    for part in _parts(connection, selection):  # the parts exclude each other: no device is counted twice
        held = part.select(selection, alive_at, states, part.table.c.device_id)
        total += int(connection.execute(select(func.count(held.c.device_id.distinct()))).scalar_one())
    return total


def list_late_profiles(
    connection: Connection, selection: Selection, *, alive_at: int, after: int, states: tuple[str, ...] = LIVE
) -> tuple[str, ...]:
    """The profiles of a selection's certificates after leaf `after`: for the few that were issued just now."""
    own = certificates.c
    query = select(own.profile, own.device_id).where(
        own.leaf_index > after, hidden(*_conditions(own, selection, alive_at, states))
    )
    with by_index(connection):
        found = list(connection.execute(query))
        if selection.model is not None:
            kept = _of_model(connection, selection, {row.device_id for row in found})
            found = [row for row in found if row.device_id in kept]
    return tuple(sorted({row.profile for row in found}))


def list_leaves(
    connection: Connection,
    selection: Selection,
    *,
    alive_at: int,
    after: int,
    until: int,
    states: tuple[str, ...] = LIVE,
) -> array[int]:
    """Every leaf after `after` and up to `until` that a selection has or may have later, rising; 8 bytes each.

    These are the certificates that have not ended and are not revoked. Both are final, while a hold may end; all other
    columns that a selection names never change after issuance. With `REVOKED_FOR_LESS` among `states`, revoked ones
    are included too. `list_among` says which of them the selection has at a given time.
    """
    found = array("q")
    lasting = _STATES if REVOKED_FOR_LESS in states else LIVE
    for part in _parts(connection, selection):
        own = part.table.c
        conditions = [*_conditions(own, selection, alive_at, lasting), own.leaf_index > after, own.leaf_index <= until]
        query = select(own.leaf_index).where(part.condition, hidden(*conditions))
        if not part.is_one_of_many:
            query = query.execution_options(yield_per=_FETCHED)
        found.extend(connection.execute(query).scalars())
    return array("q", sorted(found))


def list_among(
    connection: Connection,
    selection: Selection,
    leaves: Sequence[int],
    *,
    alive_at: int,
    states: tuple[str, ...] = LIVE,
) -> tuple[CertificateRow, ...]:
    """Which of some hundreds of leaves a selection has now, rising; reads these rows and no others."""
    choices = _choices(selection)
    more = {REVOKED} if REVOKED_FOR_LESS in states else set()
    with by_index(connection):
        found = [
            row
            for row in _read(connection, leaves)
            if row.not_after > alive_at and row.state in {*states, *more} and _is_held_by(selection, row, choices)
        ]
        if more:
            lost = _compromised(connection, [row.leaf_index for row in found if row.state == REVOKED])
            found = [row for row in found if row.leaf_index not in lost]
        if selection.model is not None:
            kept = _of_model(connection, selection, {row.device_id for row in found})
            found = [row for row in found if row.device_id in kept]
    return tuple(sorted(found, key=lambda row: row.leaf_index))


def count_without_self_issued(
    connection: Connection, selection: Selection, *, alive_at: int, states: tuple[str, ...], is_of_authorities: bool
) -> int:
    """How many certificates a selection has, without self-issued ones of authorities.

    Without `is_of_authorities`, also without those of other authorities.
    """
    total = 0
    for part in _parts(connection, selection):
        own = part.table.c
        themselves = literal("authority:") + authorities.c.name + "#" + cast(authorities.c.generation, String)
        is_its_own = (
            select(authorities.c.id)
            .where(authorities.c.id == own.authority_id, own.owner == themselves)
            .correlate(part.table)
            .exists()
        )
        is_authority = own.owner.startswith("authority:")
        left_out = and_(is_authority, is_its_own) if is_of_authorities else is_authority
        conditions = hidden(*_conditions(own, selection, alive_at, states))
        query = select(func.count()).select_from(part.table).where(part.condition, conditions, ~left_out)
        total += int(connection.execute(query).scalar_one())
    return total


def list_touched(
    connection: Connection, selection: Selection, authority_ids: Iterable[int], *, alive_at: int
) -> tuple[int, ...]:
    """The authorities of which a selection has a certificate that has not ended, in any state."""
    asked = [one for one in authority_ids if not selection.authority_ids or one in selection.authority_ids]
    if not (selection.leaves or selection.spki_sha256 or selection.model or _are_devices(selection.owners)):
        with by_index(connection):
            return tuple(one for one in asked if _has_any(connection, selection, one, alive_at))
    found: set[int] = set()
    for part in _parts(connection, selection):
        own = part.table.c
        query = select(own.authority_id).where(part.condition, hidden(*_conditions(own, selection, alive_at, _STATES)))
        found.update(connection.execute(query).scalars())
    return tuple(one for one in asked if one in found)


def newest_leaf(connection: Connection) -> int:
    """The leaf of the certificate that was intended last; -1 before the first."""
    newest = connection.execute(select(func.max(certificates.c.leaf_index))).scalar()
    return -1 if newest is None else int(newest)


def _parts(connection: Connection, selection: Selection) -> Iterator[_Part]:
    """The parts of a selection: together they give each of its certificates once, and each device in one part alone.

    The cheapest way in comes first: named leaves, one key, devices by pages (many statements, so each enters one
    index), one scan of some authorities, one scan of all.
    """
    if selection.leaves:
        yield _narrowed(connection, selection, certificates.c.leaf_index.in_(selection.leaves))
    elif selection.spki_sha256 is not None:
        yield _narrowed(connection, selection, certificates.c.spki_sha256 == selection.spki_sha256)
    elif selection.model is not None or _are_devices(selection.owners):
        with by_index(connection):
            for page in _pages_of_devices(connection, selection):
                yield _Part(_BY_DEVICE, is_among(connection, _BY_DEVICE.c.device_id, page))
    elif selection.authority_ids:
        yield _Part(certificates, certificates.c.authority_id.in_(selection.authority_ids))
    else:
        yield _Part(certificates, everything())


def _narrowed(connection: Connection, selection: Selection, condition: ColumnElement[bool]) -> _Part:
    """The few certificates that meet `condition` and whose devices are of the selection's model, if it names one."""
    if selection.model is None:
        return _Part(certificates, condition)
    named = connection.execute(select(certificates.c.device_id).where(condition)).scalars().all()
    with by_index(connection):
        kept = _of_model(connection, selection, named)
    return _Part(certificates, and_(condition, hidden(certificates.c.device_id.in_(kept))))


def _pages_of_devices(connection: Connection, selection: Selection) -> Iterator[Sequence[str]]:
    """The devices that a selection names, or those of its model, page by page; within `by_index`."""
    if _are_devices(selection.owners):
        named = sorted({one.removeprefix(_DEVICE) for one in selection.owners})
        if selection.model is not None:
            named = sorted(_of_model(connection, selection, named))
        yield from paged(named)
        return
    # One statement whose rows are fetched page by page: a query for each page could sort the whole model each time.
    query = select(devices.c.id).where(*_are_of_model(devices.c, *_named_model(selection)))
    yield from connection.execute(query.execution_options(yield_per=PAGE)).scalars().partitions()


def _are_devices(owners: tuple[str, ...]) -> bool:
    """Whether the index of devices finds these owners; owners themselves have no index."""
    return bool(owners) and all(one.startswith(_DEVICE) for one in owners)


def _has_any(connection: Connection, selection: Selection, authority_id: int, alive_at: int) -> bool:
    """Whether a selection has any certificate of one authority; reads that authority's at most; within `by_index`."""
    own = _BY_AUTHORITY.c
    conditions = hidden(*_conditions(own, selection, alive_at, _STATES))
    query = select(own.leaf_index).where(own.authority_id == authority_id, conditions).limit(1)
    return connection.execute(query).one_or_none() is not None


def _read(connection: Connection, leaves: Sequence[int]) -> list[CertificateRow]:
    """Certificates by leaf. SQLite gets one statement for each: with a list it would scan a small table."""
    if connection.dialect.name == "sqlite":
        return [row for leaf in leaves if (row := find_by_leaf(connection, leaf)) is not None]
    found = _read_pages(connection, select(certificates), certificates.c.leaf_index, leaves)
    return [CERTIFICATE.read(row) for row in found]


def _compromised(connection: Connection, leaves: Sequence[int]) -> set[int]:
    """Which of these are revoked for a compromise; within `by_index`, as in `_read`."""
    if connection.dialect.name == "sqlite":
        return {leaf for leaf in leaves if (_REASON.find(connection, leaf=leaf) or (0,))[0] in _COMPROMISES}
    query = select(revocations.c.leaf_index).where(hidden(revocations.c.reason.in_(_COMPROMISES)))
    return {leaf for (leaf,) in _read_pages(connection, query, revocations.c.leaf_index, leaves)}


def _of_model(connection: Connection, selection: Selection, named: Iterable[str | None]) -> set[str]:
    """Which of these devices are of a selection's model and in its range; within `by_index`, as in `_read`."""
    wanted = _named_model(selection)
    ids = [one for one in named if one is not None]
    if connection.dialect.name == "sqlite":
        values = {one.key: one.value for one in wanted}
        return {one for one in ids if _IS_OF_MODEL.find(connection, device=one, **values) is not None}
    fits = hidden(*_are_of_model(devices.c, *wanted))
    query = select(devices.c.id).where(fits)
    return {one for (one,) in _read_pages(connection, query, devices.c.id, ids)}


def _read_pages(
    connection: Connection, query: Select[Any], column: ColumnElement[Any], named: Sequence[Any]
) -> Iterator[Any]:
    """The rows of `query` whose `column` is one of `named`, by pages of these."""
    for page in paged(named):
        yield from connection.execute(query.where(is_among(connection, column, page)))


def _named_model(selection: Selection) -> tuple[BindParameter[str | None], ...]:
    named = {"model": selection.model, "first": selection.first_serial, "last": selection.last_serial}
    return tuple(bindparam(name, value, type_=String) for name, value in named.items())


def _are_of_model(own: Any, model: Any, first: Any, last: Any) -> list[ColumnElement[bool]]:
    """The model, and the range of its maker's serials as far as one is given: those of its first's length."""
    serial = own.maker_serial
    return [
        own.model == model,
        serial >= func.coalesce(first, serial),
        # compare lengths first, because as texts "10" lies between "1" and "2"
        func.length(serial) == func.length(func.coalesce(first, serial)),
        serial <= func.coalesce(last, serial),
    ]


_REASON = Statement(select(revocations.c.reason).where(revocations.c.leaf_index == bindparam("leaf")))
_IS_OF_MODEL = Statement(
    select(devices.c.id).where(
        devices.c.id == bindparam("device", type_=String),
        *_are_of_model(devices.c, *(bindparam(name, type_=String) for name in ("model", "first", "last"))),
    )
)


def _conditions(own: Any, selection: Selection, alive_at: int, states: tuple[str, ...]) -> list[ColumnElement[bool]]:
    """The conditions on a certificate's row; for those on its device see `_are_of_model`."""
    is_in = own.state.in_(states)
    # a scalar subquery, because a join could begin with a scan of all revoked certificates
    if REVOKED_FOR_LESS in states:
        table = own.leaf_index.table
        reason = select(revocations.c.reason).where(revocations.c.leaf_index == own.leaf_index).correlate(table)
        says_less = func.coalesce(reason.scalar_subquery(), 0).not_in(_COMPROMISES)
        is_in = or_(is_in, and_(own.state == REVOKED, says_less))
    found = [own.not_after > alive_at, is_in]
    found += [getattr(own, name).in_(wanted) for name, wanted in _choices(selection).items()]
    if selection.issued_from is not None:
        found.append(own.not_before >= selection.issued_from)
    if selection.issued_until is not None:
        found.append(own.not_before <= selection.issued_until)
    if selection.owner_ranges:
        # PostgreSQL compares texts by the rules of the database's language, but for those of collation "C"
        owner = cast(own.owner, ByteOrdered)
        is_within = (
            and_(func.length(own.owner) == len(first), owner >= first, owner <= last)
            for first, last in selection.owner_ranges
        )
        found.append(or_(*is_within))
    if selection.of_devices:
        found.append(or_(own.device_id.is_not(None), own.owner.startswith(_HASHED)))
    return found


def _is_held_by(selection: Selection, row: CertificateRow, choices: Mapping[str, frozenset[object]]) -> bool:
    """`_conditions`, without end and state, on a row in memory; `choices` are `_choices` of `selection`."""
    return (
        all(getattr(row, name) in wanted for name, wanted in choices.items())
        and (selection.issued_from is None or row.not_before >= selection.issued_from)
        and (selection.issued_until is None or row.not_before <= selection.issued_until)
        and (not selection.owner_ranges or is_in_ranges(row.owner, selection.owner_ranges))
        and not (selection.of_devices and row.device_id is None and not row.owner.startswith(_HASHED))
    )


def is_in_ranges(owner: str, ranges: Sequence[tuple[str, str]]) -> bool:
    """Whether an owner lies in one of these ranges."""
    return any(len(owner) == len(first) and first <= owner <= last for first, last in ranges)


def _choices(selection: Selection) -> dict[str, frozenset[object]]:
    """The columns for which a selection lists the allowed values."""
    found: dict[str, frozenset[object]] = {
        "leaf_index": frozenset(selection.leaves),
        "authority_id": frozenset(selection.authority_ids),
        "owner": frozenset(selection.owners),
        "profile": frozenset(() if selection.profile is None else (selection.profile,)),
        "spki_sha256": frozenset(() if selection.spki_sha256 is None else (selection.spki_sha256,)),
    }
    return {name: wanted for name, wanted in found.items() if wanted}
