"""Rows of the newest CRL of each shard, delta CRLs, OCSP responders and leases; signs and serves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Table, and_, bindparam, delete, func, insert, select, update

from vagus.records.engine.database import Connection
from vagus.records.engine.row_forms import RowForm
from vagus.records.engine.statements import Statement, Write, write_together
from vagus.records.engine.tables import crl_deltas, crl_publications, leases, ocsp_responders

COMPLETE = -1
"""The shard number of the complete CRL, the one without an IssuingDistributionPoint."""

ADOPTED = -1
"""The sequence of a CRL that was signed elsewhere, or after a backup: which steps it covers is unknown here."""

OUTDATED = -2
"""The sequence of a CRL that a restore brought back although a newer one was published: it is not served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The newest CRL of a shard; `sequence` is the place in the revocation sequence that it covers."""

    authority_id: int
    shard: int
    number: int
    this_update: int
    next_update: int
    sequence: int
    crl_der: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaRow:
    """The base of the next delta of a shard, and the newest delta (None: there was no base for one)."""

    authority_id: int
    shard: int
    base_number: int
    base_sequence: int
    number: int
    this_update: int
    next_update: int
    crl_der: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderRow:
    """The delegated OCSP responder of an authority: its certificate, and the keystore of its key."""

    authority_id: int
    key_id: str
    keystore: str
    certificate_der: bytes
    not_after: int


@dataclass(frozen=True, slots=True)
class ShardState:
    """A shard before its next CRL is stored: the newest CRL without its bytes, and whether a delta row exists."""

    newest: Publication | None
    has_delta: bool


_PUBLICATION = RowForm(Publication)
_DELTA = RowForm(DeltaRow)
_RESPONDER = RowForm(ResponderRow)
_FACTS = tuple(column for column in crl_publications.columns if column.key != "crl_der")
"""All columns but the bytes, which may be 50 MB."""


def _is_of(table: Table, authority_id: Any, shard: Any) -> ColumnElement[bool]:
    """The condition for the row of one shard."""
    return and_(table.c.authority_id == authority_id, table.c.shard == shard)


_MINE = _is_of(crl_publications, bindparam("authority"), bindparam("place"))
_BESIDE = _is_of(crl_deltas, crl_publications.c.authority_id, crl_publications.c.shard)
_LISTED = ("number", "this_update", "next_update", "sequence", "crl_der")
_CHANGED = ("base_number", "base_sequence", "number", "this_update", "next_update", "crl_der")
_SHARD_STATE = Statement(
    select(*_FACTS, crl_deltas.c.number.label("delta_number"))
    .select_from(crl_publications.outerjoin(crl_deltas, _BESIDE))
    .where(_MINE)
)
_NAMED: dict[str, BindParameter[int]] = {"authority_id": bindparam("authority"), "shard": bindparam("place")}
_INSERT = Statement(insert(crl_publications).values(_NAMED), *_LISTED)
_UPDATE = Statement(update(crl_publications).where(_MINE), *_LISTED)
_INSERT_DELTA = Statement(insert(crl_deltas).values(_NAMED), *_CHANGED)
_IS_DELTA = _is_of(crl_deltas, bindparam("authority"), bindparam("place"))
_UPDATE_DELTA = Statement(update(crl_deltas).where(_IS_DELTA), *_CHANGED)


def find_shard_state(connection: Connection, authority_id: int, shard: int) -> ShardState:
    """The rows of a shard, in one query where it has a CRL."""
    found = _SHARD_STATE.find(connection, authority=authority_id, place=shard)
    if found is None:
        return ShardState(None, find_number(connection, authority_id, shard, is_delta=True) is not None)
    return ShardState(_facts(found), found.delta_number is not None)


def keep(
    connection: Connection, state: ShardState, publication: Publication | None, delta: DeltaRow | None = None
) -> None:
    """Store these as the newest of their shard; `state` is its state, read in the same batch."""
    # Update an existing row in place; never delete and insert it. The writes are parts of one statement (see
    # `write_together`), and two parts must not touch one row. One statement form also keeps fewer values alive: a
    # driver holds the last values of each prepared statement, which may be a CRL of 50 MB.
    writes: list[Write] = []
    if publication is not None:
        statement = _INSERT if state.newest is None else _UPDATE
        writes.append(_writing(statement, publication, _LISTED))
    if delta is not None:
        writes.append(_writing(_UPDATE_DELTA if state.has_delta else _INSERT_DELTA, delta, _CHANGED))
    write_together(connection, *writes)


def _writing(statement: Statement, row: Publication | DeltaRow, names: Sequence[str]) -> Write:
    values = {name: getattr(row, name) for name in names}
    return statement.write(authority=row.authority_id, place=row.shard, **values)


def put_publication(connection: Connection, publication: Publication) -> None:
    """Store this one as the newest of its shard."""
    keep(connection, find_shard_state(connection, publication.authority_id, publication.shard), publication)


def find_publication(connection: Connection, authority_id: int, shard: int) -> Publication | None:
    """The newest CRL of a shard."""
    return _PUBLICATION.find(connection, select(crl_publications).where(_is_of(crl_publications, authority_id, shard)))


def find_facts(connection: Connection, authority_id: int, shard: int) -> Publication | None:
    """As `find_publication`, without the bytes, which may be 50 MB of them."""
    found = connection.execute(select(*_FACTS).where(_is_of(crl_publications, authority_id, shard))).one_or_none()
    return None if found is None else _facts(found)


def find_number(connection: Connection, authority_id: int, shard: int, *, is_delta: bool) -> int | None:
    """The number of the newest CRL (or delta) of a shard, without its bytes."""
    table = crl_deltas if is_delta else crl_publications
    return connection.execute(select(table.c.number).where(_is_of(table, authority_id, shard))).scalar_one_or_none()


def list_numbers(connection: Connection, *, is_delta: bool = False) -> dict[int, dict[int, int]]:
    """The number of the newest CRL (or delta) of each shard, by authority and shard, without their bytes."""
    table = crl_deltas if is_delta else crl_publications
    found: dict[int, dict[int, int]] = {}
    for row in connection.execute(select(table.c.authority_id, table.c.shard, table.c.number)):
        found.setdefault(row.authority_id, {})[row.shard] = row.number
    return found


def list_outdated(connection: Connection) -> frozenset[tuple[int, int]]:
    """Authority and shard of each CRL that is not served before it is signed again."""
    table = crl_publications.c
    query = select(table.authority_id, table.shard).where(table.sequence == OUTDATED)
    return frozenset((row.authority_id, row.shard) for row in connection.execute(query))


def outdate_crl(connection: Connection, authority_id: int, shard: int, number: int) -> None:
    """A newer CRL than this was published, of `number` at least: the next one is due and takes a greater number."""
    mine = _is_of(crl_publications, authority_id, shard)
    connection.execute(update(crl_publications).where(mine).values(sequence=OUTDATED, number=number))


def find_size(connection: Connection, authority_id: int, shard: int) -> int:
    """The size of the newest CRL of a shard in bytes, without reading them; 0 before the first."""
    query = select(func.length(crl_publications.c.crl_der)).where(_is_of(crl_publications, authority_id, shard))
    return int(connection.execute(query).scalar_one_or_none() or 0)


def list_publications(connection: Connection, authority_id: int) -> tuple[Publication, ...]:
    """The newest CRL of every shard of an authority, the complete CRL first."""
    query = select(crl_publications).where(crl_publications.c.authority_id == authority_id)
    return _PUBLICATION.list(connection, query.order_by(crl_publications.c.shard))


def list_facts(connection: Connection, authority_id: int) -> tuple[Publication, ...]:
    """As `list_publications`, without the bytes: this runs every second, and its cost must not grow with the CRLs."""
    table = crl_publications.c
    query = select(*_FACTS).where(table.authority_id == authority_id).order_by(table.shard)
    return tuple(_facts(row) for row in connection.execute(query))


def find_newest_update(connection: Connection) -> int | None:
    """The latest thisUpdate of any CRL that was signed here (seconds since 1970 UTC)."""
    newest: int | None = connection.execute(select(func.max(crl_publications.c.this_update))).scalar_one()
    return newest


def list_dated_after(connection: Connection, at: int) -> tuple[tuple[int, int], ...]:
    """Authority and shard of each newest CRL whose thisUpdate is after `at` (seconds since 1970 UTC)."""
    table = crl_publications.c
    query = select(table.authority_id, table.shard).where(table.this_update > at)
    found = connection.execute(query.order_by(table.authority_id, table.shard))
    return tuple((row.authority_id, row.shard) for row in found)


def forget_date(connection: Connection, authority_id: int, shard: int) -> None:
    """Date the newest CRL of a shard back to 1970: it is due, and any date may follow. Number and nextUpdate stay."""
    connection.execute(
        update(crl_publications).where(_is_of(crl_publications, authority_id, shard)).values(this_update=0)
    )


def find_delta(connection: Connection, authority_id: int, shard: int) -> DeltaRow | None:
    """Base and newest delta of a shard."""
    return _DELTA.find(connection, select(crl_deltas).where(_is_of(crl_deltas, authority_id, shard)))


def put_responder(connection: Connection, row: ResponderRow) -> None:
    """Store this as the responder of its authority."""
    connection.execute(delete(ocsp_responders).where(ocsp_responders.c.authority_id == row.authority_id))
    connection.execute(insert(ocsp_responders), _RESPONDER.values(row))


def find_responder(connection: Connection, authority_id: int) -> ResponderRow | None:
    """The responder of an authority."""
    query = select(ocsp_responders).where(ocsp_responders.c.authority_id == authority_id)
    return _RESPONDER.find(connection, query)


def list_responder_certificates(connection: Connection) -> dict[int, bytes]:
    """The certificate of each authority's responder, by the authority's id."""
    query = select(ocsp_responders.c.authority_id, ocsp_responders.c.certificate_der)
    return {found.authority_id: bytes(found.certificate_der) for found in connection.execute(query)}


def take_lease(connection: Connection, name: str, holder: str, *, at: int, seconds: int) -> bool:
    """Take or prolong a lease for `seconds` from `at` on; False while another holder has it.

    A lease that ends later than two such periods from now was taken by a clock that ran ahead. It counts as ended,
    since its holder may be dead and its end years off. Clocks that differ by less than one period do not take leases
    from each other by this rule.
    """
    is_mine, is_past = leases.c.holder == holder, leases.c.until <= at
    is_from_ahead = leases.c.until > at + 2 * seconds
    mine_or_past = is_mine | is_past | is_from_ahead
    values = {"holder": holder, "until": at + seconds}
    if connection.execute(update(leases).where(leases.c.name == name, mine_or_past).values(**values)).rowcount:
        return True
    if connection.execute(select(leases.c.name).where(leases.c.name == name)).one_or_none() is not None:
        return False
    connection.execute(insert(leases), {"name": name, **values})
    return True


def drop_lease(connection: Connection, name: str, holder: str) -> None:
    """Give a lease back, so that the next holder need not wait."""
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))


def _facts(found: Any) -> Publication:
    return Publication(**{column.key: getattr(found, column.key) for column in _FACTS}, crl_der=b"")
