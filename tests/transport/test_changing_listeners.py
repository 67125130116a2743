"""Listeners come and go while others serve on: no other listener loses a connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Sequence

from tests.simulator.certificates import pump
from tests.simulator.listeners import PATIENCE, Client, PeerJudge, Served, serving
from tests.simulator.refusals import refuses
from tests.simulator.waiting import wait_until
from tests.transport.test_listeners import gate
from vagus.errors import Misconfigured
from vagus.reasons import Reason
from vagus.transport.listeners import ListenerSpec


def change(served: Served, opened: Sequence[ListenerSpec], closed: Collection[str]) -> None:
    asyncio.run_coroutine_threadsafe(served.running.change(opened, closed, 0.2), served.loop).result(PATIENCE)


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionError:
        return False
    return True


def test_a_new_listener_opens_beside_the_one_that_serves(judge: PeerJudge) -> None:
    with serving(gate(judge), judges=[judge]) as served, Client(served.port(), pump().credential) as old:
        assert old.get().status == 200
        change(served, [gate(judge, name="second")], [])
        with Client(served.port("second"), pump().credential) as new:
            assert new.get().status == 200
        assert old.get().status == 200
        judge.revoke(pump().serial)
        assert old.was_cut()


def test_a_closed_listener_ends_with_its_connections_and_its_twin_stays(judge: PeerJudge) -> None:
    ended: list[str] = []
    specs = [gate(judge), gate(judge, name="second", close=lambda: ended.append("second"))]
    with (
        serving(*specs, judges=[judge]) as served,
        Client(served.port(), pump().credential) as staying,
        Client(served.port("second"), pump().credential) as going,
    ):
        assert staying.get().status == going.get().status == 200
        port = served.port("second")
        change(served, [], ["second"])
        assert going.is_closed()
        assert ended == ["second"]
        assert not is_listening(port)
        assert set(served.running.addresses) == {"gate"}
        assert staying.get().status == 200


def test_a_changed_listener_keeps_its_address(judge: PeerJudge) -> None:
    other = PeerJudge()
    with serving(gate(judge), judges=[judge, other]) as served, Client(served.port(), pump().credential) as old:
        assert old.get().status == 200
        port = served.port()
        change(served, [gate(other, port=port)], ["gate"])
        assert served.port() == port
        assert old.is_closed()
        served.check_admits()
        assert other.judged == 1


def test_an_address_that_cannot_be_had_changes_nothing(judge: PeerJudge) -> None:
    with (
        serving(gate(judge), judges=[judge]) as served,
        socket.create_server(("127.0.0.1", 0)) as taken,
        Client(served.port(), pump().credential) as old,
    ):
        wanted = [gate(judge, name="free"), gate(judge, name="taken", port=taken.getsockname()[1])]
        with refuses(Reason.BAD_SETTINGS, Misconfigured):
            change(served, wanted, ["gate"])
        assert set(served.running.addresses) == {"gate"}
        assert old.get().status == 200
        wait_until(lambda: served.running.counts()["gate"][0] == 1)
