"""CRLs in memory: never older than what the process knows, and not past their end while the database is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import update

from tests.endpoints.calls import call
from tests.simulator.publishing import PublishedHospital
from tests.simulator.refusals import reason_of
from vagus.authority.crls import published
from vagus.authority.crls.published import FRESH_SECONDS, PublishedCrl, PublishedCrls
from vagus.endpoints.revocation_status import OcspReplies, status_app
from vagus.endpoints.routing import RouteTable
from vagus.errors import Unavailable
from vagus.reasons import Reason
from vagus.records.authorities import find_generation
from vagus.records.engine.database import Connection
from vagus.records.engine.tables import authorities
from vagus.records.engine.writer import Batch
from vagus.records.publications import ADOPTED, find_publication, outdate_crl, put_publication
from vagus.x509.crls.decoding import decode_crl

ICU = ("h1/icu", 1, 0)


@pytest.fixture
def lists(clinic: PublishedHospital) -> PublishedCrls:
    """As a serving process has them; no task refreshes them in the background."""
    made = PublishedCrls(clinic.built.database, clinic.built.clock, fresh_seconds=FRESH_SECONDS)
    made.follow(clinic.built.writer)
    return made


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the CRL cache."""
    now = [1000.0]
    monkeypatch.setattr("vagus.authority.crls.published.time.monotonic", lambda: now[0])
    return now


@contextmanager
def away(clinic: PublishedHospital, asked: list[str] | None = None) -> Iterator[None]:
    """The database does not respond."""

    def refuse(**_: object) -> AbstractContextManager[Connection]:
        if asked is not None:
            asked.append("asked")
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "away")

    database = clinic.built.database
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "reading", refuse)
        patch.setattr(database, "bounded_reading", refuse)
        yield


def found(lists: PublishedCrls) -> PublishedCrl:
    """The CRL of the first shard, which must be there."""
    crl = lists.find_crl(*ICU)
    assert crl is not None
    return crl


def status_of(clinic: PublishedHospital, lists: PublishedCrls) -> RouteTable:
    replies = OcspReplies(clinic.responses, clinic.built.clock, clinic.built.pack.ocsp.http_max_age)
    return status_app(publications=lists, ocsp=replies)


def publish_newer(clinic: PublishedHospital) -> None:
    clinic.revoke(clinic.issue())
    clinic.advance(seconds=2)
    clinic.publish()


def test_a_refresh_loads_every_crl_and_certificate(clinic: PublishedHospital, lists: PublishedCrls) -> None:
    assert lists.find_cached_crl(*ICU) is None
    lists.refresh()
    with away(clinic):
        for name, shard in (("root", 0), ("h1", 0), ("h1/icu", 0), ("h1/icu", -1)):
            assert lists.find_cached_crl(name, 1, shard) is not None
            assert lists.find_cached_certificate(name, 1) is not None
    assert lists.find_cached_crl("h1/icu", 1, 7) is None
    assert lists.find_cached_certificate("h9/icu", 1) is None
    assert lists.state().count == 6


def test_a_crl_that_a_restore_outdated_is_sent_once_it_is_signed_anew(
    clinic: PublishedHospital, lists: PublishedCrls
) -> None:
    lists.refresh()
    assert lists.find_crl(*ICU) is not None
    icu = clinic.icu.authority_id
    clinic.built.writer.submit(lambda batch: outdate_crl(batch.connection, icu, 0, 1 << 61)).result()
    lists.refresh()
    assert lists.find_crl(*ICU) is None
    assert lists.find_crl(*ICU, is_delta=True) is None
    assert lists.find_crl("h1/icu", 1, -1) is not None
    clinic.advance(seconds=2)
    clinic.publish()
    lists.refresh()
    assert (decode_crl(found(lists).crl_der).number or 0) == (1 << 61) + 1, "it goes on from what is out"


def test_a_delta_that_is_older_than_its_crl_is_not_sent(clinic: PublishedHospital, lists: PublishedCrls) -> None:
    clinic.revoke(clinic.issue())
    publish_newer(clinic)
    lists.refresh()
    assert lists.find_crl(*ICU, is_delta=True) is not None
    with clinic.built.database.writing() as connection:
        newest = find_publication(connection, clinic.icu.authority_id, 0)
        assert newest is not None
        put_publication(connection, replace(newest, number=newest.number + 1, sequence=ADOPTED))
    lists.refresh()
    assert lists.find_crl(*ICU) is not None
    assert lists.find_crl(*ICU, is_delta=True) is None


