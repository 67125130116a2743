"""What a case expected and what we said, counted; knows no suite."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from vagus.errors import VagusError

MOST_EXCLUSIONS = 15


class Expected(StrEnum):
    """What the authors of a suite say."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    EITHER = "either"  # malformed corpora: an answer of ours, whichever, and no crash


class Got(StrEnum):
    """What we did."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"  # the runner cannot put the case to the verifier; reported, never counted as right
    CRASHED = "crashed"  # an error that is not of our tree


@dataclass(frozen=True, slots=True)
class Case:
    """One case of one suite."""

    suite: str
    name: str
    expected: Expected
    got: Got
    reason: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether our answer differs from the suite's."""
        if self.got is Got.CRASHED:
            return True
        wanted = {Expected.ACCEPT: Got.ACCEPTED, Expected.REFUSE: Got.REFUSED}.get(self.expected)
        return self.got is not Got.UNSUPPORTED and wanted is not None and self.got is not wanted


def judge(suite: str, name: str, expected: Expected, act: Callable[[], object]) -> Case:
    """Run `act`: to return is to accept, one of our errors is to refuse, anything else is a crash."""
    try:
        act()
    except VagusError as refusal:
        return Case(suite, name, expected, Got.REFUSED, refusal.reason.value)
    except Exception as crash:  # noqa: BLE001  the point of the suite is that this never happens
        return Case(suite, name, expected, Got.CRASHED, f"{type(crash).__name__}: {crash}"[:120])
    return Case(suite, name, expected, Got.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Cases of a suite that we answer otherwise on purpose."""

    suite: str
    cases: str  # a glob over names
    clause: str
    why: str

    def covers(self, case: Case) -> bool:
        """Whether it speaks of this case."""
        return case.suite == self.suite and fnmatch.fnmatchcase(case.name, self.cases)


def load_exclusions(path: Path) -> list[Exclusion]:
    """The exclusion file, which holds at most 15 entries."""
    entries = [Exclusion(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["exclusion"]]
    if len(entries) > MOST_EXCLUSIONS:
        raise SystemExit(f"{path.name} holds {len(entries)} entries, more than the {MOST_EXCLUSIONS} allowed")
    return entries


@dataclass(slots=True)
class Tally:
    """The figures of one suite."""

    suite: str
    cases: int = 0
    right_accepts: int = 0
    right_refusals: int = 0
    answered: int = 0  # of EITHER: any answer of ours
    false_accepts: int = 0
    false_refusals: int = 0
    crashes: int = 0
    unsupported: int = 0
    wrong: list[Case] = field(default_factory=list)
    excluded: list[tuple[Case, Exclusion]] = field(default_factory=list)
    unsupported_names: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, case: Case, exclusions: Iterable[Exclusion]) -> None:
        """Count one case."""
        self.cases += 1
        if case.reason and case.got is Got.REFUSED:
            self.reasons[case.reason] = self.reasons.get(case.reason, 0) + 1
        if case.got is Got.UNSUPPORTED:
            self.unsupported += 1
            self.unsupported_names.append(f"{case.name} ({case.reason})")
        elif not case.is_wrong:
            if case.expected is Expected.EITHER:
                self.answered += 1
            elif case.got is Got.ACCEPTED:
                self.right_accepts += 1
            else:
                self.right_refusals += 1
        else:
            self._add_wrong(case, exclusions)

    def _add_wrong(self, case: Case, exclusions: Iterable[Exclusion]) -> None:
        if case.got is Got.CRASHED:
            self.crashes += 1
        elif case.got is Got.ACCEPTED:
            self.false_accepts += 1
        else:
            self.false_refusals += 1
        covering = next((one for one in exclusions if one.covers(case)), None)
        if covering is None or case.got is Got.CRASHED:
            self.wrong.append(case)
        else:
            self.excluded.append((case, covering))

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong beyond the exclusions."""
        return not self.wrong

    def as_json(self) -> dict[str, object]:
        """For programs."""
        figures = ["right_accepts", "right_refusals", "answered", "false_accepts", "false_refusals", "crashes"]
        return {
            **{name: getattr(self, name) for name in ("suite", "cases", *figures, "unsupported")},
            "wrong": [{"id": case.name, "got": case.got, "reason": case.reason} for case in self.wrong],
            "excluded": [{"id": case.name, "clause": entry.clause} for case, entry in self.excluded],
            "reasons": dict(sorted(self.reasons.items())),
        }


def count(suite: str, cases: Iterable[Case], exclusions: Iterable[Exclusion]) -> Tally:
    """All cases of a suite."""
    entries = list(exclusions)
    tally = Tally(suite)
    for case in cases:
        tally.add(case, entries)
    return tally


Suite = Callable[[Path], Iterator[Case]]
