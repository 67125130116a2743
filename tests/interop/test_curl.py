"""curl as a device, as a relying party and as somebody who should not be let in."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import AuthorityInformationAccessOID

from tests.simulator.programs import run, succeed
from tests.simulator.relying import STATUS_HOST, Bearer, Hospital
from tests.simulator.waiting import wait_until

pytestmark = pytest.mark.interop

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl received."""

    status: int  # 0: none
    headers: dict[str, str]
    body: bytes
    said: str

    @property
    def reason(self) -> str:
        """The stable reason in a problem (RFC 9457)."""
        assert self.headers["content-type"] == "application/problem+json", self
        reason: str = json.loads(self.body)["reason"]
        return reason


def curl(*words: str | Path, folder: Path) -> Answer:
    """Run it, with its answer kept in `folder`."""
    head, body = folder / "head", folder / "body"
    head.unlink(missing_ok=True)
    body.unlink(missing_ok=True)
    told = run(
        "curl", "-sS", "-v", "--max-time", "60", "-D", head, "-o", body, "-w", "%{http_code}", *words, seconds=90
    )
    heads = head.read_bytes().decode("latin-1").split("\r\n\r\n") if head.exists() else []
    lines = heads[-2].split("\r\n")[1:] if len(heads) > 1 else []
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    content = body.read_bytes() if body.exists() else b""
    return Answer(int(told.raw[-3:] or b"0"), headers, content, told.text)


def https(hospital: Hospital, listener: str, path: str, *words: str | Path, who: Bearer | None) -> Answer:
    """A request to a listener under its own name, trusting the root alone."""
    name, port = f"{listener}.test.example", hospital.port(listener)
    return curl(*hospital.curl_words(name, port, who), *words, f"https://{name}:{port}{path}", folder=hospital.files)


def http(hospital: Hospital, path: str, *words: str | Path) -> Answer:
    """A request to the status listener by the very URL that stands in certificates."""
    away = f"{STATUS_HOST}:80:127.0.0.1:{hospital.port('status')}"
    url = path if path.startswith("http:") else f"http://{STATUS_HOST}{path}"
    return curl("--connect-to", away, *words, url, folder=hospital.files)


def new_request(folder: Path, name: str, *words: str) -> tuple[Path, Path]:
    """A key and a base64 request made by openssl."""
    key, pem, base64_file = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.b64"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key)
    succeed("openssl", "req", "-new", *curve, "-utf8", *words, "-out", pem)
    lines = [line for line in pem.read_text().splitlines() if not line.startswith("-")]
    base64_file.write_text("\n".join(lines) + "\n")  # wrapped, as RFC 7030 clients send it
    return key, base64_file


def certificates_in(answer: Answer, folder: Path) -> list[x509.Certificate]:
    """A certs-only answer as `openssl pkcs7` reads it."""
    assert answer.headers["content-type"].startswith("application/pkcs7-mime")
    der, pem = folder / "answer.p7", folder / "answer.pem"
    der.write_bytes(base64.b64decode(answer.body))
    succeed("openssl", "pkcs7", "-inform", "DER", "-in", der, "-print_certs", "-out", pem)
    return x509.load_pem_x509_certificates(pem.read_bytes())


PKCS10 = ("-H", "Content-Type: application/pkcs10", "-H", "Content-Transfer-Encoding: base64")


def est(hospital: Hospital, operation: str, *words: str | Path, who: Bearer | None = None) -> Answer:
    """A request to the enrolment listener."""
    return https(hospital, "enrol", f"/.well-known/est/{operation}", *words, who=who)


def enrol(hospital: Hospital, operation: str, body: Path, *words: str, who: Bearer | None = None) -> Answer:
    """A request for a certificate."""
    return est(hospital, operation, *PKCS10, "--data-binary", f"@{body}", *words, who=who)


def renewal_request(folder: Path, bearer: Bearer) -> tuple[Path, Path]:
    """A key and a request with the names of a device's certificate."""
    subject = "/" + "/".join(reversed(bearer.certificate.subject.rfc4514_string().split(",")))
    return new_request(folder, "renewal", "-subj", subject, "-addext", san_of(bearer))


