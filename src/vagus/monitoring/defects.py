"""One thing that is wrong with what is published, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from vagus.errors import VagusError
from vagus.reasons import Reason


@dataclass(frozen=True, slots=True)
class Defect:
    """`reason` is a stable code, `place` the URL where it was seen, `sentence` is for operators."""

    reason: Reason
    place: str
    sentence: str


def as_defect(error: VagusError, place: str) -> Defect:
    """The error of a fetch, a decoder or a verifier at `place`."""
    return Defect(error.reason, place, error.message.removeprefix(f"{place}: "))
