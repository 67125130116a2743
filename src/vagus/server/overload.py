"""Says when the event loop is behind, and then turns away the OCSP questions that cost a signature; queues nothing.

A responder that answers everybody late answers nobody: clients give up after seconds. What is signed already costs
microseconds and is handed out however busy the process is; the rest gets tryLater (RFC 6960 2.3) until it has caught
up.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from datetime import datetime
from typing import Final

from vagus.authority.answers import OcspAnswer
from vagus.endpoints.revocation_status import OcspSource
from vagus.errors import LimitExceeded
from vagus.reasons import Reason

_TICKS: Final = 5  # in the time that a loop may be behind
_MOST_REMEMBERED: Final = 200_000
_LONGEST_REMEMBERED: Final = 130
"""Octets: one certificate named by SHA-256, no nonce. Longer questions are never kept ready-signed."""


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
    """An `OcspSource` that under load answers only what it has seen answered from what is kept."""

    def __init__(self, source: OcspSource, gauge: LoadGauge) -> None:
        self._source = source
        self._gauge = gauge
        self._ready: OrderedDict[bytes, None] = OrderedDict()

    def answer(self, request_der: bytes, at: datetime) -> OcspAnswer:
        """As the source does; raises LimitExceeded(OVERLOADED) while the loop is behind and a signature were needed."""
        if self._gauge.is_behind and request_der not in self._ready:
            self._gauge.turned_away += 1
            raise LimitExceeded(Reason.OVERLOADED, "too many ask for answers that must be signed now; try later")
        answer = self._source.answer(request_der, at)
        if answer.next_update is not None and len(request_der) <= _LONGEST_REMEMBERED:
            self._remember(request_der)
        return answer

    def _remember(self, request_der: bytes) -> None:
        if request_der in self._ready:
            return
        if len(self._ready) >= _MOST_REMEMBERED:
            self._ready.popitem(last=False)
        self._ready[request_der] = None
