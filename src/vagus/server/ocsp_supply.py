"""Keeps a process's OCSP desk supplied: answers signed ahead page by page, responders as on record; answers nothing."""

from __future__ import annotations

import gc
import logging
import time
from dataclasses import dataclass

from vagus.authority.ocsp.responders import open_responders
from vagus.authority.ocsp.responses import OcspResponses
from vagus.clock import Clock
from vagus.errors import VagusError
from vagus.keystore.software import SoftwareKeystore
from vagus.records.engine.database import Database

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS = 60.0
_SPARING = 20
"""Of so many seconds at most one is spent on a sweep that finds nearly all answers made."""


@dataclass(slots=True)
class OcspSupply:
    """Two tasks around one desk; `keystore` is that of the responders."""

    desk: OcspResponses
    database: Database
    keystore: SoftwareKeystore
    clock: Clock
    _swept_seconds: float = 0.0
    _missing: frozenset[str] = frozenset()

    def presign(self) -> float:
        """One page of the sweep; gives the pause, in which other tasks go and other threads have the interpreter.

        While there is more it is as long as the page took; behind a whole sweep it grows with what that took.
        """
        begun = time.thread_time()
        is_more = self.desk.presign_slice(self.clock.now())
        spent = time.thread_time() - begun
        self._swept_seconds += spent
        if is_more:
            gc.freeze()  # kept answers live for hours: no collection of garbage need walk a million of them
            return spent
        swept, self._swept_seconds = self._swept_seconds, 0.0
        return max(_PAUSE_SECONDS, _SPARING * swept)

    def take_over(self) -> None:
        """Answer with the responders on record, whoever renewed them: this process, or another that has their CA's key.

        Where the key has not come here yet, the one before answers for as long as it holds; told when that begins.
        """
        missing: set[str] = set()

        def note(reference: str, error: VagusError) -> None:
            missing.add(reference)
            if reference not in self._missing:
                _LOG.warning(
                    "the OCSP responder on record for %s cannot answer from here: %s", reference, error.message
                )

        with self.database.reading() as connection:
            if not self.desk.is_current(connection):
                opened = open_responders(connection, self.keystore, note)
                self.desk.take_over(opened, missing=missing)
                self._missing = frozenset(missing)
