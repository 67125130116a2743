from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from vagus.testing import NOON, SeededEntropy
from vagus_agent.renewal import renewal_moment, renewal_window, retry_wait


def test_a_year_long_certificate_renews_sixty_days_before_its_end() -> None:
    window = renewal_window(NOON, NOON + timedelta(days=365))
    assert window.opens == NOON + timedelta(days=305)
    assert not window.is_open(NOON + timedelta(days=304))
    assert window.is_open(NOON + timedelta(days=306))
    assert not window.is_open(NOON + timedelta(days=366))


def test_a_day_long_certificate_renews_in_its_last_third() -> None:
    window = renewal_window(NOON, NOON + timedelta(hours=24))
    assert window.opens == NOON + timedelta(hours=16)


@given(st.integers(0, 2**32), st.integers(1, 3000))
def test_the_moment_lies_in_the_first_quarter_of_the_window(seed: int, days: int) -> None:
    window = renewal_window(NOON, NOON + timedelta(days=days))
    moment = renewal_moment(window, SeededEntropy(seed))
    assert window.opens <= moment <= window.opens + (window.closes - window.opens) / 4 + timedelta(seconds=1)


def test_devices_enrolled_at_once_do_not_renew_at_once() -> None:
    window = renewal_window(NOON, NOON + timedelta(days=365))
    moments = {renewal_moment(window, SeededEntropy(seed)).date() for seed in range(200)}
    assert len(moments) > 10


@given(st.integers(1, 100), st.integers(0, 1000))
def test_waits_double_and_stay_under_an_hour(attempt: int, seed: int) -> None:
    wait = retry_wait(attempt, SeededEntropy(seed))
    assert 0.5 <= wait <= 3600
    assert wait <= 2.0 ** (attempt - 1)
