"""The status protocol with real CRLs and responses: what others read, what caches may store, what errors become."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from tests.endpoints.calls import Answer, call
from tests.simulator.enrolment import Site, new_site
from tests.simulator.installation import pack
from tests.simulator.status_listeners import question
from tests.simulator.stock import BY
from vagus.authority.crls.published import PublishedCrls
from vagus.authority.crls.publisher import CrlPublisher
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.ocsp.responders import ResponderRenewal, open_responders
from vagus.authority.ocsp.responses import OcspResponses
from vagus.endpoints.revocation_status import OCSP_STATUS, OcspReplies, encode_ocsp_error, status_app
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.crls.building import RevocationReason
from vagus.x509.ocsp.messages import MAX_REQUEST, ResponseStatus

AGE = timedelta(seconds=60)
POST = {"Content-Type": "application/ocsp-request"}


@pytest.fixture(scope="module")
def standing() -> Iterator[Site]:
    with new_site() as built:
        yield built


@pytest.fixture(scope="module")
def app(standing: Site) -> ASGIApp:
    """The status application of h1/icu, which has a responder and has published its CRLs."""
    stock, keystore, icu = standing.stock, standing.forge.keystore, standing.issuers["h1/icu"]
    ResponderRenewal(stock.database, stock.writer, stock.clock, standing.issuance, keystore).renew_due(icu)
    CrlPublisher(pack(), stock.database, stock.writer, stock.clock, folder=None).publish_all(icu)
    with stock.database.reading() as connection:
        responders = open_responders(connection, keystore)
    replies = OcspReplies(OcspResponses(stock.database, standing.follower, pack().ocsp, responders), stock.clock, AGE)
    return status_app(publications=PublishedCrls(stock.database, stock.clock), ocsp=replies)


_NUMBERS = iter(range(1000))


@pytest.fixture
def issued(standing: Site) -> IssuedCertificate:
    return standing.enrol(standing.stock.add(f"SN-{next(_NUMBERS)}"))


def _revoke(standing: Site, issued: IssuedCertificate) -> None:
    name = issued.issuer.authority_id, issued.serial
    standing.revocations.revoke(*name, RevocationReason.KEY_COMPROMISE, by=BY).result(10)


def _post(app: ASGIApp, request_der: bytes) -> Answer:
    return call(app, "POST", "/ocsp", request_der, headers=POST)


def _response(answer: Answer) -> ocsp.OCSPResponse:
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/ocsp-response"
    assert int(answer.headers["content-length"]) == len(answer.body)
    return ocsp.load_der_ocsp_response(answer.body)


def test_every_reason_has_an_ocsp_status() -> None:
    assert set(OCSP_STATUS) == set(Reason)
    assert OCSP_STATUS[Reason.NON_DER] is ResponseStatus.MALFORMED_REQUEST
    assert OCSP_STATUS[Reason.UNSETTLED] is ResponseStatus.TRY_LATER
    assert OCSP_STATUS[Reason.AUTHORITY_UNKNOWN] is ResponseStatus.UNAUTHORIZED
    assert OCSP_STATUS[Reason.LOG_TAMPERED] is ResponseStatus.INTERNAL_ERROR


@pytest.mark.parametrize("status", [one for one in ResponseStatus if one is not ResponseStatus.SUCCESSFUL])
def test_errors_are_responses_that_others_read(status: ResponseStatus) -> None:
    assert ocsp.load_der_ocsp_response(encode_ocsp_error(status)).response_status.value == status.value


def test_a_crl_is_what_was_published_and_may_be_cached_a_minute(app: ASGIApp, standing: Site) -> None:
    answer = call(app, "GET", "/crl/h1.icu/1/0.crl")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-crl")
    crl = x509.load_der_x509_crl(answer.body)
    certificate = standing.issuers["h1/icu"].certificate
    assert certificate is not None
    assert crl.issuer == certificate.subject
    assert answer.headers["cache-control"] == "public, max-age=60, no-transform, must-revalidate"
    assert answer.headers["last-modified"].endswith("GMT")
    assert call(app, "GET", "/crl/h1.icu/1/complete.crl").status == 200


def test_a_client_that_has_the_crl_gets_no_body(app: ASGIApp) -> None:
    first = call(app, "GET", "/crl/h1.icu/1/0.crl")
    for headers in (
        {"If-None-Match": first.headers["etag"]},
        {"If-None-Match": f'"other", W/{first.headers["etag"]}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": first.headers["last-modified"]},
    ):
        again = call(app, "GET", "/crl/h1.icu/1/0.crl", headers=headers)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    other = {"If-None-Match": '"other"', "If-Modified-Since": first.headers["last-modified"]}
    assert call(app, "GET", "/crl/h1.icu/1/0.crl", headers=other).status == 200, "the tag outranks the date"


def test_head_has_the_size_and_no_body(app: ASGIApp) -> None:
    whole = call(app, "GET", "/crl/h1.icu/1/0.crl")
    head = call(app, "HEAD", "/crl/h1.icu/1/0.crl")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))


def test_an_authoritys_certificate(app: ASGIApp, standing: Site) -> None:
    answer = call(app, "GET", "/ca/h1.icu/1.cer")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-cert")
    assert answer.body == standing.issuers["h1/icu"].certificate_der


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/crl/h1.icu/1/9.crl",
        "/crl/h9.icu/1/0.crl",
        "/crl/h1.icu/2/0.crl",
        "/crl/h1.icu/01/0.crl",
        "/ca/x/1.cer",
        "/crl/h1.icu/1/0.delta.crl",
        "/crl/../ca/h1.icu/1.cer",
        "/crl/h1.icu/1/0.crl/",
        "/ocspx",
        "/ca/h1.icu/1.cer%00",
    ],
)
def test_what_is_not_published_is_not_found(app: ASGIApp, path: str) -> None:
    answer = call(app, "GET", path)
    assert (answer.status, answer.problem.reason) == (404, "NOT_FOUND")


def test_methods(app: ASGIApp) -> None:
    read = "GET, HEAD"
    for path, allowed in (("/crl/h1.icu/1/0.crl", read), ("/ca/h1.icu/1.cer", read), ("/ocsp", f"{read}, POST")):
        answer = call(app, "DELETE", path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)


def test_good_revoked_and_never_issued(app: ASGIApp, standing: Site, issued: IssuedCertificate) -> None:
    good = _response(_post(app, question(issued)))
    assert good.certificate_status is ocsp.OCSPCertStatus.GOOD
    _revoke(standing, issued)
    bad = _response(_post(app, question(issued)))
    assert bad.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert bad.revocation_reason is x509.ReasonFlags.key_compromise
    unknown = _response(_post(app, question(issued, hashes.SHA256(), serial=4711)))
    assert unknown.certificate_status is ocsp.OCSPCertStatus.UNKNOWN


def test_responses_may_be_cached_a_minute_and_responses_to_a_nonce_never(
    app: ASGIApp, issued: IssuedCertificate
) -> None:
    kept = _post(app, question(issued))
    assert kept.headers["cache-control"] == "public, max-age=60, no-transform, must-revalidate"
    assert kept.headers["expires"] > ""
    nonce = bytes(range(32))
    live = _post(app, question(issued, nonce=nonce))
    assert live.headers["cache-control"] == "no-store"
    assert "etag" not in live.headers
    assert _response(live).extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce


def test_a_request_in_the_path_in_every_spelling(app: ASGIApp, issued: IssuedCertificate) -> None:
    text = base64.b64encode(question(issued)).decode()
    url = text.replace("+", "-").replace("/", "_")
    spellings = [
        text,
        text.rstrip("="),
        url,
        url.rstrip("="),
        "/" + text,
        unquote(text.replace("+", "%2B").replace("/", "%2F")),
    ]
    for spelling in spellings:
        answer = call(app, "GET", f"/ocsp/{spelling}")
        assert _response(answer).certificate_status is ocsp.OCSPCertStatus.GOOD
    head = call(app, "HEAD", f"/ocsp/{text}")
    assert (head.status, head.headers, head.body) == (200, answer.headers, b"")
    again = call(app, "GET", f"/ocsp/{text}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_a_good_answer_is_not_revived_by_the_date_of_a_revoked_one_of_the_same_second(
    app: ASGIApp, standing: Site, issued: IssuedCertificate
) -> None:
    path = f"/ocsp/{base64.b64encode(question(issued)).decode()}"
    good = call(app, "GET", path)
    _revoke(standing, issued)
    revoked = call(app, "GET", path)
    assert revoked.headers["last-modified"] == good.headers["last-modified"], "one second, two answers"
    for headers in ({"If-Modified-Since": good.headers["last-modified"]}, {"If-None-Match": good.headers["etag"]}):
        again = call(app, "GET", path, headers=headers)
        assert _response(again).certificate_status is ocsp.OCSPCertStatus.REVOKED


def test_a_post_is_never_answered_with_304(app: ASGIApp, issued: IssuedCertificate) -> None:
    assert call(app, "POST", "/ocsp", question(issued), headers={**POST, "If-None-Match": "*"}).status == 200


def _status(answer: Answer) -> int:
    return int(_response(answer).response_status.value)


@pytest.mark.parametrize("body", [b"", b"\x30", b"\x30\x00", b"garbage", b"\x30\x03\x02\x01\x05"])
def test_what_is_no_ocsp_request_is_malformed(app: ASGIApp, body: bytes) -> None:
    assert _status(_post(app, body)) == ResponseStatus.MALFORMED_REQUEST
    text = base64.b64encode(body).decode()
    assert _status(call(app, "GET", f"/ocsp/{text}")) == ResponseStatus.MALFORMED_REQUEST


def test_a_request_with_an_unknown_critical_extension_is_malformed(app: ASGIApp, issued: IssuedCertificate) -> None:
    """RFC 6960 4.1.2: a client that marks an extension critical wants no response that ignores it."""
    issuer = x509.load_der_x509_certificate(issued.issuer.certificate_der)
    leaf = x509.load_der_x509_certificate(issued.der)
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1())
    demand = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.99.1"), b"\x05\x00")
    for is_critical, status in ((True, ResponseStatus.MALFORMED_REQUEST), (False, 0)):
        question = builder.add_extension(demand, critical=is_critical).build().public_bytes(Encoding.DER)
        assert _status(_post(app, question)) == status


def test_another_media_type_is_malformed_and_none_at_all_is_forgiven(app: ASGIApp, issued: IssuedCertificate) -> None:
    for wrong in ("text/plain", ""):
        refused = call(app, "POST", "/ocsp", question(issued), headers={"Content-Type": wrong})
        assert _status(refused) == ResponseStatus.MALFORMED_REQUEST
    assert _response(call(app, "POST", "/ocsp", question(issued))).certificate_status is ocsp.OCSPCertStatus.GOOD


def test_an_issuer_that_is_not_ours_is_unauthorized(app: ASGIApp, issued: IssuedCertificate) -> None:
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(b"x" * 20, b"y" * 20, 7, hashes.SHA1())
    body = builder.build().public_bytes(Encoding.DER)
    assert _status(_post(app, body)) == ResponseStatus.UNAUTHORIZED


def test_a_request_that_is_signed_with_a_chain_of_large_keys_gets_its_response(
    app: ASGIApp, issued: IssuedCertificate
) -> None:
    """RFC 6960 4.1.2: 6 kB with three certificates of RSA-4096, more with post-quantum ones."""
    tbs_der = der.content_of(question(issued), der.SEQUENCE)
    algorithm = der.sequence(der.object_identifier("1.2.840.113549.1.1.11"), der.NULL_DER)
    certificates = der.explicit(0, der.sequence(*[issued.issuer.certificate_der] * 8))
    signature = der.sequence(algorithm, der.bit_string(bytes(512)), certificates)
    signed = der.sequence(tbs_der, der.explicit(0, signature))
    assert len(signed) > 5_000
    assert _response(_post(app, signed)).certificate_status is ocsp.OCSPCertStatus.GOOD


def test_oversized_requests_are_refused_unread(app: ASGIApp) -> None:
    answer = _post(app, b"x" * (MAX_REQUEST + 1))
    assert answer.status == 413
    assert ocsp.load_der_ocsp_response(answer.body).response_status.value == ResponseStatus.MALFORMED_REQUEST
    assert call(app, "GET", "/ocsp/" + "A" * 5000).status == 413


def test_a_responder_that_lost_the_sequence_says_try_later(
    app: ASGIApp, standing: Site, issued: IssuedCertificate
) -> None:
    standing.stock.clock.advance(seconds=10)
    try:
        assert _status(_post(app, question(issued))) == ResponseStatus.TRY_LATER
    finally:
        standing.follower.catch_up()
    assert _response(_post(app, question(issued))).certificate_status.value == 0


@given(body=st.binary(max_size=300))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_posted_an_ocsp_response_comes_back(app: ASGIApp, body: bytes) -> None:
    assert _status(_post(app, body)) in {1, 6}
