"""What `vagus revoke` asks and says: what will happen, refusals before questions, and how to go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.revocation.test_commands import approved_plan, equipped, equipped_once, second_person, states
from tests.simulator.issuing import device_name
from tests.simulator.running import END_OF_INPUT, answer, denied, done, run

__all__ = ["equipped", "equipped_once"]

FOUR = ("revoke", "--batch", "Aorta IP3:AIP3-000001..AIP3-000004")

INTERRUPTED_IN_MID_RUN = """
import signal, sys
from vagus.authority import mass_revocation
from vagus.cli import main

mass_revocation.STEP = 2
whole = mass_revocation.MassRevocation.run

def run(self, plan_id, *, by, stop, advance, seen):
    def interrupt(row):
        advance(row)
        if row.done == 4:
            signal.raise_signal(signal.SIGINT)
    return whole(self, plan_id, by=by, stop=stop, advance=interrupt, seen=seen)

mass_revocation.MassRevocation.run = run
main(["--dir", sys.argv[1], "revoke", "run", sys.argv[2]])
"""


def said(text: str) -> str:
    return " ".join(text.split())


def refused_unasked(folder: Path, reason: str, words: str, *arguments: str) -> None:
    """A `vagus revoke` command on a terminal must be refused for this reason, with these words and no question."""
    refused = answer(folder, "y\n", "revoke", *arguments)
    assert (refused.code, refused.reason) == (2 if reason == "NOT_FOUND" else 3, reason), refused
    assert (words in refused.err, "?" in refused.err) == (True, False), refused


def test_the_question_says_that_it_acts_now_where_one_approval_is_enough(equipped: Path) -> None:
    asked = answer(equipped, "n\n", *FOUR, "--reason", "keyCompromise")
    assert asked.code == 1
    assert (
        "Revoke 4 certificates of 4 devices and lock the devices out now, for good, "
        "in stages up to 1, 10, 50 and 100 %? [y/N]" in said(asked.err)
    )
    assert "nothing was changed" in asked.err
    assert set(states(equipped)) == {"issued"}
    assert done(equipped, "revoke", "list", "--json").facts == []


def test_the_question_says_that_it_only_proposes_where_policy_asks_for_more_persons(equipped: Path) -> None:
    asked = answer(equipped, "y\n", "revoke", "--unit", "h1/icu")
    assert asked.code == 3
    assert (
        "Propose to revoke 12 certificates of 12 devices? Nothing happens before 2 persons have approved, "
        "you among them." in said(asked.err)
    )
    assert "`vagus revoke approve 1`" in asked.err
    assert set(states(equipped)) == {"issued"}


@pytest.mark.parametrize(
    ("option", "question"),
    [
        ("--hold", "Suspend 1 certificate of 1 device now?"),
        ("--certificates-only", "Revoke 1 certificate of 1 device now, for good?"),
    ],
)
def test_the_question_names_the_act_and_its_stages(equipped_once: Path, option: str, question: str) -> None:
    assert question in said(answer(equipped_once, "n\n", "revoke", "--device", device_name(1), option).err)


def test_a_release_says_that_it_ends_holds(equipped: Path) -> None:
    done(equipped, "revoke", "--device", "Aorta IP3:AIP3-000001", "--hold", "--yes")
    asked = answer(equipped, "y\n", "revoke", "--device", "Aorta IP3:AIP3-000001", "--release")
    assert asked.code == 0
    assert "End the holds on 1 certificate of 1 device now?" in said(asked.err)
    assert "Plan 2 is done: 1 certificate is released." in asked.out
    assert set(states(equipped)) == {"issued"}


def test_a_second_approval_by_one_person_is_refused(equipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(equipped, "revoke", "--unit", "h1/icu", "--yes").code == 3
    refused_unasked(equipped, "ALREADY_EXISTS", "proposed revocation plan 1 already", "approve", "1")
    refused = answer(equipped, "y\n", "revoke", "approve", "1")
    assert ("another account" in refused.err, refused.out) == (True, "")
    second_person(equipped, monkeypatch)
    done(equipped, "revoke", "approve", "1", "--yes")
    refused_unasked(equipped, "ALREADY_EXISTS", "approved revocation plan 1 already", "approve", "1")


@pytest.mark.parametrize("act", ["approve", "run", "pause", "stop"])
def test_a_plan_that_is_done_is_refused_before_anything_is_asked(equipped: Path, act: str) -> None:
    done(equipped, *FOUR, "--yes")
    words = "plan 1 is done: 4 certificates are revoked, and none of its certificates is left; propose a new plan"
    refused_unasked(equipped, "DEVICE_STATE", words, act, "1")


@pytest.mark.parametrize("act", ["approve", "run", "pause", "stop"])
def test_a_plan_that_was_stopped_is_refused_with_what_it_did(equipped: Path, act: str) -> None:
    done(equipped, *FOUR, "--stages", "50", "--yes")
    run(equipped, "revoke", "--unit", "h1/icu", "--yes")
    done(equipped, "revoke", "stop", "2", "--yes")
    words = "plan 2 was stopped for good, with 0 of 8 certificates done; propose a new plan for the rest"
    refused_unasked(equipped, "DEVICE_STATE", words, act, "2")


@pytest.mark.parametrize("act", ["approve", "run", "resume", "pause", "stop", "show"])
def test_a_plan_that_there_is_not_is_refused_before_anything_is_asked(equipped_once: Path, act: str) -> None:
    refused_unasked(equipped_once, "NOT_FOUND", "`vagus revoke list`", act, "7")


@pytest.mark.parametrize("typed", ["n\n", END_OF_INPUT])
def test_without_a_yes_between_stages_a_plan_is_paused_with_the_command_to_resume(equipped: Path, typed: str) -> None:
    paused = answer(equipped, "y\n" + typed, *FOUR, "--stages", "50")
    assert paused.code == 0
    assert "2 are done. Run the next stage?" in paused.err
    assert "Aborted" not in paused.err
    assert (
        "Plan 1 is paused with 2 of 4 certificates done; go on with `vagus revoke run 1`, or end it with "
        "`vagus revoke stop 1`." in paused.out
    )
    assert done(equipped, "revoke", "show", "1", "--json").facts["state"] == "paused"
    assert "Plan 1 is done: 4 certificates are revoked." in done(equipped, "revoke", "run", "1").out
    assert states(equipped).count("revoked") == 4


def test_end_of_input_at_the_first_question_is_a_no(equipped: Path) -> None:
    ended = answer(equipped, END_OF_INPUT, *FOUR)
    assert ended.code == 1
    assert "nothing was changed" in ended.err
    assert done(equipped, "revoke", "list", "--json").facts == []


def test_an_interrupted_stage_is_left_as_a_plan_that_is_paused(equipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = approved_plan(equipped, monkeypatch, "--stages", "75")
    script = [sys.executable, "-c", INTERRUPTED_IN_MID_RUN, str(equipped), str(plan)]
    ended = subprocess.run(script, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Plan 1 is paused with 4 of 12 certificates done; go on with `vagus revoke run 1`" in ended.stderr
    cut = done(equipped, "revoke", "show", "1", "--json").facts
    assert (cut["state"], cut["done"]) == ("paused", 4)
    assert done(equipped, "revoke", "run", "1", "--yes", "--json").facts["done"] == 12


def test_what_is_stopped_is_reported_in_words(equipped: Path) -> None:
    answer(equipped, "y\nn\n", *FOUR, "--stages", "50")
    stopped = answer(equipped, "y\n", "revoke", "stop", "1")
    assert stopped.code == 0
    assert "End plan 1 for good, with 2 of 4 done?" in stopped.err
    assert "devices of model Aorta IP3, serials AIP3-000001 to AIP3-000004" in said(stopped.out)
    assert (
        "Plan 1 is stopped for good: 2 certificates are revoked, which stays so; 2 are left as they are." in stopped.out
    )
    assert "{" not in stopped.out
    assert "spki_sha256" not in stopped.out


def test_a_selection_is_reported_in_words_of_each_kind(equipped: Path) -> None:
    shown = done(equipped, "device", "show", "Aorta IP3:AIP3-000001", "--json").facts
    serial = f"{shown['certificates'][0]['authority']}:{shown['certificates'][0]['serial']}"
    device, unit = shown["device"]["id"], {"units": ["h1/icu"], "authorities": ["h1/icu#1"]}
    of_model = "devices of model Aorta IP3; unit h1/icu; issued by h1/icu#1"
    for named, words, facts in (
        (("--serial", serial), f"serial {serial}", {"serials": [serial]}),
        (("--device", "Aorta IP3:AIP3-000001"), f"device {device}", {"devices": [device]}),
        (("--unit", "h1/icu"), "devices of unit h1/icu; issued by h1/icu#1", unit),
        (("--authority", "h1/icu"), "issued by h1/icu#1", {"authorities": ["h1/icu#1"]}),
        (("--model", "Aorta IP3", "--unit", "h1/icu"), of_model, {"model": "Aorta IP3", **unit}),
    ):
        plan = run(equipped, "revoke", *named, "--hold", "--stages", "50", "--yes", "--json").facts["id"]
        assert words in said(done(equipped, "revoke", "show", str(plan)).out), named
        selection = done(equipped, "revoke", "show", str(plan), "--json").facts["selection"]
        assert {name: value for name, value in selection.items() if value} == facts
        run(equipped, "revoke", "--unit", "h1/icu", "--release", "--yes")


def test_a_plan_that_has_not_begun_is_not_paused(equipped: Path) -> None:
    run(equipped, "revoke", "--unit", "h1/icu", "--yes")
    denied(equipped, 3, "DEVICE_STATE", "revoke", "pause", "1", says=("has not begun", "vagus revoke stop 1"))


@pytest.mark.parametrize("before", [("--unit", "h1/icu"), ("--yes",), ("--json",)])
def test_an_option_before_a_subcommand_is_not_dropped_silently(equipped_once: Path, before: tuple[str, ...]) -> None:
    refused = run(equipped_once, "revoke", *before, "list")
    assert (refused.code, "BAD_ARGUMENT" in refused.err, before[0] in refused.err) == (2, True, True), refused


@pytest.mark.parametrize(
    ("reason", "remedy"), [("certificateHold", "write --hold instead"), ("removeFromCRL", "write --release instead")]
)
def test_a_reason_of_holds_is_refused_with_the_option_to_use(equipped_once: Path, reason: str, remedy: str) -> None:
    named = ("revoke", "--unit", "h1/icu", "--reason", reason, "--dry-run")
    denied(equipped_once, 2, "BAD_ARGUMENT", *named, says=(remedy,))
    unknown = run(equipped_once, "revoke", "--unit", "h1/icu", "--reason", "boredom")
    assert (unknown.code, reason in unknown.err, "privilegeWithdrawn" in unknown.err) == (2, False, True)


def test_an_approval_shows_the_plan_as_it_stands_behind_it(equipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(equipped, "revoke", "--unit", "h1/icu", "--yes")
    second_person(equipped, monkeypatch)
    first = done(equipped, "revoke", "show", "1", "--json").facts["approvals"]
    out = done(equipped, "revoke", "approve", "1", "--yes").out
    approvals = [said(line) for line in out.splitlines() if line.startswith("approvals  ")]
    both = done(equipped, "revoke", "show", "1", "--json").facts["approvals"]
    assert len(both) == 2
    assert approvals == [f"approvals {first[0]}, {both[1]}"]
