"""A test tool that holds one connection under orders from standard input, for acceptance tests of gateways.

Each line is an order, each response one line of JSON:

    open            a new connection with a full handshake, held open
    resume          a new connection that resumes the last session, held open
    send N          N telemetry lines over the connection that is held
    watch SECONDS   wait for the server to close it: {"closed": true, "after": 0.7}
    close           hang up
    quit
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vagus.errors import Malformed, Unavailable, VagusError
from vagus.reasons import Reason
from vagus_agent.outcomes import Result, failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vagus.tls import Session
    from vagus_agent.connection import Channel
    from vagus_agent.device import Device

_LONGEST_WATCH = 60.0
_MOST_LINES = 10_000


class Probe:
    """Holds at most one connection of a device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._channel: Channel | None = None
        self._session: Session | None = None

    def obey_all(self, orders: Iterable[str]) -> Iterator[Result]:
        """A response for each order, until `quit` or the end of the orders."""
        try:
            for line in orders:
                words = line.split()
                if words == ["quit"]:
                    break
                yield self.obey(words)
        finally:
            self._hang_up()

    def obey(self, words: list[str]) -> Result:
        """Carry out one order."""
        try:
            match words:
                case ["open"]:
                    return self._open(None)
                case ["resume"]:
                    return self._open(self._session)
                case ["send", count] if count.isdecimal() and 0 < int(count) <= _MOST_LINES:
                    return self._send(int(count))
                case ["watch", seconds] if seconds.isdecimal() and int(seconds) <= _LONGEST_WATCH:
                    return self._watch(float(seconds))
                case ["close"]:
                    self._hang_up()
                    return {"ok": True}
                case _:
                    msg = "a probe order is one of: open, resume, send N, watch SECONDS, close, quit"
                    raise Malformed(Reason.BAD_ARGUMENT, msg)
        except VagusError as error:
            return failure(error)

    def _open(self, session: Session | None) -> Result:
        self._hang_up()
        self._channel, credential = self._device.open_relay(session)
        peer = self._channel.peer
        return {"ok": True, "resumed": peer.resumed, "group": peer.group, "generation": credential.generation}

    def _send(self, lines: int) -> Result:
        channel = self._held()
        sent = self._device.send(channel, lines)
        self._session = channel.session() or self._session
        return {"ok": True, "lines": sent, "resumed": channel.peer.resumed}

    def _watch(self, seconds: float) -> Result:
        channel = self._held()
        began = time.monotonic()
        detail: dict[str, str] = {}
        try:
            while channel.receive(max(0.001, began + seconds - time.monotonic())):
                pass
        except Unavailable as error:
            if error.reason is Reason.TIME_OUT:
                return {"ok": True, "closed": False, "after": round(seconds, 3)}
        except VagusError as error:
            detail = {"detail": error.message}
        return {"ok": True, "closed": True, "after": round(time.monotonic() - began, 3), **detail}

    def _held(self) -> Channel:
        if self._channel is None:
            raise Malformed(Reason.BAD_ARGUMENT, "the probe holds no connection; order open first")
        return self._channel

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None
