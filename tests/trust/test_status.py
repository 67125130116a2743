"""The sources that combine others: none of them passes a certificate in doubt."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.simulator.refusals import reason_of, refuses
from tests.x509.chains import AT, NO_REV_AVAIL, root
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.trust.status import AllSources, FirstSource, StatusSource, UnsafeNoStatus, as_of_authority, status_check
from vagus.x509.certificates import PathCertificate
from vagus.x509.paths.search import ValidPath

ROOT = root()
LEAF = ROOT.leaf()


class Says:
    """A source that always gives the same result; it implements the port."""

    def __init__(self, reason: Reason | None, **facts: int) -> None:
        self.reason = reason
        self.facts = facts
        self.asked = 0

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        self.asked += 1
        if self.reason is not None:
            raise NotTrusted(self.reason, "as the test says", **self.facts)


def ask(source: StatusSource) -> None:
    source.check_status(LEAF.parsed, ROOT.parsed, AT)


def refused(source: StatusSource) -> Reason:
    return reason_of(ask, source, error=NotTrusted)


def test_the_first_source_that_knows_decides() -> None:
    later = Says(Reason.REVOKED)
    ask(FirstSource([Says(Reason.STATUS_UNAVAILABLE), Says(None), later]))
    assert later.asked == 0
    assert refused(FirstSource([Says(Reason.STATUS_STALE), later])) is Reason.REVOKED
    for definite in (Reason.REVOKED, Reason.ON_HOLD, Reason.NOT_ISSUED):
        assert refused(FirstSource([Says(definite), Says(None)])) is definite


def test_if_all_are_asked_any_may_refuse_and_one_that_knows_suffices() -> None:
    ask(AllSources([Says(Reason.STATUS_UNAVAILABLE), Says(None), Says(Reason.STATUS_STALE)]))
    for definite in (Reason.REVOKED, Reason.ON_HOLD, Reason.NOT_ISSUED):
        assert refused(AllSources([Says(None), Says(definite)])) is definite
        assert refused(AllSources([Says(definite), Says(None)])) is definite
    for sources in ([Says(None), Says(Reason.STATUS_DOUBTFUL)], [Says(Reason.STATUS_DOUBTFUL), Says(None)]):
        assert refused(AllSources(sources)) is Reason.STATUS_DOUBTFUL
    assert refused(AllSources([])) is Reason.STATUS_UNAVAILABLE
    assert refused(AllSources([Says(Reason.STATUS_UNAVAILABLE), Says(Reason.OCSP_STALE)])) is Reason.OCSP_STALE


def test_the_doubt_of_an_earlier_source_is_not_cleared_by_a_later_one() -> None:
    """A snapshot in doubt has a source of its own for hits (`on_hit`); the sources after it may be older."""
    assert refused(FirstSource([Says(Reason.STATUS_DOUBTFUL), Says(None)])) is Reason.STATUS_DOUBTFUL
    assert refused(FirstSource([Says(Reason.STATUS_DOUBTFUL), Says(Reason.STATUS_STALE)])) is Reason.STATUS_DOUBTFUL
    assert refused(FirstSource([Says(Reason.STATUS_DOUBTFUL), Says(Reason.REVOKED)])) is Reason.REVOKED
    later_source = Says(Reason.STATUS_DOUBTFUL)
    ask(FirstSource([Says(None), later_source]))
    assert later_source.asked == 0, "the first source that knows decides"


def test_for_a_certificate_that_excuses_missing_status_all_are_asked() -> None:
    """Who lets a noRevAvail certificate pass may know nothing of it (RFC 9608 4)."""
    short = ROOT.leaf(NO_REV_AVAIL)
    sources = FirstSource([Says(None), Says(Reason.REVOKED)])
    with refuses(Reason.REVOKED, NotTrusted):
        sources.check_status(short.parsed, ROOT.parsed, AT)
    ask(sources)
    with refuses(Reason.REVOKED, NotTrusted):
        status_check(sources)(ValidPath((short.parsed,), ROOT.anchor, frozenset()), AT)
    late = Says(Reason.STATUS_STALE, stale_seconds=10)
    FirstSource([Says(None), Says(Reason.STATUS_UNAVAILABLE), late]).check_status(short.parsed, ROOT.parsed, AT)


@pytest.mark.parametrize("several", [FirstSource, AllSources])
def test_a_hold_in_a_stale_crl_is_not_cleared_by_a_source_that_excuses_missing_status(
    several: type[FirstSource],
) -> None:
    """CrlStatus says STATUS_STALE without an age; a snapshot that covers no issuer lets noRevAvail pass."""
    held, short = Says(Reason.STATUS_STALE), ROOT.leaf(NO_REV_AVAIL)
    for sources in ([Says(None), held], [held, Says(None)]):
        with refuses(Reason.STATUS_STALE, NotTrusted):
            several(sources).check_status(short.parsed, ROOT.parsed, AT)
    ask(several([held, Says(None)]))


def test_missing_status_of_all_sources_refuses() -> None:
    assert refused(FirstSource([])) is Reason.STATUS_UNAVAILABLE
    assert refused(FirstSource([Says(Reason.STATUS_UNAVAILABLE), Says(Reason.OCSP_STALE)])) is Reason.OCSP_STALE


def test_a_stale_hold_is_not_replaced_by_a_stale_status_with_an_age() -> None:
    held, late = Says(Reason.STATUS_STALE), Says(Reason.STATUS_STALE, stale_seconds=10)
    for sources in ([held, late], [late, held]):
        with refuses(Reason.STATUS_STALE, NotTrusted) as caught:
            ask(FirstSource(sources))
        assert "stale_seconds" not in caught.value.facts


def test_a_revoked_authority_has_another_reason_than_a_revoked_leaf() -> None:
    assert as_of_authority(NotTrusted(Reason.REVOKED, "x", code=1)).reason is Reason.REVOKED_CA
    assert as_of_authority(NotTrusted(Reason.REVOKED, "x", code=1)).facts["code"] == 1
    assert as_of_authority(NotTrusted(Reason.ON_HOLD, "x", code=6)).reason is Reason.REVOKED_CA
    assert as_of_authority(NotTrusted(Reason.NOT_ISSUED, "x")).reason is Reason.NOT_ISSUED
    assert as_of_authority(NotTrusted(Reason.STATUS_STALE, "x")).reason is Reason.STATUS_STALE


def test_the_source_that_checks_nothing_is_named_unsafe() -> None:
    ask(UnsafeNoStatus())
    assert UnsafeNoStatus.__name__.startswith("Unsafe")
