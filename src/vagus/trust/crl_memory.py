"""The verifier's memory of the newest CRL of each kind, so that an older CRL is refused; checks no CRL itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CrlMark:
    """The newest CRL seen of one kind: its number (thisUpdate in seconds where it has none) and its thisUpdate."""

    number: int
    at: int


class CrlMemory(Protocol):
    """Remembers marks over a restart (table verifier_memory). Marks never go back."""

    def find(self, name: str) -> CrlMark | None:
        """The mark under `name`."""
        ...

    def remember(self, name: str, mark: CrlMark) -> None:
        """Store `mark` under `name`; it is durable on return."""
        ...


class VolatileCrlMemory:
    """Marks in memory alone: for tests and for verifiers that get fresh CRLs from an authority at each start."""

    def __init__(self) -> None:
        self._marks: dict[str, CrlMark] = {}

    def find(self, name: str) -> CrlMark | None:
        """The mark under `name`."""
        return self._marks.get(name)

    def remember(self, name: str, mark: CrlMark) -> None:
        """Store `mark` under `name`."""
        self._marks[name] = mark
