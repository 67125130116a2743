"""nginx, HAProxy and mosquitto admit our devices and refuse revoked ones, with our lists or our OCSP.

Each trusts the root alone: devices send their authorities with them. Checking every level needs every level's list,
the root's among them, so that is what they are given.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.simulator.programs import Running, program, run, running, succeed, version_of
from tests.simulator.relying import Bearer, Hospital
from tests.simulator.waiting import wait_until

pytestmark = pytest.mark.interop

SHARDS = ("root/0", "h1/0", "h1.icu/0", "h1.icu/1")
COMPLETE = ("root/complete", "h1/complete", "h1.icu/complete")


@pytest.fixture(params=[SHARDS, COMPLETE], ids=["shards", "complete"])
def lists(request: pytest.FixtureRequest, hospital: Hospital, revoked: Bearer) -> Path:
    """A CRL of every level, with the revoked device in it."""
    hospital.await_complete_crl(revoked)
    return hospital.crls("relying", *request.param)


def is_admitted(hospital: Hospital, server: Running, who: Bearer | None) -> bool:
    """Whether a client that trusts the root alone gets the page, which names the client."""
    name, port = "web.test.example", server.port
    words = ("--max-time", "20", "-w", "\n%{http_code}", f"https://{name}:{port}/")
    told = run("curl", *hospital.curl_words(name, port, who), *words)
    if not told.raw.endswith(b"\n200"):
        return False
    assert who is not None
    assert who.device in told.text
    return True


def check_admission(hospital: Hospital, server: Running, good: Sequence[Bearer], refused: Bearer) -> None:
    """The good are admitted; the refused one is not, nor a client without a certificate."""
    for who in good:
        assert is_admitted(hospital, server, who), who.name
    for other in (refused, None):
        assert not is_admitted(hospital, server, other), other


NGINX = """
daemon off;
pid nginx.pid;
error_log stderr info;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_verify_client on;
    ssl_verify_depth 3;
    ssl_client_certificate {root};
    {more}
    location / {{ return 200 "$ssl_client_verify $ssl_client_s_dn\\n"; }}
  }}
}}
"""


def nginx(hospital: Hospital, web: Bearer, folder: Path, more: str) -> AbstractContextManager[Running]:
    """Run nginx with `more` in its server block."""
    root = hospital.authority("root")

    def command(port: int) -> list[str | Path]:
        config = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # its worker must read the keys of this test
        files = {"chain": web.chain, "key": web.key, "root": root}
        config.write_text(user + NGINX.format(port=port, more=more, **files), encoding="utf-8")
        return [program("nginx"), "-p", folder, "-c", config, "-e", "stderr"]

    return running(command, folder)


class TestNginx:
    def test_with_our_lists(
        self, hospital: Hospital, web: Bearer, pump: Bearer, early: Bearer, revoked: Bearer, lists: Path, tmp_path: Path
    ) -> None:
        with nginx(hospital, web, tmp_path, f"ssl_crl {lists};") as server:
            check_admission(hospital, server, (pump, early), revoked)
            wait_until(lambda: "certificate revoked" in server.said, "nginx says why")

    def test_with_the_file_that_ca_crls_writes(
        self, hospital: Hospital, web: Bearer, pump: Bearer, early: Bearer, revoked: Bearer, tmp_path: Path
    ) -> None:
        hospital.await_complete_crl(revoked)
        path = tmp_path / "crls.pem"
        hospital.vagus("ca", "crls", "h1/icu", "--out", str(path))
        with nginx(hospital, web, tmp_path, f"ssl_crl {path};") as server:
            check_admission(hospital, server, (pump, early), revoked)
            wait_until(lambda: "certificate revoked" in server.said, "nginx says why")

    def test_without_the_roots_list_nobody_is_admitted(
        self, hospital: Hospital, web: Bearer, pump: Bearer, tmp_path: Path
    ) -> None:
        path = hospital.crls("nginx-lame", "h1/0", "h1.icu/0", "h1.icu/1")
        with nginx(hospital, web, tmp_path, f"ssl_crl {path};") as server:
            assert not is_admitted(hospital, server, pump)
            wait_until(lambda: "unable to get certificate CRL" in server.said, "nginx says why")

    def test_a_new_list_is_in_force_after_a_reload(self, hospital: Hospital, web: Bearer, tmp_path: Path) -> None:
        bearer = hospital.enrol("nginx-client")
        path = tmp_path / "lists.pem"
        path.write_bytes(hospital.crls("nginx-before", *SHARDS).read_bytes())
        with nginx(hospital, web, tmp_path, f"ssl_crl {path};") as server:
            assert is_admitted(hospital, server, bearer)
            hospital.revoke(bearer)
            path.write_bytes(hospital.crls("nginx-after", *SHARDS).read_bytes())
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: not is_admitted(hospital, server, bearer), "refused after the reload")

    def test_with_our_ocsp(
        self, hospital: Hospital, web: Bearer, pump: Bearer, revoked: Bearer, tmp_path: Path
    ) -> None:
        if version_of("nginx", "-v") < (1, 19, 0):
            pytest.skip("this nginx asks no OCSP about clients (1.19 does)")
        more = f"ssl_ocsp leaf;\n    ssl_ocsp_responder {hospital.status}/ocsp;"
        with nginx(hospital, web, tmp_path, more) as server:
            check_admission(hospital, server, [pump], revoked)
            wait_until(lambda: "certificate revoked" in server.said, "nginx says why")

    def test_it_staples_our_answer_about_its_own_certificate(
        self, hospital: Hospital, web: Bearer, pump: Bearer, tmp_path: Path
    ) -> None:
        trusted = tmp_path / "trusted.pem"
        trusted.write_bytes(hospital.authority("root").read_bytes() + hospital.authority("h1/infra").read_bytes())
        staple = (
            "ssl_stapling on;\n    ssl_stapling_verify on;\n"
            f"    ssl_stapling_responder {hospital.status}/ocsp;\n    ssl_trusted_certificate {trusted};"
        )

        with nginx(hospital, web, tmp_path, staple) as server:
            wait_until(lambda: is_stapled(hospital, server.port, pump), "nginx staples")  # the first handshake asks


def is_stapled(hospital: Hospital, port: int, who: Bearer) -> bool:
    """Whether a server sends its status along, and `openssl` finds it good."""
    trust = ("-servername", "web.test.example", "-CAfile", hospital.authority("root"), "-verify_return_error")
    client = ("-cert", who.leaf, "-cert_chain", who.chain, "-key", who.key)
    told = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *trust, *client, "-status")
    assert "Verify return code: 0 (ok)" in told
    return "Cert Status: good" in told


HAPROXY = """
global
  maxconn 64
