"""The table of when devices were last admitted and refused; empty at first, as no earlier release kept it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "device_contacts",
        sa.Column("device_id", sa.String(26), primary_key=True),
        sa.Column("seen_at", sa.BigInteger),
        sa.Column("seen_listener", sa.String(80)),
        sa.Column("refused_at", sa.BigInteger),
        sa.Column("refused_listener", sa.String(80)),
        sa.Column("refusal_reason", sa.String(40)),
    )
