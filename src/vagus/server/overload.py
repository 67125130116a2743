"""Says when the event loop is behind, and then turns away the OCSP questions that cost a signature; queues nothing.

A responder that answers everybody late answers nobody: clients give up after seconds. What is signed already costs
microseconds and is handed out however busy the process is; the rest gets tryLater (RFC 6960 2.3) until it has caught
up.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Final

from vagus.authority.ocsp.responses import SignedResponse
from vagus.endpoints.revocation_status import OcspSource
from vagus.errors import LimitExceeded
from vagus.reasons import Reason

_TICKS: Final = 5  # in the time that a loop may be behind


class LoadGauge:
    """Knows how long the loop's present round has lasted. `bound_seconds`: from when on it is behind."""

    def __init__(self, bound_seconds: float) -> None:
        self._bound = bound_seconds
        self._ticked_at = time.monotonic()
        self._is_ticking = False
        self.turned_away = 0
        """How many questions got tryLater, for metrics."""

    def start(self) -> None:
        """Tick in the running loop for as long as it runs."""
        if not self._is_ticking:
            self._is_ticking = True
            self._tick(asyncio.get_running_loop())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticked_at = time.monotonic()
        loop.call_later(self._bound / _TICKS, self._tick, loop)

    @property
    def is_behind(self) -> bool:
        """Whether whoever is served now has waited for longer than the bound already."""
        return self._is_ticking and time.monotonic() - self._ticked_at > self._bound * (1 + 1 / _TICKS)


class SheddingOcsp:
    """An `OcspSource` that under load gives what is kept and signs nothing."""

    def __init__(self, source: OcspSource, gauge: LoadGauge) -> None:
        self._source = source
        self._gauge = gauge
        self.find_cached = source.find_cached
        """As the source does: a look-up, however busy the process is."""

    def respond(self, request_der: bytes, at: datetime) -> SignedResponse:
        """As the source does; raises LimitExceeded(OVERLOADED) while the loop is behind and a signature were needed."""
        if self._gauge.is_behind and self._source.find_cached(request_der, at) is None:
            self._gauge.turned_away += 1
            raise LimitExceeded(Reason.OVERLOADED, "too many ask for answers that must be signed now; try later")
        return self._source.respond(request_der, at)
