"""Lists and answers under hostile questions: bombs, wrong paths, foreign issuers, poisoned caches."""

from __future__ import annotations

import base64
import hashlib
import time
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from tests.simulator.attacked import Hospital
from tests.simulator.listeners import Response
from tests.simulator.status_listeners import question_about, status_of
from tests.simulator.waiting import wait_until
from vagus.x509 import der

BY = "operator:test"
_Error = ocsp.OCSPResponseStatus


def _ask(hospital: Hospital, raw: bytes) -> Response:
    with hospital.plain() as wire:
        return wire.ask(raw)


def _post(hospital: Hospital, body: bytes) -> Response:
    head = "POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Type: application/ocsp-request\r\n"
    return _ask(hospital, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def _get(hospital: Hospital, path: str, method: str = "GET") -> Response:
    raw = f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1")
    if method != "HEAD":
        return _ask(hospital, raw)
    with hospital.plain() as wire:
        wire.say(raw).socket.settimeout(1)
        head = wire.socket.recv(65536)
    assert head.endswith(b"\r\n\r\n"), "HEAD has no body"
    return Response(int(head.split()[1]), {}, b"")


def _wait_until_good(hospital: Hospital, question: bytes) -> None:
    """The row of a signature follows its answer by a moment; until then nobody hears anything but tryLater."""
    until = time.monotonic() + 5
    while (status := status_of(_post(hospital, question))) is not ocsp.OCSPCertStatus.GOOD:
        assert status is ocsp.OCSPResponseStatus.TRY_LATER
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x30",
        b"\x30\x00",
        b"\x30\x80" * 4000,
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x82\x3f\xfc" + b"\x30\x03\x02\x01\x00" * 3276,
        b"\x04" * 16000,
        b"\xff" * 16000,
        b"0" * 16385,
    ],
    ids=lambda body: f"{len(body)}-{body[:2].hex()}",
)
def test_a_bad_question_gets_an_ocsp_error_at_once(hospital: Hospital, body: bytes) -> None:
    begun = time.monotonic()
    answer = _post(hospital, body)
    assert time.monotonic() - begun < 2
    assert answer.status in {200, 413}
    assert status_of(answer) is _Error.MALFORMED_REQUEST


def test_many_questions_in_one_are_bounded(hospital: Hospital) -> None:
    issuer = hospital.authority("h1/icu")
    name = hashlib.sha1(issuer.subject.public_bytes(), usedforsecurity=False).digest()
    algorithm = der.sequence(der.object_identifier("1.3.14.3.2.26"), der.NULL_DER)
    for count in (50, 101, 200):
        asked = [
            der.sequence(der.sequence(algorithm, der.encode_tlv(4, name), der.encode_tlv(4, name), der.integer(number)))
            for number in range(1, count + 1)
        ]
        body = der.sequence(der.sequence(der.sequence(*asked)))
        begun = time.monotonic()
        answer = _post(hospital, body)
        assert time.monotonic() - begun < 2
        assert answer.status in {200, 413}
        assert isinstance(status_of(answer), ocsp.OCSPResponseStatus)  # foreign key hash: nothing authoritative


def test_unknown_issuers_and_serials_are_never_good(hospital: Hospital) -> None:
    _, credential = hospital.enrolled()
    unit = hospital.authority("h1/icu")
    others = (hospital.aorta.root, hospital.authority("h1/er"), hospital.authority("h1"))
    for leaf, issuer in (*((credential.leaf, other) for other in others), (hospital.aorta.root, unit)):
        assert status_of(_post(hospital, question_about(leaf, issuer))) is not ocsp.OCSPCertStatus.GOOD
    _wait_until_good(hospital, question_about(credential.leaf, unit))


def test_an_answer_to_a_nonce_is_for_one_client_and_never_cached(hospital: Hospital) -> None:
    _, credential = hospital.enrolled()
    unit = hospital.authority("h1/icu")
    plain, salted = question_about(credential.leaf, unit), question_about(credential.leaf, unit, nonce=b"n" * 32)
    _wait_until_good(hospital, plain)
    for is_post in (True, False):
        fresh, common = (
            _post(hospital, question)
            if is_post
            else _get(hospital, "/ocsp/" + quote(base64.b64encode(question).decode(), safe=""))
            for question in (salted, plain)
        )
        assert fresh.headers["cache-control"] == "no-store"
        nonce = ocsp.load_der_ocsp_response(fresh.body).extensions.get_extension_for_class(x509.OCSPNonce).value
        assert nonce.nonce == b"n" * 32
        extensions = ocsp.load_der_ocsp_response(common.body).extensions
        assert not [one for one in extensions if isinstance(one.value, x509.OCSPNonce)]
    for size in (129, 200, 4000):
        assert isinstance(status_of(_post(hospital, question_about(credential.leaf, unit, nonce=b"n" * size))), _Error)


