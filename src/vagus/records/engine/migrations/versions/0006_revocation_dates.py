"""The revocation date that a CRL from elsewhere gave; NULL at first: earlier releases kept the time of the import."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("revocation_events", sa.Column("dated_at", sa.BigInteger))
