"""What certificates are searched by: columns for key, unit and category, an index for pages by end, a table of names.

The bytes of certificates are read with the decoders of `x509`, whose results for one certificate never change.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from alembic import op

from vagus.errors import VagusError
from vagus.x509.searchable import LONGEST_NAME, names_beside_device, read_search_facts

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PAGE = 2_000
_BYTES = sa.text(
    "SELECT c.leaf_index, c.device_id, b.tbs_der FROM certificates c JOIN certificate_bytes b"
    " ON b.leaf_index = c.leaf_index WHERE c.leaf_index > :after ORDER BY c.leaf_index LIMIT :page"
)
_SET_ALGORITHM = sa.text("UPDATE certificates SET key_algorithm = :algorithm WHERE leaf_index = :leaf")
_INSERT_NAME = sa.text("INSERT INTO certificate_names (name, leaf_index) VALUES (:name, :leaf)")
_SET_DEVICE = sa.text(
    "UPDATE certificates SET unit = (SELECT unit FROM devices WHERE devices.id = certificates.device_id),"
    " category = (SELECT models.category FROM devices JOIN models ON models.name = devices.model"
    " WHERE devices.id = certificates.device_id) WHERE device_id IS NOT NULL"
)
_INDICES = {
    "certificates_by_expiry": ("not_after", "leaf_index"),
}


def upgrade() -> None:
    """Add the columns and the table, fill them a page at a time, then make the indices."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    for name, size in (("key_algorithm", 12), ("unit", 80), ("category", 40)):
        op.add_column("certificates", sa.Column(name, sa.String(size)))
    op.create_table(
        "certificate_names",
        sa.Column("name", sa.String(LONGEST_NAME), primary_key=True),
        sa.Column("leaf_index", number, sa.ForeignKey("certificates.leaf_index"), primary_key=True),
    )
    connection = op.get_bind()
    connection.execute(_SET_DEVICE)
    after = -1
    while page := connection.execute(_BYTES, {"after": after, "page": _PAGE}).all():
        _fill(connection, page)
        after = page[-1].leaf_index
    for name in ("certificates_by_expiry", "certificates_by_birth"):
        op.drop_index(name, table_name="certificates")
    is_birth = sa.text("profile || '' = 'idevid'")
    op.create_index(
        "certificates_by_birth", "certificates", ["owner"], sqlite_where=is_birth, postgresql_where=is_birth
    )
    for name, columns in _INDICES.items():
        op.create_index(name, "certificates", list(columns))


def _fill(connection: sa.Connection, page: Sequence[sa.Row[Any]]) -> None:
    """The key and the names of one page of certificates; those whose bytes are lost keep neither."""
    algorithms, names = [], []
    for row in page:
        leaf, device_id = row.leaf_index, row.device_id
        with suppress(VagusError):
            facts = read_search_facts(bytes(row.tbs_der))
            algorithms.append({"leaf": leaf, "algorithm": facts.key_algorithm})
            names += [{"leaf": leaf, "name": one} for one in names_beside_device(facts.names, device_id)]
    for statement, rows in ((_SET_ALGORITHM, algorithms), (_INSERT_NAME, names)):
        if rows:
            connection.execute(statement, rows)
