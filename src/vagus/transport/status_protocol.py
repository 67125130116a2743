"""HTTP on a plain status listener: responds to OCSP as its bytes arrive; leaves the rest to the whole protocol.

A request in a known form needs no task, no ASGI message and no parser. Caps, deadlines and the orderly end are those of
the connection below and of `AdmittedHttp` above, as on every listener.

A connection is in one of two modes. Between requests, received bytes go to the cache first. From the first request that
the cache does not know, they go to the parser (`_is_parsing`), until all its requests have their responses. So the
responses leave in the order of the requests, and no byte is read by both.
"""

from __future__ import annotations

from uvicorn import Config
from uvicorn.server import ServerState

from vagus.endpoints.http import spell_name
from vagus.transport.http_protocol import PIPELINED, AdmittedHttp
from vagus.transport.listener_state import ListenerState
from vagus.transport.ocsp_cache import LONGEST_HEAD, LONGEST_REQUEST, MOST_FIELDS, OcspCache


class StatusHttp(AdmittedHttp):
    """One connection to a status listener."""

    def __init__(self, config: Config, state: ServerState, listener: ListenerState, cache: OcspCache) -> None:
        super().__init__(config, state, listener, None)
        self._cache = cache
        limits = listener.limits
        self._keep_alive_seconds = limits.keep_alive_seconds
        # The OCSP cache checks no limits, so it is used only for requests that are known to be within them.
        self._is_bounded = limits.header_bytes >= LONGEST_HEAD + LONGEST_REQUEST and limits.header_fields > MOST_FIELDS
        self._is_parsing = not self._is_bounded
        self._fields: list[tuple[bytes, bytes]] | None = None
        self._begin = b""
        self._held = b""  # an HTTP head in a known form, whose body has not arrived whole
        self._idle_since: float | None = None  # since when the connection is idle; None while the HTTP parser has it

    def data_received(self, data: bytes) -> None:
        """Respond to what is known and whole; the parser gets the first request that is not, and what follows it.

        Many clients send head and body apart, so a known head whose body is not whole yet is held.
        """
        if self._held:
            data, self._held = self._held + data, b""
        if self._is_parsing and not self._is_between_requests():
            super().data_received(data)
            return
        self._is_parsing = False
        end, size = 0, len(data)
        parts: list[bytes] = []
        begin = self._status_and_date()
        while end < size and len(parts) < 2 * PIPELINED:
            found = self._cache.find_response(data, end)
            if found is None:
                break
            response, end = found
            parts += (begin, response)
        if parts:
            self._send(parts)
        if end < size:
            rest = data[end:] if end else data
            self._idle_since = None
            if len(parts) < 2 * PIPELINED and self._cache.is_begun(rest, 0):
                self._hold(rest)
            else:
                self._is_parsing = True
                super().data_received(rest)

    def _hold(self, rest: bytes) -> None:
        """Hold at most LONGEST_HEAD + LONGEST_REQUEST bytes, until the deadline of a header."""
        self._held = rest
        self._unset_keepalive_if_required()
        if self._deadline is None:
            self._deadline = self.loop.time() + self._listener.limits.header_seconds

    def _hand_over(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._is_parsing = True
            super().data_received(held)

    def _send(self, parts: list[bytes]) -> None:
        self._deadline = None
        self._idle_since = self.loop.time()
        self._unset_keepalive_if_required()
        self.server_state.total_requests += len(parts) // 2
        self.transport.write(b"".join(parts))

    def tick(self, now: float) -> None:
        """Also the end of a connection that stays idle; the parser has a timer of its own for that."""
        if self._held and self._deadline is not None and now > self._deadline:
            self._hand_over()  # the full HTTP protocol has the response to a time-out
            self._deadline = 0.0
        super().tick(now)
        idle_since = self._idle_since
        if idle_since is not None and now - idle_since > self._keep_alive_seconds and not self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read its responses: its next requests wait in the parser, which pauses reading."""
        super().pause_writing()
        self._is_parsing = True

    def shutdown(self) -> None:
        """The server ends: a request that has begun still gets its response."""
        self._hand_over()
        super().shutdown()

    def _is_between_requests(self) -> bool:
        """Whether the parser holds no part of a request and nothing is owed to the client."""
        return (
            self._is_bounded
            and not (self._is_over or self._is_begun or self.pipeline or self.flow.write_paused)
            and (self.cycle is None or self.cycle.response_complete)
        )

    def _status_and_date(self) -> bytes:
        """Status line and Date, formed anew when the listener's clock has moved."""
        fields = self.server_state.default_headers
        if fields is not self._fields:
            self._fields = fields
            lines = b"".join(b"%b: %b\r\n" % (spell_name(name), value) for name, value in fields)
            self._begin = b"HTTP/1.1 200 OK\r\n" + lines
        return self._begin
