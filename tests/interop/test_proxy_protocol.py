"""Servers behind a raw relay learn the device from our PROXY header, each by a reader that its own project wrote."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.simulator.programs import Running, program, run, running, version_of
from tests.simulator.relying import Bearer, Hospital
from tests.simulator.upstreams import raw_upstream
from tests.simulator.waiting import wait_until

pytestmark = pytest.mark.interop

NAME = "lines.test.example"
PLAIN_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def ask(hospital: Hospital, who: Bearer | None, *more: str) -> str:
    """What the server behind the relay answers to that device; empty when it gets no connection."""
    port = hospital.port("lines")
    words = ("--no-alpn", "--max-time", "20", *more, f"https://{NAME}:{port}/")
    told = run("curl", *hospital.curl_words(NAME, port, who), *words)
    return told.raw.decode() if told.code == 0 else ""


@pytest.fixture(scope="session")
def other(hospital: Hospital) -> Bearer:
    """A second good device of the ICU."""
    return hospital.enrol("lines-other")


@contextmanager
def standing_behind(hospital: Hospital, server: AbstractContextManager[Running]) -> Iterator[Running]:
    """The relay's upstream is that server while the block lasts."""
    with server as started:
        hospital.behind_lines = started.port
        yield started


HAPROXY = """
global
  maxconn 64
defaults
  mode http
  timeout client 20s
  timeout server 20s
  timeout connect 20s
frontend lines
  bind 127.0.0.1:{port} accept-proxy
  http-request return status 200 content-type text/plain lf-string "{answer}"
"""


class TestHaproxy:
    @pytest.fixture
    def server(self, hospital: Hospital, tmp_path: Path) -> Iterator[Running]:
        answer = "%[fc_pp_unique_id,field(1,-)] %[fc_pp_authority] %[src]"
        if version_of("haproxy", "-v") >= (2, 9, 0):
            answer += " %[fc_pp_tlv(0xE0)] %[fc_pp_tlv(0xE1)]"

        def command(port: int) -> list[str | Path]:
            config = tmp_path / "haproxy.cfg"
            config.write_text(HAPROXY.format(port=port, answer=answer), encoding="utf-8")
            return [program("haproxy"), "-db", "-f", config]

        with standing_behind(hospital, running(command, tmp_path)) as started:
            yield started

    def test_it_learns_the_device_and_verifies_the_checksum(
        self, hospital: Hospital, server: Running, pump: Bearer, other: Bearer, revoked: Bearer
    ) -> None:
        for who in (pump, other):
            told = ask(hospital, who).split(" ")
            assert told[:3] == [who.device, NAME, "127.0.0.1"]
            assert told[3:] in ([], [who.device, "h1/icu"])
        assert ask(hospital, revoked) == ""
        assert ask(hospital, None) == ""

    def test_a_header_of_the_clients_own_is_data_that_it_refuses(
        self, hospital: Hospital, server: Running, pump: Bearer, other: Bearer
    ) -> None:
        assert pump.device.encode() in say(hospital, pump, PLAIN_REQUEST)
        for forged in (captured_header(hospital, other), b"PROXY TCP4 192.0.2.9 192.0.2.9 1 1\r\n"):
            said = say(hospital, pump, forged + PLAIN_REQUEST)
            assert b"400 Bad request" in said
            assert b"192.0.2.9" not in said
            assert other.device.encode() not in said

    def test_a_header_with_one_changed_bit_is_refused(self, hospital: Hospital, server: Running, pump: Bearer) -> None:
        header = captured_header(hospital, pump)
        assert pump.device.encode() in exchange(server.port, header + PLAIN_REQUEST)
        at = header.index(pump.device.encode())
        changed = header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :]
        assert exchange(server.port, changed + PLAIN_REQUEST) == b""


def captured_header(hospital: Hospital, who: Bearer) -> bytes:
    """The bytes that an upstream gets before that device's request."""
    came: list[bytes] = []
    before = hospital.behind_lines
    with raw_upstream(lambda connection: came.append(connection.recv(65_536, socket.MSG_WAITALL))) as port:
        hospital.behind_lines = port
        ask(hospital, who, "--max-time", "1")
        wait_until(lambda: bool(came))
    hospital.behind_lines = before
    return came[0][: came[0].index(b"GET / ")]


