"""Indexes for pages of devices by unit, model and serial; those for pages by id end."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BEFORE = (
    "devices_by_unit",
    "devices_by_state",
    "devices_by_model",
    "devices_by_profile",
    "devices_by_unit_and_state",
    "devices_by_model_and_state",
)
_AFTER = {
    "devices_in_order": ("unit", "model", "maker_serial"),
    "devices_by_state": ("state", "unit", "model", "maker_serial"),
    "devices_by_model": ("model", "unit", "maker_serial"),
    "devices_by_profile": ("profile", "unit", "model", "maker_serial"),
    "devices_by_model_and_state": ("model", "state", "unit", "maker_serial"),
}


def upgrade() -> None:
    """Replace them."""
    for name in _BEFORE:
        op.drop_index(name, table_name="devices")
    for name, columns in _AFTER.items():
        op.create_index(name, "devices", list(columns))
