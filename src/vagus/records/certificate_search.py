"""Finds certificates by any of what is known of them, in pages that are sorted by end or by begin of validity.

Each page enters one index and hides its other conditions (`query_hints`), so that it costs the same at any size:

1. What names few certificates (serial, device, fingerprint, name) is looked up, and the rest is checked on their rows.
2. Of the columns with few values, the one with the fewest certificates in the wanted time is walked in order.
3. Where that is a thousand or less, they are read at once and sorted here. So a rare value is quick in every order.

Values that are each frequent and hardly ever come together cost a walk through the rarer of them: a unit of 25,000
certificates takes some 100 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_

from vagus.identifiers import serial_bytes
from vagus.records.certificates import CERTIFICATE, NO_EXPIRY, CertificateRow
from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import IndexedTable, by_index, hidden, is_among, paged
from vagus.records.engine.tables import certificate_names, certificates

_FEW = 1_000
_LAST = 2**62
"""Later than any time, and beyond any leaf."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateQuery:
    """Which certificates are meant: what is given narrows, None and `()` do not.

    Each of `names` is folded as by `search_name`. It means the certificates that have it, as a name of any kind, and
    all of the device whose id is in front of its first dot: the caller checks the names of what is found.
    `fingerprints` is a range of SHA-256 values, `units` and `authority_ids` are choices. Times are seconds since 1970
    UTC, first and last included. With `is_by_begin` pages are sorted by notBefore, else by notAfter.
    """

    serial: int | None = None
    device_id: str | None = None
    fingerprints: tuple[bytes, bytes] | None = None
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    category: str | None = None
    profile: str | None = None
    key_algorithm: str | None = None
    authority_ids: tuple[int, ...] = ()
    state: str | None = None
    begins: tuple[int, int] = (0, NO_EXPIRY)
    ends: tuple[int, int] = (0, NO_EXPIRY)
    is_by_begin: bool = False


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """A certificate with the present unit and category of its device."""

    row: CertificateRow
    unit: str | None
    category: str | None


class Place(NamedTuple):
    """The place of a certificate in the order of a search: notAfter (or notBefore), then its leaf."""

    at: int
    leaf_index: int


class _Way(NamedTuple):
    """A way in: an index, the column that it begins with (None: a time) and the values wanted of it."""

    table: IndexedTable
    column: str | None
    values: tuple[object, ...]


def _indexed(index: str) -> IndexedTable:
    return IndexedTable("certificates", index, certificates.c)


_BY_END = _Way(_indexed("certificates_by_expiry"), None, (None,))
_BY_BEGIN = _Way(_indexed("certificates_by_start"), None, (None,))
_OF_VALUE = {
    "unit": _indexed("certificates_of_unit"),
    "category": _indexed("certificates_of_category"),
    "authority_id": _indexed("certificates_of_issuer"),
    "key_algorithm": _indexed("certificates_of_algorithm"),
    "profile": _indexed("certificates_of_profile"),
    "state": _indexed("certificates_in_state"),
}


def place_of(query: CertificateQuery, row: CertificateRow) -> Place:
    """Where a certificate is in the order of `query`."""
    return Place(row.not_before if query.is_by_begin else row.not_after, row.leaf_index)


def find_certificates(
    connection: Connection, query: CertificateQuery, *, after: Place | None = None, limit: int = 100
) -> tuple[FoundCertificate, ...]:
    """The next `limit` certificates of `query` after a place, in its order."""
    leaves = _named_leaves(connection, query)
    with by_index(connection):
        if leaves is not None:
            keys = [key for page in paged(leaves) for key in _keys(connection, query, page)]
            return _read_sorted(connection, keys, after, limit)
        ways = _ways(query) or [_BY_END]
        way = ways[0]
        if len(ways) > 1 or query.is_by_begin:
            fewest, way = _choose(connection, query, ways)
            if fewest <= _FEW:
                keys = [key for value in way.values for key in _keys_of(connection, query, way, value)]
                return _read_sorted(connection, keys, after, limit)
        if query.is_by_begin:
            way = _BY_BEGIN
        pages = [tuple(islice(_walk(connection, query, way, value, after, limit), limit)) for value in way.values]
    found = (one for page in pages for one in page)
    return tuple(sorted(found, key=lambda one: place_of(query, one.row))[:limit])


