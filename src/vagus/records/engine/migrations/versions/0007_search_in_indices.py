"""Indices that hold all that certificates are searched by, so that a search judges an entry without its row."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NARROWING = ("authority_id", "profile", "key_algorithm", "unit", "category")
_BY_END = {
    "certificates_of_unit": "unit",
    "certificates_of_category": "category",
    "certificates_of_issuer": "authority_id",
    "certificates_of_algorithm": "key_algorithm",
    "certificates_of_profile": "profile",
    "certificates_in_state": "state",
}


def upgrade() -> None:
    """Make them; a database of a version between the releases has narrower ones of the same names."""
    indices: dict[str, tuple[str, ...]] = {
        "certificates_by_start": ("not_before", "leaf_index", "not_after", *_NARROWING, "state")
    }
    for name, column in _BY_END.items():
        held = (one for one in _NARROWING if one != column)
        indices[name] = (column, "not_after", "leaf_index", "not_before", *held)
    for name, columns in indices.items():
        op.drop_index(name, table_name="certificates", if_exists=True)
        op.create_index(name, "certificates", list(columns))
