"""Writes the rows of reproducible signatures, many in one act of the writer; awaits none and signs nothing.

No caller waits for these rows: after a crash before they are written, `Issuance.settle` makes the same signatures.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TYPE_CHECKING

from vagus.errors import VagusError
from vagus.records import certificates as rows

if TYPE_CHECKING:
    from vagus.records.engine.writer import Batch, Writer


class SignatureRows:
    """The signatures whose rows are not yet written. Safe to use from several threads.

    `_waiting` is filled by any thread and emptied by the writer's. `_is_asked`: an act that will empty it is submitted.
    The order of the two makes it safe without a lock. `add` appends before it reads the flag, and `_write` clears the
    flag before it empties the queue. So a row that finds the flag set is taken by the act that is still to come.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: deque[tuple[int, bytes, bytes]] = deque()
        self._is_asked = False

    def add(self, leaf_index: int, certificate_der: bytes) -> None:
        """Have the certificate of this leaf written with a later batch. Never fails: `settle` makes what is missing."""
        self._waiting.append((leaf_index, certificate_der, hashlib.sha256(certificate_der).digest()))
        if self._is_asked:
            return
        self._is_asked = True
        try:
            self._writer.submit(self._write, is_patient=True)
        # the writer is overloaded or closing: the next signature, or settling at the next start, writes these rows
        except VagusError:
            self._is_asked = False

    def _write(self, batch: Batch) -> None:
        self._is_asked = False
        taken: list[tuple[int, bytes, bytes]] = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        if taken:
            rows.note_signatures(batch.connection, taken)
