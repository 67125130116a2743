"""When a certificate is due for renewal and how long to wait after a failure; pure: dates and entropy in, dates out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vagus.clock import Entropy

OPENS_BEFORE_EXPIRY: Final = timedelta(days=60)
"""The renewal window of the shipped policy pack."""

_JITTER_SHARE: Final = 0.25
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class RenewalWindow:
    """From `opens` on a renewal is welcome; after `closes` the certificate is dead."""

    opens: datetime
    closes: datetime

    def is_open(self, at: datetime) -> bool:
        """Whether `at` lies inside."""
        return self.opens <= at <= self.closes


def renewal_window(not_before: datetime, not_after: datetime) -> RenewalWindow:
    """60 days before expiry, or the last third of a life that is shorter than 180 days."""
    life = not_after - not_before
    return RenewalWindow(not_after - min(OPENS_BEFORE_EXPIRY, life / 3), not_after)


def renewal_moment(window: RenewalWindow, entropy: Entropy) -> datetime:
    """A moment in the first quarter of the window: a ward of devices enrolled at once must not renew at once."""
    return window.opens + (window.closes - window.opens) * (_JITTER_SHARE * _fraction(entropy))


def retry_wait(attempt: int, entropy: Entropy) -> float:
    """Seconds to wait after failure number `attempt` (from 1): doubling, half of it random, at most an hour."""
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempt - 1, 16))
    return longest / 2 * (1 + _fraction(entropy))


def _fraction(entropy: Entropy) -> float:
    return int.from_bytes(entropy(4), "big") / 0xFFFFFFFF
