"""The public suites, as far as their folder is here: nothing wrong beyond the exclusions."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.conformance.__main__ import EXCLUSIONS, SUITES, main
from tests.conformance.limbo import PROFILES
from tests.conformance.verdicts import MOST_EXCLUSIONS, Case, Expected, Got, Tally, count, judge, load_exclusions
from vagus.errors import Malformed
from vagus.reasons import Reason


@cache
def run_once(suite: str, folder: Path) -> Tally:
    return count(suite, SUITES[suite](folder), load_exclusions(EXCLUSIONS))


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_nothing_is_wrong_beyond_the_exclusions(vectors: Path, suite: str) -> None:
    folder = vectors / suite
    if not folder.is_dir():
        pytest.skip(f"{suite} is not among the vectors here")
    tally = run_once(suite, folder)
    assert tally.wrong == []
    assert tally.crashes == 0
    assert tally.cases > 30


def test_limbo_has_no_false_verdict_at_all(vectors: Path) -> None:
    """A suite of which nine tenths expect a refusal: accepts and refusals are counted apart."""
    tally = run_once("limbo", vectors / "limbo")
    assert tally.excluded == []
    assert (tally.false_accepts, tally.false_refusals, tally.unsupported) == (0, 0, 0)
    assert tally.right_accepts >= 450
    assert tally.right_refusals >= 4400


def test_the_maps_and_exclusions_stay_small_and_name_their_clauses() -> None:
    assert len(PROFILES) <= 20
    assert all(namespace == "" or namespace.endswith("::") for namespace, _ in PROFILES)
    exclusions = load_exclusions(EXCLUSIONS)
    assert len(exclusions) <= MOST_EXCLUSIONS
    assert all(entry.clause and entry.why and "*" not in entry.cases[:4] for entry in exclusions)


def test_a_crash_is_never_right_and_never_excluded() -> None:
    def crash() -> None:
        raise KeyError("missing")

    case = judge("pkits", "4.1.5 x", Expected.REFUSE, crash)
    assert case.got is Got.CRASHED
    tally = count("pkits", [case], load_exclusions(EXCLUSIONS))
    assert tally.wrong == [case]
    assert not tally.is_clean


def test_verdicts_are_counted_apart() -> None:
    def refuse() -> None:
        raise Malformed(Reason.NON_DER, "no")

    cases = [
        judge("s", "a", Expected.ACCEPT, lambda: None),
        judge("s", "b", Expected.REFUSE, refuse),
        judge("s", "c", Expected.ACCEPT, refuse),
        judge("s", "d", Expected.REFUSE, lambda: None),
        judge("s", "e", Expected.EITHER, refuse),
        Case("s", "f", Expected.ACCEPT, Got.UNSUPPORTED, "why"),
    ]
    tally: Tally = count("s", cases, [])
    assert (tally.right_accepts, tally.right_refusals, tally.false_refusals, tally.false_accepts) == (1, 1, 1, 1)
    assert (tally.answered, tally.unsupported, tally.cases) == (1, 1, 6)
    assert tally.as_json()["reasons"] == {"NON_DER": 3}


def test_the_command_says_what_was_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().out.count("not run") == len(SUITES)


def test_the_command_writes_its_figures(vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "figures.json"
    assert main([str(vectors), "--only", "ocsp-openssl", "--only", "pqc", "--json", str(report)]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    assert '"false_accepts": 0' in report.read_text(encoding="utf-8")
