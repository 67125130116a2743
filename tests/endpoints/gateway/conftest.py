"""A judge for each gateway."""

from __future__ import annotations

from tests.simulator.listeners import judge

__all__ = ["judge"]
