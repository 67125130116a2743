"""Whether an OCSP response counts: its signer, its certificate, its dates and its status."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest

from tests.simulator.refusals import reason_of
from tests.x509 import chains
from tests.x509.chains import AT, DAY, NOCHECK, OCSP_SIGNING, Ext, Made, ocsp_id, ocsp_response, purposes, revoked, root
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.certificates import PathCertificate
from vagus.x509.ocsp.checks import DEFAULT_OCSP_RULES, OcspRules, check_response
from vagus.x509.ocsp.messages import CertStatus
from vagus.x509.signatures import SignatureVerdicts

ROOT = root()
CA = ROOT.ca("O=Harbour,CN=CA")
LEAF = CA.leaf()
ID = ocsp_id(LEAF, CA)
HOUR = timedelta(hours=1)


def responder(*extra: Ext, issuer: Made = CA, **changes: object) -> Made:
    wanted = extra or (purposes(OCSP_SIGNING), NOCHECK)
    return issuer.issue("O=Harbour,CN=OCSP", (chains.LEAF_USAGE, *wanted), **changes)


RESPONDER = responder()


def check(response: bytes, rules: OcspRules = DEFAULT_OCSP_RULES, of: Made = LEAF, issuer: Made = CA) -> None:
    answer = check_response(response, of.parsed, issuer.parsed, AT, SignatureVerdicts(), rules)
    assert answer.status is CertStatus.GOOD


refused = partial(reason_of, check)


@pytest.mark.parametrize("by_name", [False, True])
def test_the_issuer_or_its_delegate_signs_the_response(by_name: bool) -> None:
    check(ocsp_response(CA, ID, by_name=by_name))
    check(ocsp_response(RESPONDER, ID, certificates=[RESPONDER], by_name=by_name))


@pytest.mark.parametrize("hash_oid", ["1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1"])
def test_the_certificate_may_be_named_by_either_hash(hash_oid: str) -> None:
    check(ocsp_response(CA, ocsp_id(LEAF, CA, hash_oid=hash_oid)))


def test_what_the_answer_says_is_what_the_caller_hears() -> None:
    assert refused(ocsp_response(CA, ID, revoked(1))) is Reason.REVOKED
    assert refused(ocsp_response(CA, ID, revoked())) is Reason.REVOKED
    assert refused(ocsp_response(CA, ID, revoked(6))) is Reason.ON_HOLD
    assert refused(ocsp_response(CA, ID, chains.UNKNOWN_STATUS)) is Reason.NOT_ISSUED


def test_a_status_of_another_certificate_does_not_count() -> None:
    """C31."""
    other = CA.leaf()
    assert refused(ocsp_response(CA, ocsp_id(other, CA))) is Reason.OCSP_MISMATCH
    assert refused(ocsp_response(CA, ocsp_id(LEAF, CA, key_hash=bytes(20)))) is Reason.OCSP_MISMATCH
    namesake = root("O=Harbour,CN=CA")
    assert refused(ocsp_response(namesake, ID), issuer=namesake) is Reason.OCSP_MISMATCH


def test_one_bad_status_among_several_of_the_certificate_decides() -> None:
    single = der.sequence(ID, revoked(1), der.generalized_time(AT - DAY))
    assert refused(ocsp_response(CA, ID, more=[single]), OcspRules(longest_life=DAY * 9)) is Reason.REVOKED


def test_a_revocation_counts_beside_newer_statuses_that_say_less() -> None:
    """A hold and a certificate that is not known may both be undone, and grow old; a revocation does neither."""
    for status, ends in ((revoked(6), AT - HOUR), (chains.UNKNOWN_STATUS, AT + HOUR)):
        older = der.sequence(ID, revoked(1), der.generalized_time(AT - DAY))
        response = ocsp_response(CA, ID, status, this_update=AT - 2 * HOUR, next_update=ends, more=[older])
        assert refused(response) is Reason.REVOKED


@pytest.mark.parametrize("status", [revoked(1), revoked()])
def test_a_revocation_outlives_the_certificate_of_the_delegate_that_signed_it(status: bytes) -> None:
    past = responder(not_before=AT - 9 * DAY, not_after=AT - 2 * DAY)
    times = {"this_update": AT - 3 * DAY, "produced_at": AT - 3 * DAY, "next_update": AT - 2 * DAY}

    def dated(said: bytes, **changes: datetime) -> bytes:
        return ocsp_response(past, ID, said, certificates=[past], **{**times, **changes})  # type: ignore[arg-type]

    assert refused(dated(status)) is Reason.REVOKED
    # what may be undone does not
    for said in (chains.GOOD, revoked(6), chains.UNKNOWN_STATUS):
        assert refused(dated(said, next_update=AT + DAY)) is Reason.OCSP_RESPONDER
    # nor what was signed when the delegate was none
    for produced_at in (AT - DAY, AT - 10 * DAY):
        assert refused(dated(status, produced_at=produced_at)) is Reason.OCSP_RESPONDER
    early = responder(not_before=AT + HOUR)
    assert refused(ocsp_response(early, ID, status, certificates=[early])) is Reason.OCSP_RESPONDER


NO_RESPONDERS = {
    "no-eku": (responder(NOCHECK), None),
    "any-eku": (responder(purposes(chains.ANY_PURPOSE), NOCHECK), None),
    "other-eku": (responder(purposes(chains.SERVER_AUTH), NOCHECK), None),
    "no-nocheck": (responder(purposes(OCSP_SIGNING)), None),
    "of-root": (responder(issuer=ROOT), None),
    "of-namesake": (responder(issuer=root("O=Harbour,CN=CA")), None),
    "expired": (responder(not_after=AT - HOUR), None),
    "future": (responder(not_before=AT + HOUR), None),
    "forged": (responder(flip=8), None),
    "critical": (responder(purposes(OCSP_SIGNING), NOCHECK, Ext(chains.UNKNOWN, b"", critical=True)), None),
    "usage": (CA.issue("CN=x", (chains.usage(1), purposes(OCSP_SIGNING), NOCHECK)), None),
    "two-algorithms": (responder(outer_algorithm=chains.identifier("1.2.840.10045.4.3.3")), None),
    "withheld": (RESPONDER, ()),
    "root-itself": (ROOT, (ROOT,)),
    "the-leaf-itself": (LEAF, (LEAF,)),
}


@pytest.mark.parametrize(("signer", "held"), NO_RESPONDERS.values(), ids=NO_RESPONDERS)
def test_no_other_certificate_may_sign_a_response(signer: Made, held: tuple[Made, ...] | None) -> None:
    """C30."""
    response = ocsp_response(signer, ID, certificates=(signer,) if held is None else held)
    assert refused(response) is Reason.OCSP_RESPONDER


def test_a_delegate_without_nocheck_needs_a_status_of_its_own() -> None:
    unmarked = responder(purposes(OCSP_SIGNING))
    response = ocsp_response(unmarked, ID, certificates=[unmarked])
    asked: list[PathCertificate] = []
    check(response, OcspRules(responder_status=lambda one, _issuer, _at: asked.append(one)))
    assert asked == [unmarked.parsed]
    check(response, OcspRules(requires_nocheck=False))

    def deny(*_: object) -> None:
        raise NotTrusted(Reason.REVOKED, "revoked")

    assert refused(response, OcspRules(responder_status=deny)) is Reason.OCSP_RESPONDER


def test_a_changed_response_is_refused() -> None:
    assert refused(ocsp_response(CA, ID, flip=30)) is Reason.BAD_SIGNATURE
    assert refused(ocsp_response(RESPONDER, ID, certificates=[RESPONDER], flip=30)) is Reason.BAD_SIGNATURE
    sha1 = ocsp_response(CA, ID, digest="sha1")
    assert refused(sha1) is Reason.UNSUPPORTED_ALGORITHM
    check(sha1, OcspRules(unsafe_legacy=True))


def test_the_responder_id_must_be_of_the_signer() -> None:
    named = der.explicit(2, der.octet_string(bytes(20)))
    assert refused(ocsp_response(CA, ID, responder=named)) is Reason.OCSP_RESPONDER
    of_another = der.explicit(2, der.octet_string(chains.key_id(CA.private)))
    assert refused(ocsp_response(RESPONDER, ID, responder=of_another)) is Reason.BAD_SIGNATURE


def test_a_response_past_its_date_still_says_revoked_and_says_nothing_else() -> None:
    def past(status: bytes) -> Reason:
        return refused(ocsp_response(CA, ID, status, next_update=AT - HOUR, this_update=AT - DAY))

    assert past(revoked(1)) is Reason.REVOKED
    assert past(revoked(6)) is Reason.OCSP_STALE
    assert past(chains.UNKNOWN_STATUS) is Reason.OCSP_STALE
    assert refused(ocsp_response(CA, ID, revoked(1), produced_at=AT + HOUR)) is Reason.OCSP_STALE


def test_thisupdate_and_nextupdate_are_checked() -> None:
    """C28."""
    assert refused(ocsp_response(CA, ID, next_update=AT - HOUR, this_update=AT - DAY)) is Reason.OCSP_STALE
    assert refused(ocsp_response(CA, ID, this_update=AT + HOUR)) is Reason.OCSP_STALE
    assert refused(ocsp_response(CA, ID, produced_at=AT + HOUR)) is Reason.OCSP_STALE
    assert refused(ocsp_response(CA, ID, next_update=None)) is Reason.OCSP_STALE
    assert refused(ocsp_response(CA, ID, next_update=AT - 9 * DAY)) is Reason.OCSP_INVALID
    check(ocsp_response(CA, ID, next_update=AT))
    check(ocsp_response(CA, ID, this_update=AT + timedelta(minutes=4)))
    week = replace(DEFAULT_OCSP_RULES, longest_life=timedelta(days=7))
    check(ocsp_response(CA, ID, next_update=None), week)
    assert refused(ocsp_response(CA, ID, next_update=None, this_update=AT - 8 * DAY), week) is Reason.OCSP_STALE


def test_a_nonce_that_was_sent_must_come_back() -> None:
    sent = OcspRules(nonce=b"n" * 32)
    check(ocsp_response(CA, ID, extensions=[chains.nonce(b"n" * 32)]), sent)
    assert refused(ocsp_response(CA, ID), sent) is Reason.OCSP_NONCE
    assert refused(ocsp_response(CA, ID, extensions=[chains.nonce(b"m" * 32)]), sent) is Reason.OCSP_NONCE
    presigned = replace(sent, accepts_missing_nonce=True)
    check(ocsp_response(CA, ID), presigned)
    assert refused(ocsp_response(CA, ID, extensions=[chains.nonce(b"m" * 32)]), presigned) is Reason.OCSP_NONCE
