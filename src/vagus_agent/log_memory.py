"""The newest checkpoint of the hospital's log that this device has seen: it may grow and never go back; reads no entry.

Thousands of devices that remember checkpoints make a truncated or forked log visible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vagus.durable_files import replace_durably
from vagus.errors import IntegrityFailure
from vagus.reasons import Reason
from vagus.tlog.checkpoint import Checkpoint, NoteKey, verify_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from vagus_agent.est import Exchange

CHECKPOINT_PATH: Final = "/log/checkpoint"


class LogMemory:
    """One signed note on disk. Without the log's verifier key nothing is fetched and nothing stored."""

    def __init__(self, path: Path, verifier_key: str | None) -> None:
        """Raises Malformed(BAD_ENCODING) for a verifier key that does not decode."""
        self._path = path
        self._key = None if verifier_key is None else NoteKey.decode(verifier_key)

    def load(self) -> Checkpoint | None:
        """The newest checkpoint seen. Raises IntegrityFailure(CHECKPOINT_INVALID) when our own copy is damaged."""
        if self._key is None or not self._path.exists():
            return None
        return verify_checkpoint(self._path.read_bytes(), self._key)

    def refresh(self, exchange: Exchange) -> Checkpoint | None:
        """Ask for the present checkpoint and keep it when it is newer; None where the server offers none.

        Raises IntegrityFailure: LOG_TRUNCATED for a smaller tree, LOG_TAMPERED for another tree of the same size,
        CHECKPOINT_INVALID for a wrong signature. The stored checkpoint stays, as evidence.
        """
        if self._key is None:
            return None
        response = exchange.ask("GET", CHECKPOINT_PATH)
        if response.status != 200:
            return None
        offered = verify_checkpoint(response.body, self._key)
        kept = self.load()
        if kept is not None and offered.size < kept.size:
            what = f"the log has {offered.size} entries and had {kept.size} before: it was cut back; report it"
            msg = self._keep_evidence(response.body, what)
            raise IntegrityFailure(Reason.LOG_TRUNCATED, msg, size=offered.size, known=kept.size)
        if kept is not None and offered.size == kept.size and offered.root != kept.root:
            what = f"the log has another root at {kept.size} entries than before: it was rewritten; report it"
            raise IntegrityFailure(Reason.LOG_TAMPERED, self._keep_evidence(response.body, what), size=kept.size)
        if kept is None or offered.size > kept.size:
            replace_durably(self._path, response.body)
        return offered

    def _keep_evidence(self, note: bytes, what: str) -> str:
        """Keep the first note that contradicts ours, and say what happened and what to do.

        Both notes are signed, so together they prove what the log did.
        """
        evidence = self._path.with_name(f"{self._path.name}.conflict")
        if not evidence.exists():
            replace_durably(evidence, note)
        keep = f"keep {self._path} and {evidence.name} as evidence"
        return f"{what}; {keep} and report to the hospital's security officer"
