"""SDC peers by sdc11073 with certificates of a hospital's SDC CA: whom they admit, and whom they should not.

Provider and consumer are processes of their own (`sdc_peer.py`) on loopback, without WS-Discovery.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.simulator import plans
from tests.simulator.clients import ListenerConnection, Wish, enrol
from tests.simulator.commands import ENVIRONMENT, SOURCE, found_hospital, make_tokens, vagus
from tests.simulator.orders import key_pem, new_key, signing_request
from tests.simulator.processes import Served, serving
from tests.simulator.waiting import wait_until
from vagus.identifiers import DeviceId
from vagus.x509.oids import SDC_CONSUMER, SDC_PROVIDER

pytestmark = pytest.mark.interop

PACKAGES = Path(__file__).parents[2] / ".tools/sdc11073"
PEER = Path(__file__).with_name("sdc_peer.py")
PATIENCE = 60
STRANGERS = ("unit", "elsewhere", "revoked")
"""A device certificate of a unit of the same hospital; one of another hospital's SDC CA; one in the CRL."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What a peer shows, and whom it trusts."""

    chain: Path
    key: Path
    anchor: Path
    crls: Path | None

    @property
    def words(self) -> list[str]:
        """The arguments of `sdc_peer.py` after the role."""
        return [str(path) for path in (self.chain, self.key, self.anchor, self.crls) if path is not None]

    @property
    def purposes(self) -> set[str]:
        """The extended key usage of its certificate."""
        leaf = x509.load_pem_x509_certificates(self.chain.read_bytes())[0]
        return {each.dotted_string for each in leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value}


class Peers:
    """Two hospitals under one root, and their peers by name; each as docs/relying-parties.md wants it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "installation"
        self.files = folder
        rows = [plans.devices("icu", 1, 5), plans.devices("icu", 1, 1, plans.GATEWAY, host_names=["gw.test.example"])]
        found_hospital(
            self.folder,
            plans.hospital_plan(
                plans.hospital(*rows),
                plans.hospital(plans.devices("icu", 501, 1), label="h2", title="Second Hospital"),
                models=[plans.model(), plans.model(plans.GATEWAY, "Keystone", "device-gateway", "KGW")],
                listeners=[plans.STATUS, plans.listener("enrol", "enrolment", "enrol.test.example", hospital="h1")],
            ),
        )
        for authority in ("root", "h1/sdc"):
            vagus(self.folder, "ca", "export", authority, "--out", str(self.authority(authority)))
        both = [self.authority(each).read_bytes() for each in ("root", "h1/sdc")]
        self.authority("both").write_bytes(b"".join(both))
        self._devices: dict[str, list[str]] = {}
        for row in json.loads(vagus(self.folder, "device", "list", "--limit", "20", "--json")):
            self._devices.setdefault(f"{row['unit']} {row['model']}", []).append(row["id"])
        self._peers: dict[str, Peer] = {}

    def __getitem__(self, name: str) -> Peer:
        return self._peers[name]

    def authority(self, name: str) -> Path:
        """An authority's certificate, PEM."""
        return self.files / f"{name.replace('/', '.')}.pem"

    def issue_all(self, served: Served) -> None:
        """Certificates by every road that there is, a revocation, and the CRL with it."""
        self._enrol("provider", served)
        self._certify("consumer", f"h1/icu {plans.GATEWAY}", "--label", "sdc")
        self._certify("unit", f"h1/icu {plans.PUMP}")
        self._certify("elsewhere", f"h2/icu {plans.PUMP}", "--label", "sdc")
        device = self._certify("revoked", f"h1/icu {plans.PUMP}", "--label", "sdc")
        vagus(self.folder, "device", "revoke", device, "--reason", "keyCompromise", "--yes")
        wait_until(lambda: len(_crl_of(served)) > 0, "the revoked peer in its CRL", seconds=120)
        vagus(self.folder, "ca", "crls", "h1/sdc", "--out", str(self.files / "crls.pem"))

    def _enrol(self, name: str, served: Served) -> None:
        """Over EST, label `sdc`, with a token."""
        device = self._devices[f"h1/icu {plans.PUMP}"].pop()
        wish = Wish(device, make_tokens(self.folder, [DeviceId(device)])[device])
        trust = ssl.create_default_context(cafile=str(self.authority("root")))
        with closing(ListenerConnection(served.addresses["enrol"], "enrol.test.example", trust)) as connection:
            leaf = x509.load_der_x509_certificate(enrol(connection, wish, "sdc"))
        peer = self._peer(name)
        peer.chain.write_bytes(leaf.public_bytes(Encoding.PEM) + self.authority("h1/sdc").read_bytes())
        peer.key.write_bytes(key_pem(wish.key))

    def _certify(self, name: str, kind: str, *options: str) -> str:
        """By `device certify`; gives the device."""
        peer, device, key = self._peer(name), self._devices[kind].pop(), new_key()
        request = self.files / f"{name}.csr"
        request.write_bytes(base64.b64encode(signing_request(key, x509.Name([]))))
        files = ("--request", str(request), "--form", "chain", "--out", str(peer.chain))
        vagus(self.folder, "device", "certify", device, *files, *options, "--passphrase-source", SOURCE)
        peer.key.write_bytes(key_pem(key))
        return device

    def _peer(self, name: str) -> Peer:
        chain, key = self.files / f"{name}-chain.pem", self.files / f"{name}.key"
        self._peers[name] = Peer(chain, key, self.authority("h1/sdc"), self.files / "crls.pem")
        return self._peers[name]