def find_found(connection: Connection, leaf_index: int) -> FoundCertificate | None:
    """The certificate of this issuance entry."""
    found = connection.execute(select(certificates).where(certificates.c.leaf_index == leaf_index)).one_or_none()
    return None if found is None else _read(found)


def list_known(connection: Connection, fingerprints: Sequence[bytes]) -> frozenset[bytes]:
    """Which of these SHA-256 values are of certificates that have a row."""
    own = certificates.c.fingerprint
    with by_index(connection):
        found = (select(own).where(is_among(connection, own, page)) for page in paged(fingerprints))
        return frozenset(bytes(one) for query in found for one in connection.execute(query).scalars())


def _ways(query: CertificateQuery) -> list[_Way]:
    """The indices of the columns of which `query` names values."""
    return [_Way(_OF_VALUE[name], name, values) for name, values in _choices(query).items()]


def _choices(query: CertificateQuery) -> dict[str, tuple[object, ...]]:
    """The wanted values of each column with few values."""
    named = {name: getattr(query, name) for name in ("category", "key_algorithm", "profile", "state")}
    wanted: dict[str, tuple[object, ...]] = {name: (value,) for name, value in named.items() if value is not None}
    if query.units:
        wanted["unit"] = query.units
    if query.authority_ids:
        wanted["authority_id"] = query.authority_ids
    return wanted


def _conditions(own: Any, query: CertificateQuery) -> ColumnElement[bool]:
    """Everything but the names, hidden from the planner."""
    found = [
        own.not_before.between(*query.begins),
        own.not_after.between(*query.ends),
        *(own[name].in_(values) for name, values in _choices(query).items()),
    ]
    if query.serial is not None:
        found.append(own.serial == serial_bytes(query.serial))
    if query.device_id is not None:
        found.append(own.device_id == query.device_id)
    if query.fingerprints is not None:
        found.append(own.fingerprint.between(*query.fingerprints))
    return hidden(*found)


def _named_leaves(connection: Connection, query: CertificateQuery) -> list[int] | None:
    """The leaves that serial, fingerprint, device and names have in common, rising; None where none of them is given.

    The rows of a serial, fingerprint or device are few; those of a name are as many as its renewals.
    """
    own, leaf = certificates.c, certificates.c.leaf_index
    asked: list[list[Select[Any]]] = []
    if query.serial is not None:
        asked.append([select(leaf).where(own.serial == serial_bytes(query.serial))])
    if query.fingerprints is not None:
        asked.append([select(leaf).where(own.fingerprint.between(*query.fingerprints))])
    if query.device_id is not None:
        asked.append([select(leaf).where(own.device_id == query.device_id)])
    for name in query.names:
        of_device = select(leaf).where(own.device_id == name.partition(".")[0])
        asked.append([select(certificate_names.c.leaf_index).where(certificate_names.c.name == name), of_device])
    if not asked:
        return None
    with by_index(connection):
        found = [{int(one) for query in several for one in connection.execute(query).scalars()} for several in asked]
    return sorted(set.intersection(*found))


def _keys(connection: Connection, query: CertificateQuery, leaves: Sequence[int]) -> list[Place]:
    """The places of those of `leaves` that fit."""
    own = certificates.c
    is_wanted = (is_among(connection, own.leaf_index, leaves), _conditions(own, query))
    return [Place(*row) for row in connection.execute(select(_time(own, query), own.leaf_index).where(*is_wanted))]


