"""Status nodes need no CA's key, go on when the signing side is down, and hear of a revocation within a second."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from tests.postgres import KINDS, database_of_kind
from tests.simulator.processes import Served
from tests.simulator.running import run
from tests.simulator.status_listeners import post
from tests.simulator.status_nodes import PATIENCE, TRY_LATER, Hospital, hospital, question
from tests.simulator.waiting import wait_until
from tests.stall import StallMeter
from vagus.authority.issuance import IssuedCertificate
from vagus.x509.crls.building import RevocationReason

pytestmark = pytest.mark.process

GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN


@pytest.fixture(params=KINDS)
def icu(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hospital]:
    with database_of_kind(request.param, tmp_path) as url, hospital(tmp_path, url) as made:
        yield made


def revoke(icu: Hospital, issued: IssuedCertificate) -> float:
    """Revoke it; gives the moment at which that was committed."""
    name = (issued.issuer.authority_id, issued.serial)
    icu.installation.revocations.revoke(*name, RevocationReason.KEY_COMPROMISE, by="operator:test").result()
    return time.monotonic()


def is_revoked(node: Served, issued: IssuedCertificate) -> bool:
    return node.ask(question(issued)).certificate_status is REVOKED


def check_delays(icu: Hospital, is_known: Callable[[IssuedCertificate], bool]) -> None:
    """Each certificate is revoked, and that is known within a second."""
    delays = []
    with StallMeter() as meter:
        for issued in icu.certificates:
            since = revoke(icu, issued)
            wait_until(partial(is_known, issued))
            delay = time.monotonic() - since
            delays.append((delay, meter.seconds(since, since + delay)))
    assert max(delay - stall for delay, stall in delays) < 1.0, delays


def serials(node: Served, name: str = "0") -> set[int]:
    body = node.get(f"/crl/h1.icu/1/{name}.crl")
    return {entry.serial_number for entry in x509.load_der_x509_crl(body)}


def check_answers(icu: Hospital, node: Served) -> None:
    """Lists, an answer as it is kept, a live one for a nonce, and one about nobody."""
    first = icu.certificates[0]
    assert serials(node) == serials(node, "complete")
    assert node.ask(question(first)).certificate_status is GOOD
    nonce = bytes(range(32))
    live = node.ask(question(first, nonce=nonce))
    assert live.certificate_status is GOOD
    assert live.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce
    never = question(first, serial=4711)
    assert node.ask(never).certificate_status is UNKNOWN


def test_status_goes_on_without_the_signing_side_and_hears_within_a_second(icu: Hospital) -> None:
    with icu.signing() as signing, icu.status_node("node-a") as one, icu.status_node("node-b") as two:
        assert (signing.issuers, one.issuers, two.issuers) == (["h1/icu#1"], [], [])
        signing.kill()
        for node in (one, two):
            check_answers(icu, node)
        # an intent that was never signed is neither good nor unknown
        unsigned = icu.intend()
        for node in (one, two):
            assert node.ask(unsigned).response_status is ocsp.OCSPResponseStatus.TRY_LATER
        check_delays(icu, lambda issued: all(is_revoked(node, issued) for node in (one, two)))
        assert serials(one) == set(), "nobody is there who could sign a list"
        # the signing side comes back: what it settles and signs is served by nodes that were never restarted
        with icu.signing():
            wanted = {issued.serial for issued in icu.certificates}
            wait_until(lambda: serials(two) == wanted == serials(one, "complete"))
            assert one.ask(unsigned).certificate_status is GOOD
            address = f"{one.addresses['status'][0]}:{one.addresses['status'][1]}"
            found = run(icu.folder, "doctor", "--status-address", address, "--json").facts
            published = [each for each in found if each["check"] == "published"]
            assert [each["state"] for each in published] == ["well"], published


def ask_on(stream: BinaryIO, peer: socket.socket, octets: bytes, count: int) -> list[ocsp.OCSPCertStatus]:
    """Send it all at once and read so many answers."""
    peer.sendall(octets)
    return [ocsp.load_der_ocsp_response(read_body(stream)).certificate_status for _ in range(count)]


def test_a_status_node_by_itself_answers_at_sight_and_open_connections_hear_within_a_second(icu: Hospital) -> None:
    with icu.signing():
        pass
    with (
        icu.status_node("node-a") as node,
        socket.create_connection(node.addresses["status"], timeout=PATIENCE) as peer,
    ):
        stream = peer.makefile("rb")
        requests = [post(question(issued)) for issued in icu.certificates]
        for octets in requests:  # head and body in one segment, and apart
            assert ask_on(stream, peer, octets, 1) == [GOOD]
            at = octets.index(b"\r\n\r\n") + 4
            peer.sendall(octets[:at])
            assert ask_on(stream, peer, octets[at:], 1) == [GOOD]
        # as many of one segment would not wait for an application: it ends the connection behind the 34th
        many = 60
        assert ask_on(stream, peer, requests[0] * many, many) == [GOOD] * many
        check_delays(icu, lambda issued: ask_on(stream, peer, post(question(issued)), 1) == [REVOKED])
        assert ask_on(stream, peer, requests[0] * many, many) == [REVOKED] * many
        stream.close()


@pytest.mark.interop
def test_under_overload_clients_are_asked_to_try_later(tmp_path: Path) -> None:
    with hospital(tmp_path) as icu:
        with icu.signing():
            pass
        with icu.status_node("node-a", 'overload_seconds = 0.001\nhealth = "127.0.0.1:0"\n') as node:
            assert ask_until_calm(node, question(icu.certificates[0])).certificate_status is GOOD
            bodies = storm(icu, node, connections=64, each=20)
            assert len(bodies) == 64 * 20
            put_off = bodies.count(TRY_LATER)
            assert put_off > 0
            for body in bodies:
                if body != TRY_LATER:
                    assert ocsp.load_der_ocsp_response(body).certificate_status is GOOD
            assert json.loads(node.get("/health", "health"))["answers"]["turned_away"] >= put_off
            assert ask_until_calm(node, question(icu.certificates[1], nonce=bytes(16))).certificate_status is GOOD


def ask_until_calm(node: Served, request_der: bytes) -> ocsp.OCSPResponse:
    """A millisecond of delay is much for it: whatever else this machine does is told as overload too."""
    until = time.monotonic() + PATIENCE
    while (answer := node.ask(request_der)).response_status is ocsp.OCSPResponseStatus.TRY_LATER:
        assert time.monotonic() < until
    return answer


def storm(icu: Hospital, node: Served, *, connections: int, each: int) -> list[bytes]:
    """Every connection asks at once for answers that must be signed for it alone; gives all bodies."""
    gate = threading.Barrier(connections)
    questions = [question(icu.certificates[0], nonce=bytes([number]) * 32) for number in range(each)]
    burst = b"".join(post(question) for question in questions)

    def ask() -> list[bytes]:
        with socket.create_connection(node.addresses["status"], timeout=PATIENCE) as peer:
            gate.wait(PATIENCE)
            peer.sendall(burst)
            with peer.makefile("rb") as stream:
                return [read_body(stream) for _ in range(each)]

    with ThreadPoolExecutor(connections) as threads:
        return [body for asked in [threads.submit(ask) for _ in range(connections)] for body in asked.result(PATIENCE)]


def read_body(stream: BinaryIO) -> bytes:
    """One response; tryLater is HTTP 200 too (RFC 6960 A.2)."""
    line = stream.readline()
    assert line.startswith(b"HTTP/1.1 200"), line
    length = 0
    while (line := stream.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return stream.read(length)
