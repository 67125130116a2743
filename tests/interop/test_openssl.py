"""The openssl command line judges our certificates, lists, OCSP answers and listeners."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from tests.simulator.programs import Result, run, succeed, version_of
from tests.simulator.relying import SERVER_NAMES, Bearer, Hospital
from tests.simulator.waiting import wait_until

pytestmark = pytest.mark.interop

ICU_LISTS = ("root/0", "h1/0", "h1.icu/0", "h1.icu/1")
REQUEST = b"GET /5 HTTP/1.1\r\nHost: control.test.example\r\nConnection: close\r\n\r\n"


def verify(hospital: Hospital, bearer: Bearer, lists: Path, *words: str) -> Result:
    """`openssl verify` with every check that it has on; only the root is trusted, the rest comes with the leaf."""
    strict = ("-x509_strict", "-crl_check_all", "-check_ss_sig", "-auth_level", "2")
    trust = ("-CAfile", hospital.authority("root"), "-untrusted", bearer.chain, "-CRLfile", lists)
    return run("openssl", "verify", *strict, *trust, *words, bearer.leaf)


def ask(hospital: Hospital, issuer: str, *words: str | Path) -> Result:
    """`openssl ocsp` by POST: the answer's signer must lead to the root."""
    above = hospital.authority(issuer)
    trust = ("-CAfile", hospital.authority("root"), "-verify_other", hospital.files / "icu-above.pem")
    (hospital.files / "icu-above.pem").write_bytes(
        b"".join(hospital.authority(each).read_bytes() for each in ("h1", "h1/icu", "h1/infra", "h1/sdc"))
    )
    return run("openssl", "ocsp", "-issuer", above, "-url", f"{hospital.status}/ocsp", *trust, *words)