def _crl_of(served: Served) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(served.get("/crl/h1.sdc/1/complete.crl"))


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    """The files of all peers; what issued them has ended."""
    if not PACKAGES.exists():
        pytest.skip("tests/interop/prepare.sh did not bring sdc11073")
    made = Peers(tmp_path_factory.mktemp("sdc"))
    with serving(made.folder, "--issue-for", "all", "--passphrase-source", SOURCE, around=ENVIRONMENT) as served:
        made.issue_all(served)
    return made


def command(role: str, peer: Peer, *more: str) -> list[str]:
    """A peer's words; it finds sdc11073 and nothing of ours."""
    return [sys.executable, str(PEER), role, *peer.words, *more]


def surroundings() -> dict[str, str]:
    """What a peer finds around it."""
    return {**os.environ, "PYTHONPATH": str(PACKAGES)}


@contextmanager
def providing(peer: Peer) -> Iterator[str]:
    """The address of a provider, while the block lasts."""
    with subprocess.Popen(
        command("provider", peer),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=surroundings(),
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("https://127.0.0.1:"), "the provider did not start"
            yield address
        finally:
            process.stdin.close()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def consume(peer: Peer, address: str) -> tuple[dict[str, Any] | None, str]:
    """What a consumer read and heard, or None; and all that it said of errors."""
    words = command("consumer", peer, address)
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False, env=surroundings())
    return (json.loads(done.stdout) if done.returncode == 0 else None), done.stderr


def alert_for(peer: Peer, address: str) -> str:
    """The alert with which a provider refuses this peer; sdc11073's consumer shows a broken connection alone."""
    host, _, port = address.removeprefix("https://").partition("/")[0].partition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(peer.anchor)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(peer.chain, peer.key)
    with (
        socket.create_connection((host, int(port)), PATIENCE) as raw,
        context.wrap_socket(raw) as wire,
        pytest.raises(ssl.SSLError) as refused,
    ):
        wire.recv(1)
    return str(refused.value)


def trusting_the_root(peers: Peers, name: str, anchor: str = "root") -> Peer:
    """The same peer as sdc11073's own `mk_ssl_contexts` makes it with the root: without CRLs."""
    return replace(peers[name], anchor=peers.authority(anchor), crls=None)


@pytest.fixture(scope="module")
def strict(peers: Peers) -> Iterator[str]:
    """A provider that trusts h1/sdc alone and has its CRL."""
    with providing(peers["provider"]) as address:
        yield address


@pytest.fixture(scope="module", params=["root", "both"])
def lax(peers: Peers, request: pytest.FixtureRequest) -> Iterator[str]:
    """A provider that trusts the root, alone or beside h1/sdc, and has no CRL."""
    with providing(trusting_the_root(peers, "provider", request.param)) as address:
        yield address


def must_serve(found: tuple[dict[str, Any] | None, str]) -> None:
    """TLS 1.3, every descriptor read, and at least one notification."""
    read, said = found
    assert read is not None, said
    assert read["tls"] == "TLSv1.3"
    assert read["descriptors"] == ["drive", "line", "pump", "rate"]
    assert read["notifications"] > 0


def test_a_consumer_reads_a_provider_and_hears_a_notification(peers: Peers, strict: str) -> None:
    roles = {SDC_PROVIDER, SDC_CONSUMER}
    assert [peers[name].purposes & roles for name in ("provider", "consumer", "unit")] == [
        {SDC_PROVIDER},
        {SDC_CONSUMER},
        set(),
    ]
    must_serve(consume(peers["consumer"], strict))


@pytest.mark.parametrize("name", STRANGERS)
def test_a_provider_that_trusts_its_sdc_ca_alone_refuses(peers: Peers, strict: str, name: str) -> None:
    assert consume(peers[name], strict)[0] is None
    assert {"revoked": "certificate revoked"}.get(name, "unknown ca") in alert_for(peers[name], strict)


@pytest.mark.parametrize("name", STRANGERS)
def test_a_consumer_that_trusts_its_sdc_ca_alone_refuses(peers: Peers, name: str) -> None:
    with providing(trusting_the_root(peers, name)) as address:
        read, said = consume(peers["consumer"], address)
    assert read is None
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert ("certificate revoked" if name == "revoked" else "unable to get local issuer certificate") in said


@pytest.mark.parametrize("name", STRANGERS)
def test_a_provider_that_trusts_the_root_and_has_no_crl_admits_them(peers: Peers, lax: str, name: str) -> None:
    """What docs/relying-parties.md warns of; where this fails, sdc11073 has become stricter."""
    read, said = consume(trusting_the_root(peers, name), lax)
    assert read is not None, said
    assert read["descriptors"]


def test_sdc11073_checks_no_roles(peers: Peers, strict: str) -> None:
    """A provider's certificate passes as a consumer's, and a consumer's as a provider's."""
    must_serve(consume(peers["provider"], strict))
    with providing(peers["consumer"]) as address:
        must_serve(consume(peers["consumer"], address))
