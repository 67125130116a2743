"""The prober sees what a relying party sees, and each defect has its own reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Delete, Update, delete, update

from tests.simulator.installation import STATUS_URL
from tests.simulator.presence import present
from tests.simulator.publishing import PublishedHospital
from vagus.authority.crls.publisher import sign_crl
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, ResponderRenewal
from vagus.errors import VagusError
from vagus.monitoring.defects import Defect
from vagus.monitoring.prober import Prober
from vagus.reasons import Reason
from vagus.records.engine.tables import crl_publications, ocsp_responders, revocation_events, revocations
from vagus.records.publications import find_delta, find_number
from vagus.x509.crls.building import CrlContents, RevocationReason, encode_crl_entry


def reasons(defects: tuple[Defect, ...], place: str | None = None) -> set[Reason]:
    return {one.reason for one in defects if place is None or one.place == place}


def the_only(clinic: PublishedHospital, place: str) -> Defect:
    """The one defect of this round, seen at that place."""
    (defect,) = clinic.probe().defects
    assert defect.place == place
    assert len(defect.sentence) > 20
    return defect


def defects_at(clinic: PublishedHospital, place: str) -> list[Defect]:
    """The defects of this round in whose place the text occurs."""
    return [one for one in clinic.probe().defects if place in one.place]


def signed(clinic: PublishedHospital, **changes: object) -> bytes:
    """A CRL of h1/icu, shard 0, signed with its own key, with the contents that a test wants."""
    now = clinic.built.clock.now()
    fields: dict[str, object] = {
        "number": int(now.timestamp() * 1000) + 60_000_000,
        "this_update": now,
        "next_update": now + timedelta(days=7),
        "entries": (),
        "shard_url": clinic.place("0"),
    }
    return sign_crl(clinic.icu, CrlContents(**{**fields, **changes}))  # type: ignore[arg-type]


def crl_of(clinic: PublishedHospital, *, is_delta: bool = False) -> bytes:
    """The newest CRL of h1/icu, shard 0."""
    found = present(clinic.crls.find_crl("h1/icu", 1, 0, is_delta=is_delta))
    return found.crl_der


def publish_after(clinic: PublishedHospital, **by: float) -> None:
    clinic.advance(**by)
    clinic.publish()


def execute(clinic: PublishedHospital, *statements: Delete | Update) -> None:
    with clinic.built.database.writing() as connection:
        for statement in statements:
            connection.execute(statement)


def hand_out(clinic: PublishedHospital, content: bytes | None, name: str = "0") -> str:
    place = clinic.place(name)
    clinic.spoiled[place] = lambda _: content
    return place


def test_a_sound_publication_has_no_defect(clinic: PublishedHospital) -> None:
    bad = clinic.issue()
    clinic.issue()
    clinic.revoke(bad)
    publish_after(clinic, seconds=2)
    clinic.advance(minutes=5)
    report = clinic.probe()
    assert report.defects == ()
    assert report.crls >= 6, "shard and complete list of three authorities"
    assert report.responses >= 2
    assert report.at == clinic.built.clock.now()


def test_deltas_are_fetched_too(clinic: PublishedHospital) -> None:
    for _ in range(2):
        clinic.revoke(clinic.issue())
        publish_after(clinic, minutes=2)
    report = clinic.probe()
    assert report.defects == ()
    assert clinic.place("0.delta") in clinic.fetched


def test_a_crl_that_cannot_be_fetched_is_unavailable(clinic: PublishedHospital) -> None:
    assert the_only(clinic, hand_out(clinic, None)).reason is Reason.STATUS_UNAVAILABLE


def test_a_crl_that_does_not_decode_is_a_defect(clinic: PublishedHospital) -> None:
    assert the_only(clinic, hand_out(clinic, b"<html>It works!</html>")).reason is Reason.NON_DER


def test_a_crl_signed_with_another_key_is_a_defect(clinic: PublishedHospital) -> None:
    genuine = signed(clinic)
    assert the_only(clinic, hand_out(clinic, genuine[:-1] + bytes([genuine[-1] ^ 1]))).reason is Reason.BAD_SIGNATURE


def test_a_crl_of_another_issuer_is_a_defect(clinic: PublishedHospital) -> None:
    other = present(clinic.crls.find_crl("h1", 1, -1))
    assert the_only(clinic, hand_out(clinic, other.crl_der, "complete")).reason is Reason.CRL_INVALID


def test_a_missing_or_wrong_certificate_of_an_authority_is_a_defect(clinic: PublishedHospital) -> None:
    """A client that lacks the issuer builds no path without it, however good CRLs and OCSP responses are."""
    place = f"{STATUS_URL}/ca/h1.icu/1.cer"
    other = clinic.crls.find_certificate("h1", 1)
    clinic.spoiled[place] = lambda _: None
    assert the_only(clinic, place).reason is Reason.STATUS_UNAVAILABLE
    clinic.spoiled[place] = lambda _: other
    assert the_only(clinic, place).reason is Reason.NO_PATH


def test_an_overdue_revocation_that_is_missing_is_a_defect(clinic: PublishedHospital) -> None:
    issued = clinic.issue()
    clinic.revoke(issued)
    clinic.advance(seconds=59)
    assert clinic.probe().defects == (), "policy allows 60 s"
    clinic.advance(seconds=2)
    report = clinic.probe()
    assert reasons(report.defects, clinic.place("0")) == {Reason.STATUS_INCOMPLETE}
    assert reasons(report.defects, clinic.place("complete")) == {Reason.STATUS_INCOMPLETE}
    assert any(f"{issued.serial:x}" in one.sentence for one in report.defects)
    assert clinic.probe(through_caches=True).defects == (), "a cache on the way may be a minute behind"


def test_a_revocation_dated_by_a_clock_that_ran_ahead_may_not_be_missing(clinic: PublishedHospital) -> None:
    """Its real time is unknown. It is dated a month ahead, and no CRL of that month may lack it."""
    issued = clinic.issue()
    clinic.advance(days=30)
    clinic.revoke(issued)
    clinic.advance(days=-30)
    assert reasons(clinic.probe().defects, clinic.place("0")) == {Reason.STATUS_INCOMPLETE}
    publish_after(clinic, seconds=1)
    assert clinic.probe().defects == ()


def test_a_revocation_missing_in_a_delta_crl_is_a_defect(clinic: PublishedHospital) -> None:
    first, second = clinic.issue(), clinic.issue()
    clinic.revoke(first)
    publish_after(clinic, minutes=2)
    before = crl_of(clinic, is_delta=True)
    clinic.revoke(second)
    publish_after(clinic, minutes=2)
    clinic.advance(minutes=2)
    place = hand_out(clinic, before, "0.delta")
    assert reasons(clinic.probe().defects) == {Reason.STATUS_BEHIND, Reason.STATUS_INCOMPLETE}
    assert reasons(clinic.probe().defects) == reasons(clinic.probe().defects, place)


def test_a_good_certificate_in_a_crl_is_a_defect(clinic: PublishedHospital) -> None:
    issued, now = clinic.issue(), clinic.built.clock.now()
    entry = encode_crl_entry(issued.serial, now, RevocationReason.SUPERSEDED)
    false = signed(clinic, entries=(entry,), number=_published_number(clinic))
    defect = the_only(clinic, hand_out(clinic, false))
    assert (defect.reason, f"{issued.serial:x}" in defect.sentence) == (Reason.STATUS_UNTRUE, True)


def _published_number(clinic: PublishedHospital) -> int:
    with clinic.built.database.reading() as connection:
        return present(find_number(connection, clinic.icu.authority_id, 0, is_delta=False))


def test_an_overdue_release_is_a_defect(clinic: PublishedHospital) -> None:
    issued = clinic.issue()
    name = (issued.issuer.authority_id, issued.serial)
    clinic.built.revocations.hold(*name, by="operator:tests").result()
    publish_after(clinic, minutes=2)
    held = crl_of(clinic)
    clinic.built.revocations.release(*name, by="operator:tests").result()
    hand_out(clinic, held)
    clinic.advance(seconds=30)
    assert clinic.probe().defects == ()
    clinic.advance(seconds=31)
    assert Reason.STATUS_UNTRUE in reasons(clinic.probe().defects, clinic.place("0"))


def test_a_crl_number_that_falls_is_a_defect_even_after_a_restart(clinic: PublishedHospital) -> None:
    old = crl_of(clinic)
    publish_after(clinic, hours=6)
    assert clinic.probe().defects == ()
    place = hand_out(clinic, old)
    clinic.advance(seconds=61)
    assert Reason.CRL_ROLLBACK in reasons(clinic.probe().defects, place)


@pytest.mark.parametrize("name", ["0", "0.delta"])
def test_a_cache_may_have_an_older_crl_than_another_process_saw(clinic: PublishedHospital, name: str) -> None:
    """All processes share the numbers they have seen; each cache and server may be a minute behind the newest."""
    clinic.revoke(clinic.issue())
    publish_after(clinic, minutes=5)
    old = crl_of(clinic, is_delta=name != "0")
    clinic.revoke(clinic.issue())
    publish_after(clinic, seconds=30)
    assert clinic.probe().defects == ()
    place = hand_out(clinic, old, name)
    clinic.advance(seconds=59)
    assert reasons(clinic.probe(through_caches=True).defects) == set()
    clinic.advance(seconds=70)
    report = clinic.probe(through_caches=True)
    assert reasons(report.defects, place) == {Reason.CRL_ROLLBACK, Reason.STATUS_BEHIND, Reason.STATUS_INCOMPLETE}
    assert {one.place for one in report.defects} == {place}


def test_an_old_crl_is_behind_where_no_newer_one_was_seen(clinic: PublishedHospital) -> None:
    old = crl_of(clinic)
    publish_after(clinic, hours=6)
    place = hand_out(clinic, old)
    clinic.advance(seconds=61)
    assert the_only(clinic, place).reason is Reason.STATUS_BEHIND


def test_a_table_that_is_older_than_the_published_crl_was_set_back(clinic: PublishedHospital) -> None:
    defect = the_only(clinic, hand_out(clinic, signed(clinic)))
    assert (defect.reason, "restored" in defect.sentence) == (Reason.CRL_ROLLBACK, True)


def test_a_crl_that_is_not_signed_anew_is_overdue_and_then_stale(clinic: PublishedHospital) -> None:
    clinic.advance(hours=6, minutes=11)
    report = clinic.probe()
    assert reasons(report.defects) == {Reason.STATUS_OVERDUE}
    assert {one.place for one in report.defects} == {clinic.place("0"), clinic.place("complete")}
    clinic.advance(days=7)
    assert reasons(clinic.probe().defects, clinic.place("0")) == {Reason.STATUS_STALE}


def test_offline_crls_are_overdue_sixty_days_ahead(clinic: PublishedHospital) -> None:
    publish_after(clinic, days=119)
    assert Reason.STATUS_OVERDUE not in {one.reason for one in defects_at(clinic, "/root/")}
    publish_after(clinic, days=2)
    overdue = defects_at(clinic, "/root/")
    assert {one.reason for one in overdue} == {Reason.STATUS_OVERDUE}
    assert "vagus ceremony" in overdue[0].sentence


def test_a_crl_of_another_scope_covers_no_certificate(clinic: PublishedHospital) -> None:
    number = _published_number(clinic)
    place = hand_out(clinic, signed(clinic, shard_url=clinic.place("7"), number=number))
    assert the_only(clinic, place).reason is Reason.CRL_SCOPE
    clinic.spoiled.clear()
    complete = hand_out(clinic, signed(clinic, number=number), "complete")
    assert Reason.CRL_SCOPE in reasons(clinic.probe().defects, complete)


def test_ocsp_that_calls_a_revoked_certificate_good_is_a_defect(clinic: PublishedHospital) -> None:
    clinic.revoke(clinic.issue())
    publish_after(clinic, minutes=2)
    clinic.responses.follower._revoked.clear()
    report = clinic.probe()
    assert reasons(report.defects) == {Reason.STATUS_INCOMPLETE}
    assert all(one.place.endswith("/ocsp") for one in report.defects)


def through_a_cache_that_ends_nothing(clinic: PublishedHospital) -> Prober:
    """The response to POST is right all the time: most clients ask by GET (RFC 5019), which caches serve."""
    kept: dict[str, bytes] = {}

    def cache(url: str, body: bytes | None = None) -> bytes:
        return kept.setdefault(url, clinic.fetch(url)) if "/ocsp/" in url else clinic.fetch(url, body)

    prober = clinic.prober(through_caches=True)
    prober.fetch, prober.responses_per_authority = cache, 40
    return prober


def test_a_cache_that_keeps_an_ocsp_response_beyond_its_age_is_a_defect(clinic: PublishedHospital) -> None:
    prober = through_a_cache_that_ends_nothing(clinic)
    issued = clinic.issue()
    assert prober.probe().defects == ()
    clinic.revoke(issued)
    publish_after(clinic, minutes=1)
    assert prober.probe().defects == ()
    clinic.advance(seconds=61)
    (defect,) = prober.probe().defects
    assert (defect.reason, defect.place) == (Reason.STATUS_INCOMPLETE, f"{STATUS_URL}/ocsp")


def test_such_a_cache_is_a_defect_before_any_certificate_is_revoked(clinic: PublishedHospital) -> None:
    prober = through_a_cache_that_ends_nothing(clinic)
    clinic.issue()
    assert prober.probe().defects == ()
    publish_after(clinic, hours=6, minutes=11)
    assert prober.probe().defects == ()
    clinic.advance(seconds=1)
    assert reasons(prober.probe().defects) == {Reason.STATUS_OVERDUE}
    assert clinic.probe(through_caches=True).defects == ()


def test_ocsp_that_calls_a_good_certificate_revoked_is_a_defect(clinic: PublishedHospital) -> None:
    clinic.revoke(clinic.issue())
    clinic.advance(minutes=2)
    execute(clinic, delete(revocations), delete(revocation_events))
    prober = clinic.prober()
    prober.responses_per_authority = 40
    assert reasons(prober.probe().defects) == {Reason.STATUS_UNTRUE}


def test_ocsp_that_says_try_later_is_unavailable(clinic: PublishedHospital) -> None:
    clinic.issue()
    clinic.built.advance(seconds=10)
    assert reasons(clinic.probe().defects) == {Reason.STATUS_UNAVAILABLE}, "the responses have lost the sequence"


def test_a_responder_that_is_missing_or_about_to_end_is_a_defect(clinic: PublishedHospital) -> None:
    clinic.issue()
    publish_after(clinic, days=9, hours=1)
    assert {one.reason for one in defects_at(clinic, "/ocsp")} == {Reason.STATUS_OVERDUE}
    execute(clinic, delete(ocsp_responders))
    assert Reason.OCSP_RESPONDER in reasons(clinic.probe().defects)


def test_an_authority_that_never_published_is_a_defect(clinic: PublishedHospital) -> None:
    execute(clinic, delete(crl_publications).where(crl_publications.c.authority_id == clinic.icu.authority_id))
    defects = clinic.probe().defects
    assert [(one.reason, "never published" in one.sentence) for one in defects] == [(Reason.STATUS_UNAVAILABLE, True)]


def moved_prober(clinic: PublishedHospital) -> Prober:
    """A prober whose status URL has moved, and that asks about every certificate."""
    prober = clinic.prober()
    prober.responses_per_authority, prober.status_url = 40, "http://moved.group.example"
    return prober


def test_a_distribution_point_that_leads_nowhere_is_a_defect(clinic: PublishedHospital) -> None:
    clinic.issue()
    prober, place, real = moved_prober(clinic), clinic.place("0"), clinic.fetch

    def moved(url: str, body: bytes | None = None) -> bytes:
        if url == place:
            return real(url.replace("/icu/", "/nowhere/").replace("h1.icu", "h1.nowhere"))
        return real(url.replace("http://moved.group.example", "http://status.group.example"), body)

    prober.fetch = moved
    defects = [one for one in prober.probe().defects if one.place == place]
    assert {one.reason for one in defects} == {Reason.CRL_SCOPE}


def test_a_crl_that_moved_away_from_its_certificates_is_a_defect(clinic: PublishedHospital) -> None:
    """Another status URL: the old URL still leads to the CRLs, and they name the new one."""
    clinic.issue()
    moved = replace(clinic.icu, status_url="http://moved.group.example")
    clinic.advance(hours=6)
    clinic.built.publisher.publish_all(moved)
    prober, real = moved_prober(clinic), clinic.fetch
    prober.fetch = lambda url, body: real(url.replace("moved.group.example", "status.group.example"), body)
    defects = [one for one in prober.probe().defects if one.place == clinic.place("0")]
    assert {one.reason for one in defects} == {Reason.CRL_SCOPE}
    assert all("IssuingDistributionPoint names http://moved.group.example" in one.sentence for one in defects)


def test_a_released_hold_that_a_delta_crl_does_not_take_back_is_a_defect(clinic: PublishedHospital) -> None:
    held = clinic.issue()
    clinic.built.revocations.hold(clinic.icu.authority_id, held.serial, by="operator:tests").result()
    publish_after(clinic, hours=7)
    clinic.built.revocations.release(clinic.icu.authority_id, held.serial, by="operator:tests").result()
    publish_after(clinic, seconds=5)
    clinic.advance(minutes=10)
    assert clinic.probe().defects == ()
    with clinic.built.database.reading() as connection:
        delta = present(find_delta(connection, clinic.icu.authority_id, 0))
    empty = signed(clinic, number=delta.number, this_update=clinic.built.clock.now(), base_number=delta.base_number)
    defect = the_only(clinic, hand_out(clinic, empty, "0.delta"))
    assert (defect.reason, f"{held.serial:x}" in defect.sentence) == (Reason.STATUS_UNTRUE, True)


def test_an_authority_that_has_ended_is_not_probed(clinic: PublishedHospital) -> None:
    """Retired at its re-key, ended years later, its key destroyed: nothing is signed for it any more."""
    clinic.built.hierarchy.retire("h1/icu", 1, by="operator:tests")
    clinic.advance(seconds=(present(clinic.icu.facts.not_after) - clinic.built.clock.now()).total_seconds() - 1)
    assert any("h1.icu" in one.place for one in clinic.probe().defects)
    clinic.advance(seconds=1)
    assert not [one for one in clinic.probe().defects if "h1.icu" in one.place or "h1/icu" in one.sentence]


def test_a_responder_that_ends_with_its_authority_has_no_successor_to_wait_for(clinic: PublishedHospital) -> None:
    built = clinic.built
    built.hierarchy.retire("h1/icu", 1, by="operator:tests")
    built.clock.advance(seconds=(present(clinic.icu.facts.not_after) - built.clock.now()).total_seconds() - 3 * 86_400)
    clinic.responses.follower.catch_up()
    keystore = built.keystore(OCSP_KEYSTORE)
    renewal = ResponderRenewal(built.database, built.writer, built.clock, built.issuance(), keystore)
    clinic.publish()
    assert Reason.STATUS_OVERDUE in reasons(clinic.probe().defects, f"{STATUS_URL}/ocsp"), "the last is not made yet"
    assert renewal.renew_due(clinic.icu)
    assert not [one for one in clinic.probe().defects if "the responder of h1/icu" in one.sentence]


def test_without_a_writer_no_number_is_remembered(clinic: PublishedHospital) -> None:
    clinic.probe(notes=False)
    place = hand_out(clinic, signed(clinic, number=1))
    assert Reason.CRL_ROLLBACK not in reasons(clinic.probe(notes=False).defects, place)
    clinic.spoiled.clear()
    clinic.probe()
    clinic.advance(seconds=61)
    hand_out(clinic, signed(clinic, number=1))
    assert Reason.CRL_ROLLBACK in reasons(clinic.probe(notes=False).defects, place)


def test_a_prober_that_is_stopped_ends_its_round(clinic: PublishedHospital) -> None:
    prober = clinic.prober()
    prober.stop()
    assert prober.probe().crls == 0


def test_reachable_means_that_an_http_server_responds(clinic: PublishedHospital) -> None:
    assert clinic.prober().is_reachable()
    for name in ("root", "h1", "h1.icu"):
        clinic.spoiled[clinic.place("complete").replace("h1.icu", name)] = lambda _: None
    assert clinic.prober().is_reachable(), "a 404 is an answer"

    def nobody(url: str, body: bytes | None = None) -> bytes:
        raise VagusError(Reason.STATUS_UNAVAILABLE, "connection refused")

    prober = clinic.prober()
    prober.fetch = nobody
    assert not prober.is_reachable()


def test_an_expired_revocation_may_leave_the_crl(clinic: PublishedHospital) -> None:
    clinic.revoke(clinic.issue())
    clinic.advance(minutes=2)
    execute(clinic, update(revocations).values(not_after=int(clinic.built.clock.now().timestamp()) - 90_000))
    clinic.publish()
    assert clinic.probe().defects == ()
