"""Open connections follow the revocation sequence: cut, or marked where policy says so, in time, and no others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.simulator.certificates import authority, pump
from tests.simulator.listeners import Client, PeerJudge, Served, admitted, serving
from tests.simulator.waiting import wait_until
from tests.transport.test_listeners import gate
from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.gateway.tcp_relay import AdmittedStream
from vagus.endpoints.http import Receive, Scope, Send, send_response
from vagus.errors import NotTrusted
from vagus.fleet.admission import Admitted
from vagus.policy.values import SessionOnRevocation
from vagus.reasons import Reason
from vagus.tls import Peer
from vagus.transport import open_connections
from vagus.transport.open_connections import ConnectionRight, OpenConnections, Rules
from vagus.x509.certificates import decode_certificate


class Silent(asyncio.Protocol):
    """A stream on which nothing happens."""

    def __init__(self, _stream: AdmittedStream) -> None:
        pass


async def mark(scope: Scope, _receive: Receive, send: Send) -> None:
    """Say whether the connection is degraded."""
    degraded = scope["extensions"]["tls"]["degraded"]
    text = str(degraded.reason).encode() if degraded else b"fine"
    await send_response(send, 200, [(b"content-length", b"%d" % len(text))], text)


@contextmanager
def two_streams(judge: PeerJudge) -> Iterator[tuple[Served, Client, Client]]:
    """Open streams of the pump and of its twin."""
    with (
        serving(gate(judge, app=None, stream=Silent), judges=[judge]) as served,
        Client(served.port(), pump().credential) as bad,
        Client(served.port(), authority().issue("twin.icu.h1.test").credential) as good,
    ):
        wait_until(lambda: len(served.running.connections) == 2)
        yield served, bad, good


def cut_within_two_seconds(act: Callable[[], None], served: Served, bad: Client, good: Client) -> None:
    """What `act` does cuts the one stream and not the other."""
    began = time.monotonic()
    act()
    assert bad.was_cut()
    assert time.monotonic() - began < 2
    good.send(b"x")
    wait_until(lambda: len(served.running.connections) == 1)


class TestRevocation:
    def test_an_open_stream_of_a_revoked_device_is_cut_within_two_seconds_and_its_twin_goes_on(
        self, judge: PeerJudge
    ) -> None:
        with two_streams(judge) as (served, bad, good):
            cut_within_two_seconds(lambda: judge.revoke(pump().serial), served, bad, good)
            good.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                good.receive()
        closed = judge.told(Outcome.CLOSED)
        assert [(each.reason, each.device) for each in closed] == [(Reason.REVOKED, "pump.icu.h1.test")]

    def test_a_revoked_intermediate_cuts_everything_below_it(self, judge: PeerJudge) -> None:
        below_root = authority().root.issue("direct.h1.test")
        with (
            serving(gate(judge, app=None, stream=Silent), judges=[judge]) as served,
            Client(served.port(), pump().credential) as one,
            Client(served.port(), authority().issue("two").credential) as two,
            Client(served.port(), below_root.credential),
        ):
            wait_until(lambda: len(served.running.connections) == 3)
            judge.revoke(authority().issuing.serial)
            assert one.was_cut()
            assert two.was_cut()
            wait_until(lambda: len(served.running.connections) == 1)
        assert {each.reason for each in judge.told(Outcome.CLOSED)} == {Reason.REVOKED_CA}

    def test_a_kept_alive_connection_that_idles_is_cut_too(self, judge: PeerJudge) -> None:
        with serving(gate(judge), judges=[judge]) as served, Client(served.port(), pump().credential) as client:
            assert client.get().status == 200
            judge.revoke(pump().serial)
            assert client.was_cut()

    def test_without_any_notice_the_next_request_is_refused(self, judge: PeerJudge) -> None:
        # A gateway whose feed sends no event still sees the position move.
        with serving(gate(judge)) as served, Client(served.port(), pump().credential) as client:
            assert client.get().status == 200
            judge.revoke(pump().serial)
            assert client.get().refusal == (403, Reason.REVOKED)
            assert client.is_closed()

    def test_a_function_that_may_not_stop_is_marked_and_goes_on(self, judge: PeerJudge) -> None:
        judge.session_on_revocation = SessionOnRevocation.DEGRADE
        with (
            serving(gate(judge, app=mark), judges=[judge]) as served,
            Client(served.port(), pump().credential) as client,
        ):
            assert client.get().body == b"fine"
            judge.revoke(pump().serial)
            assert judge.wait_decided(Outcome.DEGRADED).reason is Reason.REVOKED
            assert client.get().body == client.get().body == b"REVOKED"
            with Client(served.port(), pump().credential) as new:
                assert new.get().status == 403
            judge.revoked.clear()
            judge.position += 1
            assert client.get().body == b"fine"
        assert len(judge.told(Outcome.DEGRADED)) == 1
        assert judge.told(Outcome.CLOSED) == []

    def test_what_passes_by_grace_alone_is_recorded_at_the_handshake_and_when_it_begins(self, judge: PeerJudge) -> None:
        lapse = NotTrusted(Reason.SEQUENCE_LOST, "the revocation sequence was last seen long ago")
        with serving(gate(judge), judges=[judge]) as served:
            with Client(served.port(), pump().credential) as before:
                assert before.get().status == 200
                judge.on_grace, judge.position = lapse, 1
                assert [before.get().status, before.get().status] == [200, 200]
            with Client(served.port(), pump().credential) as during:
                assert during.get().status == 200
        (went_on,) = judge.told(Outcome.DEGRADED)
        first, second = judge.told(Outcome.ADMITTED)
        assert first.reason is None
        for told in (went_on, second):
            assert told.reason is Reason.SEQUENCE_LOST
            assert told.detail.startswith("by the grace of its function's policy: the revocation sequence")

    def test_a_verdict_is_asked_for_again_only_when_something_moved(self, judge: PeerJudge) -> None:
        with serving(gate(judge), judges=[judge]) as served, Client(served.port(), pump().credential) as client:
            for _ in range(5):
                assert client.get().status == 200
            assert judge.judged == 1
            judge.position += 1
            for _ in range(5):
                assert client.get().status == 200
            assert judge.judged == 2

    def test_a_change_without_an_event_reaches_an_idle_stream_by_the_sweep(self, judge: PeerJudge) -> None:
        with (
            serving(gate(judge, app=None, stream=Silent, verdict_seconds=0.2)) as served,
            Client(served.port(), pump().credential) as client,
        ):
            wait_until(lambda: len(served.running.connections) == 1)
            judge.revoked.add(pump().serial)  # neither position nor feed say so: as with an expiry
            assert client.was_cut()


class Held:
    """A connection without a socket."""

    def __init__(self, right: ConnectionRight, order: list[str]) -> None:
        self.right = right
        self._order = order
        self.cuts = 0

    def cut(self) -> None:
        self.cuts += 1
        self._order.append("cut")


class Crowd:
    """As many connections as asked for, on a listener that notes each whole verdict and each cut, in their order."""

    def __init__(self, count: int) -> None:
        self.judge = PeerJudge()
        self.order: list[str] = []
        self.is_broken = False
        self.connections = OpenConnections()
        rules = Rules(
            "gate", self._admit, self.judge.decisions.append, lambda: self.judge.position, quick_check=self._check
        )
        issuing = decode_certificate(authority().issuing.der)
        self.held = []
        for number in range(count):
            self._next = admitted(f"d{number}.icu.h1.test", replace(issuing, serial=number + 1), issuing)
            peer = Peer(0x0304, "", None, None, None, resumed=False, leaf_der=b"%d" % number, chain_der=())
            self.held.append(Held(ConnectionRight(rules, peer, "127.0.0.1"), self.order))
            self.connections.add(self.held[-1].right, self.held[-1].cut)
        self.order.clear()

    def _admit(self, _peer: Peer, _source: str) -> Admitted:
        self.order.append("judged")
        return self._next

    def _check(self, peer: Admitted) -> None:
        if self.is_broken:
            raise ValueError
        assert peer.identity is not None
        for place, link in enumerate(peer.identity.path):
            if link.serial in self.judge.revoked:
                raise NotTrusted(Reason.REVOKED_CA if place else Reason.REVOKED, "the certificate is revoked")

    def hear(self, *marks: int | str) -> None:
        """One run of events, until everything that follows from it is done."""

        async def run() -> None:
            self.connections.notify(marks)
            await asyncio.gather(*self.connections._tasks)

        self.judge.position += 1
        asyncio.run(run())


def why_refused(right: ConnectionRight) -> Reason:
    """The reason why it may not go on."""
    objection = right.find_objection()
    assert objection is not None
    return objection.reason


class TestQuickCheck:
    def test_a_peer_below_a_revoked_authority_is_cut_by_the_quick_check_alone(self) -> None:
        crowd = Crowd(300)
        issuing = authority().issuing.serial
        crowd.judge.revoked.add(issuing)
        crowd.hear(issuing)
        assert crowd.order == ["cut"] * 300
        assert len(crowd.connections) == 0
        told = crowd.judge.told(Outcome.CLOSED)
        assert {each.device for each in told} == {f"d{number}.icu.h1.test" for number in range(300)}
        assert {each.reason for each in told} == {Reason.REVOKED_CA}
        assert len(told) == 300

    def test_each_batch_of_revoked_devices_is_cut_without_checks_of_others(self) -> None:
        crowd = Crowd(300)
        for first in range(0, 200, 20):
            stage = range(first + 1, first + 21)
            crowd.judge.revoked.update(stage)
            crowd.hear(*stage)
        assert crowd.order == ["cut"] * 200
        assert [each.cuts for each in crowd.held] == [1] * 200 + [0] * 100
        assert len(crowd.judge.decisions) == 200

    def test_revoked_peers_are_cut_before_others_are_judged(self) -> None:
        crowd = Crowd(20)
        crowd.judge.revoked.update({19, 20})
        crowd.hear(*(f"d{number}" for number in range(18)), 19, 20)
        assert crowd.order == ["cut", "cut"] + ["judged"] * 18
        assert [each.cuts for each in crowd.held] == [0] * 18 + [1, 1]

    def test_others_are_served_in_between_and_a_loop_that_ends_leaves_no_cut_unrecorded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(open_connections, "_SLICE_SECONDS", -1.0)
        crowd = Crowd(10)
        crowd.judge.revoked.add(authority().issuing.serial)
        crowd.judge.position += 1

        async def run() -> None:
            crowd.connections.notify([authority().issuing.serial])
            while crowd.order.count("cut") < 5:
                crowd.order.append("served")
                await asyncio.sleep(0)

        asyncio.run(run())  # which cancels what is under way
        assert crowd.order[:4] == ["served", "cut", "served", "cut"]
        assert 5 <= crowd.order.count("cut") < 10
        assert len(crowd.judge.told(Outcome.CLOSED)) == crowd.order.count("cut")

    def test_a_peer_that_passes_the_quick_check_has_no_new_verdict_yet(self) -> None:
        crowd = Crowd(1)
        (one,) = crowd.held
        crowd.judge.position += 1
        assert not one.right.fails_quick_check()
        assert not one.right.is_current()
        assert one.right.find_objection() is None
        assert one.right.is_current()
        assert crowd.order == ["judged"]

    def test_a_request_of_the_revoked_costs_no_whole_verdict_either(self) -> None:
        crowd = Crowd(1)
        (one,) = crowd.held
        crowd.judge.revoked.add(1)
        crowd.judge.position += 1
        for _ in range(2):
            assert why_refused(one.right) is Reason.REVOKED
        assert crowd.order == []
        assert len(crowd.judge.decisions) == 1

    def test_when_the_quick_check_fails_the_whole_verdict_is_asked_for(self) -> None:
        crowd = Crowd(3)
        crowd.is_broken = True
        crowd.hear("d0", "d1", "d2")
        assert crowd.order == ["judged"] * 3

    def test_a_hold_that_degrades_is_recorded_once_and_ends_by_the_whole_verdict_alone(self) -> None:
        crowd = Crowd(1)
        (one,) = crowd.held
        one.right.admitted = replace(crowd._next, session_on_revocation=SessionOnRevocation.DEGRADE)
        crowd.judge.revoked.add(1)
        crowd.hear(1)
        assert (crowd.order, one.right.degraded) == ([], one.right.refusal)
        crowd.judge.revoked.clear()
        crowd.hear(1)
        assert (crowd.order, one.right.degraded) == (["judged"], None)
        assert [each.outcome for each in crowd.judge.decisions] == [Outcome.DEGRADED]


class TestDeviceChanges:
    def test_an_open_stream_of_a_changed_device_is_judged_anew_and_its_twin_is_left_alone(
        self, judge: PeerJudge
    ) -> None:
        with two_streams(judge) as (served, bad, good):
            judged = judge.judged
            cut_within_two_seconds(lambda: judge.change("pump", Reason.DEVICE_STATE), served, bad, good)
            assert judge.judged == judged + 1
        assert [(each.reason, each.device) for each in judge.told(Outcome.CLOSED)] == [
            (Reason.DEVICE_STATE, "pump.icu.h1.test")
        ]

    def test_a_change_that_takes_nothing_away_cuts_nothing(self, judge: PeerJudge) -> None:
        with serving(gate(judge), judges=[judge]) as served, Client(served.port(), pump().credential) as client:
            assert client.get().status == 200
            judged = judge.judged
            judge.change("pump", None)
            wait_until(lambda: judge.judged > judged)
            assert client.get().status == 200

    def test_the_next_request_of_a_kept_alive_connection_is_judged_anew(self, judge: PeerJudge) -> None:
        # A gateway whose feed sends no event still sees the position move.
        with serving(gate(judge)) as served, Client(served.port(), pump().credential) as client:
            assert client.get().status == 200
            judge.change("pump", Reason.DEVICE_STATE)
            assert client.get().refusal == (403, Reason.DEVICE_STATE)


class TestBooks:
    def test_nothing_is_left_of_a_connection_that_ended(self, judge: PeerJudge) -> None:
        with serving(gate(judge), judges=[judge]) as served:
            for _ in range(3):
                with Client(served.port(), pump().credential) as client:
                    assert client.get().status == 200
            wait_until(lambda: len(served.running.connections) == 0)
            assert served.running.connections._by_mark == {}
            assert served.running.counts()["gate"] == (0, 0)

    def test_events_before_and_after_the_loops_life_are_harmless(self, judge: PeerJudge) -> None:
        open_connections = OpenConnections()
        open_connections.follow(judge.subscribe)
        open_connections.follow_devices(judge.subscribe_devices)
        judge.revoke(1)
        judge.change("pump", None)
        loop = asyncio.new_event_loop()
        open_connections.bind(loop)
        loop.close()
        judge.revoke(2)
        judge.change("pump", None)
        assert len(open_connections) == 0

    def test_a_position_that_moves_during_the_verdict_makes_it_old_at_once(self) -> None:
        position = [0]

        def admit(_peer: Peer, _source: str) -> object:
            position[0] += 1  # a revocation lands just now
            if position[0] > 1:
                raise NotTrusted(Reason.REVOKED, "revoked")
            return judge.admit(peer, "127.0.0.1")

        judge = PeerJudge()
        peer = Peer(0x0304, "", None, None, None, resumed=False, leaf_der=pump().der, chain_der=())
        rules = Rules("gate", admit, judge.decisions.append, lambda: position[0])  # type: ignore[arg-type]
        right = ConnectionRight(rules, peer, "127.0.0.1")
        assert right.refusal is None
        assert why_refused(right) is Reason.REVOKED