def san_of(bearer: Bearer) -> str:
    """The names of a device of h1/icu, as `openssl req` takes them."""
    return f"subjectAltName=DNS:{bearer.device}.icu.h1.test.example"


def may_pass(hospital: Hospital, folder: Path, device: str, made: x509.Certificate, key: Path) -> Bearer:
    """A certificate opens the gate; returns its bearer."""
    leaf = folder / "made.pem"
    leaf.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    bearer = Bearer("made", device, leaf, leaf, key)
    assert https(hospital, "control", "/5", who=bearer).status == 200
    return bearer


class TestEst:
    """RFC 7030 with nothing but curl and openssl."""

    def test_cacerts(self, hospital: Hospital, tmp_path: Path) -> None:
        answer = est(hospital, "cacerts")
        assert answer.status == 200
        found = certificates_in(answer, tmp_path)
        for name in ("root", "h1", "h1/icu", "h1/infra"):
            assert x509.load_pem_x509_certificate(hospital.authority(name).read_bytes()) in found, name

    def test_a_device_enrols_with_a_token_and_its_wishes_about_names_are_not_heard(
        self, hospital: Hospital, tmp_path: Path
    ) -> None:
        device, token = hospital.spare()
        wishes = ("-subj", "/O=Somebody Else/CN=admin", "-addext", "subjectAltName=DNS:admin.test.example")
        key, body = new_request(tmp_path, "device", *wishes)
        refused = enrol(hospital, "simpleenroll", body)
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        answer = enrol(hospital, "simpleenroll", body, "-u", f"{device}:{token}")
        assert answer.status == 200, answer
        (made,) = certificates_in(answer, tmp_path)
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [f"{device}.icu.h1.test.example"]
        assert "admin" not in made.subject.rfc4514_string()

        # the same token and key get the same answer; another key does not
        again = enrol(hospital, "simpleenroll", body, "-u", f"{device}:{token}")
        assert certificates_in(again, tmp_path) == [made]
        _, other = new_request(tmp_path, "other", "-subj", "/")
        assert enrol(hospital, "simpleenroll", other, "-u", f"{device}:{token}").reason == "TOKEN_REUSED"
        may_pass(hospital, tmp_path, device, made, key)

    def test_a_renewal_is_proved_by_the_certificate_and_keeps_its_names(
        self, hospital: Hospital, tmp_path: Path
    ) -> None:
        bearer = hospital.enrol("renewing")
        current = bearer.certificate
        key, body = renewal_request(tmp_path, bearer)
        assert enrol(hospital, "simplereenroll", body).status == 401
        answer = enrol(hospital, "simplereenroll", body, who=bearer)
        assert answer.status == 200, answer
        (made,) = certificates_in(answer, tmp_path)
        assert made.subject == current.subject
        assert made.serial_number != current.serial_number
        renewed = may_pass(hospital, tmp_path, bearer.device, made, key)

        _, other = new_request(tmp_path, "other", "-subj", "/CN=admin", "-addext", san_of(bearer))
        refused = enrol(hospital, "simplereenroll", other, who=renewed)
        assert (refused.status, refused.reason) == (400, "NAMES_CHANGED")

    def test_a_revoked_device_can_neither_renew_nor_ask_for_the_way_back(
        self, hospital: Hospital, revoked: Bearer, tmp_path: Path
    ) -> None:
        _, body = renewal_request(tmp_path, revoked)
        for operation in ("simpleenroll", "simplereenroll"):
            answer = enrol(hospital, operation, body, who=revoked)
            assert (answer.status, answer.reason) == (403, "REVOKED")

    def test_nonsense_is_reported_as_such(self, hospital: Hospital) -> None:
        device, token = hospital.spare()
        words = ("-u", f"{device}:{token}", "--data-binary", "AAAA")
        assert est(hospital, "simpleenroll", *PKCS10, *words).status == 400
        assert est(hospital, "simpleenroll", *words).status == 415
        assert est(hospital, "cacerts", "-X", "DELETE").status == 405
        assert est(hospital, "nothing").status == 404


