"""A judge for gateways, and an installation that publishes, for the listeners of status."""

from __future__ import annotations

from tests.simulator.listeners import judge
from tests.simulator.publishing import clinic, template

__all__ = ["clinic", "judge", "template"]
