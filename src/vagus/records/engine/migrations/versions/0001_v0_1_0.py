"""The schema of v0.1.0, where migrations begin: `Database.create` makes the newest schema at once and skips them all.

A database with this version was made by v0.1.0. A later change of `tables.py` is a migration after this one. It is
frozen once released, so it never imports `tables`.
"""

from __future__ import annotations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing: no database is older than v0.1.0."""