class TestStatus:
    """Lists, OCSP answers and authorities' certificates over plain HTTP."""

    def test_a_list_is_fetched_once_and_then_only_asked_after(self, hospital: Hospital, pump: Bearer) -> None:
        first = http(hospital, pump.shard_url)
        assert (first.status, first.headers["content-type"]) == (200, "application/pkix-crl")
        assert x509.load_der_x509_crl(first.body).issuer == pump.certificate.issuer
        for field, value in (("If-None-Match", "etag"), ("If-Modified-Since", "last-modified")):
            same = http(hospital, pump.shard_url, "-H", f"{field}: {first.headers[value]}")
            assert (same.status, same.body) == (304, b"")
        assert http(hospital, pump.shard_url, "-H", 'If-None-Match: "another"').body == first.body
        head = http(hospital, pump.shard_url, "-I")
        assert (head.status, head.headers["content-length"]) == (200, str(len(first.body)))
        assert http(hospital, "/crl/h1.icu/1/99.crl").status == 404
        assert http(hospital, pump.shard_url, "-X", "POST").status == 405

    def test_a_new_revocation_ends_the_304(self, hospital: Hospital) -> None:
        bearer = hospital.enrol("soon-revoked", "h1/er")
        before = http(hospital, bearer.shard_url).headers["etag"]
        hospital.revoke(bearer)
        after = http(hospital, bearer.shard_url, "-H", f"If-None-Match: {before}")
        assert after.status == 200
        found = x509.load_der_x509_crl(after.body)
        assert found.get_revoked_certificate_by_serial_number(bearer.certificate.serial_number) is not None

    def test_an_ocsp_answer_by_get_may_be_cached(
        self, hospital: Hospital, pump: Bearer, revoked: Bearer, tmp_path: Path
    ) -> None:
        issuer = hospital.authority("h1/icu")
        for bearer, said in ((pump, "good"), (revoked, "revoked")):
            question, kept = tmp_path / "question", tmp_path / "kept"
            words = ("-issuer", issuer, "-cert", bearer.leaf, "-no_nonce")
            succeed("openssl", "ocsp", *words, "-reqout", question)
            path = "/ocsp/" + quote(base64.b64encode(question.read_bytes()), safe="")
            answer = http(hospital, path)
            assert (answer.status, answer.headers["content-type"]) == (200, "application/ocsp-response")
            assert "max-age=" in answer.headers["cache-control"]
            assert {"expires", "last-modified", "etag"} <= answer.headers.keys()
            kept.write_bytes(answer.body)
            trust = ("-CAfile", issuer, "-partial_chain", "-respin", kept)
            assert f"{bearer.leaf}: {said}" in succeed("openssl", "ocsp", *words, *trust)
            posted = ("-H", "Content-Type: application/ocsp-request", "--data-binary", f"@{question}")
            assert http(hospital, "/ocsp", *posted).body == answer.body

    def test_the_issuers_certificate_is_where_certificates_say(self, hospital: Hospital, pump: Bearer) -> None:
        access = pump.certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        (issuers,) = [one for one in access if one.access_method == AuthorityInformationAccessOID.CA_ISSUERS]
        answer = http(hospital, issuers.access_location.value)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-cert")
        pump.certificate.verify_directly_issued_by(x509.load_der_x509_certificate(answer.body))