class TestVerify:
    """`openssl verify -x509_strict -crl_check_all`."""

    @pytest.mark.parametrize("name", ["pump", "early"])
    def test_a_devices_path_holds_with_the_roots_list_and_every_shard(
        self, hospital: Hospital, pump: Bearer, name: str
    ) -> None:
        bearer = hospital.bearer(name)
        told = verify(hospital, bearer, hospital.crls("icu", *ICU_LISTS), "-purpose", "sslclient")
        assert (told.code, told.raw) == (0, f"{bearer.leaf}: OK\n".encode())
        purpose = verify(hospital, bearer, hospital.crls("icu", *ICU_LISTS), "-purpose", "sslserver")
        assert "unsupported certificate purpose" in purpose.text or "unsuitable certificate purpose" in purpose.text

    def test_other_units(self, hospital: Hospital, er_pump: Bearer, pacemaker: Bearer) -> None:
        for bearer, shard in ((er_pump, "h1.er/0"), (pacemaker, "h1.remote-care/0")):
            lists = hospital.crls(bearer.name, "root/0", "h1/0", shard)
            assert verify(hospital, bearer, lists, "-purpose", "sslclient").code == 0, bearer.name

    def test_the_infrastructure_branch(self, hospital: Hospital, web: Bearer) -> None:
        lists = hospital.crls("infra", "root/0", "h1.infra/0")
        for name in SERVER_NAMES:
            option = "-verify_ip" if name.startswith("127.") else "-verify_hostname"
            assert verify(hospital, web, lists, "-purpose", "sslserver", option, name).code == 0
        told = verify(hospital, web, lists, "-verify_hostname", "other.test.example")
        assert "hostname mismatch" in told.text
        assert verify(hospital, web, lists, "-purpose", "sslclient").code != 0

    def test_the_sdc_branch(self, hospital: Hospital) -> None:
        lists = hospital.crls("sdc", "root/0", "h1.sdc/0")
        for purpose in ("sslclient", "sslserver"):
            assert verify(hospital, hospital.bearer("sdc"), lists, "-purpose", purpose).code == 0

    def test_every_authority(self, hospital: Hospital) -> None:
        lists = hospital.crls("authorities", "root/0", "h1/0")
        above = ("-untrusted", hospital.authority("h1"), "-CAfile", hospital.authority("root"))
        for name in ("h1", "h1/icu", "h1/er", "h1/remote-care", "h1/sdc", "h1/infra"):
            words = ("-x509_strict", "-crl_check_all", *above, "-CRLfile", lists, hospital.authority(name))
            succeed("openssl", "verify", *words)

    def test_a_revoked_device_is_refused_by_its_shard_and_by_the_complete_list(
        self, hospital: Hospital, revoked: Bearer, pump: Bearer
    ) -> None:
        hospital.await_complete_crl(revoked)
        for lists in (ICU_LISTS, ("root/complete", "h1/complete", "h1.icu/complete")):
            path = hospital.crls("revoked", *lists)
            told = verify(hospital, revoked, path)
            assert told.code != 0
            assert "error 23 at 0 depth lookup: certificate revoked" in told.text
            assert verify(hospital, pump, path).code == 0

    def test_another_shard_says_nothing(self, hospital: Hospital, pump: Bearer, early: Bearer) -> None:
        first = hospital.crls("first", "root/0", "h1/0", "h1.icu/0")
        second = hospital.crls("second", "root/0", "h1/0", "h1.icu/1")
        for bearer, own, other in ((pump, second, first), (early, first, second)):
            assert verify(hospital, bearer, own).code == 0
            assert "different CRL scope" in verify(hospital, bearer, other).text

    @pytest.mark.parametrize("missing", [0, 1, 3])
    def test_every_level_needs_its_list(self, hospital: Hospital, pump: Bearer, missing: int) -> None:
        kept = [each for at, each in enumerate(ICU_LISTS) if at != missing]
        told = verify(hospital, pump, hospital.crls("missing", *kept))
        assert told.code != 0
        assert "unable to get certificate CRL" in told.text or "different CRL scope" in told.text

    def test_a_delta_brings_an_older_list_up_to_date(self, hospital: Hospital, pump: Bearer) -> None:
        bearer = hospital.enrol("in-a-delta")
        older = hospital.crls("older", *ICU_LISTS)
        hospital.revoke(bearer)
        assert verify(hospital, bearer, older).code == 0
        delta = hospital.crls("delta", "h1.icu/1.delta")
        both = hospital.files / "older-and-delta.pem"
        both.write_bytes(older.read_bytes() + delta.read_bytes())
        deltas = ("-extended_crl", "-use_deltas")  # without the first, openssl 3.0 takes a delta for a whole list
        assert "certificate revoked" in verify(hospital, bearer, both, *deltas).text
        assert verify(hospital, pump, both, *deltas).code == 0

    def test_extended_lists_and_deltas_may_be_on(self, hospital: Hospital, pump: Bearer, revoked: Bearer) -> None:
        lists = hospital.crls("icu", *ICU_LISTS)
        assert verify(hospital, pump, lists, "-extended_crl", "-use_deltas").code == 0
        assert "certificate revoked" in verify(hospital, revoked, lists, "-extended_crl", "-use_deltas").text

    def test_the_policy_in_a_certificate_is_the_one_of_its_profile(self, hospital: Hospital, pump: Bearer) -> None:
        lists = hospital.crls("icu", *ICU_LISTS)
        explicit = ("-policy_check", "-explicit_policy", "-policy")
        assert verify(hospital, pump, lists, *explicit, "1.3.6.1.4.1.32473.2.13").code == 0
        assert "no explicit policy" in verify(hospital, pump, lists, *explicit, "1.3.6.1.4.1.32473.2.10").text

    def test_the_issuing_authority_alone_may_be_the_anchor(self, hospital: Hospital, pump: Bearer) -> None:
        lists = hospital.crls("icu-alone", "h1.icu/1")
        anchor = ("-partial_chain", "-crl_check", "-trusted", hospital.authority("h1/icu"), "-CRLfile", lists)
        succeed("openssl", "verify", "-x509_strict", *anchor, pump.leaf)

    def test_the_list_reads_and_its_signature_holds(self, hospital: Hospital, revoked: Bearer) -> None:
        path = hospital.crls("second", "h1.icu/1")
        told = succeed("openssl", "crl", "-in", path, "-noout", "-text", "-CAfile", hospital.authority("h1/icu"))
        told.must_say("verify OK", f"{revoked.certificate.serial_number:040X}", "Key Compromise")


