"""Ledger entries for authenticated refusals, at most one a minute for each device and reason; decides nothing."""

from __future__ import annotations

import threading
import time
from typing import Final

from vagus.errors import VagusError
from vagus.ledger.append import append
from vagus.ledger.entries import AuthenticatedRefusal
from vagus.reasons import Reason
from vagus.records.engine.writer import Writer

_PAUSE_SECONDS: Final = 60.0
_MOST_REMEMBERED: Final = 10_000


class RefusalNotes:
    """Records refusals; the caller never waits. Safe to use from several threads, the writer's included.

    A device that asks a thousand times a minute must not fill the ledger: repetitions within a minute are one entry.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._turn = threading.Lock()
        self._noted: dict[tuple[str, str, Reason], float] = {}

    def note(self, who: str, protocol: str, reason: Reason) -> None:
        """Record that `who` ("device:ID") was refused; lost when its batch fails or the process ends before."""
        now = time.monotonic()
        key = (who, protocol, reason)
        with self._turn:
            last = self._noted.get(key)
            if last is not None and now - last < _PAUSE_SECONDS:
                return
            if len(self._noted) >= _MOST_REMEMBERED:
                self._noted = {each: at for each, at in self._noted.items() if now - at < _PAUSE_SECONDS}
                if len(self._noted) >= _MOST_REMEMBERED:
                    self._noted.clear()
            self._noted[key] = now
        try:
            noted = self._writer.submit(lambda batch: append(batch, AuthenticatedRefusal(who, protocol, reason.value)))
        except VagusError:  # the writer is closed or overloaded: the device gets its refusal, without a ledger entry
            self._forget(key)
        else:
            noted.add_done_callback(lambda future: self._forget(key) if future.exception() is not None else None)

    def _forget(self, key: tuple[str, str, Reason]) -> None:
        """Its entry was not written, so the next refusal of the same kind is recorded at once."""
        with self._turn:
            self._noted.pop(key, None)