class TestGate:
    """HTTP through the mutually authenticated relay."""

    def test_a_large_body_both_ways_asking_first(self, hospital: Hospital, pump: Bearer, tmp_path: Path) -> None:
        big = tmp_path / "big"
        big.write_bytes(bytes(range(251)) * (20 * MEGABYTE // 251))
        answer = https(hospital, "control", "/big", "-H", "Expect: 100-continue", "-T", big, who=pump)
        assert answer.status == 200
        assert "HTTP/1.1 100 Continue" in answer.said
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(big.read_bytes()).digest()
        assert hospital.seen.lines[-1].startswith("PUT /big")
        down = https(hospital, "control", f"/{30 * MEGABYTE}", who=pump)
        assert (down.status, len(down.body)) == (200, 30 * MEGABYTE)

    def test_chunks_go_through_and_a_refusal_before_the_body_comes_back(
        self, hospital: Hospital, pump: Bearer, tmp_path: Path
    ) -> None:
        body = tmp_path / "body"
        body.write_bytes(b"telemetry" * 50_000)
        answer = https(hospital, "control", "/put", "-H", "Transfer-Encoding: chunked", "-T", body, who=pump)
        assert (answer.status, answer.body) == (200, body.read_bytes())
        words = ("-H", "Expect: 100-continue", "--expect100-timeout", "20", "-T", body)
        assert https(hospital, "control", "/refuses-bodies", *words, who=pump).status == 417

    def test_the_store_sees_who_asks_and_never_who_claims_to(self, hospital: Hospital, pump: Bearer) -> None:
        before = len(hospital.seen.headers)
        claims = ("-H", "Client-Cert: :bm9ib2R5:", "-H", "Client_Cert: nobody", "-H", "X-SSL-Client-S-DN: CN=nobody")
        assert https(hospital, "control", "/5", *claims, who=pump).status == 200
        assert len(hospital.seen.headers) == before + 1
        (field,) = hospital.seen.values("client-cert")
        assert base64.b64decode(field.strip(":")) == pump.certificate.public_bytes(serialization.Encoding.DER)
        assert "nobody" not in str(hospital.seen.headers[-1])
        assert "bm9ib2R5" not in str(hospital.seen.headers[-1])

    def test_one_connection_carries_many_requests(self, hospital: Hospital, pump: Bearer) -> None:
        name, port = "control.test.example", hospital.port("control")
        urls = [f"https://{name}:{port}/{length}" for length in range(1, 30)]
        told = succeed("curl", "-v", *hospital.curl_words(name, port, pump), *urls)
        assert told.raw == b"x" * sum(range(1, 30))
        assert told.text.count("SSL certificate verify ok") == 1

    def test_the_refused(
        self, hospital: Hospital, revoked: Bearer, er_pump: Bearer, pacemaker: Bearer, web: Bearer
    ) -> None:
        before = len(hospital.seen.headers)
        assert https(hospital, "control", "/5", who=None).status == 0
        answer = https(hospital, "control", "/5", who=revoked)
        assert (answer.status, answer.reason) == (403, "REVOKED")
        for bearer in (er_pump, pacemaker, web):
            assert https(hospital, "control", "/5", who=bearer).status == 403
        assert len(hospital.seen.headers) == before
        assert https(hospital, "legacy", "/5", who=er_pump).status == 200
        assert https(hospital, "home", "/5", who=pacemaker).status == 200

    def test_a_device_is_refused_from_its_revocation_on(self, hospital: Hospital) -> None:
        bearer = hospital.enrol("short-lived")
        assert https(hospital, "control", "/5", who=bearer).status == 200
        hospital.vagus("device", "revoke", bearer.device, "--reason", "cessationOfOperation", "--yes")
        wait_until(lambda: https(hospital, "control", "/5", who=bearer).status == 403, "refused at the gate")

    def test_a_held_device_waits_and_comes_back(self, hospital: Hospital) -> None:
        bearer = hospital.enrol("paused")
        hospital.vagus("device", "hold", bearer.device)
        wait_until(lambda: https(hospital, "control", "/5", who=bearer).status == 403, "refused while held")
        assert https(hospital, "control", "/5", who=bearer).reason == "ON_HOLD"
        hospital.vagus("device", "release", bearer.device)
        wait_until(lambda: https(hospital, "control", "/5", who=bearer).status == 200, "admitted again")

    def test_a_listener_is_not_taken_for_another(self, hospital: Hospital, pump: Bearer) -> None:
        name, port = "enrol.test.example", hospital.port("control")
        answer = curl(*hospital.curl_words(name, port, pump), f"https://{name}:{port}/5", folder=hospital.files)
        assert answer.status == 0
        assert "no alternative certificate subject name matches" in answer.said
