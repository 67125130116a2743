"""A listener from handshake to close: which peers are admitted, which are refused, and what it withstands."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.simulator.certificates import authority, pump, server_credential, stranger
from tests.simulator.listeners import Client, PeerJudge, PlainClient, Served, serving
from tests.simulator.refusals import refuses
from tests.simulator.waiting import wait_until
from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.gateway.tcp_relay import AdmittedStream
from vagus.endpoints.http import Receive, Scope, Send, read_body, send_response
from vagus.errors import Misconfigured, NotTrusted
from vagus.reasons import Reason
from vagus.tls import ServerContext, ServerTls
from vagus.transport.limits import Limits
from vagus.transport.listeners import ListenerSpec, raise_file_limit

LIMITS = Limits(linger_seconds=0.5)
SHORT = Limits(handshake_seconds=0.4, header_seconds=0.4, stall_seconds=0.6, linger_seconds=0.5)
"""For tests of time-outs alone: under load an honest client may need longer than this."""


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the body, and with the name of the peer."""
    body = await read_body(scope, receive, 20_000_000)
    admitted = scope["extensions"]["tls"]["admitted"]
    who = admitted.identity.device_name.encode() if admitted else b"nobody"
    headers = [(b"content-length", b"%d" % len(body)), (b"who", who)]
    await send_response(send, 200, headers, body)


def gate(judge: PeerJudge, *, client_auth: str = "optional", **facts: object) -> ListenerSpec:
    tls = ServerContext(server_credential(), ServerTls(client_auth=client_auth))  # type: ignore[arg-type]
    return ListenerSpec(
        **{  # type: ignore[arg-type]
            "name": "gate",
            "host": "127.0.0.1",
            "port": 0,
            "app": echo,
            "tls": tls,
            "admit": judge.admit,
            "position": lambda: judge.position,
            "record": judge.decisions.append,
            "limits": LIMITS,
            **facts,
        }
    )


@pytest.fixture
def served(judge: PeerJudge) -> Iterator[Served]:
    with serving(gate(judge), judges=[judge]) as running:
        yield running


class TestAdmission:
    def test_a_good_certificate_is_admitted_and_the_application_knows_whose_it_is(
        self, served: Served, judge: PeerJudge
    ) -> None:
        with Client(served.port(), pump().credential) as client:
            response = client.post(b"heart rate 61")
        assert (response.status, response.body, response.headers["who"]) == (200, b"heart rate 61", "pump.icu.h1.test")
        assert response.headers["date"] == "Mon, 01 Mar 2027 12:00:00 GMT"
        decision = judge.wait_decided(Outcome.ADMITTED)
        assert (decision.device, decision.source, decision.serial) == ("pump.icu.h1.test", "127.0.0.1", pump().serial)
        assert (decision.group, decision.resumed, decision.reason) == ("X25519MLKEM768", False, None)

    @pytest.mark.parametrize("path", ["/", "/deep/down?x=1"])
    def test_a_forged_certificate_gets_the_reason_and_its_body_reaches_no_application(
        self, served: Served, judge: PeerJudge, path: str
    ) -> None:
        forged = stranger().issue("pump.icu.h1.test")
        with Client(served.port(), forged.credential) as client:
            response = client.post(b"canary" * 1000, path)
            assert client.is_closed()
        assert response.headers["content-type"] == "application/problem+json"
        assert response.refusal == (403, Reason.BAD_SIGNATURE)
        assert judge.wait_decided(Outcome.REFUSED).reason is Reason.BAD_SIGNATURE

    def test_no_certificate_is_a_matter_of_the_verdict(self, served: Served) -> None:
        with Client(served.port()) as client:
            assert client.get().refusal == (403, Reason.CREDENTIAL_MISSING)

    def test_a_required_certificate_that_is_missing_ends_the_handshake(self, judge: PeerJudge) -> None:
        with serving(gate(judge, client_auth="required")) as served:
            with pytest.raises((NotTrusted, ConnectionError)), Client(served.port()) as client:
                client.receive()
            assert judge.wait_decided(Outcome.FAILED).reason is Reason.TLS_HANDSHAKE
            served.check_admits()

    def test_a_verdict_that_fails_through_our_own_fault_admits_no_peer(self, judge: PeerJudge) -> None:
        def broken(*_: object) -> object:
            raise ZeroDivisionError

        with serving(gate(judge, admit=broken)) as served, Client(served.port(), pump().credential) as client:
            assert client.get().refusal == (503, Reason.STATUS_UNAVAILABLE)


@contextmanager
def resuming(served: Served, between: Callable[[], None] = lambda: None) -> Iterator[Client]:
    """A client that comes back with the session of an earlier connection; `between` happens before."""
    with Client(served.port(), pump().credential) as first:
        assert first.get().status == 200
        first.close_notify()
        session = first.stream.session()
    between()
    with Client(served.port(), context=first.context, session=session) as second:
        assert second.stream.peer().resumed
        yield second