def test_an_authority_that_is_certified_after_the_first_refresh_is_found(
    clinic: PublishedHospital, lists: PublishedCrls
) -> None:
    """Its row, and so its number, was known before it had a certificate."""
    built = clinic.built

    def forget(batch: Batch) -> bytes:
        row = find_generation(batch.connection, "h1/icu", 1)
        assert row is not None
        assert row.certificate_der is not None
        batch.connection.execute(update(authorities).where(authorities.c.id == row.id).values(certificate_der=None))
        return row.certificate_der

    def give_back(batch: Batch) -> None:
        icu = update(authorities).where(authorities.c.name == "h1/icu")
        batch.connection.execute(icu.values(certificate_der=certificate))

    certificate = built.writer.submit(forget).result()
    lists.refresh()
    assert lists.find_certificate("h1/icu", 1) is None
    built.writer.submit(give_back).result()
    assert lists.find_certificate("h1/icu", 1) == certificate
    fresh = PublishedCrls(built.database, built.clock, fresh_seconds=FRESH_SECONDS)
    built.writer.submit(forget).result()
    fresh.refresh()
    built.writer.submit(give_back).result()
    fresh.refresh()
    with away(clinic):
        assert fresh.find_cached_certificate("h1/icu", 1) == certificate


def test_what_this_process_publishes_is_found_from_its_commit_on(
    clinic: PublishedHospital, lists: PublishedCrls, now: list[float]
) -> None:
    lists.refresh()
    before = found(lists)
    publish_newer(clinic)
    assert lists.find_cached_crl(*ICU) is None, "memory is older than its own commit"
    after = found(lists)
    assert after.this_update > before.this_update
    assert lists.find_cached_crl(*ICU) is after


def test_what_another_process_publishes_is_found_with_the_next_refresh(
    clinic: PublishedHospital, now: list[float]
) -> None:
    lists = PublishedCrls(clinic.built.database, clinic.built.clock, fresh_seconds=FRESH_SECONDS)
    lists.refresh()
    before = lists.find_crl(*ICU)
    publish_newer(clinic)
    assert lists.find_crl(*ICU) is before, "it was not notified"
    lists.refresh()
    after = lists.find_cached_crl(*ICU)
    assert after is not None
    assert after is not before
    publish_newer(clinic)
    now[0] += FRESH_SECONDS
    newest = lists.find_crl(*ICU)
    assert newest is not after, "a cache without background refresh reads the database"


def test_clients_ask_the_database_for_nothing_while_memory_is_fresh(
    clinic: PublishedHospital, lists: PublishedCrls, now: list[float]
) -> None:
    app = status_of(clinic, lists)
    lists.refresh()
    asked: list[str] = []
    with away(clinic, asked):
        assert call(app, "GET", "/crl/h1.icu/1/0.crl").status == 200
        assert call(app, "GET", "/crl/h1.icu/1/complete.crl").status == 200
        assert call(app, "GET", "/ca/h1.icu/1.cer").status == 200
    assert asked == []


def test_while_the_database_is_away_cached_crls_are_sent_until_next_update(
    clinic: PublishedHospital, lists: PublishedCrls, now: list[float]
) -> None:
    lists.refresh()
    kept = found(lists)
    with away(clinic):
        now[0] += FRESH_SECONDS
        assert lists.find_crl(*ICU) is kept
        assert lists.state().is_away
        clinic.built.clock.set(kept.next_update)
        for _ in range(2):
            assert reason_of(lists.find_crl, *ICU, error=Unavailable) is Reason.DATABASE_UNAVAILABLE
            now[0] += 2.0
    assert found(lists).this_update == kept.this_update, "the table knows no newer one: who asks may judge it"
    assert not lists.state().is_away


def test_a_database_that_is_away_is_left_alone_for_a_moment(
    clinic: PublishedHospital, lists: PublishedCrls, now: list[float]
) -> None:
    asked: list[str] = []
    with away(clinic, asked):
        for _ in range(5):
            reason_of(lists.find_crl, *ICU, error=Unavailable)
        assert len(asked) == 1
        now[0] += 1.0
        reason_of(lists.find_crl, *ICU, error=Unavailable)
        assert len(asked) == 2
        lists.refresh()
        assert len(asked) == 3, "the background refresh tries each time"
    lists.refresh()
    assert lists.find_cached_crl(*ICU) is not None


def test_an_uncached_crl_is_not_called_missing_while_the_database_is_away(
    clinic: PublishedHospital, lists: PublishedCrls
) -> None:
    app = status_of(clinic, lists)
    with away(clinic):
        for path in ("/crl/h1.icu/1/0.crl", "/ca/h1.icu/1.cer", "/crl/h1.icu/1/0.crl"):
            answer = call(app, "GET", path)
            assert (answer.status, answer.problem.reason) == (503, "DATABASE_UNAVAILABLE")


def test_a_newer_crl_that_cannot_be_loaded_leaves_the_one_before(
    clinic: PublishedHospital, lists: PublishedCrls, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    lists.refresh()
    before = lists.find_crl(*ICU)
    publish_newer(clinic)

    def fail(*_: object) -> tuple[int, PublishedCrl | None]:
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "away")

    with monkeypatch.context() as patch:
        patch.setattr(published, "_read", fail)
        assert lists.find_crl(*ICU) is before
    now[0] += 2.0
    assert lists.find_crl(*ICU) is not before
