"""When a certificate is to be renewed: its window, its critical time and a suggested time; renews nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vagus.policy.values import PolicyPack
    from vagus.x509.certificates import PathCertificate

_STEPS: Final = 1 << 32
# Devices renew within this share of the time between the window's opening and its critical time, so that a fleet
# spreads over weeks.
_SPREAD: Final = 0.5


@dataclass(frozen=True, slots=True)
class RenewalWindow:
    """When a certificate may, should and must be renewed. `suggested` differs from certificate to certificate.

    `renew_by` is when the last of a fleet has renewed, if all is well: later than that, a certificate is overdue.
    """

    opens: datetime
    suggested: datetime
    renew_by: datetime
    critical: datetime
    ends: datetime

    def is_open(self, at: datetime) -> bool:
        """Whether `at` lies in the window."""
        return self.opens <= at < self.ends

    def is_critical(self, at: datetime) -> bool:
        """Whether an operator should be alerted that it is still not renewed."""
        return self.critical <= at < self.ends


def window_for(certificate: PathCertificate, pack: PolicyPack) -> RenewalWindow | None:
    """The window of a certificate under a policy; None for one without expiry (99991231235959Z).

    Short lives get short windows. The suggested moment follows from the certificate's hash, as ARI spreads a fleet
    (RFC 9773): every call gives the same time, and no state is needed.
    """
    return window_between(certificate.not_before, certificate.not_after, pack, sha256=certificate.sha256)


def window_between(
    not_before: datetime, not_after: datetime, pack: PolicyPack, *, sha256: bytes = b""
) -> RenewalWindow | None:
    """`window_for` by dates; `sha256` is the certificate's, and moves `suggested` alone."""
    if not_after.year == 9999:
        return None
    window = pack.renewal.window_of(not_after - not_before)
    critical = not_after - min(pack.renewal.critical, window / 2)
    opens = not_after - window
    spread = int((critical - opens).total_seconds()) * _SPREAD
    share = int.from_bytes(hashlib.sha256(sha256).digest()[:4], "big") / _STEPS
    suggested = opens + timedelta(seconds=int(spread * share))
    return RenewalWindow(opens, suggested, opens + timedelta(seconds=spread), critical, not_after)