defaults
  mode http
  timeout client 20s
  timeout server 20s
  timeout connect 20s
frontend listener
  bind 127.0.0.1:{port} ssl crt {crt} ca-file {root} crl-file {lists} verify required ssl-min-ver TLSv1.2
  http-request return status 200 content-type text/plain lf-string "%[ssl_c_s_dn(CN)]"
"""


class TestHaproxy:
    @pytest.fixture
    def credential(self, hospital: Hospital, web: Bearer, tmp_path: Path) -> Path:
        """Certificate and key in one file, and an OCSP answer beside it."""
        crt, issuer = tmp_path / "web.pem", hospital.authority("h1/infra")
        crt.write_bytes(web.chain.read_bytes() + web.key.read_bytes())
        (tmp_path / "web.pem.issuer").write_bytes(issuer.read_bytes())
        ask = ("-issuer", issuer, "-cert", web.leaf, "-no_nonce", "-respout", tmp_path / "web.pem.ocsp", "-noverify")
        succeed("openssl", "ocsp", "-url", f"{hospital.status}/ocsp", *ask)
        return crt

    @staticmethod
    def _haproxy(hospital: Hospital, credential: Path, lists: Path) -> AbstractContextManager[Running]:
        folder, root = credential.parent, hospital.authority("root")

        def command(port: int) -> list[str | Path]:
            config = folder / "haproxy.cfg"
            config.write_text(HAPROXY.format(port=port, crt=credential, root=root, lists=lists), encoding="utf-8")
            return [program("haproxy"), "-db", "-f", config]

        return running(command, folder)

    def test_with_our_lists(
        self, hospital: Hospital, credential: Path, pump: Bearer, early: Bearer, revoked: Bearer, lists: Path
    ) -> None:
        with self._haproxy(hospital, credential, lists) as server:
            check_admission(hospital, server, (pump, early), revoked)
            assert is_stapled(hospital, server.port, pump)

    def test_without_the_roots_list_nobody_is_admitted(
        self, hospital: Hospital, credential: Path, pump: Bearer
    ) -> None:
        lame = hospital.crls("haproxy-lame", "h1/0", "h1.icu/0", "h1.icu/1")
        with self._haproxy(hospital, credential, lame) as server:
            assert not is_admitted(hospital, server, pump)


MOSQUITTO = """
listener {port} 127.0.0.1
cafile {root}
certfile {chain}
keyfile {key}
crlfile {lists}
require_certificate true
use_identity_as_username true
allow_anonymous false
tls_version tlsv1.3
acl_file {acl}
persistence false
log_dest stderr
log_type all
{user}
"""


class TestMosquitto:
    @staticmethod
    def _mosquitto(
        hospital: Hospital, web: Bearer, station: Bearer, lists: Path, folder: Path
    ) -> AbstractContextManager[Running]:
        """A broker where each device writes under its own name and `station` reads everybody."""
        acl = folder / "acl"
        acl.write_text(f"pattern write devices/%u/telemetry\nuser {station.device}\ntopic read devices/#\n")
        acl.chmod(0o600)
        user = "user root" if os.geteuid() == 0 else ""

        def command(port: int) -> list[str | Path]:
            config = folder / "mosquitto.conf"
            files = {"root": hospital.authority("root"), "chain": web.chain, "key": web.key, "lists": lists}
            config.write_text(MOSQUITTO.format(port=port, acl=acl, user=user, **files), encoding="utf-8")
            return [program("mosquitto"), "-c", config]

        return running(command, folder)

    @staticmethod
    def _client(hospital: Hospital, server: Running, who: Bearer) -> tuple[str | Path, ...]:
        trust = ("--cafile", hospital.authority("root"), "--tls-version", "tlsv1.3")
        return ("-h", "127.0.0.1", "-p", str(server.port), *trust, "--cert", who.chain, "--key", who.key, "-q", "1")

    def _is_published(self, hospital: Hospital, server: Running, who: Bearer, line: str) -> bool:
        """Whether a device may say it, as the station hears or the client's own failure shows."""
        words = ("-t", f"devices/{who.device}/telemetry", "-m", line, "-r")
        return run("mosquitto_pub", *self._client(hospital, server, who), *words).code == 0

    def test_with_our_lists(
        self, hospital: Hospital, web: Bearer, pump: Bearer, early: Bearer, revoked: Bearer, lists: Path, tmp_path: Path
    ) -> None:
        program("mosquitto_pub")
        with self._mosquitto(hospital, web, early, lists, tmp_path) as server:
            assert self._is_published(hospital, server, pump, "rate=72")
            assert not self._is_published(hospital, server, revoked, "rate=0")
            words = ("-t", "devices/#", "-v", "-C", "1", "-W", "20")
            heard = succeed("mosquitto_sub", *self._client(hospital, server, early), *words)
            assert heard.raw.decode() == f"devices/{pump.device}/telemetry rate=72\n"
            assert "certificate" in server.said  # OpenSSL's words for the refused one

    def test_nobody_speaks_for_another(
        self, hospital: Hospital, web: Bearer, pump: Bearer, early: Bearer, tmp_path: Path
    ) -> None:
        program("mosquitto_pub")
        with self._mosquitto(hospital, web, early, hospital.crls("mosquitto-acl", *SHARDS), tmp_path) as server:
            words = ("-t", f"devices/{early.device}/telemetry", "-m", "rate=0")
            run("mosquitto_pub", *self._client(hospital, server, pump), *words)
            wait_until(lambda: "Denied PUBLISH" in server.said, "mosquitto denies")
