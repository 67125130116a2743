"""GnuTLS, a verifier and a TLS stack of its own: certtool, ocsptool and gnutls-cli."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulator.programs import Result, converse, run, succeed
from tests.simulator.relying import Bearer, Hospital

pytestmark = pytest.mark.interop

REQUEST = b"GET /5 HTTP/1.1\r\nHost: control.test.example\r\nConnection: close\r\n\r\n"
PROFILE = ("--verify-profile", "medium")


def verify(hospital: Hospital, bearer: Bearer, lists: Path | None, *words: str) -> Result:
    """`certtool --verify`: the root alone is trusted, the lists are at hand."""
    more = ("--load-crl", lists) if lists is not None else ()
    anchor = ("--load-ca-certificate", hospital.authority("root"))
    return run("certtool", "--verify", *PROFILE, *anchor, *more, *words, "--infile", bearer.chain)


class TestCerttool:
    """Chains and lists."""

    def test_chains_up_to_the_root(
        self, hospital: Hospital, pump: Bearer, er_pump: Bearer, pacemaker: Bearer, web: Bearer, tmp_path: Path
    ) -> None:
        for bearer in (pump, hospital.bearer("early"), er_pump, pacemaker, web, hospital.bearer("sdc")):
            whole = tmp_path / "whole.pem"
            whole.write_bytes(bearer.chain.read_bytes() + hospital.authority("root").read_bytes())
            told = succeed("certtool", "--verify-chain", *PROFILE, "--infile", whole)
            assert "Chain verification output: Verified. The certificate is trusted." in told

    def test_a_servers_names_and_purpose(self, hospital: Hospital, web: Bearer, pump: Bearer) -> None:
        server, client = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
        own = ("--verify-hostname", "web.test.example")
        assert verify(hospital, web, None, "--verify-purpose", server, *own).code == 0
        assert verify(hospital, web, None, "--verify-hostname", "other.test.example").code != 0
        assert verify(hospital, pump, None, "--verify-purpose", client).code == 0
        assert verify(hospital, pump, None, "--verify-purpose", server).code != 0

    def test_every_list_is_signed_by_its_authority(self, hospital: Hospital, pump: Bearer) -> None:
        for authority, shards in (
            ("root", ("0", "complete")),
            ("h1", ("0", "complete")),
            ("h1/icu", ("0", "1", "complete")),
            ("h1/er", ("0",)),
            ("h1/sdc", ("0",)),
            ("h1/infra", ("0",)),
        ):
            for shard in shards:
                path = hospital.crls("one", f"{authority.replace('/', '.')}/{shard}")
                issuer = hospital.authority(authority)
                told = succeed("certtool", "--verify-crl", *PROFILE, "--load-ca-certificate", issuer, "--infile", path)
                assert "Verified. The certificate is trusted." in told
        path = hospital.crls("one", "h1.icu/1")
        other = ("--load-ca-certificate", hospital.authority("h1/er"))
        assert run("certtool", "--verify-crl", *PROFILE, *other, "--infile", path).code != 0

    @pytest.mark.parametrize(
        "lists",
        [
            ("root/0", "h1/0", "h1.icu/0", "h1.icu/1"),
            ("root/0", "h1/0", "h1.icu/1", "h1.icu/0"),
            ("root/complete", "h1/complete", "h1.icu/complete"),
        ],
    )
    def test_a_good_chain_and_a_revoked_one(
        self, hospital: Hospital, pump: Bearer, early: Bearer, revoked: Bearer, lists: tuple[str, ...]
    ) -> None:
        hospital.await_complete_crl(revoked)
        path = hospital.crls("gnutls", *lists)
        for bearer in (pump, early):
            told = verify(hospital, bearer, path)
            assert told.code == 0
            assert told.text.count("Checked against CRL") == 3
        told = verify(hospital, revoked, path)
        assert told.code != 0
        assert "The certificate chain is revoked." in told

    def test_gnutls_takes_any_list_of_an_authority_for_the_whole(
        self, hospital: Hospital, revoked: Bearer, pump: Bearer
    ) -> None:
        """It reads no issuingDistributionPoint: it must be given every shard or the complete list (docs/interop.md)."""
        hospital.await_complete_crl(revoked)
        other_shard = hospital.crls("gnutls-other", "root/0", "h1/0", "h1.icu/0")
        assert verify(hospital, pump, other_shard).code == 0
        assert verify(hospital, revoked, other_shard).code == 0
        assert verify(hospital, revoked, hospital.crls("gnutls-all", "root/0", "h1/0", "h1.icu/complete")).code != 0


class TestOcsptool:
    """Questions to the status listener."""

    @pytest.mark.parametrize("nonce", [(), ("--nonce",)])
    def test_good_and_revoked(self, hospital: Hospital, pump: Bearer, revoked: Bearer, nonce: tuple[str, ...]) -> None:
        for bearer, said in ((pump, "good"), (revoked, "revoked")):
            issuer = ("--load-cert", bearer.leaf, "--load-issuer", hospital.authority("h1/icu"))
            told = succeed("ocsptool", f"--ask={hospital.status}/ocsp", *nonce, *issuer)
            told.must_say("Verifying OCSP Response: Success.", f"Certificate Status: {said}")
            assert ("Nonce: " in told) is bool(nonce)

    def test_a_kept_answer_is_verified_with_the_authority_alone(
        self, hospital: Hospital, pump: Bearer, tmp_path: Path
    ) -> None:
        kept, issuer = tmp_path / "kept", hospital.authority("h1/icu")
        words = ("--load-cert", pump.leaf, "--load-issuer", issuer, "--outfile", kept, "--outder")
        succeed("ocsptool", f"--ask={hospital.status}/ocsp", *words)
        told = succeed("ocsptool", "--verify-response", "--load-signer", issuer, "--load-response", kept, "--inder")
        assert "Verifying OCSP Response: Success." in told
        stranger = ("--load-signer", hospital.authority("h1/er"), "--load-response", kept, "--inder")
        assert "Failure" in run("ocsptool", "--verify-response", *stranger)


class TestConnections:
    """gnutls-cli, whose TLS is nobody else's."""

    def test_the_gate_admits_a_device_and_its_stapled_status_holds(
        self, hospital: Hospital, pump: Bearer, tmp_path: Path
    ) -> None:
        told = self._connect(hospital, "control", pump, "--save-ocsp", tmp_path / "staple")
        told.must_say("TLS1.3", "The certificate is trusted.", "HTTP/1.1 200")
        issuer = ("--load-signer", hospital.authority("h1/infra"), "--load-response", tmp_path / "staple")
        assert "Verifying OCSP Response: Success." in succeed("ocsptool", "--verify-response", *issuer)

    def test_a_revoked_device_is_refused(self, hospital: Hospital, revoked: Bearer) -> None:
        told = self._connect(hospital, "control", revoked)
        told.must_say("HTTP/1.1 403", "REVOKED")

    def test_tls_1_2_only_where_the_plan_allows_it(self, hospital: Hospital, er_pump: Bearer, pump: Bearer) -> None:
        old = ("--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.2")
        told = self._connect(hospital, "legacy", er_pump, *old)
        told.must_say("TLS1.2", "HTTP/1.1 200")
        refused = self._connect(hospital, "control", pump, *old)
        assert refused.code != 0
        assert "HTTP/1.1" not in refused

    @staticmethod
    def _connect(hospital: Hospital, listener: str, bearer: Bearer, *words: str | Path) -> Result:
        name = f"{listener}.test.example"
        who = ("--x509certfile", bearer.chain, "--x509keyfile", bearer.key, "--x509cafile", hospital.authority("root"))
        where = ("--sni-hostname", name, "--verify-hostname", name, "-p", str(hospital.port(listener)), "127.0.0.1")
        return converse("gnutls-cli", *who, *words, *where, said=REQUEST, folder=hospital.files)
