"""A ceremony certifies what was requested, journals each step, and signs the lists of the offline keys."""

from __future__ import annotations

from tests.authority.installation import BY, EVERY, GROUP, ICU, STATUS_URL, Installation


def test_one_ceremony_makes_the_whole_hierarchy(installation: Installation) -> None:
    report = installation.build()
    assert report.certified == ("root#1", "h1#1", "h1/icu#1", "h1/er#1", "h1/sdc#1", "h1/infra#1")
