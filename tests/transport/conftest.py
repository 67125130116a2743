"""An installation that publishes, for the listeners of status."""

from __future__ import annotations

from tests.simulator.publishing import house, template

__all__ = ["house", "template"]
