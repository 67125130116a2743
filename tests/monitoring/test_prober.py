"""The prober sees what a relying party sees, and each defect has its own reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, update

from tests.simulator.installation import STATUS_URL
from tests.simulator.publishing import PublishingHouse
from vagus.authority.crls.publisher import sign_crl
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, ResponderRenewal
from vagus.errors import VagusError
from vagus.monitoring.defects import Defect
from vagus.monitoring.prober import Prober
from vagus.reasons import Reason
from vagus.records.engine.tables import crl_publications, ocsp_responders, revocation_events, revocations
from vagus.records.publications import find_delta
from vagus.x509.crls.building import CrlContents, RevocationReason, encode_crl_entry


def reasons(defects: tuple[Defect, ...], place: str | None = None) -> set[Reason]:
    return {one.reason for one in defects if place is None or one.place == place}


def the_only(house: PublishingHouse, place: str) -> Defect:
    """The one defect of this round, seen at that place."""
    (defect,) = house.probe().defects
    assert defect.place == place
    assert len(defect.sentence) > 20
    return defect


def signed(house: PublishingHouse, **changes: object) -> bytes:
    """A CRL of h1/icu, shard 0, signed with its own key, with the contents that a test wants."""
    now = house.built.clock.now()
    fields: dict[str, object] = {
        "number": int(now.timestamp() * 1000) + 60_000_000,
        "this_update": now,
        "next_update": now + timedelta(days=7),
        "entries": (),
        "shard_url": house.place("0"),
    }
    return sign_crl(house.icu, CrlContents(**{**fields, **changes}))  # type: ignore[arg-type]


def crl_of(house: PublishingHouse, *, is_delta: bool = False) -> bytes:
    """The newest CRL of h1/icu, shard 0."""
    found = house.lists.find_crl("h1/icu", 1, 0, is_delta=is_delta)
    assert found is not None
    return found.crl_der


def publish_after(house: PublishingHouse, **by: float) -> None:
    house.advance(**by)
    house.publish()


def hand_out(house: PublishingHouse, content: bytes | None, name: str = "0") -> str:
    place = house.place(name)
    house.spoiled[place] = lambda _: content
    return place


def test_a_sound_publication_has_no_defect(house: PublishingHouse) -> None:
    bad = house.issue()
    house.issue()
    house.revoke(bad)
    publish_after(house, seconds=2)
    house.advance(minutes=5)
    report = house.probe()
    assert report.defects == ()
    assert report.crls >= 6, "shard and complete list of three authorities"
    assert report.responses >= 2
    assert report.at == house.built.clock.now()


def test_deltas_are_fetched_too(house: PublishingHouse) -> None:
    for _ in range(2):
        house.revoke(house.issue())
        publish_after(house, minutes=2)
    report = house.probe()
    assert report.defects == ()
    assert house.place("0.delta") in house.fetched


def test_a_crl_that_cannot_be_fetched_is_unavailable(house: PublishingHouse) -> None:
    assert the_only(house, hand_out(house, None)).reason is Reason.STATUS_UNAVAILABLE


def test_a_crl_that_does_not_decode_is_a_defect(house: PublishingHouse) -> None:
    assert the_only(house, hand_out(house, b"<html>It works!</html>")).reason is Reason.NON_DER


def test_a_crl_signed_with_another_key_is_a_defect(house: PublishingHouse) -> None:
    genuine = signed(house)
    place = hand_out(house, genuine[:-1] + bytes([genuine[-1] ^ 1]))
    assert the_only(house, place).reason is Reason.BAD_SIGNATURE


def test_a_crl_of_another_issuer_is_a_defect(house: PublishingHouse) -> None:
    place = house.place("complete")
    other = house.lists.find_crl("h1", 1, -1)
    assert other is not None
    house.spoiled[place] = lambda _: other.crl_der
    assert the_only(house, place).reason is Reason.CRL_INVALID


def test_a_missing_or_wrong_certificate_of_an_authority_is_a_defect(house: PublishingHouse) -> None:
    """A client that lacks the issuer builds no path without it, however good CRLs and OCSP responses are."""
    place = f"{STATUS_URL}/ca/h1.icu/1.cer"
    other = house.lists.find_certificate("h1", 1)
    house.spoiled[place] = lambda _: None
    assert the_only(house, place).reason is Reason.STATUS_UNAVAILABLE
    house.spoiled[place] = lambda _: other
    assert the_only(house, place).reason is Reason.NO_PATH


def test_an_overdue_revocation_that_is_missing_is_a_defect(house: PublishingHouse) -> None:
    issued = house.issue()
    house.revoke(issued)
    house.advance(seconds=59)
    assert house.probe().defects == (), "policy allows 60 s"
    house.advance(seconds=2)
    report = house.probe()
    assert reasons(report.defects, house.place("0")) == {Reason.STATUS_INCOMPLETE}
    assert reasons(report.defects, house.place("complete")) == {Reason.STATUS_INCOMPLETE}
    assert any(f"{issued.serial:x}" in one.sentence for one in report.defects)
    assert house.probe(through_caches=True).defects == (), "a cache on the way may be a minute behind"


def test_a_revocation_dated_by_a_clock_that_ran_ahead_may_not_be_missing(house: PublishingHouse) -> None:
    """Its real time is unknown. It is dated a month ahead, and no CRL of that month may lack it."""
    issued = house.issue()
    house.advance(days=30)
    house.revoke(issued)
    house.advance(days=-30)
    report = house.probe()
    assert reasons(report.defects, house.place("0")) == {Reason.STATUS_INCOMPLETE}
    publish_after(house, seconds=1)
    assert house.probe().defects == ()


def test_a_revocation_missing_in_a_delta_crl_is_a_defect(house: PublishingHouse) -> None:
    first, second = house.issue(), house.issue()
    house.revoke(first)
    publish_after(house, minutes=2)
    before = crl_of(house, is_delta=True)
    house.revoke(second)
    publish_after(house, minutes=2)
    house.advance(minutes=2)
    place = hand_out(house, before, "0.delta")
    assert reasons(house.probe().defects) == {Reason.STATUS_BEHIND, Reason.STATUS_INCOMPLETE}
    assert reasons(house.probe().defects) == reasons(house.probe().defects, place)


def test_a_good_certificate_in_a_crl_is_a_defect(house: PublishingHouse) -> None:
    issued, now = house.issue(), house.built.clock.now()
    entry = encode_crl_entry(issued.serial, now, RevocationReason.SUPERSEDED)
    place = hand_out(house, signed(house, entries=(entry,), number=_published_number(house)))
    defect = the_only(house, place)
    assert defect.reason is Reason.STATUS_UNTRUE
    assert f"{issued.serial:x}" in defect.sentence


def _published_number(house: PublishingHouse) -> int:
    with house.built.database.reading() as connection:
        return int(
            connection.execute(
                crl_publications.select().where(
                    crl_publications.c.authority_id == house.icu.authority_id, crl_publications.c.shard == 0
                )
            )
            .one()
            .number
        )


def test_an_overdue_release_is_a_defect(house: PublishingHouse) -> None:
    issued = house.issue()
    name = (issued.issuer.authority_id, issued.serial)
    house.built.revocations.hold(*name, by="operator:tests").result()
    publish_after(house, minutes=2)
    held = crl_of(house)
    house.built.revocations.release(*name, by="operator:tests").result()
    hand_out(house, held)
    house.advance(seconds=30)
    assert house.probe().defects == ()
    house.advance(seconds=31)
    assert Reason.STATUS_UNTRUE in reasons(house.probe().defects, house.place("0"))


def test_a_crl_number_that_falls_is_a_defect_even_after_a_restart(house: PublishingHouse) -> None:
    old = crl_of(house)
    publish_after(house, hours=6)
    assert house.probe().defects == ()
    place = hand_out(house, old)
    house.advance(seconds=61)
    assert Reason.CRL_ROLLBACK in reasons(house.probe().defects, place)


@pytest.mark.parametrize("name", ["0", "0.delta"])
def test_a_cache_may_have_an_older_crl_than_another_process_saw(house: PublishingHouse, name: str) -> None:
    """All processes share the numbers they have seen; each cache and server may be a minute behind the newest."""
    house.revoke(house.issue())
    publish_after(house, minutes=5)
    old = crl_of(house, is_delta=name != "0")
    house.revoke(house.issue())
    publish_after(house, seconds=30)
    assert house.probe().defects == ()
    place = hand_out(house, old, name)
    house.advance(seconds=59)
    assert reasons(house.probe(through_caches=True).defects) == set()
    house.advance(seconds=70)
    report = house.probe(through_caches=True)
    assert reasons(report.defects, place) == {Reason.CRL_ROLLBACK, Reason.STATUS_BEHIND, Reason.STATUS_INCOMPLETE}
    assert {one.place for one in report.defects} == {place}


def test_an_old_crl_is_behind_where_no_newer_one_was_seen(house: PublishingHouse) -> None:
    old = crl_of(house)
    publish_after(house, hours=6)
    place = hand_out(house, old)
    house.advance(seconds=61)
    assert the_only(house, place).reason is Reason.STATUS_BEHIND


def test_a_table_that_is_older_than_the_published_crl_was_set_back(house: PublishingHouse) -> None:
    place = hand_out(house, signed(house))
    defect = the_only(house, place)
    assert (defect.reason, "restored" in defect.sentence) == (Reason.CRL_ROLLBACK, True)


def test_a_crl_that_is_not_signed_anew_is_overdue_and_then_stale(house: PublishingHouse) -> None:
    house.advance(hours=6, minutes=11)
    report = house.probe()
    assert reasons(report.defects) == {Reason.STATUS_OVERDUE}
    assert {one.place for one in report.defects} == {house.place("0"), house.place("complete")}
    house.advance(days=7)
    report = house.probe()
    assert reasons(report.defects, house.place("0")) == {Reason.STATUS_STALE}


def test_offline_crls_are_overdue_sixty_days_ahead(house: PublishingHouse) -> None:
    publish_after(house, days=119)
    assert Reason.STATUS_OVERDUE not in reasons(tuple(one for one in house.probe().defects if "/root/" in one.place))
    publish_after(house, days=2)
    overdue = [one for one in house.probe().defects if "/root/" in one.place]
    assert {one.reason for one in overdue} == {Reason.STATUS_OVERDUE}
    assert "vagus ceremony" in overdue[0].sentence


def test_a_crl_of_another_scope_covers_no_certificate(house: PublishingHouse) -> None:
    number = _published_number(house)
    place = hand_out(house, signed(house, shard_url=house.place("7"), number=number))
    assert the_only(house, place).reason is Reason.CRL_SCOPE
    house.spoiled.clear()
    complete = hand_out(house, signed(house, number=number), "complete")
    assert Reason.CRL_SCOPE in reasons(house.probe().defects, complete)


def test_ocsp_that_calls_a_revoked_certificate_good_is_a_defect(house: PublishingHouse) -> None:
    issued = house.issue()
    house.revoke(issued)
    publish_after(house, minutes=2)
    house.desk._follower._revoked.clear()
    report = house.probe()
    assert reasons(report.defects) == {Reason.STATUS_INCOMPLETE}
    assert all(one.place.endswith("/ocsp") for one in report.defects)


def through_a_cache_that_ends_nothing(house: PublishingHouse) -> Prober:
    """The response to POST is right all the time: most clients ask by GET (RFC 5019), which caches serve."""
    kept: dict[str, bytes] = {}

    def cache(url: str, body: bytes | None = None) -> bytes:
        return kept.setdefault(url, house.fetch(url)) if "/ocsp/" in url else house.fetch(url, body)

    prober = house.prober(through_caches=True)
    prober.fetch, prober.responses_per_authority = cache, 40
    return prober


def test_a_cache_that_keeps_an_ocsp_response_beyond_its_age_is_a_defect(house: PublishingHouse) -> None:
    prober = through_a_cache_that_ends_nothing(house)
    issued = house.issue()
    assert prober.probe().defects == ()
    house.revoke(issued)
    publish_after(house, minutes=1)
    assert prober.probe().defects == ()
    house.advance(seconds=61)
    (defect,) = prober.probe().defects
    assert (defect.reason, defect.place) == (Reason.STATUS_INCOMPLETE, f"{STATUS_URL}/ocsp")


def test_such_a_cache_is_a_defect_before_any_certificate_is_revoked(house: PublishingHouse) -> None:
    prober = through_a_cache_that_ends_nothing(house)
    house.issue()
    assert prober.probe().defects == ()
    publish_after(house, hours=6, minutes=11)
    assert prober.probe().defects == ()
    house.advance(seconds=1)
    assert reasons(prober.probe().defects) == {Reason.STATUS_OVERDUE}
    assert house.probe(through_caches=True).defects == ()


def test_ocsp_that_calls_a_good_certificate_revoked_is_a_defect(house: PublishingHouse) -> None:
    issued = house.issue()
    house.revoke(issued)
    house.advance(minutes=2)
    with house.built.database.writing() as connection:
        connection.execute(delete(revocations))
        connection.execute(delete(revocation_events))
    prober = house.prober()
    prober.responses_per_authority = 40
    assert reasons(prober.probe().defects) == {Reason.STATUS_UNTRUE}


def test_ocsp_that_says_try_later_is_unavailable(house: PublishingHouse) -> None:
    house.issue()
    house.built.advance(seconds=10)
    report = house.probe()
    assert reasons(report.defects) == {Reason.STATUS_UNAVAILABLE}, "the desk has lost the sequence"


def test_a_responder_that_is_missing_or_about_to_end_is_a_defect(house: PublishingHouse) -> None:
    house.issue()
    publish_after(house, days=9, hours=1)
    report = house.probe()
    assert reasons(tuple(one for one in report.defects if "/ocsp" in one.place)) == {Reason.STATUS_OVERDUE}
    with house.built.database.writing() as connection:
        connection.execute(delete(ocsp_responders))
    assert Reason.OCSP_RESPONDER in reasons(house.probe().defects)


def test_an_authority_that_never_published_is_a_defect(house: PublishingHouse) -> None:
    with house.built.database.writing() as connection:
        connection.execute(delete(crl_publications).where(crl_publications.c.authority_id == house.icu.authority_id))
    defects = house.probe().defects
    assert [(one.reason, "never published" in one.sentence) for one in defects] == [(Reason.STATUS_UNAVAILABLE, True)]


def test_a_distribution_point_that_leads_nowhere_is_a_defect(house: PublishingHouse) -> None:
    house.issue()
    prober = house.prober()
    prober.responses_per_authority = 40
    prober.status_url = "http://moved.group.example"
    place = house.place("0")
    real = house.fetch

    def moved(url: str, body: bytes | None = None) -> bytes:
        if url == place:
            return real(url.replace("/icu/", "/nowhere/").replace("h1.icu", "h1.nowhere"))
        return real(url.replace("http://moved.group.example", "http://status.group.example"), body)

    prober.fetch = moved
    defects = [one for one in prober.probe().defects if one.place == place]
    assert {one.reason for one in defects} == {Reason.CRL_SCOPE}


def test_a_crl_that_moved_away_from_its_certificates_is_a_defect(house: PublishingHouse) -> None:
    """Another status URL: the old URL still leads to the CRLs, and they name the new one."""
    house.issue()
    moved = replace(house.icu, status_url="http://moved.group.example")
    house.advance(hours=6)
    house.built.publisher.publish_all(moved)
    prober = house.prober()
    prober.responses_per_authority = 40
    prober.status_url = "http://moved.group.example"
    real = house.fetch
    prober.fetch = lambda url, body: real(url.replace("moved.group.example", "status.group.example"), body)
    defects = [one for one in prober.probe().defects if one.place == house.place("0")]
    assert {one.reason for one in defects} == {Reason.CRL_SCOPE}
    assert all("IssuingDistributionPoint names http://moved.group.example" in one.sentence for one in defects)


def test_a_released_hold_that_a_delta_crl_does_not_take_back_is_a_defect(house: PublishingHouse) -> None:
    held = house.issue()
    house.built.revocations.hold(house.icu.authority_id, held.serial, by="operator:tests").result()
    publish_after(house, hours=7)
    house.built.revocations.release(house.icu.authority_id, held.serial, by="operator:tests").result()
    publish_after(house, seconds=5)
    house.advance(minutes=10)
    assert house.probe().defects == ()
    with house.built.database.reading() as connection:
        delta = find_delta(connection, house.icu.authority_id, 0)
    assert delta is not None
    empty = signed(house, number=delta.number, this_update=house.built.clock.now(), base_number=delta.base_number)
    defect = the_only(house, hand_out(house, empty, "0.delta"))
    assert (defect.reason, f"{held.serial:x}" in defect.sentence) == (Reason.STATUS_UNTRUE, True)


def test_an_authority_that_has_ended_is_not_probed(house: PublishingHouse) -> None:
    """Retired at its re-key, ended years later, its key destroyed: nothing is signed for it any more."""
    house.built.hierarchy.retire("h1/icu", 1, by="operator:tests")
    assert house.icu.facts.not_after is not None
    left = house.icu.facts.not_after - house.built.clock.now()
    house.advance(seconds=left.total_seconds() - 1)
    assert any("h1.icu" in one.place for one in house.probe().defects)
    house.advance(seconds=1)
    assert not [one for one in house.probe().defects if "h1.icu" in one.place or "h1/icu" in one.sentence]


def test_a_responder_that_ends_with_its_authority_has_no_successor_to_wait_for(house: PublishingHouse) -> None:
    built = house.built
    built.hierarchy.retire("h1/icu", 1, by="operator:tests")
    assert house.icu.facts.not_after is not None
    built.clock.advance(seconds=(house.icu.facts.not_after - built.clock.now()).total_seconds() - 3 * 86_400)
    house.desk._follower.catch_up()
    renewal = ResponderRenewal(
        built.database, built.writer, built.clock, built.issuance(), built.keystore(OCSP_KEYSTORE)
    )
    house.publish()
    assert Reason.STATUS_OVERDUE in reasons(house.probe().defects, f"{STATUS_URL}/ocsp"), "the last one is not made yet"
    assert renewal.renew_due(house.icu)
    assert not [one for one in house.probe().defects if "the responder of h1/icu" in one.sentence]


def test_without_a_writer_no_number_is_remembered(house: PublishingHouse) -> None:
    house.probe(notes=False)
    place = hand_out(house, signed(house, number=1))
    assert Reason.CRL_ROLLBACK not in reasons(house.probe(notes=False).defects, place)
    house.spoiled.clear()
    house.probe()
    house.advance(seconds=61)
    hand_out(house, signed(house, number=1))
    assert Reason.CRL_ROLLBACK in reasons(house.probe(notes=False).defects, place)


def test_a_prober_that_is_stopped_ends_its_round(house: PublishingHouse) -> None:
    prober = house.prober()
    prober.stop()
    assert prober.probe().crls == 0


def test_reachable_means_that_an_http_server_responds(house: PublishingHouse) -> None:
    assert house.prober().is_reachable()
    for name in ("root", "h1", "h1.icu"):
        house.spoiled[house.place("complete").replace("h1.icu", name)] = lambda _: None
    assert house.prober().is_reachable(), "a 404 is an answer"

    def nobody(url: str, body: bytes | None = None) -> bytes:
        raise VagusError(Reason.STATUS_UNAVAILABLE, "connection refused")

    prober = house.prober()
    prober.fetch = nobody
    assert not prober.is_reachable()


def test_an_expired_revocation_may_leave_the_crl(house: PublishingHouse) -> None:
    issued = house.issue()
    house.revoke(issued)
    house.advance(minutes=2)
    with house.built.database.writing() as connection:
        past = int(house.built.clock.now().timestamp()) - 90_000
        connection.execute(update(revocations).values(not_after=past))
    house.publish()
    assert house.probe().defects == ()
