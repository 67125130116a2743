"""Where a device's servers are and how long it waits for them, as values; connects nowhere."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.errors import Malformed, Unavailable
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROUTE = re.compile(
    r"(?:(?P<scheme>https|tcp)://)?(?P<name>[a-z0-9.-]{1,253}|\[[0-9a-f:]{2,39}\])"
    r"(?:=(?P<address>[A-Za-z0-9.-]{1,253}|\[[0-9a-f:]{2,39}\]))?:(?P<port>[0-9]{1,5})\Z"
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
        if match is None or not 0 < int(match["port"]) < 65536:
            msg = f"server address {text!r} is not [https://|tcp://]name[=address]:port, as in enrol.h1.example:8443"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=text)
        name = match["name"].strip("[]").removesuffix(".")  # the dot of the DNS root is spelling, and in no certificate
        return cls(name, (match["address"] or name).strip("[]"), int(match["port"]), match["scheme"] == "tcp")

    def __str__(self) -> str:
        where = self.name if self.name == self.address else f"{self.name}={self.address}"
        return f"{'tcp://' if self.is_raw else ''}{where}:{self.port}"

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
