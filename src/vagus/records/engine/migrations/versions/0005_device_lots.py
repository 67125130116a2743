"""Lots that are recalled or on hold, holds on devices, where a device was added from, how far a plan is with devices.

Devices of an earlier release keep no origin, and its plans name no devices without a certificate.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and add the columns."""
    byte_ordered = sa.String(80).with_variant(sa.String(80, collation="C"), "postgresql")
    op.create_table(
        "lot_locks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(80), sa.ForeignKey("models.name"), nullable=False),
        sa.Column("first_serial", byte_ordered),
        sa.Column("last_serial", byte_ordered),
        sa.Column("units", sa.Text, nullable=False),
        sa.Column("is_hold", sa.Boolean, nullable=False),
        sa.Column("made_by", sa.String(100), nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
    )
    op.add_column("devices", sa.Column("held_at", sa.BigInteger))
    op.add_column("devices", sa.Column("origin", sa.String(10)))
    op.add_column("revocation_plans", sa.Column("device_position", sa.String(26)))
    op.add_column("revocation_plans", sa.Column("devices_done", sa.Integer, nullable=False, server_default="0"))
