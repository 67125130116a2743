"""TLS in memory: every way in which bytes may come, and what must be known once they have."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from tests.simulator.certificates import authority, pump, server_credential, stranger
from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Malformed, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.tls import TLS_1_2, TLS_1_3, ClientContext, ClientTls, Credential, ServerContext, ServerTls, TlsStream


def shake(client: TlsStream, server: TlsStream) -> None:
    """Carry bytes between the two until both are through."""
    ends = [False, False]
    for _ in range(10):
        ends[0] = ends[0] or client.handshake()
        server.feed(client.take())
        ends[1] = ends[1] or server.handshake()
        client.feed(server.take())
        if all(ends):
            return
    pytest.fail("the handshake does not end")


def server_context(**settings_: object) -> ServerContext:
    return ServerContext(server_credential(), ServerTls(**settings_))  # type: ignore[arg-type]


def client_context(credential: Credential | None = None, **settings_: object) -> ClientContext:
    return ClientContext(
        ClientTls(credential=credential, anchors_der=(authority().root.der,), **settings_)  # type: ignore[arg-type]
    )


def connected(server: ServerContext, client: ClientContext) -> tuple[TlsStream, TlsStream]:
    near, far = client.new_stream("localhost"), server.new_stream()
    shake(near, far)
    return near, far


class TestPeer:
    def test_a_handshake_shows_version_group_name_and_the_whole_chain(self) -> None:
        near, far = connected(server_context(), client_context(pump().credential))
        peer = far.peer()
        assert (peer.version, peer.group, peer.sni, peer.alpn) == (TLS_1_3, "X25519MLKEM768", "localhost", "http/1.1")
        assert peer.leaf_der == pump().der
        assert peer.chain_der == (authority().issuing.der,)
        assert not peer.resumed
        seen = near.peer()
        assert seen.leaf_der is not None
        assert seen.chain_der == (authority().issuing.der,)

    def test_without_a_certificate_nothing_is_shown(self) -> None:
        _, far = connected(server_context(client_auth="optional"), client_context())
        assert far.peer().leaf_der is None
        assert far.peer().chain_der == ()

    def test_a_forged_chain_is_presented_and_not_judged(self) -> None:
        # Accept in TLS, decide after: the validator above must see what came, from whomever it came.
        forged = stranger().issue("pump.icu.h1.test")
        _, far = connected(server_context(), client_context(forged.credential))
        assert far.peer().leaf_der == forged.der

    def test_tls_1_2_only_where_a_setting_asks_for_it(self) -> None:
        old = SSL.Context(SSL.TLS_CLIENT_METHOD)
        old.set_max_proto_version(TLS_1_2)
        for minimum, works in ((TLS_1_2, True), (TLS_1_3, False)):
            connection = SSL.Connection(old, None)
            connection.set_connect_state()
            near = TlsStream(connection, is_server=False, memory=client_context()._memory)
            far = server_context(client_auth="optional", minimum_version=minimum).new_stream()
            if works:
                shake(near, far)
                assert far.peer().version == TLS_1_2
            else:
                assert reason_of(shake, near, far, error=NotTrusted) is Reason.TLS_HANDSHAKE

    def test_a_server_with_an_ml_dsa_key(self) -> None:
        server = ServerContext(authority().issue("localhost", key=mldsa.MLDSA65PrivateKey.generate()).credential)
        client = client_context(authority().issue("pump", key=mldsa.MLDSA65PrivateKey.generate()).credential)
        _, far = connected(server, client)
        assert far.peer().leaf_der is not None


class TestRefusals:
    def test_a_required_certificate_that_is_missing(self) -> None:
        with refuses(Reason.TLS_HANDSHAKE, NotTrusted):
            connected(server_context(client_auth="required"), client_context())

    def test_a_server_below_another_root_is_refused_by_the_client(self) -> None:
        rogue = ServerContext(stranger().issue("localhost").credential)
        with refuses(Reason.TLS_HANDSHAKE, NotTrusted, match="verify"):
            connected(rogue, client_context(pump().credential))

    def test_an_application_protocol_that_is_not_offered_gets_the_alert(self) -> None:
        server, client = server_context(client_auth="none"), client_context(alpn=("h2",))
        near, far = client.new_stream("localhost"), server.new_stream()
        near.handshake()
        far.feed(near.take())
        with pytest.raises(NotTrusted, match="no application protocol"):
            far.handshake()
        near.feed(far.take())
        with pytest.raises(NotTrusted, match="no application protocol"):
            near.handshake()
        # The refusal stays with its own connection: the next one is served.
        connected(server, client_context())

    @pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"\x16\x03\x01\xff\xff" + b"a" * 70_000])
    def test_what_is_not_tls(self, junk: bytes) -> None:
        far = server_context().new_stream()
        far.feed(junk)
        with refuses(Reason.TLS_HANDSHAKE, NotTrusted):
            assert not far.handshake()
        far.take()

    def test_half_a_client_hello_is_waited_for(self) -> None:
        near = client_context().new_stream("localhost")
        near.handshake()
        hello = near.take()
        far = server_context(client_auth="optional").new_stream()
        far.feed(hello[: len(hello) // 2])
        assert not far.handshake()


class TestData:
    def test_both_ways_and_closed_cleanly(self) -> None:
        near, far = connected(server_context(client_auth="none"), client_context())
        near.write(b"heart rate 61")
        far.feed(near.take())
        assert far.read() == b"heart rate 61"
        assert far.read() is None
        far.write(memoryview(b"noted"))
        far.close()
        near.feed(far.take())
        assert near.read() == b"noted"
        assert near.read() == b""

    def test_a_flipped_bit_ends_the_connection_with_our_error(self) -> None:
        near, far = connected(server_context(client_auth="none"), client_context())
        near.write(b"x" * 100)
        data = bytearray(near.take())
        data[-1] ^= 1
        far.feed(bytes(data))
        assert reason_of(far.read, error=Malformed) is Reason.TLS_HANDSHAKE
        assert far.take()  # the alert
        assert reason_of(far.write, b"more", error=Malformed) is Reason.TLS_HANDSHAKE


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_split_gives_the_same_plaintext(seed: int) -> None:
    dice = random.Random(seed)
    near, far = _FUZZ_CLIENT.new_stream("localhost"), _FUZZ_SERVER.new_stream()
    shake(near, far)
    sent = dice.randbytes(dice.choice([0, 1, 5, 16_384, 16_385, 50_000]))
    for at in range(0, len(sent), 20_000):
        near.write(sent[at : at + 20_000])
    wire, got = near.take(), b""
    while wire:
        cut = dice.choice([1, 3, 5, 1000, 100_000])
        far.feed(wire[:cut])
        wire = wire[cut:]
        while (data := far.read()) is not None:
            got += data
    assert got == sent


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_flipped_or_cut_byte_raises_anything_but_our_own_error(seed: int) -> None:
    dice = random.Random(seed)
    near, far = _FUZZ_CLIENT.new_stream("localhost"), _FUZZ_SERVER.new_stream()
    strike = dice.randrange(4)
    try:
        for step in range(8):
            near.handshake()
            if step:
                near.write(dice.randbytes(200))
            data = bytearray(near.take())
            if data and step >= strike:
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
                del data[dice.randrange(len(data)) :][: dice.randrange(3)]
            far.feed(bytes(data))
            if far.handshake():
                far.peer()
                while far.read():
                    pass
            near.feed(far.take())
    except VagusError as error:
        assert error.reason is Reason.TLS_HANDSHAKE
    except SSL.Error as error:
        pytest.fail(f"OpenSSL's error came through: {error}")
    far.take()


_FUZZ_SERVER = server_context(client_auth="optional")
_FUZZ_CLIENT = client_context(pump().credential)
