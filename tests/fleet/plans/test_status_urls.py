"""The status URL that certificates name is found in them, and no plan moves away from it while one of them lives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.plans.test_planning import PLAN
from tests.simulator.installation import BY, ICU, STATUS_URL, Installation, new_installation
from tests.simulator.refusals import refuses
from vagus.errors import Conflict
from vagus.fleet.plans.status_urls import check_status_url, find_named_urls
from vagus.policy.plans import Plan, decode_plan
from vagus.reasons import Reason


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with new_installation(tmp_path) as new:
        yield new


def named(installation: Installation) -> dict[str, str]:
    with installation.database.reading() as connection:
        return find_named_urls(connection, at=int(installation.clock.now().timestamp()))


def plan_at(url: str) -> Plan:
    return decode_plan(PLAN.replace("http://status.test.example", url).encode(), "plan.toml")


def test_what_has_issued_nothing_names_nothing(installation: Installation) -> None:
    assert named(installation) == {}
    installation.hierarchy.request(ICU, by=BY)
    assert named(installation) == {}


def test_one_certificate_of_an_authority_is_enough_and_a_revoked_one_counts_too(installation: Installation) -> None:
    installation.build()
    (whose,) = named(installation).values()
    assert set(named(installation)) == {STATUS_URL}
    assert "root#1" in whose
    installation.hierarchy.retire("h1/icu", 1, by=BY)
    assert set(named(installation)) == {STATUS_URL}, "its CRLs are signed until its certificates have ended"


def test_what_has_ended_names_nothing_any_more(installation: Installation) -> None:
    installation.build()
    installation.advance(days=366 * 60)
    assert named(installation) == {}


@pytest.mark.parametrize("url", ["http://crl.moved.example", f"{STATUS_URL}/pki", STATUS_URL.removesuffix("e")])
def test_a_plan_that_moves_away_is_refused_with_what_to_do(installation: Installation, url: str) -> None:
    installation.build()
    check_status_url(plan_at(STATUS_URL), named(installation))
    with refuses(Reason.AUTHORITY_IN_USE, Conflict) as caught:
        check_status_url(plan_at(url), named(installation))
    for said in (f"is {STATUS_URL} in", f"become {url}:", "root#1", f"Keep {STATUS_URL}", "DNS"):
        assert said in caught.value.message


def test_a_plan_may_say_anything_as_long_as_no_certificate_does() -> None:
    check_status_url(plan_at("http://anywhere.example"), {})