def test_an_answer_leaves_before_what_follows_its_question_is_looked_at(hospital: Hospital) -> None:
    """Nonsense behind a question ends the connection, and neither delays nor marks the answer."""
    _, credential = hospital.enrolled()
    question = question_about(credential.leaf, hospital.authority("h1/icu"))
    _wait_until_good(hospital, question)
    head = f"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: {len(question)}\r\n\r\n"
    with hospital.plain() as wire:
        wire.say(head.encode() + question + b"nonsense\r\n\r\n")
        first, second = wire.hear(), wire.hear()
    assert first is not None
    assert status_of(first) is ocsp.OCSPCertStatus.GOOD
    assert "connection" not in first.headers
    assert second is not None
    assert (second.status, second.headers["connection"]) == (400, "close")


def test_a_revocation_is_reported_within_two_seconds(hospital: Hospital) -> None:
    device, credential = hospital.enrolled()
    question = question_about(credential.leaf, hospital.authority("h1/icu"))
    _wait_until_good(hospital, question)
    hospital.revoke(device)
    wait_until(lambda: status_of(_post(hospital, question)) is ocsp.OCSPCertStatus.REVOKED, seconds=2)


@pytest.mark.parametrize(
    "path",
    [
        "/crl/../vagus.toml",
        "/crl/h1.icu/1/../../../vagus.toml",
        "/crl/h1.icu/1/%2e%2e%2f0.crl",
        "/crl/h1.icu/01/0.crl",
        "/crl/h1.icu/1/00.crl",
        "/crl/h1.icu/1/-1.crl",
        "/crl/h1.icu/9999/0.crl",
        "/crl/h1.icu/1/999999999.crl",
        "/crl/h1.icu/1/99999999999999999999.crl",
        "/crl/h1%00/1/0.crl",
        "/crl/h1'--/1/0.crl",
        "/crl/h1.icu/1/0.crl\n",
        "/crl/h1.icu/1/0.crl%0a",
        "/crl/H1.ICU/1/0.crl",
        "/crl//1/0.crl",
        "/ca/../../etc/passwd",
        "/ca/h1.icu/1.cer%0a",
        "/ca/%25/1.cer",
        "/log/../vagus.sqlite3",
        "/log/checkpoint/",
        "/log/tile/0/000%0a",
        "/log/tile/0/../../../vagus.toml",
        "/log/tile/entries/000",
        "/log/tile/data/000",
        "/ocsp/../crl/h1.icu/1/0.crl",
        "/",
        "/health",
        "/vagus.toml",
        "/keystores/h1.icu/keystore.toml",
    ],
)
def test_a_bent_path_publishes_nothing(hospital: Hospital, path: str) -> None:
    answer = _get(hospital, path)
    if path.startswith("/ocsp"):
        assert answer.status == 200
        assert isinstance(status_of(answer), ocsp.OCSPResponseStatus)
    else:
        assert answer.status in {400, 404}, answer


def test_other_methods_change_nothing(hospital: Hospital) -> None:
    for path in ("/crl/h1.icu/1/0.crl", "/ca/h1.icu/1.cer", "/log/checkpoint"):
        assert _get(hospital, path).status == 200
        assert _get(hospital, path, "HEAD").status == 200
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            assert _get(hospital, path, method).status in {404, 405}
    assert _get(hospital, "/ocsp", "DELETE").status == 405


def test_lists_and_answers_survive_odd_conditions(hospital: Hospital) -> None:
    for field in (
        "If-None-Match: " + '"a",' * 5000,
        "If-Modified-Since: \xff",
        "Range: bytes=0-0",
        "Accept-Encoding: gzip",
    ):
        answer = _ask(hospital, f"GET /crl/h1.icu/1/0.crl HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n".encode("latin-1"))
        assert answer.status == 200
        assert x509.load_der_x509_crl(answer.body) is not None