class TestOcsp:
    """`openssl ocsp` against the status listener."""

    @pytest.mark.parametrize("nonce", ["-nonce", "-no_nonce"])
    @pytest.mark.parametrize("digest", ["-sha1", "-sha256"])
    def test_good_and_revoked(
        self, hospital: Hospital, pump: Bearer, early: Bearer, revoked: Bearer, digest: str, nonce: str
    ) -> None:
        for bearer, said in ((pump, "good"), (early, "good"), (revoked, "revoked")):
            told = ask(hospital, "h1/icu", digest, "-cert", bearer.leaf, nonce)
            assert told.code == 0
            told.must_say("Response verify OK", f"{bearer.leaf}: {said}")
            assert "WARNING: no nonce" not in told
        assert "Reason: keyCompromise" in told

    @pytest.mark.parametrize("nonce", ["-nonce", "-no_nonce"])
    def test_a_serial_that_was_never_issued_is_unknown(self, hospital: Hospital, nonce: str) -> None:
        told = ask(hospital, "h1/icu", "-serial", "0x6badc0de6badc0de6badc0de6badc0de6badc0de", nonce)
        told.must_say("Response verify OK", ": unknown")

    def test_two_questions_at_once_each_with_its_digest(
        self, hospital: Hospital, pump: Bearer, revoked: Bearer
    ) -> None:
        told = ask(hospital, "h1/icu", "-sha1", "-cert", pump.leaf, "-sha256", "-cert", revoked.leaf)
        told.must_say("Response verify OK", f"{pump.leaf}: good", f"{revoked.leaf}: revoked")

    def test_every_branch_has_its_responder(self, hospital: Hospital, web: Bearer) -> None:
        for issuer, bearer in (("h1/infra", web), ("h1/sdc", hospital.bearer("sdc"))):
            told = ask(hospital, issuer, "-cert", bearer.leaf)
            told.must_say("Response verify OK", f"{bearer.leaf}: good")

    def test_the_issuing_authority_alone_may_be_trusted(self, hospital: Hospital, pump: Bearer) -> None:
        issuer = hospital.authority("h1/icu")
        words = ("-issuer", issuer, "-CAfile", issuer, "-partial_chain", "-cert", pump.leaf)
        told = succeed("openssl", "ocsp", "-url", f"{hospital.status}/ocsp", *words)
        assert "Response verify OK" in told

    def test_a_hold_is_seen_at_once_and_released_at_once(self, hospital: Hospital) -> None:
        bearer = hospital.enrol("held")

        def said() -> str:
            return ask(hospital, "h1/icu", "-cert", bearer.leaf).text

        assert f"{bearer.leaf}: good" in said()
        hospital.vagus("device", "hold", bearer.device)
        wait_until(lambda: "Reason: certificateHold" in said(), "the hold in OCSP")
        hospital.vagus("device", "release", bearer.device)
        wait_until(lambda: f"{bearer.leaf}: good" in said(), "the release in OCSP")

    def test_another_units_authority_does_not_vouch(self, hospital: Hospital, pump: Bearer) -> None:
        other = hospital.authority("h1/er")
        words = ("-issuer", hospital.authority("h1/icu"), "-CAfile", other, "-partial_chain", "-cert", pump.leaf)
        told = run("openssl", "ocsp", "-url", f"{hospital.status}/ocsp", *words)
        assert "Response Verify Failure" in told

    def test_an_authority_that_is_not_ours_is_unauthorised(self, hospital: Hospital, tmp_path: Path) -> None:
        key, own = tmp_path / "key", tmp_path / "own.pem"
        subject = ("-subj", "/CN=Elsewhere", "-keyout", key, "-out", own)
        succeed("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject)
        words = ("-issuer", own, "-cert", own, "-CAfile", hospital.authority("root"))
        told = run("openssl", "ocsp", "-url", f"{hospital.status}/ocsp", *words)
        assert "Responder Error: unauthorized" in told


def s_client(hospital: Hospital, listener: str, *words: str | Path, who: Bearer | None, said: bytes = b"") -> Result:
    """`openssl s_client` that trusts the root alone and insists on the listener's name."""
    name = f"{listener}.test.example"
    command: list[str | Path] = ["s_client", "-connect", f"127.0.0.1:{hospital.port(listener)}", "-servername", name]
    command += ["-CAfile", hospital.authority("root"), "-verify_return_error", "-verify_hostname", name, "-ign_eof"]
    if who is not None:
        command += ["-cert", who.leaf, "-cert_chain", who.chain, "-key", who.key]
    return run("openssl", *command, *words, said=said)


class TestConnections:
    """`openssl s_client` against enrolment and gates."""

    def test_the_gate_admits_a_device_and_staples_its_own_status(self, hospital: Hospital, pump: Bearer) -> None:
        told = s_client(hospital, "control", "-status", who=pump, said=REQUEST)
        told.must_say(
            "Verify return code: 0 (ok)",
            "TLSv1.3",
            "OCSP Response Status: successful",
            "Cert Status: good",
            "HTTP/1.1 200",
        )
        assert told.text.rstrip().find("xxxxx") > 0

    def test_the_gates_own_certificate_stands_up_to_its_lists(self, hospital: Hospital, pump: Bearer) -> None:
        anchors = hospital.files / "root-and-lists.pem"
        lists = hospital.crls("infra", "root/0", "h1.infra/0")
        anchors.write_bytes(hospital.authority("root").read_bytes() + lists.read_bytes())
        words = ("-crl_check_all", "-x509_strict", "-purpose", "sslserver", "-CAfile", anchors)
        told = s_client(hospital, "control", *words, who=pump, said=REQUEST)
        assert "Verify return code: 0 (ok)" in told

    def test_enrolment_is_open_to_who_has_no_certificate_yet(self, hospital: Hospital) -> None:
        request = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: enrol.test.example\r\nConnection: close\r\n\r\n"
        told = s_client(hospital, "enrol", "-status", who=None, said=request)
        told.must_say("Verify return code: 0 (ok)", "Cert Status: good", "HTTP/1.1 200", "application/pkcs7-mime")

    def test_a_gate_asks_for_a_certificate(self, hospital: Hospital) -> None:
        told = s_client(hospital, "control", who=None, said=REQUEST)
        assert "certificate required" in told
        assert "HTTP/1.1 200" not in told

    def test_a_revoked_device_gets_no_answer_from_behind_the_gate(self, hospital: Hospital, revoked: Bearer) -> None:
        told = s_client(hospital, "control", who=revoked, said=REQUEST)
        told.must_say("HTTP/1.1 403", "REVOKED")
        assert "xxxxx" not in told

    def test_a_device_of_another_unit_and_a_server_are_refused(
        self, hospital: Hospital, er_pump: Bearer, web: Bearer
    ) -> None:
        for bearer in (er_pump, web):
            told = s_client(hospital, "control", who=bearer, said=REQUEST)
            assert "HTTP/1.1 403" in told
            assert "xxxxx" not in told

    @pytest.mark.parametrize("listener", ["enrol", "control", "home"])
    def test_tls_1_2_is_refused(self, hospital: Hospital, listener: str, pump: Bearer) -> None:
        told = s_client(hospital, listener, "-tls1_2", who=pump, said=REQUEST)
        assert "alert protocol version" in told
        assert told.code != 0

    def test_tls_1_2_where_the_plan_allows_it_and_nothing_older(self, hospital: Hospital, er_pump: Bearer) -> None:
        told = s_client(hospital, "legacy", "-tls1_2", who=er_pump, said=REQUEST)
        told.must_say("Protocol  : TLSv1.2", "HTTP/1.1 200")
        older = s_client(hospital, "legacy", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", who=er_pump, said=REQUEST)
        assert older.code != 0
        assert "HTTP/1.1" not in older

    def test_a_control_session_is_never_resumed(self, hospital: Hospital, pump: Bearer, tmp_path: Path) -> None:
        session = tmp_path / "session"
        s_client(hospital, "control", "-sess_out", session, who=pump, said=REQUEST)
        more = ("-sess_in", session) if session.exists() else ()
        told = s_client(hospital, "control", *more, who=pump, said=REQUEST)
        assert "Reused" not in told
        assert "HTTP/1.1 200" in told

    def test_a_look_alike_with_a_key_of_its_own_is_refused(
        self, hospital: Hospital, pump: Bearer, tmp_path: Path
    ) -> None:
        key, fake = tmp_path / "fake.key", tmp_path / "fake.pem"
        subject = pump.certificate.subject.rfc4514_string({x509.NameOID.COMMON_NAME: "CN"})
        words = "/" + "/".join(reversed(subject.split(",")))
        made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", fake)
        succeed("openssl", "req", "-x509", "-utf8", "-subj", words, *made)
        assert x509.load_pem_x509_certificate(fake.read_bytes()).subject == pump.certificate.subject
        bearer = Bearer("fake", pump.device, fake, fake, key)
        assert "HTTP/1.1 403" in s_client(hospital, "control", who=bearer, said=REQUEST)

    def test_hybrid_key_exchange(self, hospital: Hospital, pump: Bearer) -> None:
        if version_of("openssl", "version") < (3, 5, 0):
            pytest.skip("this openssl has no X25519MLKEM768 (3.5 has); the Go client tries it")
        told = s_client(hospital, "control", "-groups", "X25519MLKEM768", who=pump, said=REQUEST)
        told.must_say("Negotiated TLS1.3 group: X25519MLKEM768", "HTTP/1.1 200")


def test_a_request_for_renewal_made_by_openssl_keeps_its_names(
    hospital: Hospital, pump: Bearer, tmp_path: Path
) -> None:
    """`openssl x509 -x509toreq` copies subject and names: what RFC 7030 4.2.2 asks of a renewal."""
    if version_of("openssl", "version") < (3, 0, 0):
        pytest.skip("this openssl copies no extensions into a request (3.0 does)")
    out = tmp_path / "renewal.csr"
    words = ("-in", pump.leaf, "-signkey", pump.key, "-copy_extensions", "copy", "-out", out)
    succeed("openssl", "x509", "-x509toreq", *words)
    made = x509.load_pem_x509_csr(out.read_bytes())
    assert made.subject.public_bytes() == pump.certificate.subject.public_bytes()
    assert made.public_key() == pump.certificate.public_key()
