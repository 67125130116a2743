"""What a verifier asks of CRLs beyond RFC 5280, and whether a CRL is in date; reads no certificate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.x509.crls.decoding import Crl
from vagus.x509.dates import later
from vagus.x509.paths.rules import PKIX, PathRules


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlRules:
    """What is asked of CRLs beyond RFC 5280.

    `longest_life` bounds the age of a CRL whatever its nextUpdate says. A CRL without nextUpdate is usable only with
    this bound (RFC 5280 5.1.2.5 requires the field). `slack`: how far an issuer's clock may run ahead of ours.
    """

    longest_life: timedelta | None = None
    slack: timedelta = timedelta(minutes=5)
    uses_deltas: bool = True
    accepts_indirect: bool = True
    honours_no_rev_avail: bool = True
    """Whether an end entity with the extension noRevAvail needs no status (RFC 9608 4)."""
    lets_keys_vouch: bool = True
    """Whether the status of a new CA key may come from a CRL that this same key signed, as PKITS 4.5 has it.

    The thief of such a key could sign such a CRL. Decisions about devices therefore ask for a CRL by another key."""
    path: PathRules = PKIX  # rules for the paths of CRL signers


DEFAULT_CRL_RULES = CrlRules()
STRICT_CRL_RULES = CrlRules(lets_keys_vouch=False)
"""For decisions about devices."""


def check_not_from_the_future(crl: Crl, at: datetime, rules: CrlRules) -> None:
    """Raises NotTrusted(CRL_INVALID) for a CRL whose thisUpdate lies further ahead of `at` than clocks may differ."""
    if crl.this_update > later(at, rules.slack):
        msg = f"CRL {crl.label} is dated {crl.this_update:%Y-%m-%d %H:%M:%S} UTC, in the future; check the clocks"
        raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)


def find_staleness(crl: Crl, at: datetime, rules: CrlRules) -> NotTrusted | None:
    """STATUS_STALE, as a value, if the CRL should have been replaced by `at`; None if it is in date.

    Raises NotTrusted(CRL_INVALID) for a CRL from the future, and for one whose age has no bound.
    """
    check_not_from_the_future(crl, at, rules)
    ends: list[datetime] = [] if crl.next_update is None else [crl.next_update]
    if rules.longest_life is not None:
        ends.append(later(crl.this_update, rules.longest_life))
    if not ends:
        msg = f"CRL {crl.label} has no nextUpdate (RFC 5280 5.1.2.5), so its age has no bound; have its issuer set one"
        raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)
    end = min(ends)
    if at <= end:
        return None
    stale = int((at - end).total_seconds())
    msg = f"CRL {crl.label} passed its nextUpdate {end:%Y-%m-%d %H:%M:%S} UTC; fetch the newest CRL"
    return NotTrusted(Reason.STATUS_STALE, msg, crl=crl.label, stale_seconds=stale)


def is_in_date(crl: Crl, at: datetime, rules: CrlRules) -> bool:
    """Whether `find_staleness` finds nothing."""
    try:
        return find_staleness(crl, at, rules) is None
    except NotTrusted:
        return False


def stale_seconds(refusal: NotTrusted) -> int:
    """For how long the status in a refusal has been out of date; 0 where the refusal does not say."""
    seconds = refusal.facts.get("stale_seconds")
    return seconds if isinstance(seconds, int) else 0
