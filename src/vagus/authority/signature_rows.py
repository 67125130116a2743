"""Writes the rows of reproducible signatures, many in one act of the writer; awaits none and signs nothing.

No caller waits for these rows. A batch that fails loses none: they wait for the next attempt. After a crash before they
are written, `Issuance.settle` makes the same signatures.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from vagus.errors import VagusError
from vagus.records import certificates as rows

if TYPE_CHECKING:
    from concurrent.futures import Future

    from vagus.records.engine.writer import Batch, Writer

_LOG = logging.getLogger(__name__)
_Row: TypeAlias = tuple[int, bytes, bytes]

MOST_WAITING: Final = 20_000
"""Rows that are kept in memory while the database takes none, about 30 MB. `settle` signs anew what exceeds it."""


class SignatureRows:
    """The signatures whose rows are not yet written. Safe to use from several threads.

    `_waiting` is filled by any thread and emptied by the writer's. `_is_asked`: an act that will empty it is submitted.
    The order of the two makes it safe without a lock. `add` appends before it reads the flag, and an act clears the
    flag before it empties the queue. So a row that finds the flag set is taken by the act that is still to come.

    If that act never runs or is not committed, its end clears the flag and puts back what it took. A row that found the
    flag set just before waits for the next `add` or `retry`; a server calls `retry` every second.
    """

    def __init__(self, writer: Writer, *, most_waiting: int = MOST_WAITING) -> None:
        self._writer = writer
        self._most_waiting = most_waiting
        self._waiting: deque[_Row] = deque()
        self._is_asked = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, leaf_index: int, certificate_der: bytes) -> None:
        """Have the certificate of this leaf written with a later batch. Never fails: `settle` makes what is missing."""
        if len(self._waiting) < self._most_waiting:
            self._waiting.append((leaf_index, certificate_der, hashlib.sha256(certificate_der).digest()))
        self.retry()

    def retry(self) -> None:
        """Ask the writer to write what waits, unless an act that was submitted will. Waits for nothing, never fails."""
        if self._is_asked or not self._waiting:
            return
        self._is_asked = True
        attempt = _Attempt(self)
        try:
            committed = self._writer.submit(attempt.write, is_patient=True)
        # the writer is overloaded or closing: the next signature or `retry`, or settling, writes these rows
        except VagusError:
            self._is_asked = False
        else:
            committed.add_done_callback(attempt.end)

    def take(self) -> list[_Row]:
        """Everything that waits; called by the act that was asked for."""
        self._is_asked = False
        taken: list[_Row] = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return taken

    def give_back(self, taken: list[_Row], *, was_run: bool) -> None:
        """What an act took that was not committed, or may not be: a row that was written after all is written once."""
        self._waiting.extendleft(reversed(taken))
        if not was_run:
            self._is_asked = False


class _Attempt:
    """One act of the writer, and what it took. The writer runs each act once; `end` comes after its batch."""

    def __init__(self, owner: SignatureRows) -> None:
        self._owner = owner
        self._taken: list[_Row] = []
        self._was_run = False

    def write(self, batch: Batch) -> None:
        self._was_run = True
        self._taken = self._owner.take()
        if self._taken:
            rows.note_signatures(batch.connection, self._taken)

    def end(self, committed: Future[None]) -> None:
        if (error := committed.exception()) is not None:
            self._owner.give_back(self._taken, was_run=self._was_run)
            _LOG.warning("%d rows of signatures wait for the next attempt: %s", len(self._owner), error)
