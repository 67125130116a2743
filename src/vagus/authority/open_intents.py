"""Finds certificates that were recorded and have no signature in the database; signs and settles none.

For such a certificate OCSP responds tryLater, whether its device has it or not. An intent is open for milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vagus.ledger.entries import decode_entry
from vagus.records.authorities import REVOKED, list_authorities
from vagus.records.certificates import list_intended
from vagus.records.log import iterate_leaves

if TYPE_CHECKING:
    from collections.abc import Collection

    from vagus.records.authorities import AuthorityRow
    from vagus.records.certificates import CertificateRow
    from vagus.records.engine.database import Database

LONGEST_SECONDS: Final = 60
"""An intent that is open for longer is reported."""
MOST_READ: Final = 1_000
"""The oldest so many are read; a report then says "or more"."""


@dataclass(frozen=True, slots=True)
class OpenIntents:
    """The oldest open intents of authorities that may still sign, by leaf, and these authorities by id."""

    rows: tuple[CertificateRow, ...]
    authorities: dict[int, AuthorityRow]

    def describe(self, rows: Collection[CertificateRow]) -> str:
        """A sentence for operators about some of them: how many, of which authorities, and the effect."""
        names = sorted({self.authorities[row.authority_id].reference for row in rows})
        some = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        more = " or more" if len(rows) >= MOST_READ else ""
        return f"{len(rows)}{more} certificates of {some} have had no signature for over {LONGEST_SECONDS} s"

    def find_remedy(self, rows: Collection[CertificateRow]) -> str:
        """The command that closes the oldest of them."""
        authority = self.authorities[next(iter(rows)).authority_id]
        return "vagus ceremony" if authority.is_offline else f"vagus serve --issue-for {authority.name}"


def load_open(database: Database, *, most: int = MOST_READ) -> OpenIntents:
    """The open intents. Those of revoked authorities are left out: nothing of theirs is signed or asked for."""
    with database.reading() as connection:
        rows = list_intended(connection, count=most)
        authorities = {row.id: row for row in list_authorities(connection) if row.state != REVOKED} if rows else {}
    return OpenIntents(tuple(row for row in rows if row.authority_id in authorities), authorities)


def find_old(database: Database, found: OpenIntents, now: float) -> tuple[CertificateRow, ...]:
    """Those that were recorded over `LONGEST_SECONDS` before `now` (seconds since 1970), by their ledger entries.

    One from the future counts too: a clock was set back since, and no entry says how long ago.
    """
    old = []
    with database.reading() as connection:
        for row in found.rows:
            entry = next(iterate_leaves(connection, row.leaf_index, row.leaf_index + 1)).entry
            if not -LONGEST_SECONDS <= now - decode_entry(entry).at <= LONGEST_SECONDS:
                old.append(row)
    return tuple(old)
