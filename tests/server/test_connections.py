"""What is open follows the revocation sequence: cut, or marked where policy says so, in time and for the right one."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.server.house import Client, Door, serving, wait_until
from tests.server.test_listeners import gate
from tests.tls.authority import authority, pump
from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.http import Receive, Scope, Send, send_answer
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.server.connections import OpenConnections, Rules, Standing
from vagus.server.listeners import AdmittedStream
from vagus.tls import Peer


class Silent(asyncio.Protocol):
    """A stream on which nothing happens."""

    def __init__(self, _stream: AdmittedStream) -> None:
        pass


@pytest.fixture
def door() -> Door:
    return Door()


async def mark(scope: Scope, _receive: Receive, send: Send) -> None:
    """Say whether the connection is degraded."""
    degraded = scope["extensions"]["tls"]["degraded"]
    text = str(degraded.reason).encode() if degraded else b"fine"
    await send_answer(send, 200, [(b"content-length", b"%d" % len(text))], text)


class TestRevocation:
    def test_an_open_stream_of_a_revoked_device_is_cut_within_two_seconds_and_its_twin_goes_on(
        self, door: Door
    ) -> None:
        twin = authority().issue("twin.icu.h1.test")
        with (
            serving(gate(door, app=None, stream=Silent), doors=[door]) as served,
            Client(served.port(), pump().credential) as bad,
            Client(served.port(), twin.credential) as good,
        ):
            wait_until(lambda: len(served.running.connections) == 2)
            began = time.monotonic()
            door.revoke(pump().serial)
            assert bad.was_cut()
            assert time.monotonic() - began < 2
            good.send(b"x")
            wait_until(lambda: len(served.running.connections) == 1)
            good.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                good.receive()
        closed = door.told(Outcome.CLOSED)
        assert [(each.reason, each.device) for each in closed] == [(Reason.REVOKED, "pump.icu.h1.test")]

    def test_a_revoked_intermediate_cuts_everything_below_it(self, door: Door) -> None:
        below_root = authority().issue_below_root("direct.h1.test")
        with (
            serving(gate(door, app=None, stream=Silent), doors=[door]) as served,
            Client(served.port(), pump().credential) as one,
            Client(served.port(), authority().issue("two").credential) as two,
            Client(served.port(), below_root.credential),
        ):
            wait_until(lambda: len(served.running.connections) == 3)
            door.revoke(authority().issuing.serial)
            assert one.was_cut()
            assert two.was_cut()
            wait_until(lambda: len(served.running.connections) == 1)
        assert {each.reason for each in door.told(Outcome.CLOSED)} == {Reason.REVOKED_CA}

    def test_a_kept_alive_connection_that_idles_is_cut_too(self, door: Door) -> None:
        with serving(gate(door), doors=[door]) as served, Client(served.port(), pump().credential) as client:
            assert client.get().status == 200
            door.revoke(pump().serial)
            assert client.was_cut()

    def test_without_any_notice_the_next_request_is_refused(self, door: Door) -> None:
        # A gate whose feed is silent still sees the position move.
        with serving(gate(door)) as served, Client(served.port(), pump().credential) as client:
            assert client.get().status == 200
            door.revoke(pump().serial)
            response = client.get()
            assert (response.status, json.loads(response.body)["reason"]) == (403, Reason.REVOKED)
            assert client.is_closed()

    def test_a_function_that_may_not_stop_is_marked_and_goes_on(self, door: Door) -> None:
        door.session_on_revocation = "degrade"
        with (
            serving(gate(door, app=mark), doors=[door]) as served,
            Client(served.port(), pump().credential) as client,
        ):
            assert client.get().body == b"fine"
            door.revoke(pump().serial)
            assert door.wait_told(Outcome.DEGRADED).reason is Reason.REVOKED
            assert client.get().body == client.get().body == b"REVOKED"
            with Client(served.port(), pump().credential) as new:
                assert new.get().status == 403
            door.revoked.clear()
            door.position += 1
            assert client.get().body == b"fine"
        assert len(door.told(Outcome.DEGRADED)) == 1
        assert door.told(Outcome.CLOSED) == []

    def test_what_passes_by_grace_alone_is_told_at_the_handshake_and_when_it_begins(self, door: Door) -> None:
        lapse = NotTrusted(Reason.SEQUENCE_LOST, "the revocation sequence was last seen long ago")
        with serving(gate(door), doors=[door]) as served:
            with Client(served.port(), pump().credential) as before:
                assert before.get().status == 200
                door.on_grace, door.position = lapse, 1
                assert [before.get().status, before.get().status] == [200, 200]
            with Client(served.port(), pump().credential) as during:
                assert during.get().status == 200
        (went_on,) = door.told(Outcome.DEGRADED)
        first, second = door.told(Outcome.ADMITTED)
        assert first.reason is None
        for told in (went_on, second):
            assert told.reason is Reason.SEQUENCE_LOST
            assert told.detail.startswith("by the grace of its function's policy: the revocation sequence")

    def test_a_verdict_is_asked_for_again_only_when_something_moved(self, door: Door) -> None:
        with serving(gate(door), doors=[door]) as served, Client(served.port(), pump().credential) as client:
            for _ in range(5):
                assert client.get().status == 200
            assert door.judged == 1
            door.position += 1
            for _ in range(5):
                assert client.get().status == 200
            assert door.judged == 2

    def test_what_nobody_announces_reaches_an_idle_stream_by_the_sweep(self, door: Door) -> None:
        with (
            serving(gate(door, app=None, stream=Silent, verdict_seconds=0.2)) as served,
            Client(served.port(), pump().credential) as client,
        ):
            wait_until(lambda: len(served.running.connections) == 1)
            door.revoked.add(pump().serial)  # neither position nor feed say so: as with an expiry
            assert client.was_cut()


class TestDeviceChanges:
    def test_an_open_stream_of_a_changed_device_is_judged_anew_and_its_twin_is_left_alone(self, door: Door) -> None:
        twin = authority().issue("twin.icu.h1.test")
        with (
            serving(gate(door, app=None, stream=Silent), doors=[door]) as served,
            Client(served.port(), pump().credential) as bad,
            Client(served.port(), twin.credential) as good,
        ):
            wait_until(lambda: len(served.running.connections) == 2)
            began, judged = time.monotonic(), door.judged
            door.change("pump", Reason.DEVICE_STATE)
            assert bad.was_cut()
            assert time.monotonic() - began < 2
            assert door.judged == judged + 1
            good.send(b"x")
            wait_until(lambda: len(served.running.connections) == 1)
        assert [(each.reason, each.device) for each in door.told(Outcome.CLOSED)] == [
            (Reason.DEVICE_STATE, "pump.icu.h1.test")
        ]

    def test_a_change_that_takes_nothing_away_cuts_nothing(self, door: Door) -> None:
        with serving(gate(door), doors=[door]) as served, Client(served.port(), pump().credential) as client:
            assert client.get().status == 200
            judged = door.judged
            door.change("pump", None)
            wait_until(lambda: door.judged > judged)
            assert client.get().status == 200

    def test_the_next_request_of_a_kept_alive_connection_is_judged_anew(self, door: Door) -> None:
        # A gate whose feed is silent still sees the position move.
        with serving(gate(door)) as served, Client(served.port(), pump().credential) as client:
            assert client.get().status == 200
            door.change("pump", Reason.DEVICE_STATE)
            response = client.get()
            assert (response.status, json.loads(response.body)["reason"]) == (403, Reason.DEVICE_STATE)


class TestBooks:
    def test_nothing_is_left_of_a_connection_that_ended(self, door: Door) -> None:
        with serving(gate(door), doors=[door]) as served:
            for _ in range(3):
                with Client(served.port(), pump().credential) as client:
                    assert client.get().status == 200
            wait_until(lambda: len(served.running.connections) == 0)
            assert served.running.connections._by_mark == {}
            assert served.running.counts()["gate"] == (0, 0)

    def test_events_before_and_after_the_loops_life_are_harmless(self, door: Door) -> None:
        connections = OpenConnections()
        connections.follow(door)
        connections.follow_devices(door.devices)
        door.revoke(1)
        door.change("pump", None)
        loop = asyncio.new_event_loop()
        connections.bind(loop)
        loop.close()
        door.revoke(2)
        door.change("pump", None)
        assert len(connections) == 0

    def test_a_position_that_moves_during_the_verdict_makes_it_old_at_once(self) -> None:
        position = [0]

        def admit(_peer: Peer, _source: str) -> object:
            position[0] += 1  # a revocation lands just now
            if position[0] > 1:
                raise NotTrusted(Reason.REVOKED, "revoked")
            return door.admit(peer, "127.0.0.1")

        door = Door()
        peer = Peer(0x0304, "", None, None, None, resumed=False, leaf_der=pump().der, chain_der=())
        rules = Rules("gate", admit, door.decisions.append, lambda: position[0])  # type: ignore[arg-type]
        standing = Standing(rules, peer, "127.0.0.1")
        assert standing.refusal is None
        objection = standing.find_objection()
        assert objection is not None
        assert objection.reason is Reason.REVOKED
