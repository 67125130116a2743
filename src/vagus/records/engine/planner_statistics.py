"""Has PostgreSQL analyse tables of many pages that it takes for nearly empty; reads no row itself.

PostgreSQL takes them for empty after pg_restore, which brings no statistics before PostgreSQL 18, and where autovacuum
came in the middle of a bulk load, whose rows were not visible to it. Until autovacuum comes again, every index looks
as good as every other, and a row may be looked up by a scan of its table. All else is left to autovacuum.
"""

from __future__ import annotations

import logging

from sqlalchemy import text

from vagus.records.engine.database import Database

_LOG = logging.getLogger(__name__)

_TABLES = (  # these tables grow with devices and years; the others are small, and any query plan serves them
    "certificates",
    "certificate_bytes",
    "certificate_names",
    "device_changes",
    "devices",
    "keys",
    "log_leaves",
    "revocation_events",
    "revocations",
    "tokens",
    "work",
)
_FEWEST_PAGES = 200  # scanning a table of fewer pages costs little
# Fewer than one row for two pages, by the planner's own row count (reltuples; -1 before the first ANALYZE).
_MISJUDGED = text(
    "SELECT relname, pages FROM (SELECT relname, reltuples,"
    " pg_relation_size(oid) / current_setting('block_size')::bigint AS pages"
    " FROM pg_class WHERE oid IN (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)) AS sizes"
    " WHERE pages >= :fewest AND 2 * reltuples < pages"
)


class TableSizeCheck:
    """The check of one process. Once a minute it costs one query of the catalogue."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pages: dict[str, int] = {}  # pages of each table at its last ANALYZE: few rows in many pages may be true

    def analyse_misjudged(self) -> None:
        """ANALYZE each misjudged table that has at least doubled since its last ANALYZE here. Raises Unavailable."""
        if self._database.is_sqlite:
            return
        with self._database.reading(patience=None) as connection:
            found = connection.execute(_MISJUDGED, {"names": list(_TABLES), "fewest": _FEWEST_PAGES}).all()
            for name, pages in found:
                if pages > 2 * self._pages.get(name, 0):
                    connection.exec_driver_sql(f"ANALYZE {name}")
                    self._pages[name] = pages
                    _LOG.warning("PostgreSQL took %s with its %d pages for nearly empty; analysed", name, pages)
