"""Where a device's servers are and how long it waits for them, as values; connects nowhere."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.addresses import join_address, spell_host, split_address
from vagus.errors import Malformed, Unavailable
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROUTE = re.compile(
    r"(?:(?P<scheme>https|tcp)://)?(?P<name>[a-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?:=(?P<address>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]))?:(?P<port>[0-9]{1,5})\Z"
)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a server is: the name its certificate must show, the address to dial, and what is spoken there."""

    name: str
    address: str
    port: int
    is_raw: bool = False

    @classmethod
    def parse(cls, text: str) -> Route:
        """`[https://|tcp://]name[=address]:port`, as in `enrol.h1.example=10.0.0.7:8443`.

        Raises Malformed(BAD_ARGUMENT).
        """
        match = _ROUTE.match(text.strip())
        try:
            if match is None or not (port := int(match["port"])):
                raise ValueError(text)
            name, _ = split_address(f"{match['name']}:{port}")
            # the dot of the DNS root is spelling, and in no certificate
            name = name.removesuffix(".")
            address = split_address(f"{match['address']}:{port}")[0] if match["address"] else name
        except ValueError as fault:
            msg = f"server address {text!r} is not [https://|tcp://]name[=address]:port, as in enrol.h1.example:8443"
            msg = f"{msg} or enrol.h1.example=[2001:db8::7]:8443"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=text) from fault
        return cls(name, address, port, match["scheme"] == "tcp")

    @property
    def host(self) -> str:
        """What a Host field names (RFC 9110 7.2), an IPv6 address in brackets."""
        return spell_host(self.name)

    def __str__(self) -> str:
        """As `parse` reads it back."""
        named = "" if self.name == self.address else f"{self.host}="
        return f"{'tcp://' if self.is_raw else ''}{named}{join_address(self.address, self.port)}"

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """What a socket to this server raises, as an error of ours: Unavailable(TIME_OUT, UPSTREAM_UNREACHABLE)."""
        try:
            yield
        except TimeoutError:
            msg = f"server {self} did not respond in time; check the network between this device and the server"
            raise Unavailable(Reason.TIME_OUT, msg, server=str(self)) from None
        except (OSError, UnicodeError) as error:
            msg = f"server {self} cannot be reached ({error}); check the address, the network and that the server runs"
            raise Unavailable(Reason.UPSTREAM_UNREACHABLE, msg, server=str(self)) from None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the device waits, in seconds: for a connection with its handshake, and for one response."""

    connect: float = 10.0
    response: float = 30.0
