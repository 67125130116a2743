"""Has PostgreSQL look anew at tables of many pages that it takes for nearly empty; reads no row itself.

So it takes them after pg_restore, which brings no statistics before PostgreSQL 18, and where autovacuum came by in the
middle of a bulk load: whose rows nobody saw. Until it comes again every index looks as good as every other, and the
row of a primary key is looked for in all of its table. What autovacuum does otherwise is left to it.
"""

from __future__ import annotations

import logging

from sqlalchemy import text

from vagus.records.engine.database import Database

_LOG = logging.getLogger(__name__)

_TABLES = (  # what grows with devices and years; the others are small, whatever is believed of them
    "certificates",
    "certificate_bytes",
    "device_changes",
    "devices",
    "keys",
    "log_leaves",
    "revocation_events",
    "revocations",
    "tokens",
    "work",
)
_FEWEST_PAGES = 200
_MISJUDGED = text(
    "SELECT relname, pages FROM (SELECT relname, reltuples,"
    " pg_relation_size(oid) / current_setting('block_size')::bigint AS pages"
    " FROM pg_class WHERE oid IN (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)) AS sizes"
    " WHERE pages >= :fewest AND 2 * reltuples < pages"
)


class TableSizeCheck:
    """What one process has PostgreSQL look at; asked every minute it costs one look at the catalogue."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pages: dict[str, int] = {}  # when it was looked at: few rows in many pages may be the truth

    def analyse_misjudged(self) -> None:
        """ANALYZE what is misjudged, and was not half as large when that was done last. Raises Unavailable."""
        if self._database.is_sqlite:
            return
        with self._database.reading(patience=None) as connection:
            found = connection.execute(_MISJUDGED, {"names": list(_TABLES), "fewest": _FEWEST_PAGES}).all()
            for name, pages in found:
                if pages > 2 * self._pages.get(name, 0):
                    connection.exec_driver_sql(f"ANALYZE {name}")
                    self._pages[name] = pages
                    _LOG.warning("PostgreSQL took %s with its %d pages for nearly empty; analysed", name, pages)
