"""An installation that publishes, for the listeners of status."""

from __future__ import annotations

from tests.simulator.publishing import clinic, template

__all__ = ["clinic", "template"]
