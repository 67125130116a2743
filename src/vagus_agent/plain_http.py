"""HTTP without TLS, for data that is signed itself (CRLs, checkpoints); sends no secret and trusts no response."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from vagus_agent.http import HttpExchange, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vagus_agent.routes import Patience, Route

_PIECE = 65_536


class PlainExchange:
    """One connection for each request, to the hospital's status server."""

    def __init__(self, route: Route, patience: Patience) -> None:
        self._route = route
        self._patience = patience

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """The response. Raises Unavailable(UPSTREAM_UNREACHABLE, TIME_OUT) and what HttpExchange raises."""
        fields = {**(headers or {}), "Connection": "close"}
        exchange = HttpExchange(method, path, self._route.host, headers=fields, body=body)
        deadline = time.monotonic() + self._patience.response
        address = (self._route.address, self._route.port)
        with (
            self._route.reaching(),
            socket.create_connection(address, timeout=self._patience.connect) as dialled,
        ):
            dialled.sendall(exchange.request)
            while True:
                dialled.settimeout(max(0.001, deadline - time.monotonic()))
                data = dialled.recv(_PIECE)
                response = exchange.feed(data) if data else exchange.end()
                if response is not None:
                    return response
