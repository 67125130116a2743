"""An installation that publishes, for what watches one."""

from __future__ import annotations

from tests.simulator.publishing import clinic, template

__all__ = ["clinic", "template"]
