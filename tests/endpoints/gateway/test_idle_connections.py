"""Idle upstream connections: of one peer alone, few, for a short time, and none that has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import uvloop

from vagus.endpoints.gateway.idle_connections import IdleConnections
from vagus.endpoints.gateway.upstream import Upstream, UpstreamConnection, connect

PATIENCE = 10.0


class Ends(asyncio.Protocol):
    """The upstream's side: keeps what came."""

    def __init__(self, came: list[asyncio.Transport]) -> None:
        self._came = came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One more."""
        self._came.append(transport)  # type: ignore[arg-type]  # uvloop's transports do not inherit


@dataclass
class OpenUpstream:
    """An upstream that listens, and the connections that came."""

    target: Upstream
    came: list[asyncio.Transport]

    async def answered(self) -> UpstreamConnection:
        """A new connection that could serve a further request."""
        before = len(self.came)
        connection = await connect(self.target)
        await until(lambda: len(self.came) > before)
        connection.is_reusable = True
        return connection


def with_upstream(act: Callable[[OpenUpstream], Awaitable[None]]) -> Callable[[], None]:
    """A test on an event loop with a listener."""

    async def main() -> None:
        came: list[asyncio.Transport] = []
        server = await asyncio.get_running_loop().create_server(lambda: Ends(came), "127.0.0.1", 0)
        try:
            async with asyncio.timeout(PATIENCE):
                await act(OpenUpstream(Upstream(*server.sockets[0].getsockname()), came))
        finally:
            for each in came:
                each.abort()
            server.close()
            await server.wait_closed()
            await asyncio.sleep(0)  # transports close on the loop's next turn

    def run() -> None:
        uvloop.run(main())

    return run


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110  the test's patience bounds it
        await asyncio.sleep(0.005)


@with_upstream
async def test_a_peer_gets_back_what_it_used_last_and_no_other_peers(upstream: OpenUpstream) -> None:
    kept = IdleConnections(2)
    first, last, others = await upstream.answered(), await upstream.answered(), await upstream.answered()
    kept.keep(b"pump", first)
    kept.keep(b"pump", last)
    kept.keep(b"monitor", others)
    assert kept.take(b"pump") is last
    assert kept.take(b"pump") is first
    assert kept.take(b"pump") is None
    assert len(kept) == 1
    kept.close()
    assert len(kept) == 0
    assert others.transport.is_closing()


@with_upstream
async def test_the_oldest_gives_way_to_what_a_peer_keeps_beyond_its_share(upstream: OpenUpstream) -> None:
    kept = IdleConnections(2)
    three = [await upstream.answered() for _ in range(3)]
    for each in three:
        kept.keep(b"pump", each)
    assert [each.transport.is_closing() for each in three] == [True, False, False]
    assert len(kept) == 2
    kept.close()


@with_upstream
async def test_the_peer_that_was_away_longest_gives_way_to_a_new_one(upstream: OpenUpstream) -> None:
    kept = IdleConnections(2, peers=2)
    old, older, new = await upstream.answered(), await upstream.answered(), await upstream.answered()
    kept.keep(b"a", old)
    kept.keep(b"b", older)
    kept.keep(b"a", await upstream.answered())
    kept.keep(b"c", new)
    assert older.transport.is_closing()
    assert kept.take(b"b") is None
    assert len(kept) == 3
    kept.close()


@with_upstream
async def test_one_that_ends_while_it_rests_is_forgotten_at_once(upstream: OpenUpstream) -> None:
    kept = IdleConnections(2)
    kept.keep(b"pump", await upstream.answered())
    upstream.came[0].abort()
    await until(lambda: len(kept) == 0)
    assert kept.take(b"pump") is None


@with_upstream
async def test_none_rests_longer_than_it_may(upstream: OpenUpstream) -> None:
    kept = IdleConnections(2, seconds=0.01)
    connection = await upstream.answered()
    kept.keep(b"pump", connection)
    await until(lambda: len(kept) == 0)
    assert connection.transport.is_closing()


@with_upstream
async def test_a_connection_in_use_ends_without_an_effect_on_idle_ones(upstream: OpenUpstream) -> None:
    kept = IdleConnections(2)
    kept.keep(b"pump", await upstream.answered())
    in_use = kept.take(b"pump")
    assert in_use is not None
    upstream.came[0].abort()
    await until(lambda: in_use.failure is not None)
    assert len(kept) == 0


@with_upstream
async def test_what_cannot_be_asked_again_is_closed(upstream: OpenUpstream) -> None:
    kept = IdleConnections(2)
    spent, closing = await upstream.answered(), await upstream.answered()
    spent.is_reusable = False
    closing.transport.close()
    kept.keep(b"pump", spent)
    kept.keep(b"pump", closing)
    assert len(kept) == 0
    assert spent.transport.is_closing()
