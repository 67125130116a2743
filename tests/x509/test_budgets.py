"""The bounds of one validation are counts, and each is reached with its own reason."""

from __future__ import annotations

import pytest

from tests.simulator.refusals import reason_of
from vagus.errors import LimitExceeded
from vagus.reasons import Reason
from vagus.x509.budgets import DEFAULT_LIMITS, Budget, Limits, check_input


@pytest.mark.parametrize("what", ["signature", "path", "step"])
def test_each_count_may_be_spent_to_the_last_and_no_further(what: str) -> None:
    budget = Budget(Limits(signatures=3, paths=3, steps=3))
    spend = getattr(budget, f"spend_{what}")
    for _ in range(3):
        spend()
    assert reason_of(spend, error=LimitExceeded) is Reason.BUDGET_EXHAUSTED


def test_comparisons_are_spent_many_at_once() -> None:
    budget = Budget(Limits(comparisons=10))
    budget.spend_comparisons(10)
    assert reason_of(budget.spend_comparisons, 1, error=LimitExceeded) is Reason.BUDGET_EXHAUSTED


def test_input_is_bounded_before_it_is_read() -> None:
    check_input(4, 100, DEFAULT_LIMITS)
    for count, total_bytes, reason in ((20_000, 10, Reason.TOO_MANY), (1, 17 << 20, Reason.TOO_LARGE)):
        assert reason_of(check_input, count, total_bytes, DEFAULT_LIMITS, error=LimitExceeded) is reason


def test_the_bounds_are_those_that_the_documents_state() -> None:
    assert (DEFAULT_LIMITS.signatures, DEFAULT_LIMITS.comparisons, DEFAULT_LIMITS.paths) == (64, 250_000, 128)
    assert DEFAULT_LIMITS.total_bytes == 16 * 1024 * 1024
