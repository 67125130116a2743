"""Reads what published status must say, for the prober: revoked or released when, which certificates to probe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Select, select, tuple_

from vagus.records.certificates import CertificateRow, find_by_leaf, list_covered_shards
from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import rows_after, stream
from vagus.records.engine.tables import certificates, revocation_events, revocations
from vagus.records.lost_certificates import LOST
from vagus.records.publications import COMPLETE
from vagus.records.revocation.revocations import RELEASE

_NEAR = 500
"""How many certificates the search for a live one reads: few enough that the planner takes the index of their order."""
_PLACE = (certificates.c.authority_id, certificates.c.leaf_index)
_NEWEST_FIRST = tuple(one.desc() for one in _PLACE)


@dataclass(frozen=True, slots=True)
class RevokedFact:
    """A certificate that is revoked or on hold now; times in seconds since 1970."""

    serial: int
    shard: int
    revoked_at: int
    not_after: int
    sequence: int


def iterate_revoked(connection: Connection, authority_id: int, shard: int | None = None) -> Iterator[RevokedFact]:
    """All certificates of an authority (or one of its shards) that are revoked or on hold now, by shard and leaf."""
    table = revocations.c
    query = (
        select(table.serial, table.shard, table.revoked_at, table.not_after, table.sequence)
        .where(table.authority_id == authority_id)
        .order_by(table.shard, table.leaf_index)
    )
    if shard is not None:
        query = query.where(table.shard.in_(list_covered_shards(connection, authority_id, shard)))
    for serial, at_shard, revoked_at, not_after, sequence in stream(connection, query):
        yield RevokedFact(int.from_bytes(serial, "big"), at_shard, revoked_at, not_after, sequence)


def list_released(connection: Connection, authority_id: int, *, since: int) -> frozenset[int]:
    """The serials whose hold ended at `since` or later: CRLs made before may still name them."""
    table = revocation_events.c
    query = select(table.serial).where(table.authority_id == authority_id, table.act == RELEASE, table.at >= since)
    return frozenset(int.from_bytes(serial, "big") for serial in connection.execute(query).scalars())


def list_newest_revoked(connection: Connection, authority_id: int, count: int) -> tuple[CertificateRow, ...]:
    """The certificates that were revoked or held last."""
    table = revocations.c
    place = tuple_(table.authority_id, table.shard, table.sequence)
    query = select(table.sequence, table.leaf_index).order_by(*(one.desc() for one in place)).limit(count)
    newest: list[tuple[int, int]] = []
    # one query for each shard, because the index begins with the shard
    for shard in list_covered_shards(connection, authority_id, COMPLETE):
        in_shard = (place > (authority_id, shard, -1), place < (authority_id, shard + 1, -1))
        newest += [(row.sequence, row.leaf_index) for row in connection.execute(query.where(*in_shard))]
    found = (find_by_leaf(connection, leaf) for _, leaf in sorted(newest, reverse=True)[:count])
    return tuple(row for row in found if row is not None)


def find_alive_from(connection: Connection, authority_id: int, leaf_index: int, *, alive_at: int) -> int | None:
    """The leaf of the first signed certificate at or after `leaf_index` that ends after `alive_at`.

    None also where hundreds before it have ended: an old authority may have a million such certificates.
    """
    near = _of_authority(connection, authority_id, leaf_index - 1).order_by(*_PLACE).limit(_NEAR).subquery()
    query = select(near.c.leaf_index).where(near.c.not_after > alive_at, near.c.fingerprint.is_not(None))
    return connection.execute(query.order_by(near.c.leaf_index).limit(1)).scalar_one_or_none()


def find_newest_alive(connection: Connection, authority_id: int, *, alive_at: int) -> CertificateRow | None:
    """The newest signed certificate of an authority that ends after `alive_at`, revoked or not.

    None also where hundreds of newer ones have ended: certificates of short life, which need no CRL. A certificate
    whose bytes a restore has lost is skipped.
    """
    near = _of_authority(connection, authority_id, -1).order_by(*_NEWEST_FIRST).limit(_NEAR).subquery()
    is_whole = (near.c.fingerprint.is_not(None), near.c.fingerprint != LOST)
    query = select(near.c.leaf_index).where(near.c.not_after > alive_at, *is_whole)
    leaf_index = connection.execute(query.order_by(near.c.leaf_index.desc()).limit(1)).scalar_one_or_none()
    return None if leaf_index is None else find_by_leaf(connection, leaf_index)


def find_newest_leaf(connection: Connection, authority_id: int) -> int | None:
    """The leaf of the newest certificate of an authority."""
    query = _of_authority(connection, authority_id, -1).with_only_columns(certificates.c.leaf_index)
    return connection.execute(query.order_by(*_NEWEST_FIRST).limit(1)).scalar_one_or_none()


def _of_authority(connection: Connection, authority_id: int, after: int) -> Select[tuple[int, int, bytes | None]]:
    """The certificates of an authority after leaf `after`, in the index of both columns."""
    table = certificates.c
    query = select(table.leaf_index, table.not_after, table.fingerprint)
    return query.where(*rows_after(connection, _PLACE, (authority_id, after)))
