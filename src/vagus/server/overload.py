"""Measures how late the event loop is, and under load turns away OCSP requests that need a signature.

A responder that responds to every client late helps none: clients give up after seconds. A cached response costs
microseconds and is handed out however busy the process is. The rest gets tryLater (RFC 6960 2.3) until the process has
caught up. No request is queued here.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Final

from prometheus_client.core import CounterMetricFamily

from vagus.authority.ocsp.responses import SignedResponse
from vagus.endpoints.revocation_status import OcspSource
from vagus.errors import LimitExceeded
from vagus.jobs.part import Part, PartHealth
from vagus.reasons import Reason

_TICKS: Final = 5  # the load is normal after so many measurements within the bound


class LoadGauge:
    """Knows how long the present round of the event loop has lasted. `bound_seconds`: from when on it is late.

    A callback of the loop notes the time five times within the bound. While the loop is busy the callback does not
    run, so an old note means a loop that is late. All of it belongs to the loop's thread.
    """

    def __init__(self, bound_seconds: float) -> None:
        self._bound = bound_seconds
        self._ticked_at = time.monotonic()
        self._is_ticking = False
        self.turned_away = 0
        """How many requests got tryLater, for metrics."""

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
        """Whether the client that is served now has waited for longer than the bound already."""
        return self._is_ticking and time.monotonic() - self._ticked_at > self._bound * (1 + 1 / _TICKS)

    def part(self) -> Part:
        """As the server runs it."""
        return Part(
            "load",
            health=lambda: PartHealth({"answers": {"is_behind": self.is_behind, "turned_away": self.turned_away}}),
            metrics=lambda: [
                CounterMetricFamily(
                    "vagus_ocsp_turned_away", "OCSP requests that got tryLater under load.", value=self.turned_away
                )
            ],
            start=self.start,
        )


class SheddingOcsp:
    """An `OcspSource` that under load hands out what is cached and signs nothing."""

    def __init__(self, source: OcspSource, gauge: LoadGauge) -> None:
        self._source = source
        self._gauge = gauge
        self.find_cached = source.find_cached
        """As the source's: a look-up, however busy the process is."""

    def respond(self, request_der: bytes, at: datetime) -> SignedResponse:
        """As the source's; raises LimitExceeded(OVERLOADED) for a response to be signed while the loop is late."""
        if self._gauge.is_behind and self._source.find_cached(request_der, at) is None:
            self._gauge.turned_away += 1
            raise LimitExceeded(Reason.OVERLOADED, "too many OCSP responses must be signed now; ask again later")
        return self._source.respond(request_der, at)
