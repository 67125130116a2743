"""An older list stays refused after a restart, and a clock that was set back is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tests.records.test_publications import publication
from tests.simulator.databases import created_database
from tests.simulator.refusals import reason_of
from tests.simulator.rows import authority
from tests.x509.chains import AT, Listed, crl, root
from vagus.errors import NotTrusted
from vagus.fleet.verifier_memory import DurableCrlMemory, set_floor
from vagus.reasons import Reason
from vagus.records.engine.writer import Writer
from vagus.records.publications import put_publication
from vagus.testing import FrozenClock
from vagus.trust.anchors import ClockFloor
from vagus.trust.crl_status import CrlStatus
from vagus.x509.paths.search import Pool

ROOT = root()
CA = ROOT.ca("O=Maker,CN=Line")
HOUR = timedelta(hours=1)


@contextmanager
def next_process(folder: Path) -> Iterator[CrlStatus]:
    """The status of the maker's line in a process that remembers what those before it have seen."""
    with created_database(f"sqlite:///{folder}/vagus.sqlite3") as database, Writer(database, FrozenClock(AT)) as writer:
        yield CrlStatus(Pool([ROOT.anchor], [CA.parsed]), memory=DurableCrlMemory(database, writer))


def test_a_makers_older_list_is_refused_by_the_next_process_too(tmp_path: Path) -> None:
    leaf = CA.leaf()
    old = crl(CA, number=1, this_update=AT - 2 * HOUR)
    new = crl(CA, [Listed(leaf.parsed.serial)], number=2, this_update=AT - HOUR)
    for content, refused in ((new, None), (old, Reason.CRL_ROLLBACK), (new, None)):
        with next_process(tmp_path) as status:
            if refused is None:
                status.load(content, AT)
                assert reason_of(status.check_status, leaf.parsed, CA.parsed, AT, error=NotTrusted) is Reason.REVOKED
            else:
                assert reason_of(status.load, content, AT, error=NotTrusted) is refused


def test_a_list_of_the_same_number_goes_by_its_date_in_the_next_process_too(tmp_path: Path) -> None:
    """A publisher that was restored repeats a number: the older of the two CRLs is still a roll-back."""
    leaf = CA.leaf()
    old = crl(CA, number=5, this_update=AT - 3 * HOUR)
    new = crl(CA, [Listed(leaf.parsed.serial)], number=5, this_update=AT - HOUR)
    for run in ("first", "next"):
        with next_process(tmp_path) as status:
            if run == "first":
                status.load(old, AT)
                status.load(new, AT)
            assert reason_of(status.load, old, AT, error=NotTrusted) is Reason.CRL_ROLLBACK, run


def test_the_newest_list_that_was_signed_here_is_a_moment_that_has_passed() -> None:
    floor, at = ClockFloor(), int(AT.timestamp())
    before = floor.moment
    with created_database() as database:
        set_floor(floor, database)
        assert floor.moment == before
        with database.writing() as connection:
            put_publication(connection, replace(publication(authority(connection)), this_update=at, next_update=at + 9))
        set_floor(floor, database)
    assert floor.moment == AT
    floor.check(AT - timedelta(minutes=4))
    assert reason_of(floor.check, AT - timedelta(minutes=6), error=NotTrusted) is Reason.CLOCK_ROLLBACK
