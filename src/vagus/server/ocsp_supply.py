"""The part of a serving process that presigns OCSP responses page by page and takes over renewed responders."""

from __future__ import annotations

import gc
import logging
import time
from dataclasses import dataclass

from vagus.authority.ocsp.responders import open_responders
from vagus.authority.ocsp.responses import OcspResponses
from vagus.clock import Clock
from vagus.errors import VagusError
from vagus.jobs.part import UPKEEP, Part
from vagus.jobs.periodic import Task
from vagus.keystore.software import SoftwareKeystore
from vagus.records.engine.database import Database

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS = 60.0
_SPARING = 20
"""A sweep that finds nearly all responses made may take one second in so many."""


@dataclass(slots=True)
class OcspSupply:
    """Two tasks for `responses`; `keystore` is that of the responders. Its fields belong to the upkeep thread."""

    responses: OcspResponses
    database: Database
    keystore: SoftwareKeystore
    clock: Clock
    _swept_seconds: float = 0.0
    _missing: frozenset[str] = frozenset()

    def part(self) -> Part:
        """As the server runs it."""
        return Part(
            "ocsp", [Task("responders", 10.0, self.take_over), Task("answers", _PAUSE_SECONDS, self.presign)], UPKEEP
        )

    def presign(self) -> float:
        """Sign one page of responses ahead; returns the pause, in which other tasks and other threads run.

        Between pages the pause is as long as the page took: signing takes half of one core at most. After a whole
        sweep it grows with the time that the sweep took.
        """
        begun = time.thread_time()
        is_more = self.responses.presign_slice(self.clock.now())
        spent = time.thread_time() - begun
        self._swept_seconds += spent
        if is_more:
            gc.freeze()  # cached responses live for hours, so keep the garbage collector from walking a million of them
            return spent
        swept, self._swept_seconds = self._swept_seconds, 0.0
        return max(_PAUSE_SECONDS, _SPARING * swept)

    def take_over(self) -> None:
        """Respond with the responders on record, renewed by this process or by another that has their CA's key.

        Where the new key has not come here yet, the responder before it goes on for as long as it is valid. The log
        says so once, when that begins.
        """
        missing: set[str] = set()

        def warn(reference: str, error: VagusError) -> None:
            missing.add(reference)
            if reference not in self._missing:
                _LOG.warning(
                    "the OCSP responder on record for %s cannot respond from here: %s", reference, error.message
                )

        with self.database.reading() as connection:
            if not self.responses.is_current(connection):
                opened = open_responders(connection, self.keystore, warn)
                self.responses.take_over(opened, missing=missing)
                self._missing = frozenset(missing)
