"""EST over the raw application: every status of RFC 7030, every reason mapped."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import count

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from tests.endpoints.calls import Answer, call
from tests.simulator.enrolment import Site, new_site, request_der
from tests.simulator.orders import new_key
from tests.simulator.stock import BY
from vagus.endpoints.est import EST_STATUS, est_app
from vagus.endpoints.routing import RouteTable
from vagus.events.log import REFUSALS
from vagus.fleet.lifecycle import DeviceState
from vagus.reasons import Reason
from vagus.wire import est
from vagus.wire.cms import decode_certs_only
from vagus.x509.algorithms import KeyAlgorithm

ENROL = "/.well-known/est/simpleenroll"
REENROL = "/.well-known/est/simplereenroll"
PKCS10 = {"Content-Type": "application/pkcs10"}
_SERIALS = count()


@pytest.fixture(scope="module")
def standing() -> Iterator[Site]:
    with new_site() as built:
        yield built


@pytest.fixture(scope="module")
def app(standing: Site) -> ASGIApp:
    authorities = [standing.root.der, standing.h1.der, standing.units["h1/icu"].der]
    clock = standing.stock.clock
    return est_app(enrolment=standing.enrolment, ca_certificates=lambda _label, _peer: authorities, clock=clock)


def _basic(token: str, user: str = "device") -> dict[str, str]:
    return {**PKCS10, "Authorization": est.encode_basic(est.BasicCredential(user, token))}


def _token(standing: Site) -> str:
    return standing.token(standing.stock.add(f"SN-{next(_SERIALS)}"))


def _certificate(answer: Answer) -> x509.Certificate:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert int(answer.headers["content-length"]) == len(answer.body)
    (der,) = decode_certs_only(est.decode_body(answer.body))
    return x509.load_der_x509_certificate(der)


def _check_refused(answer: Answer, status: int, reason: Reason) -> None:
    assert (answer.status, answer.problem.reason) == (status, reason.value)
    assert answer.problem.detail
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert ("retry-after" in answer.headers) == (status == 503)


def test_every_reason_has_a_status_and_none_but_our_own_faults_is_a_500() -> None:
    assert set(EST_STATUS) == set(Reason)
    assert EST_STATUS[Reason.TOKEN_REUSED] == 403
    assert EST_STATUS[Reason.CREDENTIAL_MISSING] == 401
    assert EST_STATUS[Reason.NAMES_CHANGED] == 400
    assert EST_STATUS[Reason.KEY_NOT_OPEN] == 503
    ours = {reason for reason, status in EST_STATUS.items() if status == 500}
    theirs = {Reason.NON_DER, Reason.POP_FAILED, Reason.WEAK_KEY, Reason.EC_PARAMS, Reason.LINT, Reason.REVOKED}
    assert not ours & theirs


def test_cacerts_are_for_everybody(app: ASGIApp, standing: Site) -> None:
    for path in ("/.well-known/est/cacerts", "/.well-known/est/server/cacerts"):
        answer = call(app, "GET", path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
        assert set(decode_certs_only(est.decode_body(answer.body))) >= {standing.root.der, standing.h1.der}


def test_attributes_ask_for_a_key_and_nothing_else(app: ASGIApp) -> None:
    answer = call(app, "GET", "/.well-known/est/csrattrs")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/csrattrs")
    assert est.decode_body(answer.body)[:2] == b"\x30\x17"


def test_attributes_ask_for_the_kind_of_key_that_the_pack_wants(standing: Site) -> None:
    app = est_app(
        enrolment=standing.enrolment,
        ca_certificates=lambda _label, _peer: (),
        clock=standing.stock.clock,
        wanted_key=KeyAlgorithm.MLDSA65,
    )
    answer = call(app, "GET", "/.well-known/est/csrattrs")
    assert est.decode_body(answer.body) == bytes.fromhex("300b0609608648016503040312")


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_base64_is_written_on_one_line_or_wrapped(standing: Site, *, is_wrapped: bool) -> None:
    app = est_app(
        enrolment=standing.enrolment,
        ca_certificates=lambda _label, _peer: [standing.root.der],
        clock=standing.stock.clock,
        is_wrapped=is_wrapped,
    )
    for answer in (
        call(app, "GET", "/.well-known/est/cacerts"),
        call(app, "POST", ENROL, request_der(new_key()), headers=_basic(_token(standing))),
    ):
        lines = answer.body.split(b"\n")
        assert (len(lines) > 1, max(map(len, lines)) == 64) == (is_wrapped, is_wrapped)
        assert decode_certs_only(est.decode_body(answer.body))


def test_head_is_get_without_a_body(app: ASGIApp) -> None:
    for path in ("/.well-known/est/cacerts", "/.well-known/est/server/cacerts", "/.well-known/est/csrattrs"):
        got, headed = call(app, "GET", path), call(app, "HEAD", path)
        assert (headed.status, headed.headers, headed.body) == (200, got.headers, b"")


def test_every_route_that_can_be_read_takes_head(app: ASGIApp) -> None:
    """RFC 9110 9.1."""
    assert isinstance(app, RouteTable)
    assert all("HEAD" in route.methods for route in app.routes if "GET" in route.methods)


def test_a_coded_body_is_415_and_an_identical_one_is_not(app: ASGIApp, standing: Site) -> None:
    body, headers = request_der(new_key()), _basic(_token(standing))
    answer = call(app, "POST", ENROL, body, headers={**headers, "Content-Encoding": "gzip"})
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "identity")
    assert _certificate(call(app, "POST", ENROL, body, headers={**headers, "Content-Encoding": "identity"}))


def test_too_many_attributes_are_400_and_as_many_as_allowed_are_not(app: ASGIApp, standing: Site) -> None:
    for attributes, status in ((33, 400), (32, 200)):
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        for number in range(attributes):
            builder = builder.add_attribute(x509.ObjectIdentifier(f"1.2.3.{number}"), b"x")
        body = builder.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.DER)
        answer = call(app, "POST", ENROL, body, headers=_basic(_token(standing)))
        assert answer.status == status
        assert "retry-after" not in answer.headers


def test_every_spelling_of_a_body_is_enrolled(app: ASGIApp, standing: Site) -> None:
    for spell in (lambda der: der, est.encode_body, base64.encodebytes):
        for extra in ({}, {"Content-Transfer-Encoding": "base64"}, {"Content-Transfer-Encoding": "binary"}):
            body = spell(request_der(new_key()))
            answer = call(app, "POST", ENROL, body, headers={**_basic(_token(standing)), **extra})
            assert _certificate(answer).subject


def test_a_body_in_pieces_is_one_body(app: ASGIApp, standing: Site) -> None:
    body = est.encode_body(request_der(new_key()))
    parts = [body[start : start + 100] for start in range(0, len(body), 100)]
    assert _certificate(call(app, "POST", ENROL, body, headers=_basic(_token(standing)), parts=parts))


def test_a_renewal_uses_the_same_listener(app: ASGIApp, standing: Site) -> None:
    device = standing.stock.add(f"SN-{next(_SERIALS)}")
    first = call(app, "POST", ENROL, request_der(new_key()), headers=_basic(standing.token(device)))
    (der,) = decode_certs_only(est.decode_body(first.body))
    tls = {"admitted": standing.admit(der, standing.units["h1/icu"].der, standing.h1.der)}
    good = request_der(new_key(), subject=der, dns_names=(standing.name(device),))
    assert _certificate(call(app, "POST", REENROL, good, headers=PKCS10, tls=tls)).serial_number
    bad = request_der(new_key(), subject=der, dns_names=("other.test",))
    _check_refused(call(app, "POST", REENROL, bad, headers=PKCS10, tls=tls), 400, Reason.NAMES_CHANGED)


def test_no_credential_is_401_and_says_which_scheme(app: ASGIApp) -> None:
    body = request_der(new_key())
    for headers in (PKCS10, {**PKCS10, "Authorization": "Bearer x"}):
        answer = call(app, "POST", ENROL, body, headers=headers)
        _check_refused(answer, 401, Reason.CREDENTIAL_MISSING)
        assert answer.headers["www-authenticate"].startswith("Basic ")
    broken = {**PKCS10, "Authorization": "Basic !!"}
    _check_refused(call(app, "POST", ENROL, body, headers=broken), 400, Reason.BAD_ENCODING)


def test_bad_tokens(app: ASGIApp, standing: Site) -> None:
    body, token = request_der(new_key()), _token(standing)
    _check_refused(call(app, "POST", ENROL, body, headers=_basic("x" * 32)), 401, Reason.TOKEN_INVALID)
    assert _certificate(call(app, "POST", ENROL, body, headers=_basic(token)))
    other = request_der(new_key())
    _check_refused(call(app, "POST", ENROL, other, headers=_basic(token)), 403, Reason.TOKEN_REUSED)


def test_a_device_in_the_wrong_state_is_403(app: ASGIApp, standing: Site) -> None:
    device = standing.stock.add(f"SN-{next(_SERIALS)}")
    admitted = standing.admit_born(device)
    standing.stock.inventory.change_state(device.id, DeviceState.RECALLED, by=BY).result(10)
    answer = call(app, "POST", ENROL, request_der(new_key()), headers=PKCS10, tls={"admitted": admitted})
    _check_refused(answer, 403, Reason.DEVICE_STATE)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/.well-known/est/serverkeygen", 404),
        ("GET", "/", 404),
        ("GET", "/.well-known/est", 404),
        ("GET", "/.well-known/est/", 404),
        ("GET", "/.well-known/est/CACERTS", 404),
        ("GET", "/.well-known/est/a/b/cacerts", 404),
        ("GET", "/.well-known/est//cacerts", 404),
        ("GET", "/.well-known/est/cacerts/", 404),
        ("GET", "/.well-known/est/../cacerts", 404),
        ("GET", "/.well-known/estcacerts", 404),
        ("GET", "/.well-known/est/nolabel/cacerts", 404),
        ("POST", "/.well-known/est/cacerts", 405),
        ("GET", ENROL, 405),
        ("DELETE", REENROL, 405),
    ],
)
def test_paths_and_methods(app: ASGIApp, method: str, path: str, status: int) -> None:
    answer = call(app, method, path)
    assert answer.status == status
    assert ("allow" in answer.headers) == (status == 405)


def test_another_media_type_is_415(app: ASGIApp, standing: Site) -> None:
    headers = {**_basic(_token(standing)), "Content-Type": "application/json"}
    answer = call(app, "POST", ENROL, b"{}", headers=headers)
    assert (answer.status, answer.headers["accept"]) == (415, "application/pkcs10")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, Reason.BAD_ENCODING),
        (b"\x30", 400, Reason.NON_DER),
        (b"MA==", 400, Reason.NON_DER),
        (b"Certificate Request:", 400, Reason.BAD_ENCODING),
        (b"-----BEGIN CERTIFICATE REQUEST-----", 400, Reason.BAD_ENCODING),
        (b"M" * 1_000_000, 413, Reason.TOO_LARGE),
    ],
)
def test_bad_bodies_are_the_clients_fault_and_spend_no_token(
    app: ASGIApp, standing: Site, body: bytes, status: int, reason: Reason
) -> None:
    token = _token(standing)
    _check_refused(call(app, "POST", ENROL, body, headers=_basic(token)), status, reason)
    assert _certificate(call(app, "POST", ENROL, request_der(new_key()), headers=_basic(token)))


def test_a_request_without_proof_of_possession_is_refused(app: ASGIApp, standing: Site) -> None:
    der = bytearray(request_der(new_key()))
    der[-1] ^= 1
    answer = call(app, "POST", ENROL, base64.b64encode(bytes(der)), headers=_basic(_token(standing)))
    _check_refused(answer, 400, Reason.POP_FAILED)


def test_a_client_that_leaves_in_the_middle_changes_nothing(app: ASGIApp, standing: Site) -> None:
    token = _token(standing)
    answer = call(app, "POST", ENROL, b"x" * 10, headers=_basic(token), parts=[])
    assert answer.status == 400
    assert _certificate(call(app, "POST", ENROL, request_der(new_key()), headers=_basic(token)))


@given(body=st.binary(max_size=400))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_causes_a_500(app: ASGIApp, unused_token: str, body: bytes) -> None:
    assert call(app, "POST", ENROL, body, headers=_basic(unused_token)).status == 400


@pytest.fixture
def unused_token(standing: Site) -> str:
    return _token(standing)


def test_a_refusal_of_an_unknown_peer_is_counted_by_its_reason(app: ASGIApp) -> None:
    before = REFUSALS.counts.get("CREDENTIAL_MISSING", 0)
    call(app, "POST", ENROL, request_der(new_key()), headers=PKCS10)
    assert REFUSALS.counts["CREDENTIAL_MISSING"] == before + 1
