"""Every generation that still signs is opened; one that has ended without its key does not stop the others."""

from __future__ import annotations

import pytest

from tests.simulator.installation import BY, ICU, Installation
from tests.simulator.refusals import refuses
from vagus.authority.issuers import Issuer
from vagus.errors import Conflict, Unavailable
from vagus.reasons import Reason

DAY = 86_400


@pytest.fixture
def first(built: Installation) -> Issuer:
    """The first generation of h1/icu, retired at half its life."""
    found = built.issuers("h1/icu")["h1/icu"]
    built.advance(days=3 * 365)
    built.hierarchy.request(ICU, by=BY, is_rekey=True)
    built.ceremony().hold()
    built.hierarchy.retire("h1/icu", 1, by=BY)
    return found


def move_to_end(built: Installation, issuer: Issuer, seconds: int) -> None:
    """The moment so many seconds after the end of an authority's certificate."""
    assert issuer.facts.not_after is not None
    built.clock.set(issuer.facts.not_after)
    built.advance(seconds=seconds)


def references(built: Installation) -> list[str]:
    return [one.reference for one in built.issuers("h1/icu").every()]


def test_a_retired_generation_is_opened_until_the_day_after_its_end(built: Installation, first: Issuer) -> None:
    assert references(built) == ["h1/icu#1", "h1/icu#2"]
    move_to_end(built, first, DAY - 1)
    assert references(built) == ["h1/icu#1", "h1/icu#2"]
    built.advance(seconds=1)
    built.keystore("h1/icu").destroy(first.key.key_id)
    found = built.issuers("h1/icu")
    assert ([one.reference for one in found.every()], dict(found.unopened)) == (["h1/icu#2"], {})


def test_an_ended_generation_without_its_key_is_reported_and_the_others_are_opened(
    built: Installation, first: Issuer
) -> None:
    running = built.issuers("h1/icu")
    built.keystore("h1/icu").destroy(first.key.key_id)
    with refuses(Reason.KEY_NOT_OPEN, Unavailable):  # it is live, and its CRLs are due
        built.issuers("h1/icu")
    move_to_end(built, first, 0)
    found = built.issuers("h1/icu")
    assert [one.reference for one in found.every()] == ["h1/icu#2"]
    assert list(found.unopened) == ["h1/icu#1"]
    assert "it has ended" in found.unopened["h1/icu#1"]
    assert running.take_over(found) == ("h1/icu#1",)
    assert (list(running), running.unopened) == (["h1/icu"], found.unopened)


def test_an_active_authority_that_has_ended_does_not_stop_the_others(built: Installation) -> None:
    issuer = built.issuers("h1/icu")["h1/icu"]
    move_to_end(built, issuer, 10 * DAY)
    assert references(built) == ["h1/icu#1"]
    built.keystore("h1/icu").destroy(issuer.key.key_id)
    found = built.issuers("h1/icu", "h1/infra")
    assert [one.reference for one in found.every()] == ["h1/infra#1"]
    assert list(found.unopened) == ["h1/icu#1"]


def test_an_authority_of_which_every_generation_is_over_is_none_to_wait_for(built: Installation) -> None:
    issuer = built.issuers("h1/icu")["h1/icu"]
    built.hierarchy.retire("h1/icu", 1, by=BY)
    move_to_end(built, issuer, DAY)
    assert built.issuers("h1/icu").every() == ()


def test_an_authority_that_was_never_certified_asks_for_its_ceremony(installation: Installation) -> None:
    installation.hierarchy.request(ICU, by=BY)
    with refuses(Reason.CEREMONY_NEEDED, Conflict):
        installation.issuers("h1/icu")
