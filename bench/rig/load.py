"""HTTP load over persistent TLS connections, closed-loop for throughput and open-loop for latency."""

from __future__ import annotations

import asyncio
import math
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes, and over which TLS."""

    address: tuple[str, int]
    host_name: str
    trust: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Load:
    """What one run gave: the responses' bodies in order, each one's seconds from when it was due, and the whole."""

    bodies: list[bytes]
    waits: list[float]
    seconds: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all stay below or at, by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class _Connection(asyncio.Protocol):
    """One persistent connection with one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._waiting: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own has no such base

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._waiting is None:
            return
        found = _LENGTH.search(self._buffer, 0, end + 2)
        length = int(found[1]) if found else 0
        if len(self._buffer) < end + 4 + length:
            return
        waiting, self._waiting = self._waiting, None
        body = self._buffer[end + 4 : end + 4 + length]
        status, self._buffer = self._buffer[9:12], b""
        if status == b"200":
            waiting.set_result(body)
        else:
            waiting.set_exception(RuntimeError(f"{status.decode()}: {body[:300]!r}"))

    def connection_lost(self, _error: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> bytes:
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def closed_loop(target: Target, requests: Sequence[bytes], *, connections: int) -> Load:
    """Every connection sends its next request as soon as it has its response: how much goes through."""
    return uvloop.run(_closed(target, requests, connections))


def open_loop(target: Target, requests: Sequence[bytes], *, connections: int, per_second: float) -> Load:
    """Requests fall due at a constant rate whatever the server does; a wait counts from when one was due."""
    return uvloop.run(_open(target, requests, connections, per_second))


async def _connect(target: Target, count: int) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    found = []
    for _ in range(count):
        host, port = target.address
        _, connection = await loop.create_connection(
            _Connection, host, port, ssl=target.trust, server_hostname=target.host_name
        )
        found.append(connection)
    return found


async def _closed(target: Target, requests: Sequence[bytes], connections: int) -> Load:
    opened = await _connect(target, connections)
    bodies: list[bytes] = [b""] * len(requests)
    waits: list[float] = [0.0] * len(requests)
    turn = iter(range(len(requests)))

    async def run(connection: _Connection) -> None:
        for number in turn:
            begun = time.perf_counter()
            bodies[number] = await connection.ask(requests[number])
            waits[number] = time.perf_counter() - begun

    start = time.perf_counter()
    await asyncio.gather(*map(run, opened))
    seconds = time.perf_counter() - start
    for each in opened:
        each.close()
    return Load(bodies, waits, seconds)


async def _open(target: Target, requests: Sequence[bytes], connections: int, per_second: float) -> Load:
    opened = await _connect(target, connections)
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for each in opened:
        free.put_nowait(each)
    bodies: list[bytes] = [b""] * len(requests)
    waits: list[float] = [0.0] * len(requests)
    start = time.perf_counter()

    async def one(number: int, due: float) -> None:
        connection = await free.get()
        bodies[number] = await connection.ask(requests[number])
        waits[number] = time.perf_counter() - due
        free.put_nowait(connection)

    async with asyncio.TaskGroup() as tasks:
        for number in range(len(requests)):
            due = start + number / per_second
            left = due - time.perf_counter()
            if left > 0:
                await asyncio.sleep(left)
            tasks.create_task(one(number, due))
    seconds = time.perf_counter() - start
    for each in opened:
        each.close()
    return Load(bodies, waits, seconds)
