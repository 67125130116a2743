"""A post-quantum hospital judged by an OpenSSL from 3.5 on: chains, CRLs, OCSP, TLS with the hybrid key exchange."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from examples.demo_pq.judges import find_openssl

from tests.simulator import plans
from tests.simulator.commands import ENVIRONMENT, SOURCE, found_hospital, infrastructure_anchor, make_tokens, vagus
from tests.simulator.processes import Served, serving
from tests.simulator.programs import PATIENCE
from tests.simulator.upstreams import http_upstream
from tests.simulator.waiting import wait_until
from vagus.identifiers import DeviceId

pytestmark = pytest.mark.interop

GROUP = "X25519MLKEM768"
REQUEST = "GET /5 HTTP/1.1\r\nHost: control.test.example\r\nConnection: close\r\n\r\n"


def _plan(upstream: int) -> str:
    control: dict[str, Any] = {"hospital": "h1", "units": ["icu"], "function": "control", "upstream": upstream}
    return plans.hospital_plan(
        plans.hospital(plans.devices("icu", 1, 3)),
        listeners=[
            plans.STATUS,
            plans.listener("enrol", "enrolment", "enrol.test.example", hospital="h1"),
            plans.listener("control", "relay-http", "control.test.example", **control),
        ],
    )


@dataclass(frozen=True, slots=True)
class Ward:
    """A hospital under the pack iob-2026-pq that serves, with the files that others get."""

    folder: Path
    served: Served
    openssl: str

    def run(self, *words: str | Path, said: str = "") -> str:
        """What that OpenSSL says, its errors included."""
        command = [self.openssl, *map(str, words)]
        done = subprocess.run(
            command, input=said, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=self.folder.parent
        )
        return done.stdout + done.stderr

    def pump(self, number: int) -> Path:
        """The folder of a device that enrolled; it holds key.pem and chain.pem."""
        return self.folder.parent / f"pump-{number}" / "current"

    def verify(self, number: int) -> str:
        """`openssl verify` of a device's path with the CRLs of every level."""
        vagus(self.folder, "ca", "crls", "h1/icu", "--out", "crls.pem", "--replace")
        strict = ("-x509_strict", "-crl_check_all", "-check_ss_sig", "-auth_level", "2", "-purpose", "sslclient")
        trust = ("-CAfile", "root.pem", "-untrusted", "above.pem", "-CRLfile", "crls.pem")
        return self.run("verify", *strict, *trust, self.pump(number) / "chain.pem")


def _enrol(folder: Path, served: Served, number: int, token: str) -> None:
    words = ("--server", f"enrol.test.example=127.0.0.1:{served.port('enrol')}", "--key", "mldsa65", "--json")
    more = ("--state", str(folder / f"pump-{number}"), "--anchors", str(folder / "infra.pem"), "--token", "env:TOKEN")
    command = [sys.executable, "-m", "vagus_agent", "enrol", *words, *more]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, "TOKEN": token}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    found = find_openssl()
    if found is None:
        pytest.skip("no openssl from 3.5 on is here (tests/interop/prepare.sh brings one)")
    place = tmp_path_factory.mktemp("quantum")
    folder = place / "hospital"
    with http_upstream() as (upstream, _seen), pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        found_hospital(folder, _plan(upstream), "--policy", "iob-2026-pq")
        (place / "infra.pem").write_text(infrastructure_anchor(folder))
        vagus(folder, "ca", "export", "--roots", "--out", "root.pem")
        vagus(folder, "ca", "export", "h1/icu", "--chain", "--no-root", "--out", "above.pem")
        listed = json.loads(vagus(folder, "device", "list", "--json"))
        tokens = make_tokens(folder, [DeviceId(row["id"]) for row in listed])
        with serving(folder, "--issue-for", "all", "--passphrase-source", SOURCE, around=ENVIRONMENT) as served:
            for number, token in enumerate(tokens.values()):
                _enrol(place, served, number, token)
            yield Ward(folder, served, found[0])


def device_of(ward: Ward, number: int) -> str:
    leaf = x509.load_pem_x509_certificate((ward.pump(number) / "chain.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)[0].partition(".")[0]


def test_the_chain_of_a_device_holds_with_the_crls_of_every_level(ward: Ward) -> None:
    assert ward.verify(0).strip().endswith("chain.pem: OK")
    text = ward.run("x509", "-in", ward.pump(0) / "chain.pem", "-noout", "-text")
    assert text.count("ML-DSA-65") >= 2, text


def test_a_revoked_device_is_refused_and_its_neighbour_is_not(ward: Ward) -> None:
    vagus(ward.folder, "device", "revoke", device_of(ward, 1), "--reason", "keyCompromise", "--yes")
    wait_until(lambda: "certificate revoked" in ward.verify(1), "the revoked device in the complete CRL", seconds=90)
    assert ward.verify(0).strip().endswith("chain.pem: OK")
    assert "HTTP/1.1 403" in connect(ward, 1)


def connect(ward: Ward, number: int, group: str = GROUP) -> str:
    pump = ward.pump(number)
    shown = ("-cert", pump / "chain.pem", "-cert_chain", "above.pem", "-key", pump / "key.pem")
    trust = ("-CAfile", "root.pem", "-verify_return_error", "-verify_hostname", "control.test.example")
    peer = ("-connect", f"127.0.0.1:{ward.served.port('control')}", "-servername", "control.test.example")
    return ward.run("s_client", "-ign_eof", "-quiet", "-groups", group, *peer, *trust, *shown, said=REQUEST)


def test_the_gateway_speaks_to_a_client_that_has_the_hybrid_key_exchange_alone(ward: Ward) -> None:
    told = connect(ward, 0)
    assert "HTTP/1.1 200" in told, told


def test_a_client_without_it_is_served_too_and_the_gateway_notes_its_group(ward: Ward) -> None:
    told = connect(ward, 0, "X25519")
    assert "HTTP/1.1 200" in told, told


def test_ocsp_responses_verify_from_the_root(ward: Ward) -> None:
    vagus(ward.folder, "ca", "export", "h1/icu", "--out", "icu.pem", "--replace")
    words = ("-issuer", "icu.pem", "-cert", ward.pump(0) / "chain.pem", "-no_nonce", "-CAfile", "root.pem")
    url = f"http://127.0.0.1:{ward.served.port('status')}/ocsp"
    told = ward.run("ocsp", *words, "-verify_other", "above.pem", "-url", url)
    assert "Response verify OK" in told, told
    assert "chain.pem: good" in told, told
