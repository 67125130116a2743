"""Finds certificates by any of what is known of them, in pages that are sorted by end or by begin of validity.

What a page costs does not grow with the number of certificates:

1. What names few certificates (serial, device, fingerprint, name) is looked up, and the rest is checked on their rows.
2. Else a page walks one index in order. The indices of the columns with few values hold what else is narrowed by, so
   an entry is judged without its row. A query hides its other conditions from the planner (`query_hints`).
3. A page looks through some thousand of them at most, or `_ROWS` where it must read rows: then it ends early, and says
   where the next page begins. Of several indices it takes the one that gets farthest within that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, literal, or_, select, true, tuple_, union_all

from vagus.identifiers import serial_bytes
from vagus.records.certificates import CERTIFICATE, NO_EXPIRY, CertificateRow
from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import IndexedTable, by_index, hidden, is_among, paged
from vagus.records.engine.tables import certificate_names, certificates

_ENTRIES = 2_500
"""Index entries that a page looks through."""
_VISIBLE = 1_200
"""The same on PostgreSQL, which reads the row of each entry that was written since the last VACUUM: who may see it?"""
_ROWS = 250
"""Certificates that a page looks through where the index does not hold all that they are judged by."""
_LAST = 2**62
"""Later than any time, and beyond any leaf."""
_EVER = (0, NO_EXPIRY)


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
    begins: tuple[int, int] = _EVER
    ends: tuple[int, int] = _EVER
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


@dataclass(frozen=True, slots=True)
class FoundPage:
    """Certificates in order, and the place after which the next page begins; None: there are no more.

    A page may have fewer certificates than were asked for, or none, and yet not be the last.
    """

    certificates: tuple[FoundCertificate, ...]
    rest_after: Place | None


class _Way(NamedTuple):
    """A way in: an index, the column that it begins with (None: a time) and the values wanted of it."""

    table: IndexedTable
    column: str | None
    values: tuple[object, ...]


class _Span(NamedTuple):
    """The entries of a way that are of a value and lie after one place, up to another."""

    way: _Way
    value: object
    low: Place
    high: Place


_HELD = {str(one.name): frozenset(one.columns.keys()) for one in certificates.indexes}
"""The columns that each index holds."""


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
) -> FoundPage:
    """At most `limit` certificates of `query` after a place, in its order."""
    first, last = query.begins if query.is_by_begin else query.ends
    low, high = max(Place(first - 1, _LAST), after or Place(-1, -1)), Place(last, _LAST)
    with by_index(connection):
        leaves = _named_leaves(connection, query)
        if leaves is not None:
            keys = [key for page in paged(leaves) for key in _keys_among(connection, query, page)]
            found, rest = sorted(key for key in keys if key > low), None
        elif low >= high:
            return FoundPage((), None)
        else:
            found, rest = _walk(connection, query, low, high, limit)
        if len(found) >= limit:
            found, rest = found[:limit], found[limit - 1]
        return FoundPage(_read_rows(connection, found), rest)


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


def _walk(
    connection: Connection, query: CertificateQuery, low: Place, high: Place, limit: int
) -> tuple[list[Place], Place | None]:
    """What fits of the entries after `low`, and the place up to which they were looked through; None: all were."""
    ways = [_Way(_OF_VALUE[name], name, values) for name, values in _choices(query).items()]
    if query.is_by_begin:
        few = _find_few(connection, query, ways)
        if few is not None:
            return _sort_keys(connection, query, few, low, limit), None
        ways = [_BY_BEGIN]
    way, end = _choose(connection, query, ways or [_BY_END], low, high)
    found: list[Place] = []
    for value in way.values:
        found += islice(_keys(connection, query, _Span(way, value, low, end or high), limit), limit)
    return sorted(found), end


def _choose(
    connection: Connection, query: CertificateQuery, ways: Sequence[_Way], low: Place, high: Place
) -> tuple[_Way, Place | None]:
    """The way that gets farthest from `low` by the entries that a page may look through, and how far; None: to `high`.

    With nothing to judge by, every entry fits, and the page is full before it gets far.
    """
    if len(ways) == 1 and not _judged(ways[0], query):
        return ways[0], None
    reached = _reach(connection, query, ways, low, high)
    end, way = max(zip(reached, ways, strict=True), key=lambda one: one[0])
    return way, None if end == high else end


def _find_few(connection: Connection, query: CertificateQuery, ways: Sequence[_Way]) -> _Way | None:
    """A way with so few certificates that end in the wanted time that all may be read, and sorted by begin."""
    low, high = Place(query.ends[0] - 1, _LAST), Place(query.ends[1], _LAST)
    if not ways or low >= high:
        return ways[0] if ways else None
    reached = _reach(connection, query, ways, low, high)
    return next((way for end, way in zip(reached, ways, strict=True) if end == high), None)


def _reach(
    connection: Connection, query: CertificateQuery, ways: Sequence[_Way], low: Place, high: Place
) -> list[Place]:
    """How far each way gets from `low` by the entries that a page may look through; `high`: it has no more of them."""
    lasts: list[Select[Any]] = []
    for number, way in enumerate(ways):
        own = way.table.c
        entries = _entries(connection, query, way)
        for value in way.values:
            for within, order in _within(connection, _Span(way, value, low, high)):
                last = select(literal(number), order[-2], own.leaf_index).where(*within).order_by(*order)
                lasts.append(select(last.limit(1).offset(entries - 1).subquery()))
    reached = [high] * len(ways)
    for number, at, leaf in connection.execute(union_all(*lasts)):
        reached[number] = min(reached[number], Place(at, leaf))
    return reached


def _entries(connection: Connection, query: CertificateQuery, way: _Way) -> int:
    """How many entries of each value of `way` a page may look through."""
    most = _ENTRIES if connection.dialect.name == "sqlite" else min(_ENTRIES, _VISIBLE)
    return max(1, (most if _judged(way, query) <= _HELD[way.table.index] else _ROWS) // len(way.values))


def _choices(query: CertificateQuery) -> dict[str, tuple[object, ...]]:
    """The wanted values of each column with few values."""
    named = {name: getattr(query, name) for name in ("category", "key_algorithm", "profile", "state")}
    wanted: dict[str, tuple[object, ...]] = {name: (value,) for name, value in named.items() if value is not None}
    if query.units:
        wanted["unit"] = query.units
    if query.authority_ids:
        wanted["authority_id"] = query.authority_ids
    return wanted


def _judged(way: _Way, query: CertificateQuery) -> set[str]:
    """The columns by which an entry of `way` is judged, beside those that it is sorted by."""
    times = {"not_before": query.begins, "not_after": query.ends}
    found = {name for name, span in times.items() if span != _EVER and name != _time_of(way)}
    return found | _choices(query).keys() - {way.column}


def _time_of(way: _Way) -> str:
    return "not_before" if way is _BY_BEGIN else "not_after"


def _conditions(own: Any, query: CertificateQuery, columns: Iterable[str]) -> ColumnElement[bool]:
    """What `query` wants of these columns, hidden from the planner."""
    times, choices = {"not_before": query.begins, "not_after": query.ends}, _choices(query)
    found = [own[one].between(*times[one]) if one in times else own[one].in_(choices[one]) for one in sorted(columns)]
    return hidden(true(), *found)


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
    found = [{int(one) for query in several for one in connection.execute(query).scalars()} for several in asked]
    return sorted(set.intersection(*found))


def _keys_among(connection: Connection, query: CertificateQuery, leaves: Sequence[int]) -> list[Place]:
    """The places of those of `leaves` that fit."""
    own = certificates.c
    wanted = [_conditions(own, query, {"not_before", "not_after", *_choices(query)})]
    if query.serial is not None:
        wanted.append(hidden(own.serial == serial_bytes(query.serial)))
    if query.device_id is not None:
        wanted.append(hidden(own.device_id == query.device_id))
    if query.fingerprints is not None:
        wanted.append(hidden(own.fingerprint.between(*query.fingerprints)))
    rows = select(_time(own, query), own.leaf_index).where(is_among(connection, own.leaf_index, leaves), *wanted)
    return [Place(*row) for row in connection.execute(rows)]


def _keys(connection: Connection, query: CertificateQuery, span: _Span, limit: int) -> Iterator[Place]:
    """The places of what fits in a span, in order."""
    judged = _judged(span.way, query)
    most = _entries(connection, query, span.way) if judged else limit
    for own, within, order in _looked_through(connection, span, judged, most):
        fits = _conditions(own, query, judged)
        rows = select(order[-2], own.leaf_index).where(*within, fits).order_by(*order).limit(limit)
        for row in connection.execute(rows).all():
            yield Place(*row)


def _sort_keys(connection: Connection, query: CertificateQuery, way: _Way, low: Place, limit: int) -> list[Place]:
    """The places of all that fit and begin after `low`, of a way with few entries."""
    found, judged, most = list[Place](), _judged(way, query), _entries(connection, query, way)
    span = (Place(query.ends[0] - 1, _LAST), Place(query.ends[1], _LAST))
    for value in way.values:
        wanted = _Span(way, value, *span)
        for own, within, _ in _looked_through(connection, wanted, {*judged, "not_before"}, most):
            later = or_(own.not_before > low.at, and_(own.not_before == low.at, own.leaf_index > low.leaf_index))
            fits = hidden(later, _conditions(own, query, judged))
            rows = select(own.not_before, own.leaf_index).where(*within, fits)
            # a sum, which no index serves: else PostgreSQL may walk the index by begin
            first = rows.order_by(own.not_before + 0, own.leaf_index).limit(limit)
            found += [Place(*row) for row in connection.execute(first)]
    return sorted(found)


def _looked_through(
    connection: Connection, span: _Span, columns: Iterable[str], most: int
) -> Iterator[tuple[Any, list[ColumnElement[bool]], list[ColumnElement[Any]]]]:
    """As `_within`, with the columns in front, for a span that has no more than `most` entries that matter.

    PostgreSQL walks the first `most` entries after `low` and judges these: see `_within`.
    """
    own: Any = span.way.table.c
    for within, order in _within(connection, span):
        if connection.dialect.name == "sqlite":
            yield own, within, order
            continue
        shown = {str(one.key): one for one in (*order, *(own[name] for name in columns))}
        first = select(*shown.values()).where(*within).order_by(*order).limit(most).subquery().c
        at, high = first[_time_of(span.way)], span.high
        not_after = or_(at < high.at, and_(at == high.at, first.leaf_index <= high.leaf_index))
        yield first, [not_after], [first[str(one.key)] for one in order]


def _within(
    connection: Connection, span: _Span
) -> Iterator[tuple[list[ColumnElement[bool]], list[ColumnElement[Any]]]]:
    """The conditions that an entry lies in `span`, part by part, each with the order of the index.

    PostgreSQL gets the row comparison of `low` and the value, which this index alone serves, and not `high`: of a row
    comparison only the first column ends a walk, so it would go on to the last entry of the value. The callers stop
    it. SQLite gets its index by name, and a part for the rest of the first second, one for the seconds between, and
    one for the last (see `query_hints.rows_after`).
    """
    way, value, low, high = span
    own: Any = way.table.c
    fixed = [] if way.column is None else [own[way.column]]
    order = [*fixed, own[_time_of(way)], own.leaf_index]
    if connection.dialect.name != "sqlite":
        values = [value] * len(fixed)
        ends = [tuple_(*fixed) <= tuple(values)] if fixed else [order[0] <= high.at]
        yield [tuple_(*order) > (*values, *low), *ends], order
        return
    equal = [one == value for one in fixed]
    at, leaf = order[-2:]
    if low.at == high.at:
        yield [*equal, at == low.at, leaf > low.leaf_index, leaf <= high.leaf_index], order
        return
    if low.leaf_index < _LAST:
        yield [*equal, at == low.at, leaf > low.leaf_index], order
    yield [*equal, at > low.at, at < high.at if high.leaf_index < _LAST else at <= high.at], order
    if high.leaf_index < _LAST:
        yield [*equal, at == high.at, leaf <= high.leaf_index], order


def _time(own: Any, query: CertificateQuery) -> Any:
    return own.not_before if query.is_by_begin else own.not_after


def _read_rows(connection: Connection, places: Sequence[Place]) -> tuple[FoundCertificate, ...]:
    """The certificates at these places, in their order."""
    rows: dict[int, FoundCertificate] = {}
    for page in paged([one.leaf_index for one in places]):
        is_chosen = is_among(connection, certificates.c.leaf_index, page)
        rows.update((row.leaf_index, _read(row)) for row in connection.execute(select(certificates).where(is_chosen)))
    return tuple(rows[one.leaf_index] for one in places)


def _read(row: Any) -> FoundCertificate:
    return FoundCertificate(CERTIFICATE.read(row), row.unit, row.category)
