"""Writes the rows of reproducible signatures, many in one act of the writer; awaits none and signs nothing.

Nobody waits for these rows: a crash before they are written loses nothing that `settle` does not make again.
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
    """What was signed and is not yet written. Safe to use from several threads."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: deque[tuple[int, bytes, bytes]] = deque()
        self._is_asked = False

    def add(self, leaf_index: int, certificate_der: bytes) -> None:
        """Have the certificate of this leaf written with the next batch. Never fails: what is not written settles."""
        # The order matters: what waits before the look at the flag is taken by the act that was asked for.
        self._waiting.append((leaf_index, certificate_der, hashlib.sha256(certificate_der).digest()))
        if self._is_asked:
            return
        self._is_asked = True
        try:
            self._writer.submit(self._write, is_patient=True)
        except VagusError:  # overloaded or closing: the next signature asks again, or the next start settles
            self._is_asked = False

    def _write(self, batch: Batch) -> None:
        self._is_asked = False
        taken: list[tuple[int, bytes, bytes]] = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        if taken:
            rows.note_signatures(batch.connection, taken)
