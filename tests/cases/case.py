"""One case: the files of a folder as values, what a check says of it, and the verdict; runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cases.workshop import Workshop

README = "README.md"


@dataclass(frozen=True, slots=True)
class Case:
    """The input of one case. No check reads the folder's name."""

    folder: Path
    files: Mapping[str, bytes]
    """Contents by file name, README.md aside."""
    readme: str

    @classmethod
    def load(cls, folder: Path) -> Case:
        """Raises OSError for a folder that cannot be read."""
        found = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        return cls(folder, found, found.pop(README, b"").decode("utf-8", "replace"))

    def matching(self, *endings: str) -> dict[str, bytes]:
        """The files whose names end so."""
        return {name: content for name, content in self.files.items() if name.endswith(endings)}


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one input, or of its benign twin, beside what is right."""

    what: str
    seen: str
    right: str
    is_right: bool


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of case. `recognises` reads the input alone; `observe` runs the real components, and twins of its own.

    An observation for each thing that was tried: a check that observes nothing has not judged, and its case fails.
    """

    name: str
    recognises: Callable[[Case], bool]
    observe: Callable[[Case, Workshop], Iterable[Observation]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a case ended: `faults` is empty where it passed."""

    case: Case
    checks: tuple[str, ...]
    observed: int
    faults: tuple[str, ...]

    @property
    def line(self) -> str:
        """One line for the folder."""
        name = self.case.folder.name
        if not self.faults:
            return f"passed  {name}: {', '.join(self.checks)}; {self.observed} observations"
        return f"FAILED  {name}: {' | '.join(' '.join(fault.split()) for fault in self.faults)}"


def judge(case: Case, checks: Iterable[Check], workshop: Workshop) -> Verdict:
    """Run every check that recognises the case. A case that no check recognises fails."""
    chosen = [check for check in checks if check.recognises(case)]
    faults: list[str] = []
    observed = 0
    for check in chosen:
        try:
            observations = list(check.observe(case, workshop))
        except Exception as error:  # noqa: BLE001 whatever a component does to one case, the other cases are judged
            faults.append(f"{check.name}: {type(error).__name__}: {str(error)[:300]}")
            continue
        observed += len(observations)
        if not observations:
            faults.append(f"{check.name}: it observed nothing")
        faults += [f"{one.what}: seen {one.seen}; right is {one.right}" for one in observations if not one.is_right]
    if not chosen:
        faults.append(f"no check recognises this input ({', '.join(case.files) or 'README.md alone'})")
    return Verdict(case, tuple(check.name for check in chosen), observed, tuple(faults))


def load_cases(folder: Path) -> list[Case]:
    """The cases of a folder: its sub-folders, or the folder itself where it has none."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_")))
    return [Case.load(each) for each in folders or [folder]]
