"""No CRL is dated by a clock that is ahead of other sources of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.postgres import fresh_database, postgres_server
from tests.simulator.installation import Installation, new_installation
from tests.simulator.refusals import refuses
from vagus.authority.clock_bound import LEAP, SLACK, ClockBound
from vagus.authority.crls.publisher import CrlPublisher
from vagus.errors import Unavailable, VagusError
from vagus.reasons import Reason
from vagus.records import publications as rows
from vagus.records.engine.database import open_database
from vagus.testing import FrozenClock


def bound_of(built: Installation) -> tuple[list[float], ClockBound]:
    """A bound on the installation's clock, and how many seconds have passed by another clock."""
    passed = [0.0]
    return passed, ClockBound(built.database, built.clock, lambda: passed[0])


def publisher_of(built: Installation, bound: ClockBound | None = None) -> CrlPublisher:
    return CrlPublisher(built.pack, built.database, built.writer, built.clock, folder=None, bound=bound)


def refusal_of(bound: ClockBound) -> VagusError:
    with refuses(Reason.CLOCK_AHEAD, Unavailable) as refusal:
        bound.check()
    return refusal.value


def test_a_clock_that_leaps_ahead_under_a_process_is_refused_until_it_is_set_back(built: Installation) -> None:
    passed, bound = bound_of(built)
    begun = built.clock.now()
    built.clock.set(begun + timedelta(days=30))
    assert "restart this process if the clock is right" in refusal_of(bound).message
    passed[0] += 60
    assert f"it is {begun + timedelta(seconds=60):%Y-%m-%d %H:%M}Z" in refusal_of(bound).message
    built.clock.set(begun + timedelta(seconds=60))
    bound.check()


def test_a_clock_that_goes_on_with_time_or_is_set_a_little_is_taken(built: Installation) -> None:
    passed, bound = bound_of(built)
    for step in (timedelta(days=90), LEAP, -timedelta(days=1)):
        built.clock.set(built.clock.now() + step)
        if step > LEAP:
            passed[0] += step.total_seconds()
        bound.check()


def test_checking_only_allows_no_larger_jump_and_remembers_nothing(built: Installation) -> None:
    passed, bound = bound_of(built)
    built.advance(minutes=40)
    bound.check_only()
    built.advance(minutes=40)
    with pytest.raises(Unavailable):
        bound.check_only()
    passed[0] += 1200
    bound.check_only()


def test_a_clock_that_is_ahead_is_reported_before_a_crl_is_due(built: Installation) -> None:
    publisher = publisher_of(built, bound_of(built)[1])
    publisher.check_clock()
    built.advance(hours=2)
    with refuses(Reason.CLOCK_AHEAD, Unavailable):
        publisher.check_clock()
    publisher_of(built).check_clock()


def test_no_crl_is_signed_by_a_clock_that_is_ahead(built: Installation) -> None:
    issuer = built.issuers("h1/icu")["h1/icu"]
    publisher = publisher_of(built, bound_of(built)[1])
    published = publisher.publish_due(issuer)
    built.advance(days=30)
    with refuses(Reason.CLOCK_AHEAD, Unavailable):
        publisher.publish_due(issuer)
    found = built.read(rows.list_facts, issuer.authority_id)
    assert {one.number for one in found} == {one.number for one in published}


@pytest.mark.interop
def test_the_clock_of_a_database_server_is_asked_too(tmp_path: Path) -> None:
    """A process that began with the wrong clock has that one to compare with."""
    with postgres_server() as server, fresh_database(server) as url, new_installation(tmp_path / "installation", url):
        database = open_database(url)
        for ahead in (timedelta(), -timedelta(days=30)):
            ClockBound(database, FrozenClock(datetime.now(UTC) + ahead), lambda: 0.0).check()
        wrong = ClockBound(database, FrozenClock(datetime.now(UTC) + 2 * SLACK), lambda: 0.0)
        assert "the database's" in refusal_of(wrong).message
        database.close()
