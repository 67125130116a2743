"""Counted bounds on the work that one validation may cost; counts operations, never seconds, so verdicts repeat."""

from __future__ import annotations

from dataclasses import dataclass

from vagus.errors import LimitExceeded
from vagus.reasons import Reason


@dataclass(frozen=True, slots=True)
class Limits:
    """What one validation may cost. Each signature check is at most some 0.3 ms, each comparison some 0.2 us."""

    signatures: int = 64
    comparisons: int = 250_000
    paths: int = 128
    steps: int = 2_048  # certificates tried in search of a path to an anchor, repeated ones too
    total_bytes: int = 16 * 1024 * 1024  # bytes of all certificates that one validation reads
    certificates: int = 16_384


DEFAULT_LIMITS = Limits()


class Budget:
    """What is left of the limits during one validation. Each `spend_` raises LimitExceeded(BUDGET_EXHAUSTED)."""

    __slots__ = ("_limits", "comparisons", "paths", "signatures", "steps")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.signatures = 0
        self.comparisons = 0
        self.paths = 0
        self.steps = 0

    def spend_signature(self) -> None:
        """Count one signature check, also where a cache has its result: a verdict must not depend on a warm cache."""
        self.signatures += 1
        if self.signatures > self._limits.signatures:
            _exhausted("signature checks", self._limits.signatures)

    def spend_comparisons(self, count: int) -> None:
        """`count` comparisons of a name with a subtree."""
        self.comparisons += count
        if self.comparisons > self._limits.comparisons:
            _exhausted("name comparisons", self._limits.comparisons)

    def spend_path(self) -> None:
        """One complete path put to the rules."""
        self.paths += 1
        if self.paths > self._limits.paths:
            _exhausted("paths", self._limits.paths)

    def spend_step(self) -> None:
        """One edge from a certificate to a possible issuer."""
        self.steps += 1
        if self.steps > self._limits.steps:
            _exhausted("steps", self._limits.steps)


def check_input(count: int, total_bytes: int, limits: Limits) -> None:
    """Check the number and total size of the certificates handed in. Raises LimitExceeded(TOO_MANY|TOO_LARGE)."""
    if count > limits.certificates:
        msg = f"the chain has {count} certificates, {limits.certificates} are allowed; send the chain only"
        raise LimitExceeded(Reason.TOO_MANY, msg, limit=limits.certificates, value=count)
    if total_bytes > limits.total_bytes:
        msg = f"the chain has {total_bytes} bytes of certificates, {limits.total_bytes} are allowed; send it alone"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=limits.total_bytes, value=total_bytes)


def _exhausted(what: str, limit: int) -> None:
    msg = f"path validation needs more than the {limit} {what} that are allowed; send a shorter or simpler chain"
    raise LimitExceeded(Reason.BUDGET_EXHAUSTED, msg, limit=limit, what=what)
