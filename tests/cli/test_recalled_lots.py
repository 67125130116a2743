"""A recalled or held lot by commands: with certificates and without, what comes later, and the way back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.simulator.issuing import device_name, issue
from tests.simulator.running import answer, denied, done, run
from vagus.fleet.manifests import MadeDevice, MadeModel, Manifest, encode_manifest
from vagus.x509.pem import decode_certificates

LOT = ("--batch", "Aorta IP3:AIP3-000001..AIP3-000005")
RECALL = ("revoke", *LOT, "--reason", "keyCompromise")


def add(folder: Path, number: int) -> str:
    new = ("--unit", "h1/icu", "--model", "Aorta IP3", "--serial", f"AIP3-{number:06}")
    return str(done(folder, "device", "add", *new, "--json").facts["state"])


def states(folder: Path) -> list[str]:
    return [row["state"] for row in done(folder, "device", "list", "--json").facts]


def is_held(folder: Path, number: int) -> bool:
    shown = done(folder, "device", "show", device_name(number), "--json").facts["device"]
    return shown["held_since"] is not None


def counts(made: dict[str, int]) -> tuple[int, int, int]:
    return made["done"], made["devices_without_certificate_done"], made["devices_left"]


def token(folder: Path, number: int) -> tuple[str, ...]:
    return ("token", "make", device_name(number), "--out", str(folder.parent / f"token-{number}"))


def test_a_recalled_lot_stays_recalled_for_what_never_enrolled_and_what_comes_later(hospital: Path) -> None:
    issue(hospital, 1)
    counted = done(hospital, *RECALL, "--dry-run", "--json").facts
    assert (counted["certificates"], counted["devices"], counted["devices_without_certificate"]) == (1, 1, 2)
    assert (counted["locks_devices_out"], counted["locks_lot"]) == (True, True)
    asked = answer(hospital, "n\n", *RECALL)
    assert asked.code == 1
    assert "Revoke 1 certificate of 1 device and lock the devices out, with 2 devices without one now" in asked.err
    assert states(hospital) == ["received"] * 3, "a no changes nothing"
    made = done(hospital, *RECALL, "--yes", "--json").facts
    assert (made["state"], made["done"], made["devices_without_certificate_done"], made["devices_left"]) == (
        "done",
        1,
        2,
        0,
    )
    assert states(hospital) == ["recalled"] * 3
    assert [add(hospital, number) for number in (4, 5, 6)] == ["recalled", "recalled", "received"]
    for number in (2, 4):
        denied(hospital, 3, "DEVICE_STATE", *token(hospital, number))
    done(hospital, *token(hospital, 6))
    assert "2 devices without one locked out" in done(hospital, "revoke", "show", str(made["id"])).out
    denied(hospital, 3, "NOT_FOUND", *RECALL, "--yes", says=("no device that may enrol", "vagus device state recalled"))
    done(hospital, "audit", "verify")


def test_a_lot_without_any_certificate_is_recalled_unless_the_reason_locks_nothing(
    hospital: Path,
) -> None:
    denied(hospital, 3, "NOT_FOUND", "revoke", *LOT, "--reason", "superseded", "--yes")
    denied(hospital, 3, "NOT_FOUND", *RECALL, "--certificates-only", "--yes")
    asked = answer(hospital, "n\n", *RECALL)
    assert "Lock out 3 devices without a certificate now?" in asked.err
    assert "0 certificates are revoked, 3 devices without one locked out" in done(hospital, *RECALL, "--yes").out
    assert states(hospital) == ["recalled"] * 3


@pytest.mark.parametrize("command", [("revoke", "--hold"), ("device", "hold")])
def test_a_hold_keeps_all_of_a_lot_and_a_release_gives_all_of_it_back(hospital: Path, command: tuple[str, ...]) -> None:
    back = ("revoke", "--release") if command[0] == "revoke" else ("device", "release")
    issue(hospital, 1)
    asked = answer(hospital, "n\n", *command, *LOT)
    assert (asked.code, "Suspend 1 certificate of 1 device, with 2 devices without one now?" in asked.err) == (1, True)
    made = done(hospital, *command, *LOT, "--yes", "--json").facts
    assert counts(made) == (1, 2, 0)
    assert add(hospital, 4) == "received"
    assert add(hospital, 6) == "received"
    since = [
        done(hospital, "device", "show", device_name(one), "--json").facts["device"]["held_since"] for one in (2, 4, 6)
    ]
    assert [one is None for one in since] == [False, False, True]
    made = done(hospital, *back, *LOT, "--yes", "--json").facts
    assert (made["act"], made["done"], made["devices_without_certificate_done"], made["devices_left"]) == (
        "release",
        1,
        3,
        0,
    )
    add(hospital, 5)
    assert not any(is_held(hospital, number) for number in (1, 2, 4, 5))
    done(hospital, "audit", "verify")


def test_many_devices_move_after_the_counts_and_one_question(hospital: Path) -> None:
    move = ("device", "state", "quarantined", *LOT)
    done(hospital, "device", "state", device_name(3), "commissioned")
    facts = done(hospital, *move, "--dry-run", "--json").facts
    assert (facts["changes"], facts["changes_from"]) == (3, ["1 commissioned", "2 received"])
    asked = answer(hospital, "n\n", *move)
    assert asked.code == 1
    assert "Change 3 devices to quarantined? Devices of the lot that are added later come in recalled." in asked.err
    assert states(hospital) == ["received", "received", "commissioned"]
    assert done(hospital, *move, "--yes", "--json").facts["changed"] == 3
    assert states(hospital) == ["recalled", "recalled", "quarantined"], "what was never commissioned is recalled"
    assert add(hospital, 4) == "recalled"
    denied(hospital, 3, "NOT_FOUND", *move, "--yes")
    asked = answer(hospital, "n\n", "device", "state", "received", *LOT)
    assert "3 of them are locked out now and may enrol again. The recall of the lot ends" in asked.err
    facts = done(hospital, "device", "state", "received", *LOT, "--yes", "--json").facts
    assert (facts["changed"], facts["stays"]) == (3, ["1 quarantined"])
    assert add(hospital, 5) == "received"
    done(hospital, "audit", "verify")


def test_a_lot_that_is_not_delivered_yet_can_be_recalled_by_its_state(hospital: Path) -> None:
    coming = ("--batch", "Aorta IP3:AIP3-000010..AIP3-000019")
    denied(hospital, 3, "NOT_FOUND", "revoke", *coming, "--reason", "keyCompromise", "--yes")
    asked = answer(hospital, "n\n", "device", "state", "recalled", *coming)
    assert "No device changes now. Go on? Devices of the lot that are added later come in recalled." in asked.err
    done(hospital, "device", "state", "recalled", *coming, "--yes")
    assert [add(hospital, number) for number in (9, 10, 19, 20)] == ["received", "recalled", "recalled", "received"]


def test_wrong_ways_of_naming_many_are_refused(hospital: Path) -> None:
    denied(hospital, 1, "POLICY_VIOLATION", "device", "state", "decommissioned", *LOT, "--yes", says=("name each",))
    denied(hospital, 2, "BAD_ARGUMENT", "device", "state", "lost", *LOT)
    denied(hospital, 2, "BAD_ARGUMENT", "device", "state", "recalled", "--model", "Aorta IP4")
    denied(hospital, 2, "BAD_ARGUMENT", "device", "state", "recalled", "--batch", "Aorta IP3:1..22")
    denied(hospital, 2, "AUTHORITY_UNKNOWN", "device", "state", "recalled", "--unit", "h1/nowhere")
    for act in ("hold", "release"):
        denied(hospital, 2, "BAD_ARGUMENT", "device", act)
        denied(hospital, 2, "BAD_ARGUMENT", "device", act, device_name(1), *LOT)
        denied(hospital, 2, "BAD_ARGUMENT", "device", act, device_name(1), "--dry-run")
    denied(hospital, 2, "BAD_ARGUMENT", "device", "state", "recalled")
    denied(hospital, 2, "BAD_ARGUMENT", "device", "state", device_name(1), "recalled", *LOT)
    denied(hospital, 2, "BAD_ARGUMENT", "device", "state", "Aorta", "IP3:AIP3-000001", "recalled")
    assert states(hospital) == ["received"] * 3


def test_the_way_out_of_a_lock_and_the_end_of_a_life_are_asked_for_and_other_moves_are_not(hospital: Path) -> None:
    pump = device_name(1)
    issue(hospital, 1)
    done(hospital, "device", "state", pump, "commissioned")
    done(hospital, "device", "state", pump, "quarantined")
    asked = answer(hospital, "n\n", "device", "state", pump, "in_service")
    assert (asked.code, "out of quarantined, so that it may enrol again?" in asked.err) == (1, True)
    assert "compromised" not in asked.err
    done(hospital, "device", "state", pump, "in_service", "--yes")
    done(hospital, "device", "revoke", pump, "--reason", "keyCompromise", "--yes")
    asked = answer(hospital, "n\n", "device", "state", pump, "in_service")
    assert (asked.code, "because its key was compromised" in asked.err) == (1, True)
    assert run(hospital, "device", "state", pump, "in_service", "--json").code == 1
    assert done(hospital, "device", "show", pump, "--json").facts["device"]["state"] == "quarantined"
    asked = answer(hospital, "n\n", "device", "state", pump, "decommissioned")
    assert (asked.code, "for good? Its certificates are revoked" in asked.err) == (1, True)
    done(hospital, "device", "state", pump, "recalled")
    done(hospital, "device", "state", pump, "decommissioned", "--yes")
    done(hospital, "device", "state", pump, "sanitised")
    denied(hospital, 3, "DEVICE_STATE", "device", "state", pump, "in_service")


@pytest.mark.parametrize(
    ("reason", "says"), [("stolen", "choose one of"), ("certificateHold", "device hold"), ("removeFromCRL", "release")]
)
def test_a_reason_is_refused_before_the_question(hospital: Path, reason: str, says: str) -> None:
    asked = answer(hospital, "y\n", "device", "revoke", device_name(1), "--reason", reason)
    assert (asked.code, "for good" in asked.err, says in asked.err) == (2, False, True)


def test_a_manifest_brings_devices_of_a_recalled_lot_in_as_recalled(hospital: Path, tmp_path: Path) -> None:
    anchor, file = tmp_path / "anchor.pem", tmp_path / "manifest.json"
    done(hospital, "ca", "export", "root", "--out", str(anchor))
    (der,) = decode_certificates(anchor.read_bytes())
    made = tuple(MadeDevice("Aorta IP3", f"AIP3-{number:06}") for number in range(1, 8))
    models = (MadeModel("Aorta IP3", "infusion-pump"),)
    file.write_bytes(encode_manifest(Manifest("Aorta Devices", hashlib.sha256(der).digest(), models, made)))
    done(hospital, *RECALL, "--yes")
    taken = ("device", "import", str(file), "--anchor", str(anchor), "--unit", "h1/icu", "--json")
    outcome = done(hospital, *taken)
    assert {name: outcome.facts[name] for name in ("known", "added", "recalled", "held", "unknown")} == {
        "known": 3, "added": 4, "recalled": 2, "held": 0, "unknown": 0
    }  # fmt: skip
    assert "came in recalled" in outcome.err
    assert states(hospital) == ["recalled"] * 5 + ["received"] * 2
    assert done(hospital, *taken).facts["added"] == 0
    done(hospital, "audit", "verify")
