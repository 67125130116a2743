"""What the doctor's checks find, what they look at, and how they spell it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from vagus.authority.ocsp.responders import OCSP_KEYSTORE
from vagus.records.installation import InstallationRow, load_installation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vagus.authority.clock_bound import ClockBound
    from vagus.clock import Clock, Entropy
    from vagus.operations.actor import Actor
    from vagus.operations.ceremonies import SealedCrls
    from vagus.policy.values import PolicyPack
    from vagus.records.engine.database import Database
    from vagus.settings import Settings


class State(StrEnum):
    """How a check came out. The word for healthy is `well` in JSON."""

    WELL = "well"
    WARNING = "warning"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table; `remedy` is empty where all is healthy."""

    check: str
    state: State
    finding: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What the checks look at. A callable gives what may be broken, so that a check can report it."""

    actor: Actor
    settings: Settings
    database: Database
    clock: Clock
    entropy: Entropy
    load_pack: Callable[[], PolicyPack]
    load_verifier: Callable[[], str]
    """The ledger's verifier key (C2SP vkey)."""
    load_status_url: Callable[[], str]
    make_clock_bound: Callable[[], ClockBound]
    find_sealed: Callable[[], SealedCrls]

    @property
    def pack(self) -> PolicyPack:
        """The policy pack in use. Raises Misconfigured(BAD_PACK)."""
        return self.load_pack()

    @property
    def row(self) -> InstallationRow:
        """What the database says of itself."""
        with self.database.reading() as connection:
            return load_installation(connection)

    @property
    def is_status_node(self) -> bool:
        """Whether this is the folder of a status node: it has no keystore but the responders'."""
        folder = self.settings.keystores
        return folder.is_dir() and [one.name for one in folder.iterdir() if one.is_dir()] == [OCSP_KEYSTORE]


def spell_time(seconds: int) -> str:
    """Seconds since 1970 UTC, to the minute."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}Z"


def some_of(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
