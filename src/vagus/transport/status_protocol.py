"""HTTP on a plain status listener: answers OCSP where its octets arrive; hands everything else to the whole protocol.

No task, no ASGI message and no parser stands between a question in a known form and its answer. Caps, deadlines and
last words are those of the connection below and the protocol above, which are the same for every listener.
"""

from __future__ import annotations

from uvicorn import Config
from uvicorn.server import ServerState

from vagus.transport.http_protocol import PIPELINED, AdmittedHttp
from vagus.transport.listener_state import ListenerState
from vagus.transport.ocsp_cache import LONGEST_HEAD, LONGEST_QUESTION, MOST_FIELDS, OcspCache


class StatusHttp(AdmittedHttp):
    """One connection to a status listener."""

    def __init__(self, config: Config, state: ServerState, listener: ListenerState, cache: OcspCache) -> None:
        super().__init__(config, state, listener, None)
        self._cache = cache
        limits = listener.limits
        self._keep_alive_seconds = limits.keep_alive_seconds
        # What the limits of this listener might refuse is not answered before they were looked at.
        self._is_bounded = limits.header_bytes >= LONGEST_HEAD + LONGEST_QUESTION and limits.header_fields > MOST_FIELDS
        self._is_parsing = not self._is_bounded
        self._fields: list[tuple[bytes, bytes]] | None = None
        self._begin = b""
        self._held = b""  # a head that is known, with a body that has not come to its end
        self._answered_at: float | None = None  # when this connection fell idle; None while the parser has it

    def data_received(self, data: bytes) -> None:
        """Answer what is known and whole; the parser gets the first request that is neither, and what follows it.

        Many clients send head and body apart: what is known and lacks octets of its body alone is held for them.
        """
        if self._held:
            data, self._held = self._held + data, b""
        if self._is_parsing and not self._is_between_requests():
            super().data_received(data)
            return
        self._is_parsing = False
        end, size = 0, len(data)
        parts: list[bytes] = []
        begin = self._begin_answers()
        while end < size and len(parts) < 2 * PIPELINED:
            found = self._cache.answer(data, end)
            if found is None:
                break
            octets, end = found
            parts += (begin, octets)
        if parts:
            self._send(parts)
        if end < size:
            rest = data[end:] if end else data
            self._answered_at = None
            if len(parts) < 2 * PIPELINED and self._cache.is_begun(rest, 0):
                self._hold(rest)
            else:
                self._is_parsing = True
                super().data_received(rest)

    def _hold(self, rest: bytes) -> None:
        """At most LONGEST_HEAD + LONGEST_QUESTION octets, and until the deadline of a header, begun with the first."""
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
        self._answered_at = self.loop.time()
        self._unset_keepalive_if_required()
        self.server_state.total_requests += len(parts) // 2
        self.transport.write(b"".join(parts))

    def tick(self, now: float) -> None:
        """Also the end of a connection that stays idle; the parser has a timer of its own for that."""
        if self._held and self._deadline is not None and now > self._deadline:
            self._hand_over()  # for the words that are said then
            self._deadline = 0.0
        super().tick(now)
        idle_since = self._answered_at
        if idle_since is not None and now - idle_since > self._keep_alive_seconds and not self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not take its answers: what it asks now waits as the parser has it, reading paused."""
        super().pause_writing()
        self._is_parsing = True

    def shutdown(self) -> None:
        """The server ends: what has begun is answered."""
        self._hand_over()
        super().shutdown()

    def _is_between_requests(self) -> bool:
        """Whether the parser holds no part of a request and nothing is owed to the client."""
        return (
            self._is_bounded
            and not (self._is_over or self._is_begun or self.pipeline or self.flow.write_paused)
            and (self.cycle is None or self.cycle.response_complete)
        )

    def _begin_answers(self) -> bytes:
        """Status line and Date, formed anew when the listener's clock has moved."""
        fields = self.server_state.default_headers
        if fields is not self._fields:
            self._fields = fields
            self._begin = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % field for field in fields)
        return self._begin
