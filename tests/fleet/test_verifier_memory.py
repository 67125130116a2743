"""An older list stays refused after a restart, and a clock that was set back is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from tests.simulator.refusals import reason_of
from tests.x509.chains import AT, Listed, crl, root
from vagus.errors import NotTrusted
from vagus.fleet.verifier_memory import DurableCrlMemory, set_floor
from vagus.reasons import Reason
from vagus.records.engine.database import open_database
from vagus.records.engine.tables import authorities
from vagus.records.engine.writer import Writer
from vagus.records.publications import Publication, put_publication
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
    database = open_database(f"sqlite:///{folder / 'vagus.sqlite3'}")
    database.create()
    with Writer(database, FrozenClock(AT)) as writer:
        yield CrlStatus(Pool([ROOT.anchor], [CA.parsed]), memory=DurableCrlMemory(database, writer))
    database.close()


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
    database = open_database("sqlite://")
    database.create()
    floor = ClockFloor()
    before = floor.moment
    set_floor(floor, database)
    assert floor.moment == before
    at = int(AT.timestamp())
    with Writer(database, FrozenClock(AT)) as writer:
        writer.submit(
            lambda batch: batch.connection.execute(
                authorities.insert().values(
                    id=1,
                    name="root",
                    generation=1,
                    kind="root",
                    is_offline=True,
                    state="active",
                    key_id="root",
                    keystore="root",
                    spki_sha256=b"",
                    constrain_dn=False,
                )
            )
        ).result()
        list_of = Publication(
            authority_id=1, shard=0, number=1, this_update=at, next_update=at + 9, sequence=0, crl_der=b"-"
        )
        writer.submit(lambda batch: put_publication(batch.connection, list_of)).result()
    set_floor(floor, database)
    assert floor.moment == AT
    floor.check(AT - timedelta(minutes=4))
    assert reason_of(floor.check, AT - timedelta(minutes=6), error=NotTrusted) is Reason.CLOCK_ROLLBACK
    database.close()
