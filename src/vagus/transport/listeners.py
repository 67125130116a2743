"""Listeners as values, and several of them served in one event loop; builds no application and judges no peer."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import format_datetime

import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from vagus.clock import Clock
from vagus.endpoints.gateway.decisions import ConnectionDecision, Record
from vagus.endpoints.gateway.tcp_relay import AdmittedStream
from vagus.endpoints.http import ASGIApp, reporting_errors
from vagus.errors import Misconfigured
from vagus.reasons import Reason
from vagus.tls import ServerContext
from vagus.transport import open_connections
from vagus.transport.http_protocol import AdmittedHttp
from vagus.transport.limits import Limits
from vagus.transport.listener_state import ListenerState
from vagus.transport.ocsp_cache import OcspCache
from vagus.transport.plain_connection import PlainConnection
from vagus.transport.reserved_addresses import not_bound
from vagus.transport.status_protocol import StatusHttp
from vagus.transport.tls_connection import TlsConnection

SPARE_FILES = 256  # file descriptors kept free for database, log, keystores and upstream connections


def drop_decision(_decision: ConnectionDecision) -> None:
    """For listeners whose connections are not recorded."""


def fixed_position() -> object:
    """For listeners whose verdicts no revocation and no change of a device can alter."""
    return 0


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """One listener: an address, who may connect, and what serves them (`app` or `stream`, not both).

    An `app` finds in `scope["extensions"]["tls"]`: `peer` (None without TLS), `admitted` (what `admit` returned),
    `degraded` (an error, while policy lets an open session go on without a good verdict) and `listener`. A refused
    peer gets a 403 problem; a raw stream of a refused peer is closed.
    """

    name: str
    host: str
    port: int
    """0 lets the system choose; `RunningListeners.addresses` has what it chose."""
    app: ASGIApp | None = None
    stream: Callable[[AdmittedStream], asyncio.Protocol] | None = None
    ocsp_cache: OcspCache | None = None
    """Responds before `app`, on a listener without TLS: a request that it knows does not reach the application."""
    tls: ServerContext | None = None
    admit: open_connections.Admit | None = None
    """Called after each handshake, full or resumed, before any application byte, and again as `position` moves."""
    position: Callable[[], object] = fixed_position
    """Any value that changes whenever a verdict may have: the positions of both sequences, at least."""
    quick_check: open_connections.QuickCheck | None = None
    """Asked before `admit` about a peer that was admitted: it can refuse for much less work, and admits no peer."""
    record: Record = drop_decision
    limits: Limits = field(default_factory=Limits)
    verdict_seconds: float = open_connections.VERDICT_SECONDS
    """How long a verdict is good although nothing was revoked or changed: expiry reaches a stream by then."""
    close: Callable[[], None] | None = None
    """Called at the end, for what the application keeps open: `HttpRelay.close`."""

    def __post_init__(self) -> None:
        if (self.app is None) == (self.stream is None):
            raise _unusable(self.name, "needs either an HTTP application or a stream protocol")
        if self.tls is None and (self.admit is not None or self.stream is not None):
            raise _unusable(self.name, "has no TLS, so it can judge no peer and must carry no stream")
        if self.ocsp_cache is not None and (self.tls is not None or self.app is None):
            raise _unusable(self.name, "has a cache of OCSP responses, which needs a plain HTTP application")


def _unusable(name: str, what: str) -> Misconfigured:
    return Misconfigured(Reason.BAD_SETTINGS, f"listener {name} {what}; correct its settings", listener=name)


@dataclass(slots=True)
class _Listening:
    """One listener while it serves."""

    spec: ListenerSpec
    listener: ListenerState
    server: asyncio.Server
    state: ServerState | None  # None for listeners of raw streams
    ticking: asyncio.Task[None]
    address: tuple[str, int]


class RunningListeners:
    """Listeners that serve, until `stop`."""

    def __init__(
        self,
        clock: Clock,
        connections: open_connections.OpenConnections,
        release: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """`release` lets go of the address of a listener, by its name, in case this process reserved it."""
        self.connections = connections
        self._release = release
        self.loop = asyncio.get_running_loop()
        self._clock = clock
        self._every: dict[str, _Listening] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """The bound host and port of each listener, by its name."""
        return {name: one.address for name, one in self._every.items()}

    async def open(self, spec: ListenerSpec) -> tuple[str, int]:
        """Listen, and return the bound address. Raises Misconfigured(BAD_SETTINGS) when it cannot be bound."""
        if spec.name in self._every:
            raise _unusable(spec.name, "has the name of another one")
        rules = open_connections.Rules(
            spec.name, spec.admit, spec.record, spec.position, spec.quick_check, spec.verdict_seconds
        )
        # A raw stream has no message by which to refuse, so its connection is closed.
        listener = ListenerState(rules, spec.limits, self.connections, closes_silently=spec.stream is not None)
        state = ServerState() if spec.app is not None else None
        try:
            factory = self._factory(spec, listener, state)
            self._release(spec.name)
            server = await self.loop.create_server(factory, spec.host, spec.port, backlog=2048)
        except OSError as error:
            raise not_bound(spec.name, (spec.host, spec.port), error) from error
        for listening in server.sockets:
            _keep_alive(listening)
        host, port = server.sockets[0].getsockname()[:2]
        ticking = self.loop.create_task(self._tick(listener, state))
        self._every[spec.name] = _Listening(spec, listener, server, state, ticking, (str(host), int(port)))
        return str(host), int(port)

    async def change(self, opened: Sequence[ListenerSpec], closed: Collection[str], grace_seconds: float = 5.0) -> None:
        """Close the named listeners and open others; connections of the rest go on.

        A listener that only changes keeps its name and is in both. Raises Misconfigured(BAD_SETTINGS) before anything
        is closed when a new address cannot be bound.
        """
        gone = [self._every.pop(name) for name in closed]
        held = {one.address for one in gone}
        first = [spec for spec in opened if (spec.host, spec.port) not in held]
        done: list[str] = []
        try:
            for spec in first:
                await self.open(spec)
                done.append(spec.name)
        except Misconfigured:
            await self._end([self._every.pop(name) for name in done], 0)
            self._every |= {one.spec.name: one for one in gone}
            raise
        for one in gone:
            one.server.close()
        await asyncio.sleep(0)  # asyncio closes the sockets on the loop's next turn
        for spec in opened:
            if spec not in first:
                await self.open(spec)
        await self._end(gone, grace_seconds)

    def _factory(
        self, spec: ListenerSpec, listener: ListenerState, state: ServerState | None
    ) -> Callable[[], asyncio.Protocol]:
        tls, make_stream, cache = spec.tls, spec.stream, spec.ocsp_cache
        if make_stream is not None and tls is not None:

            def stream(right: open_connections.ConnectionRight) -> asyncio.Protocol:
                client = AdmittedStream(spec.name, right.source, right.peer, right.admitted, spec.record)
                return make_stream(client)

            return lambda: TlsConnection(listener, tls, stream)
        config, server_state = _uvicorn(spec), state or ServerState()
        if cache is not None:
            return lambda: PlainConnection(listener, lambda: StatusHttp(config, server_state, listener, cache))
        if tls is None:
            return lambda: PlainConnection(listener, lambda: AdmittedHttp(config, server_state, listener, None))
        return lambda: TlsConnection(listener, tls, lambda right: AdmittedHttp(config, server_state, listener, right))

    async def _tick(self, listener: ListenerState, state: ServerState | None) -> None:
        """Deadlines, and the Date field (RFC 9110 6.6.1)."""
        while True:
            if state is not None:
                date = format_datetime(self._clock.now(), usegmt=True).encode("ascii")
                state.default_headers = [(b"date", date)]
            await asyncio.sleep(listener.limits.tick_seconds)
            # When the event loop itself was late, timers run before sockets are read. One more turn of the loop lets
            # bytes that arrived in time count first, so that a peer is not cut off for a pause of this process.
            now = self.loop.time()
            await asyncio.sleep(0)
            listener.tick(now)

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """For each listener: connections open now, and connections turned away at a cap since the start."""
        occupancies = {name: one.listener.occupancy for name, one in list(self._every.items())}
        return {name: (len(occupancy), occupancy.turned_away) for name, occupancy in occupancies.items()}

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Accept nothing more, let responses under way finish for `grace_seconds`, then cut what is left."""
        every = list(self._every.values())
        self._every.clear()
        await self._end(every, grace_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end(self, some: Sequence[_Listening], grace_seconds: float) -> None:
        for one in some:
            one.server.close()
            for connection in list(one.state.connections) if one.state is not None else ():
                connection.shutdown()
        await self._wait_for_ends(some, grace_seconds)
        for one in some:
            for end in list(one.listener.closers.values()):
                end()
        await self._wait_for_ends(some, 1.0)
        requests = {task for one in some if one.state is not None for task in one.state.tasks}
        for task in (*(one.ticking for one in some), *requests):
            task.cancel()
        await asyncio.gather(*(one.ticking for one in some), *requests, return_exceptions=True)
        for one in some:
            if one.spec.close is not None:
                one.spec.close()
        await asyncio.sleep(0)  # asyncio closes transports on the loop's next turn

    async def _wait_for_ends(self, some: Sequence[_Listening], seconds: float) -> None:
        until = self.loop.time() + seconds
        # polling is simple, and happens only at the end of the process
        while any(one.listener.closers for one in some) and self.loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _keep_alive(listening: socket.socket) -> None:
    """Accepted sockets inherit it: a device that lost its network leaves an idle stream within two minutes."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):  # these options have the names of Linux
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _uvicorn(spec: ListenerSpec) -> Config:
    """The settings of uvicorn's protocol; its server, signals, logging and proxy headers are not used."""
    config = Config(
        reporting_errors(spec.app) if spec.app is not None else "",
        http=AdmittedHttp,
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=int(spec.limits.keep_alive_seconds),
    )
    config.load()
    return config


async def start(
    listeners: Sequence[ListenerSpec],
    *,
    clock: Clock,
    feeds: Sequence[open_connections.RevocationFeed] = (),
    devices: Sequence[open_connections.DeviceFeed] = (),
    release: Callable[[str], None] = lambda _name: None,
) -> RunningListeners:
    """Open all listeners in the running loop, or none. `feeds` are sequences of revocations, `devices` of changes.

    `release` is called with the name of each listener before its address is bound.

    Raises Misconfigured(BAD_SETTINGS) for an address that cannot be bound.
    """
    connections = open_connections.OpenConnections()
    connections.bind(asyncio.get_running_loop())
    for feed in feeds:
        connections.follow(feed)
    for changes in devices:
        connections.follow_devices(changes)
    running = RunningListeners(clock, connections, release)
    try:
        for spec in listeners:
            await running.open(spec)
    except Misconfigured:
        await running.stop(0)
        raise
    every = min((spec.verdict_seconds for spec in listeners), default=open_connections.VERDICT_SECONDS)
    # uvicorn's server has no public list of its tasks
    running._tasks.append(asyncio.get_running_loop().create_task(connections.sweep(every)))  # noqa: SLF001
    return running


def run(
    listeners: Sequence[ListenerSpec],
    *,
    clock: Clock,
    feeds: Sequence[open_connections.RevocationFeed] = (),
    devices: Sequence[open_connections.DeviceFeed] = (),
    started: Callable[[RunningListeners], None],
    hung_up: Callable[[], None] | None = None,
    release: Callable[[str], None] = lambda _name: None,
) -> None:
    """Serve on uvloop in this (main) thread until SIGTERM or SIGINT.

    `release` is as in `start`. `started` is called once every listener is open, `hung_up` at each SIGHUP, both on the
    loop.
    """
    raise_file_limit(sum(spec.limits.connections for spec in listeners) + SPARE_FILES)

    async def serve() -> None:
        until, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, until.set)
        if hung_up is not None:
            loop.add_signal_handler(signal.SIGHUP, hung_up)
        running = await start(listeners, clock=clock, feeds=feeds, devices=devices, release=release)
        try:
            started(running)
            await until.wait()
        finally:
            await running.stop()

    uvloop.run(serve())


def raise_file_limit(wanted: int) -> int:
    """Ask for `wanted` open files, as far as the system allows without privileges; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < goal:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
