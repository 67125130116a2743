"""OCSP responses give the present status in the form that was asked for; CRLs come with their times."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

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
from vagus.authority.crls.published import PublishedCrl, PublishedCrls
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.issuers import Issuer
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, Responder, ResponderRenewal, open_responders
from vagus.authority.ocsp.responses import CachedResponse, OcspResponses, SignedResponse
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


def responders_of(built: Installation) -> tuple[Responder, ...]:
    return built.read(open_responders, built.keystore(OCSP_KEYSTORE))


def end_of(issuer: Issuer) -> datetime:
    assert issuer.facts.not_after is not None
    return issuer.facts.not_after


def question_about(issuer: Issuer, *serials: int) -> bytes:
    """An OCSPRequest for these serials, whether they were issued or not."""
    facts = issuer.facts
    ids = [der.sequence(cert_id(facts.subject_der, facts.spki_der, serial)) for serial in serials]
    return der.sequence(der.sequence(der.sequence(*ids)))


@dataclass
class OcspUnit:
    """h1/icu and its OCSP responses; their follower is in step with the writer."""

    built: Installation
    responses: OcspResponses

    @property
    def now(self) -> datetime:
        return self.built.clock.now()

    @property
    def cached(self) -> dict[Any, CachedResponse]:
        return dict(self.responses._cached)

    def issue(self, **changes: Any) -> IssuedCertificate:
        return self.built.issue(**changes)

    def respond(self, request: bytes) -> SignedResponse:
        self.built.settle()
        return self.responses.respond(request, self.now)

    def ask(self, request: bytes) -> ocsp.OCSPResponse:
        return ocsp.load_der_ocsp_response(self.respond(request).response_der)

    def find_cached(self, request: bytes) -> CachedResponse | None:
        return self.responses.find_cached(request, self.now)

    def advance(self, **by: float) -> None:
        """Time passes, and the follower of the sequence goes with it."""
        self.set_clock(self.now + timedelta(**by))

    def set_clock(self, at: datetime) -> None:
        self.built.settle()
        self.built.clock.set(at)
        self.responses.follower.catch_up()

    def take_over(self) -> None:
        """What the process does after a renewal."""
        self.responses.take_over(responders_of(self.built))
        self.responses.follower.catch_up()

    def sweep(self) -> None:
        while self.responses.presign_slice(self.now):
            pass


@pytest.fixture
def icu(built: Installation) -> OcspUnit:
    assert renewal(built).renew_due(built.icu)
    return OcspUnit(built, OcspResponses(built.database, built.follower(), built.pack.ocsp, responders_of(built)))


def test_a_good_certificate_is_good_and_signed_by_its_delegate(icu: OcspUnit) -> None:
    response = icu.ask(question(icu.issue()))
    assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
    (responder,) = response.certificates
    responder.verify_directly_issued_by(x509.load_der_x509_certificate(icu.built.icu.certificate_der))
    usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert responder.extensions.get_extension_for_class(x509.OCSPNoCheck)
    key = responder.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert response.this_update_utc == icu.now
    assert response.next_update_utc == icu.now + timedelta(hours=12)
    assert response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(key).digest


def test_a_revoked_certificate_is_revoked_with_time_and_reason_at_once(icu: OcspUnit) -> None:
    issued = icu.issue()
    assert icu.ask(question(issued)).certificate_status is ocsp.OCSPCertStatus.GOOD
    icu.built.revoke(issued, RevocationReason.KEY_COMPROMISE)
    response = icu.ask(question(issued))
    assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert response.revocation_time_utc == icu.now
    assert response.revocation_reason is x509.ReasonFlags.key_compromise


def test_a_hold_and_a_release_are_in_the_response(icu: OcspUnit) -> None:
    issued = icu.issue()
    icu.built.hold(issued)
    assert icu.ask(question(issued)).revocation_reason is x509.ReasonFlags.certificate_hold
    icu.built.release(issued)
    assert icu.ask(question(issued)).certificate_status is ocsp.OCSPCertStatus.GOOD


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()])
def test_the_certificate_is_named_as_it_was_asked_for(icu: OcspUnit, algorithm: hashes.HashAlgorithm) -> None:
    request_der = question(icu.issue(), algorithm)
    request, response = ocsp.load_der_ocsp_request(request_der), icu.ask(request_der)
    assert response.hash_algorithm.name == algorithm.name
    assert response.issuer_key_hash == request.issuer_key_hash
    assert response.issuer_name_hash == request.issuer_name_hash
    assert response.serial_number == request.serial_number


def test_a_serial_that_was_never_issued_is_unknown_and_not_cached(icu: OcspUnit) -> None:
    request = question_about(icu.built.icu, 4711)
    response = icu.ask(request)
    assert response.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    assert response.next_update_utc == icu.now + timedelta(minutes=1), "it may be issued the next second"
    assert icu.respond(request).next_update is None
    assert len(icu.cached) == 0


@pytest.mark.parametrize("order", [1, -1], ids=["after a known one", "before it"])
def test_a_response_with_an_unknown_certificate_among_others_is_not_cached(icu: OcspUnit, order: int) -> None:
    known = icu.issue()
    answer = icu.respond(question_about(known.issuer, *(known.serial, 4711)[::order]))
    assert answer.next_update is None
    assert len(icu.cached) == 0
    told = {one.cert_id.serial: one for one in decode_ocsp_response(answer.response_der).singles}
    assert told[known.serial].next_update == icu.now + timedelta(hours=12)
    assert told[4711].next_update == icu.now + timedelta(minutes=1)
    twice = question_about(known.issuer, known.serial, known.serial)
    assert icu.respond(twice).next_update == icu.now + timedelta(hours=12)


def test_an_intent_that_is_not_signed_yet_makes_clients_try_later(icu: OcspUnit) -> None:
    issuance, order = icu.built.issuance(), icu.built.order()
    issuance.commit(issuance.prepare(order, icu.built.icu)).result()
    (row,) = icu.built.read(rows.list_intended)
    request = question_about(icu.built.icu, row.serial)
    with refuses(Reason.UNSETTLED, Unavailable):
        icu.respond(request)
    icu.built.issuance().settle(icu.built.units)
    assert icu.ask(request).certificate_status is ocsp.OCSPCertStatus.GOOD


def test_a_certificate_of_another_authority_is_refused(icu: OcspUnit) -> None:
    foreign = icu.issue(unit="er")
    with refuses(Reason.AUTHORITY_UNKNOWN, Refused):
        icu.respond(question(foreign))


@pytest.mark.parametrize("length", [1, 16, 32, 128])
def test_a_nonce_is_sent_back_and_the_response_is_not_cached(icu: OcspUnit, length: int) -> None:
    nonce = bytes(range(length))
    request = question(icu.issue(), nonce=nonce)
    response = icu.ask(request)
    assert response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce
    assert icu.respond(request).next_update is None
    assert len(icu.cached) == 0


@pytest.mark.parametrize("length", [129, 300])
def test_a_nonce_beyond_rfc_9654_is_refused(icu: OcspUnit, length: int) -> None:
    with pytest.raises(VagusError) as refusal:
        icu.respond(question(icu.issue(), nonce=b"n" * length))
    assert refusal.value.reason in {Reason.OCSP_NONCE, Reason.BAD_REQUEST}


def test_a_response_is_signed_once_in_six_hours(icu: OcspUnit) -> None:
    request = question(icu.issue())
    first = icu.ask(request)
    icu.advance(hours=5, minutes=59)
    assert icu.ask(request).public_bytes(Encoding.DER) == first.public_bytes(Encoding.DER)
    icu.advance(minutes=1)
    assert icu.ask(request).this_update_utc == icu.now


def test_a_response_dated_by_a_clock_that_ran_ahead_is_not_sent_once_it_is_right(icu: OcspUnit) -> None:
    request = question(icu.issue())
    right = icu.now
    icu.advance(minutes=30)
    assert icu.ask(request).this_update_utc == icu.now
    icu.built.clock.set(right)
    assert icu.responses.find_cached(request, right) is None
    icu.responses.follower.catch_up()
    assert icu.ask(request).this_update_utc == right


def test_the_sweep_caches_a_response_for_every_live_certificate(icu: OcspUnit) -> None:
    many = [icu.issue() for _ in range(6)]
    icu.issue(lifetime=timedelta(hours=1))
    icu.built.revoke(many[0], RevocationReason.SUPERSEDED)
    icu.advance(hours=2)
    icu.sweep()
    before = len(icu.cached)
    assert before == 7, "each live certificate of an authority with a responder"
    cached = icu.cached
    icu.sweep()
    assert icu.cached == cached, "nothing is signed again"
    statuses = [icu.ask(question(one)).certificate_status for one in many]
    assert statuses == [ocsp.OCSPCertStatus.REVOKED, *[ocsp.OCSPCertStatus.GOOD] * 5]
    assert len(icu.cached) == before, "the sweep's own keys are what common clients ask with"


def test_the_sweep_goes_past_an_authority_whose_responder_has_expired(icu: OcspUnit) -> None:
    """Its signing side is away for weeks; the responses of the other authorities are presigned as before."""
    icu.built.advance(days=10)
    assert renewal(icu.built).renew_due(icu.built.er)
    silent, other = icu.issue(), icu.issue(unit="er")
    icu.advance(days=5)
    icu.take_over()
    assert icu.responses.presign_slice(icu.now)
    assert not icu.responses.presign_slice(icu.now)
    assert icu.find_cached(question(other)) is not None
    assert icu.find_cached(question(silent)) is None
    icu.advance(hours=7)
    icu.sweep()
    assert len(icu.cached) > 0
    assert {one.this_update for one in icu.cached.values()} == {icu.now.replace(microsecond=0)}


def test_a_cached_response_ends_with_the_revocation_that_contradicts_it(icu: OcspUnit) -> None:
    one, other = icu.issue(), icu.issue()
    for issued in (one, other):
        icu.ask(question(issued))
    icu.built.revoke(one, RevocationReason.SUPERSEDED)
    assert len(icu.cached) == 1


def test_no_cached_response_is_sent_once_the_sequence_contradicts_it(built: Installation) -> None:
    """A follower that learns of a revocation before the responses do must find nothing that contradicts it."""
    assert renewal(built).renew_due(built.icu)
    follower = built.follower()
    found: list[CachedResponse | None] = []
    asked: list[bytes] = []

    def look(_events: Sequence[RevocationEvent]) -> None:
        found.extend(late.find_cached(one) for one in asked)

    follower.subscribe(look)
    late = OcspUnit(built, OcspResponses(built.database, follower, built.pack.ocsp, responders_of(built)))
    revoked, other = late.issue(), late.issue()
    for issued in (revoked, other):
        late.ask(question(issued))
    asked += [question(revoked), question(other)]
    built.revoke(revoked, RevocationReason.SUPERSEDED)
    assert found[0] is None
    assert found[1] is not None
    assert late.ask(question(revoked)).certificate_status is ocsp.OCSPCertStatus.REVOKED
    kept = late.find_cached(question(revoked))
    assert kept is not None
    assert kept.entry == follower.find(revoked.issuer.authority_id, revoked.serial)


def test_a_cached_response_is_the_same_object_until_it_is_signed_anew(icu: OcspUnit) -> None:
    request = question(icu.issue())
    assert icu.find_cached(request) is None
    whole = icu.ask(request).public_bytes(Encoding.DER)
    kept = icu.find_cached(request)
    assert kept is not None
    assert kept.unfold().response_der == whole
    assert icu.find_cached(request) is kept
    assert icu.responses.find_cached(request, icu.now + timedelta(seconds=3)) is None, "the sequence is lost"
    icu.advance(hours=6)
    assert icu.find_cached(request) is None
    icu.ask(request)
    assert icu.find_cached(request) not in {None, kept}


def test_the_cache_has_a_bound(icu: OcspUnit) -> None:
    icu.responses.most_cached = 3
    for _ in range(5):
        icu.ask(question(icu.issue()))
    assert len(icu.cached) == 3
    assert sum(map(len, icu.responses._requests_of.values())) == 3


def test_without_the_sequence_no_status_is_given(icu: OcspUnit) -> None:
    request = question(icu.issue())
    icu.ask(request)
    with refuses(Reason.SEQUENCE_LOST, Unavailable):
        icu.responses.respond(request, icu.now + timedelta(seconds=3))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=120), cut=st.integers(0, 90), flip=st.integers(1, 255))
def test_no_request_bytes_raise_other_than_its_own_errors(icu: OcspUnit, junk: bytes, cut: int, flip: int) -> None:
    issuer = x509.load_der_x509_certificate(icu.built.issuers("h1/icu")["h1/icu"].certificate_der)
    key = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(b"n" * 20, key, 5, hashes.SHA1())
    genuine = bytearray(builder.build().public_bytes(Encoding.DER))
    genuine[min(cut, len(genuine) - 1)] ^= flip
    for request in (junk, bytes(genuine), bytes(genuine[:cut])):
        try:
            icu.respond(request)
        except VagusError as failure:
            assert failure.reason in set(Reason)


# responders


def test_a_responder_is_renewed_at_half_its_life_with_a_new_key(icu: OcspUnit) -> None:
    issuer, keys = icu.built.icu, icu.built.keystore(OCSP_KEYSTORE)
    icu.built.advance(days=6, hours=23)
    assert not renewal(icu.built).renew_due(issuer)
    icu.built.advance(hours=2)
    assert renewal(icu.built).renew_due(issuer)
    assert list_key_ids(keys.folder) == ["h1.icu.1.1", "h1.icu.1.2"], "the old one for one more term"
    (renewed,) = icu.built.read(open_responders, keys)
    icu.responses.take_over([renewed])
    icu.responses.follower.catch_up()
    issued = icu.issue()
    (shown,) = icu.ask(question(issued)).certificates
    assert shown.public_bytes(Encoding.DER) == renewed.certificate_der


def test_the_last_responder_ends_with_its_issuer_and_none_follows_it(built: Installation) -> None:
    issuer, end, found = built.icu, end_of(built.icu), []
    assert renewal(built).renew_due(issuer)
    for left in (timedelta(days=16), timedelta(days=9), timedelta(days=2), timedelta(seconds=1), timedelta()):
        built.clock.set(end - left)
        found.append(renewal(built).renew_due(issuer))
    assert found == [True, True, False, False, False]
    (last,) = responders_of(built)
    assert last.not_after == int(end.timestamp())


def test_a_retired_generation_that_lost_its_responder_near_its_end_gets_one_for_the_rest(built: Installation) -> None:
    issuer, keys = built.icu, built.keystore(OCSP_KEYSTORE)
    assert renewal(built).renew_due(issuer)
    built.hierarchy.request(PLANNED_ICU, by=BY, is_rekey=True)
    built.ceremony().hold()
    built.hierarchy.retire("h1/icu", 1, by=BY)
    built.advance(days=8)
    assert renewal(built).renew_due(issuer), "its certificates live on, and so do responses about them"
    built.clock.set(end_of(issuer) - timedelta(days=3))
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
    (stolen,) = responders_of(built)
    serial = decode_certificate(stolen.certificate_der).serial_number
    reason = RevocationReason.KEY_COMPROMISE
    Revocations(built.writer).revoke(stolen.authority_id, serial, reason, by="operator:test").result()
    assert renewal(built).renew_due(built.icu)
    (fresh,) = responders_of(built)
    assert fresh.certificate_der != stolen.certificate_der
    assert not renewal(built).renew_due(built.icu)


def let_a_clock_ahead_renew(built: Installation, issuer: Issuer) -> None:
    built.advance(days=30)
    assert renewal(built).renew_due(issuer)
    built.advance(days=-30)


def test_a_responder_that_a_clock_made_which_ran_ahead_is_replaced(icu: OcspUnit) -> None:
    """Its certificate begins in a month, and until then clients accept no response that it signs."""
    issuer, issued = icu.built.icu, icu.issue()
    let_a_clock_ahead_renew(icu.built, issuer)
    assert renewal(icu.built).renew_due(issuer)
    assert not renewal(icu.built).renew_due(issuer)
    icu.take_over()
    (shown,) = icu.ask(question(issued)).certificates
    assert shown.not_valid_before_utc <= icu.now


def test_such_a_responder_signs_nothing_that_is_valid_after_its_replacement(icu: OcspUnit) -> None:
    issuer, issued = icu.built.icu, icu.issue()
    let_a_clock_ahead_renew(icu.built, issuer)
    icu.take_over()
    request = question(issued, hashes.SHA256())
    for asked in (request, question(issued, nonce=b"n" * 32)):
        with refuses(Reason.STATUS_UNAVAILABLE, Unavailable):
            icu.ask(asked)
    assert renewal(icu.built).renew_due(issuer)
    icu.take_over()
    (shown,) = icu.ask(request).certificates
    assert shown.not_valid_before_utc <= icu.now


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


def test_an_expired_responder_signs_nothing(icu: OcspUnit) -> None:
    issued = icu.issue()
    icu.advance(days=15)
    with refuses(Reason.OCSP_STALE, Conflict):
        icu.respond(question(issued))


def test_a_cached_response_ends_with_its_responders_certificate(icu: OcspUnit) -> None:
    """No client accepts it after that; a new request should get a response of the renewed responder."""
    issued = icu.issue(lifetime=timedelta(days=90))
    request = question(issued)
    (shown,) = icu.ask(request).certificates
    end = shown.not_valid_after_utc
    icu.set_clock(end - timedelta(hours=1))
    icu.sweep()
    assert len(icu.cached) > 0
    for response in (icu.ask(request), icu.ask(question(issued, hashes.SHA256()))):
        assert response.next_update_utc == end
    icu.set_clock(end - timedelta(seconds=1))
    assert icu.find_cached(request) is not None
    icu.set_clock(end)
    assert icu.find_cached(request) is None
    with refuses(Reason.OCSP_STALE, Conflict):
        icu.respond(request)


def test_responding_needs_no_key_of_an_authority(icu: OcspUnit) -> None:
    issued = icu.issue()
    icu.built.settle()
    opened = SoftwareKeystore.open(icu.built.folder / "keystores" / OCSP_KEYSTORE, SECRET)
    assert list_key_ids(opened.folder) == ["h1.icu.1.1"]
    shutil.rmtree(icu.built.folder / "keystores" / "h1.icu")
    follower = RevocationFollower(icu.built.database, icu.built.clock)
    status = OcspResponses(icu.built.database, follower, icu.built.pack.ocsp, icu.built.read(open_responders, opened))
    answer = ocsp.load_der_ocsp_response(status.respond(question(issued), icu.now).response_der)
    assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD


# CRLs


def test_crls_and_certificates_are_found_by_name(built: Installation) -> None:
    lists = PublishedCrls(built.database, built.clock)

    def find(shard: int) -> PublishedCrl:
        found = lists.find_crl("h1/icu", 1, shard)
        assert found is not None
        return found

    assert lists.find_crl("h1/icu", 1, 0) is None
    (shard, complete) = built.publisher.publish_all(built.icu)
    assert (find(0).crl_der, find(0).this_update) == (shard.crl_der, built.clock.now())
    assert find(0) is find(0), "the bytes are not read again"
    assert find(COMPLETE).crl_der == complete.crl_der
    assert lists.find_crl("h1/icu", 2, 0) is None
    assert lists.find_crl("h1/icu", 1, 7) is None
    assert lists.find_crl("h1/icu", 1, 0, is_delta=True) is None
    assert lists.find_certificate("h1/icu", 1) == built.icu.certificate_der
    assert lists.find_certificate("h9/icu", 1) is None
    built.advance(hours=6)
    built.publisher.publish_due(built.icu)
    assert find(0).this_update == built.clock.now()


@needs_openssl
@pytest.mark.parametrize("value", [b"0123456789abcdef", b"\x04\x0e23456789abcdef", b"n" * 128])
def test_a_nonce_that_an_older_client_writes_bare_comes_back_bare(icu: OcspUnit, tmp_path: Path, value: bytes) -> None:
    """OpenSSL compares what is in extnValue, whatever that is (RFC 6960 4.4.1)."""
    issued = icu.issue()
    asked = der.content_of(der.content_of(question(issued), der.SEQUENCE), der.SEQUENCE)
    nonce = der.sequence(der.object_identifier(NONCE), der.octet_string(value))
    request = der.sequence(der.sequence(asked, der.explicit(2, der.sequence(nonce))))
    (tmp_path / "request.der").write_bytes(request)
    (tmp_path / "response.der").write_bytes(icu.respond(request).response_der)
    (tmp_path / "chain.pem").write_bytes(encode_certificates((issued.issuer.certificate_der, *issued.issuer.chain_der)))
    files = ["-reqin", "request.der", "-respin", "response.der", "-CAfile", "chain.pem"]
    command = ["openssl", "ocsp", *files, "-attime", str(int(icu.now.timestamp()) + 1)]
    done = run(*command, cwd=tmp_path)
    assert "Nonce Verify error" not in done
    assert "Response verify OK" in done, done.text


@needs_openssl
def test_openssl_understands_the_responses(icu: OcspUnit, tmp_path: Path) -> None:
    good, bad = icu.issue(), icu.issue()
    icu.built.revoke(bad, RevocationReason.SUPERSEDED)
    above = (good.issuer.certificate_der, *good.issuer.chain_der)
    for name, ders in (("icu.pem", above[:1]), ("chain.pem", above)):
        (tmp_path / name).write_bytes(encode_certificates(ders))
    at = str(int(icu.now.timestamp()) + 1)
    for name, issued, digest in (("good", good, "-sha1"), ("revoked", bad, "-sha1"), ("good", good, "-sha256")):
        (tmp_path / "leaf.pem").write_bytes(encode_certificates([issued.der]))
        base = ["openssl", "ocsp", "-issuer", "icu.pem", digest, "-cert", "leaf.pem"]
        assert run(*base, "-reqout", "request.der", cwd=tmp_path).code == 0
        request = (tmp_path / "request.der").read_bytes()
        (tmp_path / "response.der").write_bytes(icu.respond(request).response_der)
        files = ("-reqin", "request.der", "-respin", "response.der", "-CAfile", "chain.pem")
        done = run(*base, *files, "-attime", at, "-validity_period", "999999999", "-no_nonce", cwd=tmp_path)
        assert "Response verify OK" in done, done.text
        assert f"leaf.pem: {name}" in done, done.text
