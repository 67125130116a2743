"""Who holds connections and uses none, and who asks a relay for another protocol, at a server with small limits."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from tests.simulator.attacked import Credential, Hospital, Wire, request
from tests.simulator.commands import ENVIRONMENT, SOURCE
from tests.simulator.orders import new_key
from tests.simulator.processes import START_SECONDS, serving
from tests.simulator.upstreams import Seen
from tests.simulator.waiting import wait_until

PLACES = 24
CONTROL = "control-h1-icu"
HERE = "h1/icu,h1/er,h1/infra"  # other attacks may have taken other authorities away by now
LIMITS = {
    "handshake_seconds": "1.0",
    "header_seconds": "1.0",
    "stall_seconds": "1.5",
    "connections_per_source": str(PLACES),
    "body_octets_per_second": "1000.0",
}


@pytest.fixture(scope="module")
def strict(hospital: Hospital) -> Iterator[Hospital]:
    """A second server of the same hospital that allows little."""
    file = hospital.folder / "vagus.toml"
    kept = text = file.read_text()
    for name, value in LIMITS.items():
        text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert count == 1, name
    file.write_text(text)
    with ExitStack() as stack:
        try:
            more = ("--issue-for", HERE, "--passphrase-source", SOURCE)
            served = stack.enter_context(serving(hospital.folder, *more, around=ENVIRONMENT))
        finally:
            file.write_text(kept)
        yield replace(hospital, served=served)
        assert served.process.poll() is None, "an attack ended the server"
    assert served.process.returncode == 0


@pytest.fixture(scope="module")
def device(hospital: Hospital) -> Credential:
    return hospital.enrolled()[1]


def drip(wire: Wire, octets: bytes, most: int = 200) -> int:
    """One octet after the other until the other side has had enough; how many it took. Fails where it never had."""
    wire.socket.settimeout(0.1)
    for number in range(most):
        try:
            wire.socket.sendall(octets[number % len(octets)].to_bytes(1, "big"))
            wire.receive()
        except TimeoutError:
            continue
        except OSError:
            pass
        return number
    pytest.fail(f"{most} octets in {most // 10} s did not tire the server")


def is_answered(hospital: Hospital) -> bool:
    """Whether a device without a good token is at least refused."""
    with suppress(OSError, AssertionError):
        hospital.enrol(request(new_key()), token="a" * 32)
        return True
    return False


def is_served(hospital: Hospital, device: Credential) -> bool:
    with suppress(OSError):
        return hospital.admits(CONTROL, device)
    return False


@pytest.mark.parametrize("listener", [CONTROL, "telemetry-h1-icu", "enrol-h1"])
def test_a_header_that_drips_is_ended(strict: Hospital, device: Credential, listener: str) -> None:
    with strict.connect(listener, device) as wire:
        drip(wire, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 300)


def test_a_body_that_drips_is_ended_and_reaches_nobody(strict: Hospital, seen: Seen, device: Credential) -> None:
    before = len(seen.bodies)
    with strict.connect(CONTROL, device) as wire:
        wire.say(b"POST /dripped HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        wire.socket.settimeout(8)
        received = wire.receive()
        assert not received or b" 408 " in received
    assert b"dripped" not in b"".join(seen.bodies[before:])


def test_a_client_hello_that_drips_is_ended(strict: Hospital) -> None:
    """One octet at a time of a true one: no record of it is ever whole."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talking = strict.context(None).wrap_bio(incoming, outgoing, server_hostname="x.attacked.example")
    with suppress(ssl.SSLWantReadError):
        talking.do_handshake()
    with Wire(strict.plug(CONTROL)) as wire:
        drip(wire, outgoing.read())


def test_half_open_connections_of_one_source_take_its_places_and_give_them_back(
    strict: Hospital, device: Credential
) -> None:
    with ExitStack() as stack:
        for number in range(4 * PLACES):
            wire = stack.enter_context(Wire(strict.plug(CONTROL)))
            wire.say(b"\x16\x03\x01\x02\x00\x01"[: number % 7])
        wait_until(
            lambda: is_served(strict, device), "the device is served"
        )  # the attacker still has every socket open


def test_slow_readers_of_one_source_give_their_places_back(strict: Hospital, device: Credential) -> None:
    """They ask, and take nothing of what they are sent."""
    with ExitStack() as stack:
        for _ in range(PLACES):
            with suppress(OSError):
                wire = stack.enter_context(strict.connect("enrol-h1", device))
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                wire.say(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: a\r\n\r\n" * 400)
        wait_until(lambda: is_answered(strict), "an answer", START_SECONDS)


OTHER_PROTOCOLS = {
    "connect": b"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    "connect with a path": b"CONNECT /escaped HTTP/1.1\r\nHost: a\r\n\r\n",
    "websocket": b"GET /escaped HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "websocket with a body": b"POST /escaped HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Content-Length: 3\r\n\r\nabc",
    "another host": b"GET http://127.0.0.1:{port}/escaped HTTP/1.1\r\nHost: a\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: escaped\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "trace": b"TRACE /escaped HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("kind", OTHER_PROTOCOLS)
def test_a_relay_is_no_tunnel_and_no_other_protocol(
    strict: Hospital, seen: Seen, device: Credential, kind: str
) -> None:
    raw = OTHER_PROTOCOLS[kind].replace(b"{port}", b"%d" % strict.served.addresses["status"][1])
    before = len(seen.lines)
    with strict.connect(CONTROL, device) as wire:
        answer = wire.say(raw).hear()
        assert answer is None or answer.status not in {101, 200}, answer
        wire.say(b"GET /through-the-tunnel/3 HTTP/1.1\r\nHost: a\r\n\r\n")
        later = wire.hear()  # of this server as before, or of nobody
    assert later is None or later.status != 101
    assert not [line for line in seen.lines[before:] if "escaped" in line or "CONNECT" in line]


def test_an_upgrade_that_is_not_taken_leaves_nothing_behind_it(
    strict: Hospital, seen: Seen, device: Credential
) -> None:
    """h2c is ignored (RFC 9110 7.8): the request goes on without it, and what follows is not read as its protocol."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    raw = b"GET /upgrading/3 HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n"
    before = len(seen.lines)
    with strict.connect(CONTROL, device) as wire:
        answers = wire.say(raw + b"GET /through-the-upgrade/3 HTTP/1.1\r\nHost: a\r\n\r\n").hear_all()
    assert [(one.status, one.body) for one in answers] == [(200, b"xxx")]
    told = seen.lines[before:]
    assert [line for line in told if "/upgrading" in line]
    assert not [line for line in told if "through-the-upgrade" in line]
    upgrades = [value for fields in seen.headers[-1:] for name, value in fields if name.lower() == "upgrade"]
    assert upgrades == []


def test_est_is_spoken_while_others_drip(strict: Hospital, hospital: Hospital) -> None:
    dripping = [Wire(strict.plug("enrol-h1")) for _ in range(PLACES // 2)]
    try:
        row = hospital.device()
        assert strict.enrol(request(new_key()), token=hospital.token(row)).status == 200
    finally:
        for wire in dripping:
            wire.socket.close()
