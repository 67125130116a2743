"""CRLs have what is revoked, their numbers and times only grow, and openssl accepts them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from tests.authority.crls.reading import crl_at, crl_path, number_of, openssl_verify, serials_of
from tests.simulator.installation import BY, STATUS_URL, Installation
from tests.simulator.programs import run
from tests.simulator.refusals import refuses
from vagus.authority.clock_bound import SLACK
from vagus.authority.crls.files import CrlFiles
from vagus.authority.crls.publisher import CrlPublisher, _store, forget_future_dates
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.issuers import Issuer
from vagus.errors import Conflict, Unavailable
from vagus.ledger.entries import CrlPublished
from vagus.reasons import Reason
from vagus.records import publications as rows
from vagus.records.engine.database import Connection
from vagus.records.engine.tables import crl_shards
from vagus.records.publications import COMPLETE
from vagus.records.revocation import revocations as revocation_rows
from vagus.x509.crls.building import RevocationReason
from vagus.x509.pem import encode_certificates

COMPROMISE = RevocationReason.KEY_COMPROMISE
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")


def newest(built: Installation, issuer: Issuer, shard: int = 0) -> x509.CertificateRevocationList:
    found = built.find(rows.find_publication, issuer.authority_id, shard)
    return x509.load_der_x509_crl(found.crl_der)


def has(crl: x509.CertificateRevocationList, issued: IssuedCertificate) -> bool:
    return crl.get_revoked_certificate_by_serial_number(issued.serial) is not None


@pytest.fixture
def published(built: Installation) -> CrlPublisher:
    """A publisher that has just published every CRL of h1/icu."""
    publisher = built.publisher
    publisher.publish_all(built.icu)
    return publisher


def change_publication(built: Installation, *, number: int = 0, seconds: int = 0) -> None:
    """As a clock that ran ahead leaves the row of shard 0."""
    found = built.find(rows.find_publication, built.icu.authority_id, 0)
    with built.database.writing() as connection:
        later = replace(found, number=found.number + number, this_update=found.this_update + seconds)
        rows.put_publication(connection, later)


def test_a_first_crl_is_empty_signed_and_scoped(built: Installation) -> None:
    assert [one.shard for one in built.publisher.publish_due(built.icu)] == [0, COMPLETE]
    crl = newest(built, built.icu)
    assert built.icu.certificate is not None
    assert crl.is_signature_valid(built.icu.certificate.public_key())  # type: ignore[arg-type]
    assert len(crl) == 0
    assert crl.issuer.public_bytes() == built.icu.facts.subject_der
    assert crl.last_update_utc == built.clock.now()
    assert crl.next_update_utc == built.clock.now() + timedelta(days=7)
    point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
    assert point.critical
    assert [name.value for name in point.value.full_name or []] == [f"{STATUS_URL}/crl/h1.icu/1/0.crl"]
    complete = newest(built, built.icu, COMPLETE)
    with pytest.raises(x509.ExtensionNotFound):
        complete.extensions.get_extension_for_class(x509.IssuingDistributionPoint)


def test_a_revocation_enters_the_next_crl_and_a_release_leaves_it(built: Installation) -> None:
    one, other = built.issue(), built.issue()
    built.revoke(one, COMPROMISE)
    built.hold(other)
    built.publisher.publish_due(built.icu)
    crl = newest(built, built.icu)
    entries = {entry.serial_number: entry for entry in crl}
    assert entries[one.serial].revocation_date_utc == built.clock.now()
    assert {serial: entry.extensions[0].value for serial, entry in entries.items()} == {
        one.serial: x509.CRLReason(x509.ReasonFlags.key_compromise),
        other.serial: x509.CRLReason(x509.ReasonFlags.certificate_hold),
    }
    built.release(other)
    built.advance(seconds=1)
    assert [one.shard for one in built.publisher.publish_due(built.icu)] == [0, COMPLETE]
    assert not has(newest(built, built.icu), other)
    assert has(newest(built, built.icu, COMPLETE), one)


def test_nothing_is_published_before_it_is_due(built: Installation) -> None:
    built.publisher.publish_due(built.icu)
    built.advance(hours=5, minutes=59)
    assert built.publisher.publish_due(built.icu) == ()
    built.advance(minutes=1)
    assert len(built.publisher.publish_due(built.icu)) == 2


def test_a_burst_within_one_second_is_one_crl_now_and_one_later(built: Installation) -> None:
    many = [built.issue() for _ in range(4)]
    numbers = []
    for issued in many:
        built.revoke(issued, COMPROMISE)
        numbers += [one.number for one in built.publisher.publish_due(built.icu) if one.shard == 0]
    assert len(numbers) == 1
    assert len(newest(built, built.icu)) == 1
    built.advance(seconds=1)
    built.publisher.publish_due(built.icu)
    assert len(newest(built, built.icu)) == 4


def test_each_check_reads_only_steps_that_no_earlier_check_has_read(
    built: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [built.issue() for _ in range(3)]
    built.publisher.publish_due(built.icu)
    publisher, read = built.publisher, []
    whole = revocation_rows.newest_by_shard

    def noting(connection: Connection, authority_id: int, *, after: int) -> dict[int, int]:
        read.append(after)
        return whole(connection, authority_id, after=after)

    monkeypatch.setattr(revocation_rows, "newest_by_shard", noting)
    for issued in many:
        built.revoke(issued, COMPROMISE)
        built.advance(seconds=1)
        assert publisher.find_due(built.icu, built.clock.now()) == (0, COMPLETE), "until it is published it is due"
        assert publisher.find_due(built.icu, built.clock.now()) == (0, COMPLETE)
    assert read == [0, 1, 2]
    publisher.publish_due(built.icu)
    built.advance(seconds=1)
    assert publisher.find_due(built.icu, built.clock.now()) == ()
    assert read == [0, 1, 2]


def test_numbers_are_the_time_in_milliseconds_and_still_grow_when_the_clock_was_ahead(built: Installation) -> None:
    built.publisher.publish_all(built.icu)
    first = newest(built, built.icu)
    assert number_of(first) == int(built.clock.now().timestamp() * 1000)
    change_publication(built, number=10**9)
    built.advance(seconds=1)
    built.publisher.publish_all(built.icu)
    assert number_of(newest(built, built.icu)) == number_of(first) + 10**9 + 1


def test_a_clock_that_went_back_publishes_nothing(built: Installation) -> None:
    built.publisher.publish_all(built.icu)
    before = newest(built, built.icu)
    built.advance(minutes=-5)
    with refuses(Reason.CLOCK_ROLLBACK, Unavailable):
        built.publisher.publish(built.icu, 0)
    assert newest(built, built.icu) == before


def test_a_server_with_a_clock_minutes_late_publishes_and_dates_no_crl_further_ahead(built: Installation) -> None:
    """The one that is four minutes ahead publishes and dies: what is revoked now is in a CRL within the second."""
    many = [built.issue() for _ in range(4)]
    built.advance(minutes=4)
    ahead = built.publisher.publish_due(built.icu)[0]
    built.advance(minutes=-4)
    publisher = built.publisher
    for count, issued in enumerate(many, start=1):
        built.revoke(issued, COMPROMISE)
        built.advance(seconds=1)
        kept = publisher.publish_due(built.icu)[0]
        assert (kept.number > ahead.number, kept.this_update) == (True, ahead.this_update + count)
        assert len(newest(built, built.icu)) == count
        assert kept.this_update - built.clock.now().timestamp() <= 240
        assert publisher.publish(built.icu, 0) is None, "one a second: the lead is not to grow"
    built.advance(minutes=5)
    assert publisher.publish(built.icu, 0)
    assert newest(built, built.icu).last_update_utc == built.clock.now()


def test_no_crl_is_dated_further_ahead_than_clocks_may_differ(built: Installation) -> None:
    built.publisher.publish_all(built.icu)
    dated = newest(built, built.icu).last_update_utc
    built.advance(seconds=1 - SLACK.total_seconds())
    assert built.publisher.publish(built.icu, 0)
    assert newest(built, built.icu).last_update_utc == dated + timedelta(seconds=1) == built.clock.now() + SLACK
    with refuses(Reason.CLOCK_ROLLBACK, Unavailable):
        built.publisher.publish(built.icu, 0)


def test_the_complete_crl_of_a_large_issuer_waits_for_no_date_that_is_ahead(built: Installation) -> None:
    with built.database.writing() as connection:
        connection.execute(insert(crl_shards), {"authority_id": built.icu.authority_id, "shard": 1, "places_taken": 1})
    built.advance(minutes=4)
    built.publisher.publish_all(built.icu)
    built.advance(minutes=-4)
    publisher, lists = built.publisher, []
    for _ in range(60):
        built.revoke(built.issue(), COMPROMISE)
        built.advance(seconds=1)
        lists += [one.shard for one in publisher.publish_due(built.icu)]
    assert lists.count(COMPLETE) == 2, "at once, and half a minute later"


def test_once_an_operator_forgets_its_date_a_crl_from_the_future_is_followed(built: Installation) -> None:
    publisher = built.publisher
    publisher.publish_due(built.icu)
    built.advance(days=30)
    ahead = publisher.publish_due(built.icu)
    built.advance(days=-30, seconds=60)
    issued = built.issue()
    built.revoke(issued, COMPROMISE)
    with refuses(Reason.CLOCK_ROLLBACK, Unavailable):
        publisher.publish_due(built.icu)
    assert forget_future_dates(built.writer, by=BY) == ("h1/icu#1/-1", "h1/icu#1/0")
    assert forget_future_dates(built.writer, by=BY) == ()
    built.advance(seconds=5)
    followed = publisher.publish_due(built.icu)
    assert [one.number > before.number for one, before in zip(followed, ahead, strict=True)] == [True, True]
    for shard in (0, COMPLETE):
        crl = newest(built, built.icu, shard)
        assert crl.last_update_utc == built.clock.now()
        assert has(crl, issued)
    built.advance(hours=6)
    assert len(publisher.publish_due(built.icu)) == 2, "and so on, from today"


def test_a_crl_that_fails_delays_no_other_and_is_reported(built: Installation, published: CrlPublisher) -> None:
    change_publication(built, seconds=3600)
    issued = built.issue()
    built.revoke(issued, COMPROMISE)
    built.advance(seconds=1)
    with refuses(Reason.CLOCK_ROLLBACK, Unavailable):
        published.publish_due(built.icu)
    assert has(newest(built, built.icu, COMPLETE), issued)


def test_of_two_servers_the_slower_one_discards_its_crl(built: Installation) -> None:
    slow, fast = built.publisher, built.publisher
    facts = slow._read_facts(built.icu, 0, built.clock.now())
    kept = fast.publish(built.icu, 0)
    assert kept is not None
    made = slow._sign(built.icu, 0, facts, built.clock.now())
    assert built.writer.submit(lambda batch: _store(batch, built.icu, made)).result() == kept


def test_expired_entries_leave_only_after_a_crl_past_their_expiry(built: Installation) -> None:
    issued = built.issue(lifetime=timedelta(hours=10))
    built.revoke(issued, COMPROMISE)
    built.publisher.publish_due(built.icu)
    appeared_past_expiry = 0
    for _ in range(8):
        built.advance(hours=6)
        built.publisher.publish_due(built.icu)
        is_there = has(newest(built, built.icu), issued)
        if built.clock.now() > x509.load_der_x509_certificate(issued.der).not_valid_after_utc:
            appeared_past_expiry += is_there
    assert appeared_past_expiry >= 1
    assert not has(newest(built, built.icu), issued)


def test_an_entry_that_expired_while_nothing_was_published_still_appears_once(built: Installation) -> None:
    built.publisher.publish_all(built.icu)
    issued = built.issue(lifetime=timedelta(hours=10))
    built.revoke(issued, COMPROMISE)
    built.advance(days=30)
    built.publisher.publish_due(built.icu)
    assert has(newest(built, built.icu), issued)
    built.advance(days=2)
    built.publisher.publish_due(built.icu)
    assert not has(newest(built, built.icu), issued)


def test_each_publication_is_a_file_a_row_and_a_ledger_entry(built: Installation) -> None:
    (shard, complete) = built.publisher.publish_all(built.icu)
    folder = crl_path(built.folder / "published").parent
    assert (folder / "0.crl").read_bytes() == shard.crl_der
    assert (folder / "complete.crl").read_bytes() == complete.crl_der
    assert (folder / "0.crl").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in folder.iterdir()) == ["0.crl", "complete.crl"]
    assert [(one.authority, one.shard, one.number) for one in built.entries(CrlPublished)[-2:]] == [
        ("h1/icu#1", 0, shard.number),
        ("h1/icu#1", COMPLETE, complete.number),
    ]


def test_a_file_that_a_crash_prevented_is_written_at_start(built: Installation) -> None:
    (shard, _) = built.publisher.publish_all(built.icu)
    place = crl_path(built.folder / "published")
    place.unlink()
    files = CrlFiles(built.database, built.folder / "published")
    for one in files.find_outdated():
        files.write(one)
    assert place.read_bytes() == shard.crl_der


def test_an_offline_crl_is_valid_half_a_year_and_covers_everything(built: Installation) -> None:
    for slug in ("root", "h1"):
        crl = crl_at(built.folder / "published", slug=slug)
        assert crl.next_update_utc is not None
        assert crl.next_update_utc - crl.last_update_utc == timedelta(days=180)
        with pytest.raises(x509.ExtensionNotFound):
            crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.sampled_from(["revoke", "hold", "release", "publish"]), st.integers(0, 4)), max_size=12)
)
def test_in_any_order_of_acts_crls_match_the_table_and_numbers_grow(
    built: Installation, steps: list[tuple[str, int]]
) -> None:
    issuers = built.issuers("h1/icu")
    issuer = issuers["h1/icu"]
    serials = [built.issue(issuers).serial for _ in range(5)]
    states = dict.fromkeys(serials, "good")
    numbers: list[int] = []
    for act, which in [*steps, ("publish", 0)]:
        built.advance(seconds=1)
        serial = serials[which]
        if act == "publish":
            built.publisher.publish_due(issuer)
            numbers.append(number_of(newest(built, issuer)))
            listed = serials_of(newest(built, issuer)) & set(serials)
            assert listed == {one for one, state in states.items() if state != "good"}
        elif act == "revoke":
            built.revocations.revoke(issuer.authority_id, serial, COMPROMISE, by=BY).result()
            states[serial] = "revoked"
        else:
            try:
                getattr(built.revocations, act)(issuer.authority_id, serial, by=BY).result()
                states[serial] = {"hold": "held", "release": "good"}[act]
            except Conflict:
                assert states[serial] == "revoked" or act == "release"
    assert numbers == sorted(numbers)


@needs_openssl
def test_openssl_accepts_the_good_and_refuses_the_revoked(built: Installation, tmp_path: Path) -> None:
    good, bad = built.issue(), built.issue()
    built.revoke(bad, COMPROMISE)
    built.publisher.publish_due(built.icu)
    crls = [crl_at(built.folder / "published", slug=slug) for slug in ("root", "h1", "h1.icu")]
    for issued, expected in ((good, "OK"), (bad, "certificate revoked")):
        done = openssl_verify(built, tmp_path, issued, crls, "-x509_strict", "-crl_check_all")
        assert expected in done
        assert (done.code == 0) is (issued is good)
    (tmp_path / "icu.pem").write_bytes(encode_certificates([built.icu.certificate_der]))
    shown = ("-in", crl_path(built.folder / "published"), "-inform", "DER", "-CAfile", tmp_path / "icu.pem", "-noout")
    assert "verify OK" in run("openssl", "crl", *shown)
