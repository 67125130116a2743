"""FreeRADIUS lets devices into the network by EAP-TLS 1.3 with our certificates and lists; eapol_test is the device.

check_all_crl fails for everybody as soon as an intermediate is in its trust store (OpenSSL mixes up whose list is whose
when partial chains are allowed), so the bundle is the root with every level's list, and devices send the rest.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.simulator.programs import Result, Running, free_port, program, run, running
from tests.simulator.relying import Bearer, Hospital

pytestmark = pytest.mark.interop

SHARDS = ("root/0", "h1/0", "h1.icu/0", "h1.icu/1")
SECRET = "for-loopback-alone"
VLAN = "310"

RADIUSD = """
name = radiusd
prefix = /usr
raddbdir = {folder}
confdir = ${{raddbdir}}
logdir = {folder}
run_dir = {folder}
pidfile = ${{run_dir}}/radiusd.pid
libdir = /usr/lib/freeradius
max_request_time = 30
cleanup_delay = 1
log {{
  destination = stdout
}}
security {{
  reject_delay = 0
}}
thread pool {{
  start_servers = 1
  max_servers = 4
  min_spare_servers = 1
  max_spare_servers = 2
}}
modules {{
  eap {{
    default_eap_type = tls
    timer_expire = 60
    max_sessions = 64
    tls-config devices {{
      private_key_file = {key}
      certificate_file = {chain}
      ca_file = {bundle}
      auto_chain = no
      {status}
      tls_min_version = "1.2"
      tls_max_version = "1.3"
      cache {{
        enable = no
      }}
    }}
    tls {{
      tls = devices
      virtual_server = purpose
    }}
  }}
}}
server network {{
  listen {{
    type = auth
    ipaddr = 127.0.0.1
    port = {port}
  }}
  client loopback {{
    ipaddr = 127.0.0.1
    secret = {secret}
    require_message_authenticator = yes
  }}
  authorize {{
    eap {{
      ok = return
    }}
  }}
  authenticate {{
    eap
  }}
  post-auth {{
    update reply {{
      &Tunnel-Type := VLAN
      &Tunnel-Medium-Type := IEEE-802
      &Tunnel-Private-Group-Id := "{vlan}"
    }}
  }}
}}
server purpose {{
  authorize {{
    if (&TLS-Client-Cert-X509v3-Extended-Key-Usage-OID[*] == "1.3.6.1.5.5.7.3.14") {{
      update config {{
        &Auth-Type := Accept
      }}
    }}
    else {{
      update config {{
        &Auth-Type := Reject
      }}
    }}
  }}
}}
"""

BY_LISTS = """check_crl = yes
      check_all_crl = yes"""
BY_OCSP = """ocsp {{
        enable = yes
        override_cert_url = yes
        url = "{url}"
        use_nonce = yes
        timeout = 5
        softfail = no
      }}"""

SUPPLICANT = """network={{
  ssid="clinical"
  key_mgmt=WPA-EAP
  eap=TLS
  identity="{device}"
  ca_cert="{root}"
  domain_match="radius.test.example"
  client_cert="{chain}"
  private_key="{key}"
  phase1="tls_disable_tlsv1_3=0"
}}
"""


@contextmanager
def freeradius(web: Bearer, bundle: Path, status: str, folder: Path) -> Iterator[Running]:
    """A RADIUS server that shows `web` and trusts what is in `bundle`."""
    port = 0

    def command(_tcp_port: int) -> list[str | Path]:
        nonlocal port
        port = free_port(socket.SOCK_DGRAM)
        facts = {"key": web.key, "chain": web.chain, "bundle": bundle, "status": status, "port": port}
        config = RADIUSD.format(folder=folder, secret=SECRET, vlan=VLAN, **facts)
        (folder / "radiusd.conf").write_text(config, encoding="utf-8")
        return [program("freeradius"), "-f", "-xx", "-d", folder, "-l", "stdout"]

    def is_ready(_port: int, said: Path) -> bool:
        return "Ready to process requests" in said.read_text("utf-8", "replace")

    folder.chmod(0o700)
    with running(command, folder, is_ready=is_ready) as server:
        yield Running(port, server.process, server.log)


def join(hospital: Hospital, server: Running, who: Bearer, folder: Path) -> Result:
    """What a device is told that knocks at the network."""
    config = folder / "supplicant.conf"
    root = hospital.authority("root")
    config.write_text(SUPPLICANT.format(device=who.device, root=root, chain=who.chain, key=who.key), encoding="utf-8")
    words = ("-c", config, "-a", "127.0.0.1", "-p", str(server.port), "-s", SECRET, "-t", "15")
    return run("eapol_test", *words, seconds=40)


def bundle_of(hospital: Hospital, folder: Path, *authorities: str, lists: tuple[str, ...] = SHARDS) -> Path:
    """Certificates and lists in one file, as FreeRADIUS reads them."""
    path = folder / "bundle.pem"
    pems = [hospital.authority(name).read_bytes() for name in authorities]
    path.write_bytes(b"".join(pems) + (hospital.crls("radius", *lists).read_bytes() if lists else b""))
    return path


def is_let_in(told: Result) -> bool:
    """Whether the network opened, into the VLAN of medical devices."""
    if told.code != 0:
        return False
    assert told.text.rstrip().endswith("SUCCESS")
    assert VLAN.encode().hex() in told.text  # Tunnel-Private-Group-Id, as eapol_test prints octets
    return True


@pytest.fixture(autouse=True)
def _programs() -> None:
    program("freeradius")
    program("eapol_test")


def test_a_device_is_let_in_and_others_are_not(
    hospital: Hospital, web: Bearer, pump: Bearer, early: Bearer, revoked: Bearer, tmp_path: Path
) -> None:
    bundle = bundle_of(hospital, tmp_path, "root")
    with freeradius(web, bundle, BY_LISTS, tmp_path) as server:
        for bearer in (pump, early):
            assert is_let_in(join(hospital, server, bearer, tmp_path)), server.said[-3000:]
        assert not is_let_in(join(hospital, server, revoked, tmp_path))
        assert "certificate revoked" in server.said
        assert "TLS version: TLS 1.3" in server.said or "TLS 1.3" in server.said


def test_the_purpose_of_a_certificate_counts(
    hospital: Hospital, web: Bearer, pacemaker: Bearer, tmp_path: Path
) -> None:
    """An implant has no eapOverLAN among its purposes: valid, and yet not let into this network."""
    lists = ("root/0", "h1/0", "h1.remote-care/0")
    with freeradius(web, bundle_of(hospital, tmp_path, "root", lists=lists), BY_LISTS, tmp_path) as server:
        assert not is_let_in(join(hospital, server, pacemaker, tmp_path))
        assert "certificate revoked" not in server.said
        assert "&Auth-Type := Reject" in server.said


def test_an_intermediate_in_the_bundle_locks_everybody_out(
    hospital: Hospital, web: Bearer, pump: Bearer, tmp_path: Path
) -> None:
    bundle = bundle_of(hospital, tmp_path, "root", "h1", "h1/icu")
    with freeradius(web, bundle, BY_LISTS, tmp_path) as server:
        assert not is_let_in(join(hospital, server, pump, tmp_path))
        assert "unable to get certificate CRL" in server.said or "CRL signature failure" in server.said


def test_our_ocsp_in_place_of_lists(
    hospital: Hospital, web: Bearer, pump: Bearer, revoked: Bearer, tmp_path: Path
) -> None:
    """Here the intermediates must be at hand: FreeRADIUS looks for the responder's authorities in its store alone."""
    bundle = bundle_of(hospital, tmp_path, "root", "h1", "h1/icu", lists=())
    status = BY_OCSP.format(url=f"{hospital.status}/ocsp")
    with freeradius(web, bundle, status, tmp_path) as server:
        assert is_let_in(join(hospital, server, pump, tmp_path)), server.said[-3000:]
        assert not is_let_in(join(hospital, server, revoked, tmp_path))
