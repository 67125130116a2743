"""Runs durable jobs as the work thread of a serving process does."""

from __future__ import annotations

from vagus.jobs.runner import WorkRunner


def run_due(runner: WorkRunner) -> int:
    """Run what is due until nothing is; returns how many turns that took."""
    return sum(1 for _ in iter(runner.run_next, None))