class TestResumption:
    def test_a_resumed_session_is_judged_with_its_remembered_chain(self, served: Served, judge: PeerJudge) -> None:
        with resuming(served) as second:
            assert second.get().headers["who"] == "pump.icu.h1.test"
        assert [each.resumed for each in judge.told(Outcome.ADMITTED)] == [False, True]

    def test_a_session_of_a_device_revoked_since_is_refused(self, served: Served, judge: PeerJudge) -> None:
        with resuming(served, lambda: judge.revoke(pump().serial)) as second:
            assert second.get().refusal == (403, Reason.REVOKED)


class TestCertificateSwap:
    def test_the_next_handshake_sees_the_new_certificate_and_open_connections_go_on(self, judge: PeerJudge) -> None:
        spec = gate(judge)
        assert spec.tls is not None
        with serving(spec) as served, Client(served.port(), pump().credential) as early:
            assert early.get().status == 200
            new = authority().issue("localhost")
            spec.tls.swap(credential=new.credential)
            with Client(served.port(), pump().credential) as late:
                assert late.stream.peer().leaf_der == new.der
                assert late.get().status == 200
            assert early.get().status == 200


class TestManyListeners:
    def test_http_and_raw_streams_and_plain_http_share_a_loop(self, judge: PeerJudge) -> None:
        class Shout(asyncio.Protocol):
            def __init__(self, stream: AdmittedStream) -> None:
                assert stream.admitted is not None
                assert stream.admitted.identity is not None
                self.name = stream.admitted.identity.device_name

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                transport.write(f"hello {self.name}".encode())
                transport.close()

        public = ListenerSpec("public", "127.0.0.1", 0, app=echo)
        raw = gate(judge, name="raw", app=None, stream=Shout)
        with serving(gate(judge), public, raw) as served:
            with Client(served.port("raw"), pump().credential) as client:
                assert client.receive_until(b"test") == b"hello pump.icu.h1.test"
                assert client.receive() == b""
            with PlainClient(served.port("public")) as plain:
                assert plain.post(b"x").headers["who"] == "nobody"
                assert plain.get().status == 200
            with Client(served.port("raw"), stranger().issue("pump").credential) as client:
                assert client.is_closed()

    def test_an_address_in_use_is_a_sentence_and_leaves_nothing_open(self, judge: PeerJudge) -> None:
        with (
            serving(gate(judge)) as served,
            pytest.raises(Misconfigured, match="end another `vagus serve` on this address"),
            serving(gate(judge, name="other"), gate(judge, port=served.port())),
        ):
            pass

    def test_a_specification_that_makes_no_sense_is_refused(self, judge: PeerJudge) -> None:
        for wrong in ({"app": None}, {"tls": None}, {"stream": lambda _: asyncio.Protocol()}):
            with refuses(Reason.BAD_SETTINGS, Misconfigured):
                gate(judge, **wrong)
        with pytest.raises(Misconfigured, match="name of another"), serving(gate(judge), gate(judge)):
            pass

    def test_a_graceful_stop_lets_an_answer_finish(self, judge: PeerJudge) -> None:
        begun = []

        async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
            begun.append(True)
            await asyncio.sleep(0.2)
            await send_response(send, 200, [(b"content-length", b"2")], b"ok")

        with serving(gate(judge, app=slow), grace=5) as served:
            client = Client(served.port(), pump().credential)
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: bool(begun))
        assert client.read_response().body == b"ok"
        assert client.is_closed()
        client.socket.close()


class TestLoad:
    def test_a_thousand_idle_connections_leave_it_serving(self, judge: PeerJudge) -> None:
        if raise_file_limit(4096) < 2500:
            pytest.skip("this account may not open 2,500 files")
        patient = Limits(handshake_seconds=60)
        with serving(gate(judge, limits=patient)) as served:
            idle = [socket.create_connection(("127.0.0.1", served.port())) for _ in range(1000)]
            try:
                with Client(served.port(), pump().credential) as client:
                    assert client.get().status == 200
                    assert client.post(b"x" * 1_000_000).body == b"x" * 1_000_000
                wait_until(lambda: served.running.counts()["gate"][0] == 1000)
            finally:
                for each in idle:
                    each.close()
            wait_until(lambda: served.running.counts()["gate"][0] == 0)

    def test_caps_close_at_once_and_are_counted(self, judge: PeerJudge) -> None:
        few = Limits(connections=5, connections_per_source=2, linger_seconds=0.1)
        with serving(gate(judge, limits=few)) as served:
            with Client(served.port(), pump().credential) as one, Client(served.port(), pump().credential) as two:
                with pytest.raises((NotTrusted, ConnectionError)):
                    Client(served.port(), pump().credential)
                assert served.running.counts()["gate"] == (2, 1)
                assert one.get().status == two.get().status == 200
                decision = judge.wait_decided(Outcome.REFUSED)
                assert (decision.reason, decision.count) == (Reason.OVERLOADED, 1)
            wait_until(lambda: served.running.counts()["gate"][0] == 0)
            served.check_admits()
