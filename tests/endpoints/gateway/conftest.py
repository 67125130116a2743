"""A judge for each gateway, and the upstream after it."""

from __future__ import annotations

from tests.simulator.listeners import judge
from tests.simulator.upstreams import seen, upstream

__all__ = ["judge", "seen", "upstream"]
