"""Where a device's servers are and how long it waits for them, as values; connects nowhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vagus.errors import Malformed
from vagus.reasons import Reason

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
            msg = f"{text!r} is not [https://|tcp://]name[=address]:port, as in enrol.h1.example:8443"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=text)
        name = match["name"].strip("[]")
        return cls(name, (match["address"] or name).strip("[]"), int(match["port"]), match["scheme"] == "tcp")

    def __str__(self) -> str:
        where = self.name if self.name == self.address else f"{self.name}={self.address}"
        return f"{'tcp://' if self.is_raw else ''}{where}:{self.port}"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the device waits, in seconds: for a connection with its handshake, and for one response."""

    connect: float = 10.0
    response: float = 30.0