def _keys_of(connection: Connection, query: CertificateQuery, way: _Way, value: object) -> list[Place]:
    """The places of all that fit and are of a value."""
    own = way.table.c
    within, _ = _within(connection, way, value, (query.ends[0] - 1,), (query.ends[1],))
    rows = select(_time(own, query), own.leaf_index).where(*within, _conditions(own, query))
    return [Place(*row) for row in connection.execute(rows)]


def _choose(connection: Connection, query: CertificateQuery, ways: Sequence[_Way]) -> tuple[int, _Way]:
    """The way with the fewest certificates that end in the wanted time, counted as far as `_FEW` and one more."""
    counts: list[ColumnElement[int]] = []
    for way in ways:
        total: ColumnElement[int] = literal(0)
        for value in way.values:
            within, _ = _within(connection, way, value, (query.ends[0] - 1,), (query.ends[1],))
            some = select(way.table.c.not_after).where(*within).limit(_FEW + 1).subquery()
            total += select(func.count()).select_from(some).scalar_subquery()
        counts.append(total)
    found = connection.execute(select(*counts)).one()
    return min(zip(found, ways, strict=True), key=lambda one: one[0])


def _walk(
    connection: Connection, query: CertificateQuery, way: _Way, value: object, after: Place | None, limit: int
) -> Iterator[FoundCertificate]:
    """What fits, along an index: first the rest of those with the time of `after`, then those of later times."""
    own = way.table.c
    first, last = query.begins if query.is_by_begin else query.ends
    spans: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    if after is not None and after.at <= last:
        first = max(first, after.at + 1)
        spans.append(((after.at, after.leaf_index), (after.at, _LAST)))
    if after is None or after.at < last:
        spans.append(((first - 1,), (last,)))
    for low, high in spans:
        within, order = _within(connection, way, value, low, high)
        rows = select(way.table).where(*within, _conditions(own, query)).order_by(*order).limit(limit)
        for row in connection.execute(rows).all():
            yield _read(row)


def _within(
    connection: Connection, way: _Way, value: object, low: tuple[int, ...], high: tuple[int, ...]
) -> tuple[list[ColumnElement[bool]], list[ColumnElement[Any]]]:
    """The condition that an index entry is of `value`, after `low` and not after `high`, and the order of the index.

    `low` and `high` are a time, or a time and a leaf; they differ in the last alone. PostgreSQL gets row comparisons,
    which this index alone serves, SQLite its index by name (see `query_hints.rows_after`).
    """
    own: Any = way.table.c
    time = own.not_before if way.table is _BY_BEGIN.table else own.not_after
    fixed = [] if way.column is None else [own[way.column]]
    order = [*fixed, time, own.leaf_index]
    place = order[: len(fixed) + len(low)]
    begin, end = [value] * len(fixed) + list(low), [value] * len(fixed) + list(high)
    if connection.dialect.name != "sqlite":
        return [tuple_(*place) > tuple(begin), tuple_(*place) <= tuple(end)], order
    equal = [one == wanted for one, wanted in zip(place[:-1], begin, strict=False)]
    return [*equal, place[-1] > begin[-1], place[-1] <= end[-1]], order


def _time(own: Any, query: CertificateQuery) -> Any:
    return own.not_before if query.is_by_begin else own.not_after


def _read_sorted(
    connection: Connection, keys: Sequence[Place], after: Place | None, limit: int
) -> tuple[FoundCertificate, ...]:
    """The rows of the next `limit` places after one."""
    chosen = [key.leaf_index for key in sorted(keys) if after is None or key > after][:limit]
    rows: dict[int, FoundCertificate] = {}
    for page in paged(chosen):
        is_chosen = is_among(connection, certificates.c.leaf_index, page)
        rows.update((row.leaf_index, _read(row)) for row in connection.execute(select(certificates).where(is_chosen)))
    return tuple(rows[leaf] for leaf in chosen)


def _read(row: Any) -> FoundCertificate:
    return FoundCertificate(CERTIFICATE.read(row), row.unit, row.category)
