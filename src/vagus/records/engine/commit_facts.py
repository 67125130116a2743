"""What a commit made durable, as the writer hands it to followers in the same process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RevocationEvent:
    """One step of the sequence that every gateway follows."""

    sequence: int
    authority_id: int
    serial: int
    act: str
    reason: int
    at: int
    dated_at: int | None = None
    """The revocation date that a CRL from elsewhere gives, in seconds since 1970 UTC; None: it is `at`."""

    @property
    def date(self) -> int:
        """The date that CRLs and OCSP responses give, in seconds since 1970 UTC."""
        return self.at if self.dated_at is None else self.dated_at


@dataclass(frozen=True, slots=True)
class CommitFacts:
    """What a commit has made durable: the new size of the log and the new ends of the two sequences."""

    size: int
    revocation_sequence: int
    acts: int
    device_sequence: int = 0
    steps: tuple[RevocationEvent, ...] = ()
    """The steps of the revocation sequence that acts passed to `Batch.note_step`, in order."""
    entries: tuple[bytes, ...] = ()
    """The ledger entries of the batch, in order; the last has index `size` - 1."""