def say(hospital: Hospital, who: Bearer, said: bytes) -> bytes:
    """All that the server behind the relay answers when that device's stream begins with these bytes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(hospital.authority("root"))
    context.load_cert_chain(who.chain, who.key)
    got = b""
    with (
        socket.create_connection(("127.0.0.1", hospital.port("lines")), 20) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as stream,
    ):
        stream.sendall(said)
        with suppress(OSError):
            while data := stream.recv(65_536):
                got += data
    return got


def exchange(port: int, said: bytes) -> bytes:
    """All that a server answers, or nothing when it cuts the connection."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        got = b""
        with suppress(ConnectionError):
            connection.sendall(said)
            while data := connection.recv(65_536):
                got += data
    return got


VARNISH = """vcl 4.1;
import proxy;
backend default none;
sub vcl_recv { return (synth(200)); }
sub vcl_synth {
  set resp.body = proxy.client_cert_cn() + " " + proxy.ssl_version() + " " + proxy.authority() + " " + client.ip
    + " " + proxy.client_has_cert_sess() + " " + proxy.ssl_verify_result();
  return (deliver);
}
"""


def test_varnish_reads_the_common_name(
    hospital: Hospital, pump: Bearer, other: Bearer, revoked: Bearer, tmp_path: Path
) -> None:
    (tmp_path / "lines.vcl").write_text(VARNISH, encoding="utf-8")

    def command(port: int) -> list[str | Path]:
        place = tmp_path / f"varnish-{port}"
        listen = ("-a", f"127.0.0.1:{port},PROXY", "-f", tmp_path / "lines.vcl", "-n", place)
        return [program("varnishd"), "-F", "-j", "none", *listen]

    with standing_behind(hospital, running(command, tmp_path)):
        for who in (pump, other):
            assert ask(hospital, who) == f"{who.device} TLSv1.3 {NAME} 127.0.0.1 true 0"
        assert ask(hospital, revoked) == ""


NGINX = """
daemon off;
{user}
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
    listen 127.0.0.1:{port} proxy_protocol;
    location / {{ return 200 "{answer}"; }}
  }}
}}
"""


def test_nginx_reads_the_addresses_and_from_1_23_2_the_common_name(
    hospital: Hospital, pump: Bearer, tmp_path: Path
) -> None:
    reads = version_of("nginx", "-v") >= (1, 23, 2)
    answer = "$proxy_protocol_tlv_ssl_cn $proxy_protocol_addr" if reads else "$proxy_protocol_addr"
    user = "user root;" if os.geteuid() == 0 else ""

    def command(port: int) -> list[str | Path]:
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX.format(port=port, answer=answer, user=user), encoding="utf-8")
        return [program("nginx"), "-p", tmp_path, "-c", config, "-e", "stderr"]

    with standing_behind(hospital, running(command, tmp_path)):
        expected = f"{pump.device} 127.0.0.1" if reads else "127.0.0.1"
        assert ask(hospital, pump) == expected
        assert ask(hospital, None) == ""


MOSQUITTO = """
listener {port} 127.0.0.1
enable_proxy_protocol 2
proxy_protocol_v2_require_tls true
require_certificate true
use_identity_as_username true
allow_anonymous true
acl_file {acl}
log_dest stderr
log_type all
{user}
"""


def test_mosquitto_from_2_1_takes_the_device_for_its_user(
    hospital: Hospital, pump: Bearer, other: Bearer, tmp_path: Path
) -> None:
    program("mosquitto_pub")
    if version_of("mosquitto", "-h") < (2, 1, 0):
        pytest.skip("this mosquitto reads no PROXY header (2.1 does)")
    acl = tmp_path / "acl"
    acl.write_text("pattern write devices/%u/telemetry\n")
    acl.chmod(0o600)
    user = "user root" if os.geteuid() == 0 else ""

    def command(port: int) -> list[str | Path]:
        config = tmp_path / "mosquitto.conf"
        config.write_text(MOSQUITTO.format(port=port, acl=acl, user=user), encoding="utf-8")
        return [program("mosquitto"), "-c", config]

    def publish(who: Bearer, owner: Bearer) -> int:
        trust = ("--cafile", hospital.authority("root"), "--insecure", "--cert", who.chain, "--key", who.key)
        where = ("-h", "127.0.0.1", "-p", str(hospital.port("lines")), "-t", f"devices/{owner.device}/telemetry")
        return run("mosquitto_pub", *where, *trust, "-u", owner.device, "-m", "rate=72", "-q", "1").code

    with standing_behind(hospital, running(command, tmp_path)) as server:
        assert publish(pump, pump) == 0
        wait_until(lambda: f"u'{pump.device}'" in server.said, "mosquitto names its user")
        assert "Denied PUBLISH" not in server.said
        publish(pump, other)  # its MQTT user name is another device's, and counts for nothing
        wait_until(lambda: "Denied PUBLISH" in server.said, "mosquitto denies")
        assert f"u'{other.device}'" not in server.said
