"""Finds revocations that wait too long for a published CRL, so that a plan stops; publishes none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.authority.clock_bound import SLACK
from vagus.authority.issuers import is_live
from vagus.identifiers import serial_contents
from vagus.records import authorities as authority_rows
from vagus.records import certificates as certificate_rows
from vagus.records import publications
from vagus.records.revocation import revocations as revocation_rows
from vagus.records.revocation import selections
from vagus.x509.crls.decoding import decode_crl

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from vagus.clock import Clock
    from vagus.records.engine.database import Connection, Database
    from vagus.records.revocation.plans import RevocationPlanRow


def overdue_crls(database: Database, clock: Clock, patience: timedelta) -> Callable[[RevocationPlanRow], str | None]:
    """A stop condition for plans: some revocation is older than `patience` and in no published CRL yet.

    Only the authorities that the plan touches count, and of these only those whose CRLs are signed here and now: an
    offline authority waits for a ceremony, and a revoked one signs no more. A revocation dated in the future was made
    by a clock that ran ahead. Its true time is unknown, so it counts as overdue.
    """
    touched: dict[int, tuple[int, ...]] = {}  # authorities by plan id, cached: the selection of a plan never changes

    def find_overdue(row: RevocationPlanRow) -> str | None:
        at = clock.now()
        earliest, latest = int((at - patience).timestamp()), int((at + SLACK).timestamp())
        with database.reading() as connection:
            if row.id not in touched:
                touched[row.id] = _publishers(connection, row.selection, int(at.timestamp()))
            for authority_id in touched[row.id]:
                covered = {one.shard: one.sequence for one in publications.list_facts(connection, authority_id)}
                for shard in certificate_rows.list_shards(connection, authority_id):
                    after = covered.get(shard, 0)
                    waiting = revocation_rows.oldest_waiting(connection, authority_id, shard, after=after)
                    if waiting is not None and not earliest <= waiting <= latest:
                        return "lists-behind"
        return None

    return find_overdue


def _publishers(connection: Connection, selection: selections.Selection, at: int) -> tuple[int, ...]:
    """The authorities of a selection that publish without a ceremony."""
    live = [
        one.id
        for one in authority_rows.list_authorities(connection)
        if is_live(one, at) and not one.is_offline and (one.not_after or 0) > at
    ]
    return selections.list_touched(connection, selection, live, alive_at=at)


def find_crls_awaiting_ceremony(connection: Connection, selection: selections.Selection, at: int) -> tuple[str, ...]:
    """The offline authorities of a selection, by reference, with a revocation that is in no CRL of theirs yet."""
    waiting = {
        one.id: one.reference for one in authority_rows.list_authorities(connection) if _waits(connection, one, at)
    }
    # Return early: `list_touched` reads every certificate of the selection.
    if not waiting:
        return ()
    return tuple(waiting[one] for one in selections.list_touched(connection, selection, waiting, alive_at=at))


def _waits(connection: Connection, authority: authority_rows.AuthorityRow, at: int) -> bool:
    if not (authority.is_offline and is_live(authority, at)):
        return False
    covered = {one.shard: one.sequence for one in publications.list_facts(connection, authority.id)}
    missing = [
        covered.get(shard, 0)
        for shard in certificate_rows.list_shards(connection, authority.id)
        if revocation_rows.oldest_waiting(connection, authority.id, shard, after=covered.get(shard, 0)) is not None
    ]
    return bool(missing) and not _are_published(connection, authority.id, after=min(missing))


def _are_published(connection: Connection, authority_id: int, *, after: int) -> bool:
    """Whether the published CRLs name every revocation after step `after`.

    A sealed emergency CRL does, although it says that it covers less: it was signed before the revocation.
    """
    crls = [decode_crl(one.crl_der) for one in publications.list_publications(connection, authority_id)]
    return all(
        any(one.find_reason(one.issuer, serial_contents(event.serial)) == event.reason for one in crls)
        for event in revocation_rows.list_events(connection, authority_id, after=after)
        if event.act != revocation_rows.RELEASE
    )
