"""What a listener allows in time, number and size, and how many connections each source has; closes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from ipaddress import IPv6Address, ip_address

from vagus.settings import ServeSettings

_IPV6_SITE = ~((1 << 64) - 1)  # one subscriber usually holds a whole IPv6 /64, so a /64 counts as one source


_DEFAULTS = ServeSettings()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one listener; every time in seconds. What an operator may set has the default of the settings."""

    handshake_seconds: float = _DEFAULTS.handshake_seconds
    header_seconds: float = _DEFAULTS.header_seconds
    """From the first byte of a request, or the end of the handshake, until its header is complete."""
    stall_seconds: float = _DEFAULTS.stall_seconds
    """For a client that neither reads what we send nor sends what we wait for."""
    body_seconds: float = 60.0
    body_octets_per_second: float = _DEFAULTS.body_octets_per_second
    """A body that comes more slowly than this for `body_seconds` in all is given up: a limit on stalls alone would let
    one byte a minute hold a connection for days. Time in which we read nothing does not count."""
    keep_alive_seconds: float = 75.0
    linger_seconds: float = 2.0
    """For the other side to read our last response before the socket is closed."""
    connections: int = _DEFAULTS.connections
    connections_per_source: int = _DEFAULTS.connections_per_source
    """A ward's devices may share one address behind a router, so this is no per-device figure."""
    header_bytes: int = 65_536
    header_fields: int = 100

    @property
    def tick_seconds(self) -> float:
        """How often deadlines are checked: often enough for the shortest."""
        shortest = min(self.handshake_seconds, self.header_seconds, self.stall_seconds, self.linger_seconds, 4.0)
        return max(0.02, shortest / 4)


def limits_of(serve: ServeSettings) -> Limits:
    """The bounds of an installation's settings."""
    return Limits(**{one.name: getattr(serve, one.name) for one in fields(Limits) if hasattr(serve, one.name)})


class Occupancy:
    """How many connections a listener has, in all and by source."""

    __slots__ = ("_by_source", "_limits", "_total", "turned_away")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_source: Counter[str] = Counter()
        self._total = 0
        self.turned_away = 0
        """Connections closed at once because a cap was reached, since the start."""

    def __len__(self) -> int:
        return self._total

    def enter(self, source: str) -> bool:
        """Take a place; False when there is none, which is counted."""
        key = _site(source)
        if self._total >= self._limits.connections or self._by_source[key] >= self._limits.connections_per_source:
            self.turned_away += 1  # reading a missing key of a Counter adds no entry
            return False
        self._total += 1
        self._by_source[key] += 1
        return True

    def leave(self, source: str) -> None:
        """Give the place back."""
        key = _site(source)
        self._total -= 1
        self._by_source[key] -= 1
        if self._by_source[key] <= 0:
            del self._by_source[key]


def _site(source: str) -> str:
    if ":" not in source:
        return source
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if not isinstance(address, IPv6Address):
        return source
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) & _IPV6_SITE))
