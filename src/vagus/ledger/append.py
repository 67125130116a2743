"""Puts an entry into the log inside the writer's batch; decides nothing about what is worth an entry."""

from __future__ import annotations

from vagus.ledger.entries import Entry, encode_entry
from vagus.records.engine.writer import Batch
from vagus.records.installation import load_salt


def append(batch: Batch, entry: Entry) -> int:
    """Add `entry` in the transaction of `batch`, hashed where it names someone; gives its leaf index.

    Raises Malformed(BAD_ENCODING) for a value that its field does not allow.
    """
    return batch.append(encode_entry(entry, at=batch.at, salt=load_salt(batch.connection)))
