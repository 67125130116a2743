"""Binds listeners' addresses when a process starts, so that one in use is reported at once; accepts no connection."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Self

from vagus.addresses import join_address
from vagus.errors import Misconfigured
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


def not_bound(name: str, address: tuple[str, int], error: OSError) -> Misconfigured:
    """What is raised for a listener whose address cannot be bound."""
    msg = f"listener {name} cannot listen on {join_address(*address)} ({error.strerror or error})"
    if error.errno == errno.EADDRINUSE:
        msg = f"{msg}; end another `vagus serve` on this address, or choose a free address"
    where = "its address is in the plan, or under [serve] in vagus.toml"
    return Misconfigured(Reason.BAD_SETTINGS, f"{msg}; {where}", listener=name)


class ReservedAddresses:
    """Addresses by listener's name, bound until each listener opens; a context manager that lets go of the rest.

    Bound is not listening: until its listener is open, a caller is refused, as a load balancer expects of a process
    that is not ready. Another program that sets SO_REUSEADDR too may still take an address until its listener is open
    (Linux socket(7)). Raises Misconfigured(BAD_SETTINGS), when made, for an address that cannot be bound. One that this
    host does not have now (a network that is down) is in `absent` instead, with the reason: it may come, and it keeps
    no other listener from opening.
    """

    def __init__(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        self._held: dict[str, list[socket.socket]] = {}
        self.absent: dict[str, str] = {}
        for name, address in addresses.items():
            try:
                self._held[name] = _bind(*address)
            except OSError as error:
                refusal = not_bound(name, address, error)
                if error.errno == errno.EADDRNOTAVAIL and len(self.absent) + 1 < len(addresses):
                    self.absent[name] = refusal.message
                    continue
                self.release()
                raise refusal from error

    def release(self, name: str | None = None) -> None:
        """Let go of the address of one listener, which is opened next, or of all."""
        for one in (name,) if name is not None else tuple(self._held):
            for bound in self._held.pop(one, ()):
                bound.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host, as asyncio will bind them."""
    held: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            held.append(socket.socket(family, kind, protocol))
            held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an ended process linger
            if family == socket.AF_INET6:
                held[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            held[-1].bind(address)
    except OSError:
        for one in held:
            one.close()
        raise
    return held
