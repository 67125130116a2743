"""The PROXY header that an upstream gets before a stream, read back by a parser of its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.certificates import authority, pump
from tests.simulator.listeners import Client, PeerJudge, serving
from tests.simulator.proxy_headers import MAGIC, ProxyHeader, bitwise_crc32c, read_proxy_header
from tests.simulator.refusals import refuses
from tests.simulator.upstreams import raw_upstream
from tests.simulator.waiting import wait_until
from tests.transport.test_listeners import gate
from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.gateway.proxy_protocol import crc32c, proxy_header
from vagus.endpoints.gateway.tcp_relay import tcp_relay
from vagus.endpoints.gateway.upstream import Upstream
from vagus.errors import NotAuthorised
from vagus.fleet.admission import Admitted, PeerCredential
from vagus.identifiers import DeviceId, UnitName
from vagus.reasons import Reason
from vagus.records.devices import DeviceRow
from vagus.tls import TLS_1_2, TLS_1_3, Peer

DEVICE = DeviceId.draw(lambda count: bytes(range(count)))
ROW = DeviceRow(
    id=DEVICE,
    unit=UnitName("h1", "icu"),
    model="Pump",
    profile="bedside",
    maker_serial="P-000001",
    state="active",
    added_at=0,
    changed_at=0,
)
ADMITTED = Admitted(credential=PeerCredential.LDEVID, function=None, device=ROW)
PEER = Peer(TLS_1_3, "TLS_AES_256_GCM_SHA384", None, "lines.h1.test", None, resumed=False, leaf_der=b"x", chain_der=())
HERE, THERE = ("192.0.2.7", 50_000), ("198.51.100.1", 8883)
SALT = bytes(16)


def header(peer: Peer = PEER, admitted: Admitted | None = ADMITTED, source: Any = HERE, to: Any = THERE) -> ProxyHeader:
    """What a receiver reads, which is exactly what was written."""
    read = read_proxy_header(proxy_header(peer, admitted, source, to, SALT))
    assert read.rest == b""
    return read


class TestValues:
    def test_the_receiver_learns_the_addresses_the_session_and_the_device(self) -> None:
        read = header()
        device = str(DEVICE).encode()
        assert (read.source, read.destination) == (HERE, THERE)
        assert (read.client, read.verify) == (0b111, 0)
        assert read.tls == {0x21: b"TLSv1.3", 0x22: device, 0x23: b"TLS_AES_256_GCM_SHA384"}
        assert {kind: read.values[kind] for kind in sorted(read.values) if kind not in {0x03, 0x20}} == {
            0x02: b"lines.h1.test",
            0x05: device + b"-" + b"00" * 16,
            0xE0: device,
            0xE1: b"h1/icu",
            0xE2: b"P-000001",
        }

    def test_a_resumed_session_showed_its_certificate_in_another_connection(self) -> None:
        assert header(replace(PEER, resumed=True)).client == 0b101
        assert header(replace(PEER, version=TLS_1_2)).tls[0x21] == b"TLSv1.2"

    @pytest.mark.parametrize("sni", [None, "", "a b", "pump\r\nevil", "pümpe", "x" * 256])
    def test_a_name_that_no_host_has_is_left_out(self, sni: str | None) -> None:
        assert 0x02 not in header(replace(PEER, sni=sni)).values

    @pytest.mark.parametrize("sni", ["x" * 255, "a_b.h1.test"])
    def test_any_host_name_is_passed_on(self, sni: str) -> None:
        assert header(replace(PEER, sni=sni)).values[0x02] == sni.encode()

    def test_a_peer_without_a_certificate_or_a_device_has_no_header(self) -> None:
        for peer, admitted in (
            (replace(PEER, leaf_der=None), ADMITTED),
            (PEER, None),
            (PEER, replace(ADMITTED, device=None)),
        ):
            with refuses(Reason.CREDENTIAL_MISSING, NotAuthorised):
                proxy_header(peer, admitted, HERE, THERE, SALT)


class TestAddresses:
    def test_an_address_that_is_not_known_leaves_the_device(self) -> None:
        read = header(source=None)
        assert (read.family, read.source, read.tls[0x22]) == (0, None, str(DEVICE).encode())

    def test_ipv4_over_an_ipv6_socket_is_ipv4_and_a_zone_is_no_part_of_an_address(self) -> None:
        assert header(source=("::ffff:192.0.2.7", 1, 0, 0), to=("::ffff:198.51.100.1", 2, 0, 0)).family == 0x11
        assert header(source=("fe80::1%2", 1, 0, 2), to=("::1", 2, 0, 0)).source == ("fe80::1", 1)

    @settings(max_examples=40)
    @given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 65_535), st.integers(0, 65_535))
    def test_every_pair_of_addresses_is_read_back(
        self, one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, port: int, to: int
    ) -> None:
        read = header(source=(str(one), port), to=(str(other), to))
        assert read.source is not None
        assert read.destination is not None
        for host, found in ((one, read.source), (other, read.destination)):
            back = ip_address(found[0])
            assert _unmapped(back) == _unmapped(host)
        assert (read.source[1], read.destination[1]) == (port, to)


def _unmapped(host: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return host.ipv4_mapped or host if isinstance(host, IPv6Address) else host


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=80).filter(str.isprintable), st.text(max_size=300), st.binary(max_size=32))
def test_whatever_a_serial_number_and_a_client_hold_the_header_is_whole_and_bounded(
    serial: str, sni: str, salt: bytes
) -> None:
    longest = UnitName("h" * 63, "u" * 63)
    admitted = replace(ADMITTED, device=replace(ROW, maker_serial=serial, unit=longest))
    read = read_proxy_header(proxy_header(replace(PEER, sni=sni), admitted, ("::1", 1), ("::2", 2), salt))
    assert read.values[0xE2] == serial.encode()
    assert read.values[0xE1] == str(longest).encode()
    assert read.tls[0x22] == str(DEVICE).encode()
    assert len(read.values[0x05]) <= 128
    assert (read.size <= 1200, read.rest) == (True, b"")


@given(st.binary(max_size=200))
def test_the_checksum_is_that_of_sctp(data: bytes) -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(data) == bitwise_crc32c(data)


@dataclass
class Knowing(PeerJudge):
    """A judge that also knows the device."""

    device: DeviceRow | None = field(default_factory=lambda: ROW)

    def admit(self, peer: Peer, source: str) -> Admitted:
        return replace(super().admit(peer, source), device=self.device)


@contextlib.contextmanager
def relayed(judge: PeerJudge, *, is_announced: bool = True) -> Iterator[tuple[int, list[bytes]]]:
    """The port of a gateway, and what each connection to its upstream was sent, in the order of the connections."""
    came: list[bytes] = []

    def listen(connection: socket.socket) -> None:
        at = len(came)
        came.append(b"")
        while data := connection.recv(65_536):
            came[at] += data
            connection.sendall(b"!")

    with raw_upstream(listen) as port:
        entropy = bytes if is_announced else None
        stream = tcp_relay(Upstream("127.0.0.1", port), entropy)
        with serving(gate(judge, app=None, stream=stream), judges=[judge]) as served:
            yield served.port(), came


class TestRelay:
    def test_ours_comes_first_and_once_whatever_the_client_sends(self) -> None:
        forged = proxy_header(PEER, replace(ADMITTED, device=replace(ROW, maker_serial="forged")), HERE, THERE, SALT)
        with relayed(Knowing()) as (port, came):
            for count, said in enumerate((forged, b"PROXY TCP4 192.0.2.9 192.0.2.9 1 1\r\n", b"hello"), 1):
                with Client(port, pump().credential) as client:
                    source = client.socket.getsockname()
                    client.send(said)
                    client.send(b" and more")
                    wait_until(lambda: came[count - 1 :] != [] and came[-1].endswith(b" and more"))  # noqa: B023
                    read = read_proxy_header(came[-1])
                    assert read.rest == said + b" and more"
                    assert (read.source, read.destination) == (source, ("127.0.0.1", port))
                    assert read.values[0xE2] == b"P-000001"
                    assert (read.tls[0x21], read.client) == (b"TLSv1.3", 0b111)
        assert len(came) == 3

    def test_an_upstream_gets_it_before_the_client_says_anything(self) -> None:
        with relayed(Knowing()) as (port, came), Client(port, pump().credential) as client:
            assert client.receive() == b"!"
            assert read_proxy_header(came[0]).rest == b""

    def test_without_the_option_the_first_bytes_are_the_clients(self) -> None:
        with relayed(Knowing(), is_announced=False) as (port, came), Client(port, pump().credential) as client:
            client.send(b"hello")
            assert client.receive() == b"!"
            assert came == [b"hello"]

    def test_a_resumed_session_has_a_header_of_its_own(self) -> None:
        judge = Knowing()
        with relayed(judge) as (port, came):
            with Client(port, pump().credential) as first:
                first.receive()
                first.close_notify()
                session = first.stream.session()
            with Client(port, context=first.context, session=session) as second:
                second.receive()
                assert second.stream.peer().resumed
            assert [read_proxy_header(each).client for each in came] == [0b111, 0b101]
        assert [each.resumed for each in judge.told(Outcome.ADMITTED)] == [False, True]

    def test_a_peer_without_a_certificate_a_refused_one_and_one_without_a_device_reach_no_upstream(self) -> None:
        judge = Knowing()
        with relayed(judge) as (port, came):
            with contextlib.suppress(ConnectionError), Client(port) as stranger:
                assert stranger.is_closed()
            judge.revoked.add(pump().serial)
            with contextlib.suppress(ConnectionError), Client(port, pump().credential) as client:
                assert client.is_closed()
            judge.device = None
            with Client(port, authority().issue("monitor.icu.h1.test").credential) as client:
                assert client.was_cut()
            assert judge.wait_decided(Outcome.FAILED).reason is Reason.CREDENTIAL_MISSING
            assert [each.reason for each in judge.told(Outcome.REFUSED)] == [Reason.CREDENTIAL_MISSING, Reason.REVOKED]
            judge.device = ROW
            with Client(port, authority().issue("monitor.icu.h1.test").credential) as client:
                assert client.receive() == b"!"
        assert [each[:12] for each in came] == [MAGIC]
