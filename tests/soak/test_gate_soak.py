"""A gate under hostile clients for as long as the soak allows: good devices are served, and nothing is left over."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.simulator.certificates import authority, pump, stranger
from tests.simulator.listeners import Client, PeerJudge, serving
from tests.simulator.upstreams import http_upstream
from tests.simulator.waiting import wait_until
from tests.tls.test_stream import client_context
from tests.transport.test_listeners import gate
from vagus.endpoints.gateway.http_relay import HttpRelay
from vagus.endpoints.gateway.idle_connections import IDLE_SECONDS
from vagus.endpoints.gateway.upstream import Upstream
from vagus.errors import VagusError
from vagus.transport.limits import Limits

pytestmark = pytest.mark.soak

LIMITS = Limits(handshake_seconds=1, header_seconds=1, stall_seconds=1, linger_seconds=0.2)


def _resident() -> int:
    """Pages of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1])


def _disturb(port: int, dice: random.Random) -> None:
    """One hostile connection of a random kind."""
    kind = dice.randrange(5)
    if kind == 0:  # bytes that are no TLS
        with socket.create_connection(("127.0.0.1", port)) as odd:
            odd.sendall(dice.randbytes(dice.randrange(1, 5000)))
        return
    if kind == 1:  # a damaged or cut ClientHello
        stream = client_context().new_stream("localhost")
        stream.handshake()
        hello = bytearray(stream.take())
        for _ in range(dice.randrange(3)):
            hello[dice.randrange(len(hello))] ^= 1 << dice.randrange(8)
        with socket.create_connection(("127.0.0.1", port)) as odd:
            odd.sendall(hello[: dice.randrange(1, len(hello) + 1)])
        return
    who = stranger().issue("pump").credential if kind == 2 else pump().credential
    with Client(port, who) as client:
        client.stream.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + dice.randbytes(20_000))
        data = bytearray(client.stream.take())
        if kind == 3:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        client.socket.sendall(data[: dice.randrange(1, len(data) + 1)])
        if dice.random() < 0.5:
            client.reset()


def test_hostile_clients_take_nothing_from_good_ones(soak_seconds: float, soak_seed: int) -> None:
    judge, end = PeerJudge(), time.monotonic() + soak_seconds
    served_well: list[float] = []
    with http_upstream() as (port, seen):
        relay = HttpRelay(Upstream("127.0.0.1", port), judge.decisions.append)
        with serving(gate(judge, app=relay, close=relay.close, limits=LIMITS), judges=[judge]) as served:

            def disturb(seed: int) -> None:
                dice = random.Random(seed)
                while time.monotonic() < end:
                    with contextlib.suppress(OSError, VagusError):
                        _disturb(served.port(), dice)

            hostile = [threading.Thread(target=disturb, args=(soak_seed + number,)) for number in range(3)]
            for each in hostile:
                each.start()
            early, settled = 0, time.monotonic() + IDLE_SECONDS + 10  # by then as many connections rest as ever will
            while time.monotonic() < end:
                began = time.monotonic()
                with Client(served.port(), authority().issue("good").credential) as client:
                    assert client.get("/1000").body == b"x" * 1000
                    assert client.post(b"y" * 100_000).status == 200
                served_well.append(time.monotonic() - began)
                for kept in (seen.lines, seen.headers, seen.bodies, judge.decisions):
                    kept.clear()
                if not early and time.monotonic() > settled:
                    early = _resident()
            for each in hostile:
                each.join()
            wait_until(lambda: served.running.counts()["gate"][0] == 0)
            assert len(served.running.connections) == 0
            assert served.running.connections._by_mark == {}
            if early:
                assert _resident() - early < 5_120, "more than 20 MB are left of connections that have ended"
    assert max(served_well) < 5
