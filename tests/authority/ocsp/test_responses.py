"""OCSP responses give the present status in the form that was asked for; CRLs come with their times."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.installation import BY, SECRET, Installation
from tests.simulator.installation import ICU as PLANNED_ICU
from tests.simulator.programs import run
from tests.simulator.queries import list_key_ids
from tests.simulator.refusals import refuses
from tests.simulator.status_listeners import question
from vagus.authority.crls.published import PublishedCrls
from vagus.authority.issuers import Issuer
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, ResponderRenewal, open_responders
from vagus.authority.ocsp.responses import CachedResponse, OcspResponses
from vagus.authority.revocation import Revocations
from vagus.errors import Conflict, Refused, Unavailable, VagusError
from vagus.events.revocations import RevocationFollower
from vagus.keystore.signing import Purpose
from vagus.keystore.software import SoftwareKeystore
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.records.publications import COMPLETE
from vagus.x509 import der
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.crls.building import RevocationReason
from vagus.x509.library_certificates import decode_certificate
from vagus.x509.ocsp.building import NONCE, cert_id
from vagus.x509.ocsp.messages import decode_ocsp_response
from vagus.x509.pem import encode_certificates

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")


def renewal(built: Installation) -> ResponderRenewal:
    keystore = built.keystore(OCSP_KEYSTORE)
    return ResponderRenewal(built.database, built.writer, built.clock, built.issuance(), keystore)


@pytest.fixture
def responses(built: Installation) -> OcspResponses:
    """CachedResponses for h1/icu; its follower is in step with the writer."""
    assert renewal(built).renew_due(built.icu)
    follower = RevocationFollower(built.database, built.clock)
    follower.follow(built.writer)
    responders = built.read(open_responders, built.keystore(OCSP_KEYSTORE))
    return OcspResponses(built.database, follower, built.pack.ocsp, responders)


def later(built: Installation, responses: OcspResponses, **by: float) -> None:
    """Time passes, and the follower of the sequence goes with it."""
    built.advance(**by)
    responses._follower.catch_up()


def ask(built: Installation, responses: OcspResponses, request: bytes) -> ocsp.OCSPResponse:
    built.settle()
    return ocsp.load_der_ocsp_response(responses.respond(request, built.clock.now()).response_der)


def test_a_good_certificate_is_good_and_signed_by_its_delegate(built: Installation, responses: OcspResponses) -> None:
    response = ask(built, responses, question(built.issue()))
    assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
    (responder,) = response.certificates
    responder.verify_directly_issued_by(x509.load_der_x509_certificate(built.icu.certificate_der))
    usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert responder.extensions.get_extension_for_class(x509.OCSPNoCheck)
    key = responder.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert response.this_update_utc == built.clock.now()
    assert response.next_update_utc == built.clock.now() + timedelta(hours=12)
    assert response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(key).digest


def test_a_revoked_certificate_is_revoked_with_time_and_reason_at_once(
    built: Installation, responses: OcspResponses
) -> None:
    issued = built.issue()
    assert ask(built, responses, question(issued)).certificate_status is ocsp.OCSPCertStatus.GOOD
    built.revoke(issued, RevocationReason.KEY_COMPROMISE)
    response = ask(built, responses, question(issued))
    assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert response.revocation_time_utc == built.clock.now()
    assert response.revocation_reason is x509.ReasonFlags.key_compromise


def test_a_hold_and_a_release_are_in_the_response(built: Installation, responses: OcspResponses) -> None:
    issued = built.issue()
    built.hold(issued)
    assert ask(built, responses, question(issued)).revocation_reason is x509.ReasonFlags.certificate_hold
    built.release(issued)
    assert ask(built, responses, question(issued)).certificate_status is ocsp.OCSPCertStatus.GOOD


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()])
def test_the_certificate_is_named_as_it_was_asked_for(
    built: Installation, responses: OcspResponses, algorithm: hashes.HashAlgorithm
) -> None:
    request_der = question(built.issue(), algorithm)
    request, response = ocsp.load_der_ocsp_request(request_der), ask(built, responses, request_der)
    assert response.hash_algorithm.name == algorithm.name
    assert response.issuer_key_hash == request.issuer_key_hash
    assert response.issuer_name_hash == request.issuer_name_hash
    assert response.serial_number == request.serial_number


def test_a_serial_that_was_never_issued_is_unknown_and_not_cached(
    built: Installation, responses: OcspResponses
) -> None:
    issuer = x509.load_der_x509_certificate(built.icu.certificate_der)
    name = hashlib.sha1(issuer.subject.public_bytes(), usedforsecurity=False).digest()
    key = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name, key, 4711, hashes.SHA1())
    request = builder.build().public_bytes(Encoding.DER)
    response = ask(built, responses, request)
    assert response.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    assert response.next_update_utc == built.clock.now() + timedelta(minutes=1), "it may be issued the next second"
    assert responses.respond(request, built.clock.now()).next_update is None
    assert len(responses._cached) == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["behind a known one", "before it"])
def test_a_response_with_an_unknown_certificate_among_others_is_not_cached(
    built: Installation, responses: OcspResponses, order: tuple[int, int]
) -> None:
    known = built.issue()
    built.settle()
    facts = known.issuer.facts
    serials = [(known.serial, 4711)[one] for one in order]
    ids = [der.sequence(cert_id(facts.subject_der, facts.spki_der, serial)) for serial in serials]
    answer = responses.respond(der.sequence(der.sequence(der.sequence(*ids))), built.clock.now())
    assert answer.next_update is None
    assert len(responses._cached) == 0
    told = {one.cert_id.serial: one for one in decode_ocsp_response(answer.response_der).singles}
    assert told[known.serial].next_update == built.clock.now() + timedelta(hours=12)
    assert told[4711].next_update == built.clock.now() + timedelta(minutes=1)
    twice = der.sequence(der.sequence(der.sequence(ids[order.index(0)] * 2)))
    assert responses.respond(twice, built.clock.now()).next_update == built.clock.now() + timedelta(hours=12)


def test_an_intent_that_is_not_signed_yet_makes_clients_try_later(
    built: Installation, responses: OcspResponses
) -> None:
    issuance, order = built.issuance(), built.order()
    issuance.commit(issuance.prepare(order, built.icu)).result()
    (row,) = built.read(rows.list_intended)
    facts = built.icu.facts
    request = der.sequence(
        der.sequence(der.sequence(der.sequence(cert_id(facts.subject_der, facts.spki_der, row.serial))))
    )
    with refuses(Reason.UNSETTLED, Unavailable):
        responses.respond(request, built.clock.now())
    built.issuance().settle(built.units)
    assert ask(built, responses, request).certificate_status is ocsp.OCSPCertStatus.GOOD


def test_a_certificate_of_another_authority_is_refused(built: Installation, responses: OcspResponses) -> None:
    foreign = built.issue(unit="er")
    with refuses(Reason.AUTHORITY_UNKNOWN, Refused):
        responses.respond(question(foreign), built.clock.now())


@pytest.mark.parametrize("length", [1, 16, 32, 128])
def test_a_nonce_is_sent_back_and_the_response_is_not_cached(
    built: Installation, responses: OcspResponses, length: int
) -> None:
    nonce = bytes(range(length))
    request = question(built.issue(), nonce=nonce)
    response = ask(built, responses, request)
    assert response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce
    assert responses.respond(request, built.clock.now()).next_update is None
    assert len(responses._cached) == 0


@pytest.mark.parametrize("length", [129, 300])
def test_a_nonce_beyond_rfc_9654_is_refused(built: Installation, responses: OcspResponses, length: int) -> None:
    with pytest.raises(VagusError) as refusal:
        responses.respond(question(built.issue(), nonce=b"n" * length), built.clock.now())
    assert refusal.value.reason in {Reason.OCSP_NONCE, Reason.BAD_REQUEST}


def test_a_response_is_signed_once_in_six_hours(built: Installation, responses: OcspResponses) -> None:
    request = question(built.issue())
    first = ask(built, responses, request)
    later(built, responses, hours=5, minutes=59)
    assert ask(built, responses, request).public_bytes(Encoding.DER) == first.public_bytes(Encoding.DER)
    later(built, responses, minutes=1)
    assert ask(built, responses, request).this_update_utc == built.clock.now()


def test_a_response_dated_by_a_clock_that_ran_ahead_is_not_sent_once_it_is_right(
    built: Installation, responses: OcspResponses
) -> None:
    request = question(built.issue())
    right = built.clock.now()
    later(built, responses, minutes=30)
    assert ask(built, responses, request).this_update_utc == built.clock.now()
    built.clock.set(right)
    assert responses.find_cached(request, right) is None
    responses._follower.catch_up()
    assert ask(built, responses, request).this_update_utc == right


def sweep(responses: OcspResponses, at: datetime) -> None:
    while responses.presign_slice(at):
        pass


def test_the_sweep_caches_a_response_for_every_live_certificate(built: Installation, responses: OcspResponses) -> None:
    many = [built.issue() for _ in range(6)]
    short = built.issue(lifetime=timedelta(hours=1))
    built.settle()
    built.revocations.revoke(short.issuer.authority_id, many[0].serial, RevocationReason.SUPERSEDED, by=BY).result()
    later(built, responses, hours=2)
    sweep(responses, built.clock.now())
    before = len(responses._cached)
    assert before == 7, "each live certificate of an authority with a responder"
    cached = dict(responses._cached)
    sweep(responses, built.clock.now())
    assert responses._cached == cached, "nothing is signed again"
    statuses = [ask(built, responses, question(one)).certificate_status for one in many]
    assert statuses == [ocsp.OCSPCertStatus.REVOKED, *[ocsp.OCSPCertStatus.GOOD] * 5]
    assert len(responses._cached) == before, "the sweep's own keys are what common clients ask with"


def test_the_sweep_goes_past_an_authority_whose_responder_has_expired(
    built: Installation, responses: OcspResponses
) -> None:
    """Its signing side is away for weeks; the responses of the other authorities are presigned as before."""
    built.advance(days=10)
    assert renewal(built).renew_due(built.er)
    silent, other = built.issue(), built.issue(unit="er")
    built.settle()
    later(built, responses, days=5)
    responses.take_over(built.read(open_responders, built.keystore(OCSP_KEYSTORE)))
    assert responses.presign_slice(built.clock.now())
    assert not responses.presign_slice(built.clock.now())
    assert responses.find_cached(question(other), built.clock.now()) is not None
    assert responses.find_cached(question(silent), built.clock.now()) is None
    later(built, responses, hours=7)
    sweep(responses, built.clock.now())
    assert len(responses._cached) > 0
    assert {one.this_update for one in responses._cached.values()} == {built.clock.now().replace(microsecond=0)}


def test_a_cached_response_ends_with_the_revocation_that_contradicts_it(
    built: Installation, responses: OcspResponses
) -> None:
    one, other = built.issue(), built.issue()
    for issued in (one, other):
        ask(built, responses, question(issued))
    built.revoke(one, RevocationReason.SUPERSEDED)
    assert len(responses._cached) == 1


def test_no_cached_response_is_sent_once_the_sequence_contradicts_it(built: Installation) -> None:
    """A follower that learns of a revocation before the responses do must find nothing that contradicts it."""
    assert renewal(built).renew_due(built.icu)
    follower = RevocationFollower(built.database, built.clock)
    follower.follow(built.writer)
    found: list[CachedResponse | None] = []
    asked: list[bytes] = []

    def look(_events: Sequence[RevocationEvent]) -> None:
        found.extend(late.find_cached(one, built.clock.now()) for one in asked)

    follower.subscribe(look)
    responders = built.read(open_responders, built.keystore(OCSP_KEYSTORE))
    late = OcspResponses(built.database, follower, built.pack.ocsp, responders)
    revoked, other = built.issue(), built.issue()
    for issued in (revoked, other):
        ask(built, late, question(issued))
    asked += [question(revoked), question(other)]
    built.revoke(revoked, RevocationReason.SUPERSEDED)
    assert found[0] is None
    assert found[1] is not None
    assert ask(built, late, question(revoked)).certificate_status is ocsp.OCSPCertStatus.REVOKED
    kept = late.find_cached(question(revoked), built.clock.now())
    assert kept is not None
    assert kept.entry == follower.find(revoked.issuer.authority_id, revoked.serial)


def test_a_cached_response_is_the_same_object_until_it_is_signed_anew(
    built: Installation, responses: OcspResponses
) -> None:
    request = question(built.issue())
    assert responses.find_cached(request, built.clock.now()) is None
    whole = ask(built, responses, request).public_bytes(Encoding.DER)
    kept = responses.find_cached(request, built.clock.now())
    assert kept is not None
    assert kept.unfold().response_der == whole
    assert responses.find_cached(request, built.clock.now()) is kept
    assert responses.find_cached(request, built.clock.now() + timedelta(seconds=3)) is None, "the sequence is lost"
    later(built, responses, hours=6)
    assert responses.find_cached(request, built.clock.now()) is None
    ask(built, responses, request)
    assert responses.find_cached(request, built.clock.now()) not in {None, kept}


def test_the_cache_has_a_bound(built: Installation, responses: OcspResponses) -> None:
    responses._most_cached = 3
    for _ in range(5):
        ask(built, responses, question(built.issue()))
    assert len(responses._cached) == 3
    assert sum(map(len, responses._requests_of.values())) == 3


def test_without_the_sequence_no_status_is_given(built: Installation, responses: OcspResponses) -> None:
    request = question(built.issue())
    ask(built, responses, request)
    with refuses(Reason.SEQUENCE_LOST, Unavailable):
        responses.respond(request, built.clock.now() + timedelta(seconds=3))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=120), cut=st.integers(0, 90), flip=st.integers(1, 255))
def test_no_request_bytes_raise_other_than_its_own_errors(
    built: Installation, responses: OcspResponses, junk: bytes, cut: int, flip: int
) -> None:
    issuer = x509.load_der_x509_certificate(built.issuers("h1/icu")["h1/icu"].certificate_der)
    key = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(b"n" * 20, key, 5, hashes.SHA1())
    genuine = bytearray(builder.build().public_bytes(Encoding.DER))
    genuine[min(cut, len(genuine) - 1)] ^= flip
    for request in (junk, bytes(genuine), bytes(genuine[:cut])):
        try:
            responses.respond(request, built.clock.now())
        except VagusError as failure:
            assert failure.reason in set(Reason)


# responders


def test_a_responder_is_renewed_at_half_its_life_with_a_new_key(built: Installation, responses: OcspResponses) -> None:
    issuer, keys = built.icu, built.keystore(OCSP_KEYSTORE)
    built.advance(days=6, hours=23)
    assert not renewal(built).renew_due(issuer)
    built.advance(hours=2)
    assert renewal(built).renew_due(issuer)
    assert list_key_ids(keys.folder) == ["h1.icu.1.1", "h1.icu.1.2"], "the old one for one more term"
    (renewed,) = built.read(open_responders, keys)
    responses.take_over([renewed])
    responses._follower.catch_up()
    issued = built.issue()
    (shown,) = ask(built, responses, question(issued)).certificates
    assert shown.public_bytes(Encoding.DER) == renewed.certificate_der


def test_the_last_responder_ends_with_its_issuer_and_none_follows_it(built: Installation) -> None:
    issuer, found = built.icu, []
    assert renewal(built).renew_due(issuer)
    end = issuer.facts.not_after
    assert end is not None
    for left in (timedelta(days=16), timedelta(days=9), timedelta(days=2), timedelta(seconds=1), timedelta()):
        built.clock.set(end - left)
        found.append(renewal(built).renew_due(issuer))
    assert found == [True, True, False, False, False]
    (last,) = built.read(open_responders, built.keystore(OCSP_KEYSTORE))
    assert last.not_after == int(end.timestamp())


def test_a_retired_generation_that_lost_its_responder_near_its_end_gets_one_for_the_rest(built: Installation) -> None:
    issuer, keys = built.icu, built.keystore(OCSP_KEYSTORE)
    assert renewal(built).renew_due(issuer)
    built.hierarchy.request(PLANNED_ICU, by=BY, is_rekey=True)
    built.ceremony().hold()
    built.hierarchy.retire("h1/icu", 1, by=BY)
    built.advance(days=8)
    assert renewal(built).renew_due(issuer), "its certificates live on, and so do responses about them"
    end = issuer.facts.not_after
    assert end is not None
    built.clock.set(end - timedelta(days=3))
    keys.destroy("h1.icu.1.2")
    assert renewal(built).renew_due(issuer)
    assert keys.has("h1.icu.1.3")


def test_a_responder_whose_key_is_lost_is_replaced(built: Installation) -> None:
    keys = built.keystore(OCSP_KEYSTORE)
    assert renewal(built).renew_due(built.icu)
    assert not renewal(built).renew_due(built.icu)
    keys.destroy("h1.icu.1.1")
    assert renewal(built).renew_due(built.icu)
    assert list_key_ids(keys.folder) == ["h1.icu.1.2"]


def test_a_responder_without_its_key_does_not_stop_the_others(built: Installation) -> None:
    both, keys = built.issuers("h1/icu", "h1/infra"), built.keystore(OCSP_KEYSTORE)
    assert all(renewal(built).renew_due(both[name]) for name in ("h1/icu", "h1/infra"))
    keys.destroy("h1.infra.1.1")
    told: list[tuple[str, Reason]] = []
    (found,) = built.read(open_responders, keys, lambda name, error: told.append((name, error.reason)))
    assert found.reference == "h1/icu#1"
    assert told == [("h1/infra#1", Reason.KEY_NOT_OPEN)]


def test_a_responder_whose_certificate_is_revoked_is_replaced(built: Installation) -> None:
    assert renewal(built).renew_due(built.icu)
    (stolen,) = built.read(open_responders, built.keystore(OCSP_KEYSTORE))
    serial = decode_certificate(stolen.certificate_der).serial_number
    reason = RevocationReason.KEY_COMPROMISE
    Revocations(built.writer).revoke(stolen.authority_id, serial, reason, by="operator:test").result()
    assert renewal(built).renew_due(built.icu)
    (fresh,) = built.read(open_responders, built.keystore(OCSP_KEYSTORE))
    assert fresh.certificate_der != stolen.certificate_der
    assert not renewal(built).renew_due(built.icu)


def let_a_clock_ahead_renew(built: Installation, issuer: Issuer) -> None:
    built.advance(days=30)
    assert renewal(built).renew_due(issuer)
    built.advance(days=-30)


def test_a_responder_that_a_clock_made_which_ran_ahead_is_replaced(
    built: Installation, responses: OcspResponses
) -> None:
    """Its certificate begins in a month, and until then clients accept no response that it signs."""
    issuer, issued = built.icu, built.issue()
    let_a_clock_ahead_renew(built, issuer)
    assert renewal(built).renew_due(issuer)
    assert not renewal(built).renew_due(issuer)
    responses.take_over(built.read(open_responders, built.keystore(OCSP_KEYSTORE)))
    responses._follower.catch_up()
    (shown,) = ask(built, responses, question(issued)).certificates
    assert shown.not_valid_before_utc <= built.clock.now()


def test_such_a_responder_signs_nothing_that_is_valid_after_its_replacement(
    built: Installation, responses: OcspResponses
) -> None:
    issuer, issued = built.icu, built.issue()
    let_a_clock_ahead_renew(built, issuer)
    responses.take_over(built.read(open_responders, built.keystore(OCSP_KEYSTORE)))
    responses._follower.catch_up()
    request = question(issued, hashes.SHA256())
    for asked in (request, question(issued, nonce=b"n" * 32)):
        with refuses(Reason.STATUS_UNAVAILABLE, Unavailable):
            ask(built, responses, asked)
    assert renewal(built).renew_due(issuer)
    responses.take_over(built.read(open_responders, built.keystore(OCSP_KEYSTORE)))
    (shown,) = ask(built, responses, request).certificates
    assert shown.not_valid_before_utc <= built.clock.now()


def test_a_responder_whose_certificate_is_held_is_replaced_and_its_key_stays(built: Installation) -> None:
    """To hold all that an authority issued holds its responder too."""
    issuer, keys = built.icu, built.keystore(OCSP_KEYSTORE)
    assert renewal(built).renew_due(issuer)
    (held,) = built.read(open_responders, keys)
    serial = decode_certificate(held.certificate_der).serial_number
    built.revocations.hold(held.authority_id, serial, by=BY).result()
    assert renewal(built).renew_due(issuer)
    assert list_key_ids(keys.folder) == ["h1.icu.1.1", "h1.icu.1.2"], "a hold may be released"
    keys.destroy("h1.icu.1.2")
    assert built.read(open_responders, keys, lambda _name, _error: None) == (), "a held responder responds no more"


def test_a_responder_key_that_a_crash_left_is_taken_up(built: Installation) -> None:
    keys = built.keystore(OCSP_KEYSTORE)
    left = keys.generate("h1.icu.1.1", KeyAlgorithm.P256, [Purpose.OCSP], "ocsp:h1/icu#1")
    assert renewal(built).renew_due(built.icu)
    (made,) = built.read(open_responders, keys)
    assert made.key.spki_der == left.spki_der


def test_an_expired_responder_signs_nothing(built: Installation, responses: OcspResponses) -> None:
    issued = built.issue()
    built.settle()
    later(built, responses, days=15)
    with refuses(Reason.OCSP_STALE, Conflict):
        responses.respond(question(issued), built.clock.now())


def test_a_cached_response_ends_with_its_responders_certificate(built: Installation, responses: OcspResponses) -> None:
    """No client accepts it after that; a new request should get a response of the renewed responder."""
    issued = built.issue(lifetime=timedelta(days=90))
    request = question(issued)
    built.settle()
    (shown,) = ask(built, responses, request).certificates
    end = shown.not_valid_after_utc
    built.clock.set(end - timedelta(hours=1))
    responses._follower.catch_up()
    sweep(responses, built.clock.now())
    assert len(responses._cached) > 0
    for response in (ask(built, responses, request), ask(built, responses, question(issued, hashes.SHA256()))):
        assert response.next_update_utc == end
    built.clock.set(end - timedelta(seconds=1))
    responses._follower.catch_up()
    assert responses.find_cached(request, built.clock.now()) is not None
    built.clock.set(end)
    responses._follower.catch_up()
    assert responses.find_cached(request, built.clock.now()) is None
    with refuses(Reason.OCSP_STALE, Conflict):
        responses.respond(request, built.clock.now())


def test_responding_needs_no_key_of_an_authority(built: Installation, responses: OcspResponses) -> None:
    issued = built.issue()
    built.settle()
    opened = SoftwareKeystore.open(built.folder / "keystores" / OCSP_KEYSTORE, SECRET)
    assert list_key_ids(opened.folder) == ["h1.icu.1.1"]
    shutil.rmtree(built.folder / "keystores" / "h1.icu")
    follower = RevocationFollower(built.database, built.clock)
    status = OcspResponses(built.database, follower, built.pack.ocsp, built.read(open_responders, opened))
    answer = ocsp.load_der_ocsp_response(status.respond(question(issued), built.clock.now()).response_der)
    assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD


# CRLs


def test_crls_and_certificates_are_found_by_name(built: Installation) -> None:
    lists = PublishedCrls(built.database, built.clock)
    assert lists.find_crl("h1/icu", 1, 0) is None
    (shard, complete) = built.publisher.publish_all(built.icu)
    found = lists.find_crl("h1/icu", 1, 0)
    assert found is not None
    assert (found.crl_der, found.this_update) == (shard.crl_der, built.clock.now())
    again = lists.find_crl("h1/icu", 1, 0)
    assert again is found, "the bytes are not read again"
    whole = lists.find_crl("h1/icu", 1, COMPLETE)
    assert whole is not None
    assert whole.crl_der == complete.crl_der
    assert lists.find_crl("h1/icu", 2, 0) is None
    assert lists.find_crl("h1/icu", 1, 7) is None
    assert lists.find_crl("h1/icu", 1, 0, is_delta=True) is None
    assert lists.find_certificate("h1/icu", 1) == built.icu.certificate_der
    assert lists.find_certificate("h9/icu", 1) is None
    built.advance(hours=6)
    built.publisher.publish_due(built.icu)
    newer = lists.find_crl("h1/icu", 1, 0)
    assert newer is not None
    assert newer.this_update == built.clock.now()


@needs_openssl
@pytest.mark.parametrize("value", [b"0123456789abcdef", b"\x04\x0e23456789abcdef", b"n" * 128])
def test_a_nonce_that_an_older_client_writes_bare_comes_back_bare(
    built: Installation, responses: OcspResponses, tmp_path: Path, value: bytes
) -> None:
    """OpenSSL compares what is in extnValue, whatever that is (RFC 6960 4.4.1)."""
    issued = built.issue()
    asked = der.content_of(der.content_of(question(issued), der.SEQUENCE), der.SEQUENCE)
    nonce = der.sequence(der.object_identifier(NONCE), der.octet_string(value))
    request = der.sequence(der.sequence(asked, der.explicit(2, der.sequence(nonce))))
    built.settle()
    (tmp_path / "request.der").write_bytes(request)
    (tmp_path / "response.der").write_bytes(responses.respond(request, built.clock.now()).response_der)
    (tmp_path / "chain.pem").write_bytes(encode_certificates((issued.issuer.certificate_der, *issued.issuer.chain_der)))
    files = ["-reqin", "request.der", "-respin", "response.der", "-CAfile", "chain.pem"]
    command = ["openssl", "ocsp", *files, "-attime", str(int(built.clock.now().timestamp()) + 1)]
    done = run(*command, cwd=tmp_path)
    assert "Nonce Verify error" not in done
    assert "Response verify OK" in done, done.text


@needs_openssl
def test_openssl_understands_the_responses(built: Installation, responses: OcspResponses, tmp_path: Path) -> None:
    good, bad = built.issue(), built.issue()
    built.revoke(bad, RevocationReason.SUPERSEDED)
    chain = [good.issuer.certificate_der, *good.issuer.chain_der]
    pems = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in chain]
    (tmp_path / "icu.pem").write_bytes(pems[0])
    (tmp_path / "chain.pem").write_bytes(b"".join(pems))
    at = str(int(built.clock.now().timestamp()) + 1)
    for name, issued, digest in (("good", good, "-sha1"), ("revoked", bad, "-sha1"), ("good", good, "-sha256")):
        leaf = x509.load_der_x509_certificate(issued.der)
        (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        base = ["openssl", "ocsp", "-issuer", "icu.pem", digest, "-cert", "leaf.pem"]
        assert run(*base, "-reqout", "request.der", cwd=tmp_path).code == 0
        request = (tmp_path / "request.der").read_bytes()
        built.settle()
        (tmp_path / "response.der").write_bytes(responses.respond(request, built.clock.now()).response_der)
        files = ("-reqin", "request.der", "-respin", "response.der", "-CAfile", "chain.pem")
        done = run(*base, *files, "-attime", at, "-validity_period", "999999999", "-no_nonce", cwd=tmp_path)
        assert "Response verify OK" in done, done.text
        assert f"leaf.pem: {name}" in done, done.text
