"""One thing that is wrong with what is published, as a value; finds none by itself."""

from __future__ import annotations

from dataclasses import dataclass

from vagus.errors import VagusError
from vagus.reasons import Reason


@dataclass(frozen=True, slots=True)
class Defect:
    """`reason` is stable, `place` the URL where it was seen, `sentence` for people."""

    reason: Reason
    place: str
    sentence: str


def as_defect(error: VagusError, place: str) -> Defect:
    """What a fetch, a decoder or a verifier said of `place`."""
    return Defect(error.reason, place, error.message.removeprefix(f"{place}: "))
