"""`vagus revoke`: counts first, approvals, stages, and a run that a kill -9 does not lose."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import copied
from tests.simulator.orders import order_for
from tests.simulator.running import denied, done, run
from vagus.identifiers import DeviceId
from vagus.keystore import private_keys
from vagus.operations.devices import find_named
from vagus.records.certificates import list_of_device, load_bytes
from vagus.records.devices import DeviceFilter, list_devices
from vagus.wiring import Installation
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.certificates import decode_certificate
from vagus.x509.keys import decode_public_key

SOURCES = ("env:TEST_PASSPHRASE",)
COUNT = 12
TWO_PERSONS = "AIP3-000012"

KILLED_IN_MID_RUN = """
import os, signal, sys
from pathlib import Path
from vagus.authority import mass_revocation
from vagus.wiring import Installation

mass_revocation.STEP = 2
with Installation.open(Path(sys.argv[1])) as installation:
    def advance(row):
        if row.done >= 5:
            os.kill(os.getpid(), signal.SIGKILL)
    installation.mass_revocation.run(int(sys.argv[2]), by=installation.actor.id, advance=advance)
"""


@pytest.fixture(scope="session")
def equipped_once(hospital_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital whose twelve pumps have a certificate each, the last one's of a profile that needs two persons."""
    folder = copied(hospital_once, tmp_path_factory.mktemp("equipped"))
    for number in range(4, COUNT + 1):
        new = ("--unit", "h1/icu", "--model", "Aorta IP3", "--serial", f"AIP3-{number:06}")
        done(folder, "device", "add", *new)
    with Installation.open(folder, passphrase_sources=SOURCES) as installation:
        issuer = installation.open_issuers(["h1/icu"])["h1/icu"]
        for device in devices_of(installation):
            issue(installation, issuer, device)
        installation.writer.submit(lambda _: None).result()
    return folder


@pytest.fixture
def equipped(equipped_once: Path, tmp_path: Path) -> Path:
    return copied(equipped_once, tmp_path)


def devices_of(installation: Installation) -> list[Any]:
    with installation.database.reading() as connection:
        return list(list_devices(connection, DeviceFilter(model="Aorta IP3")))


def issue(installation: Installation, issuer: Any, device: Any, *, spki_der: bytes | None = None) -> None:
    """What EST does, without the network."""
    order = order_for(
        device.id,
        f"{'test' if spki_der is None else 'again'}-{device.id}",
        profile="life-support" if device.maker_serial == TWO_PERSONS else device.profile,
        public_key=None if spki_der is None else decode_public_key(spki_der),
    )
    installation.issuance.issue_now(order, issuer)


def states(folder: Path) -> list[str]:
    with Installation.open(folder) as installation:
        found = devices_of(installation)
        with installation.database.reading() as connection:
            return [one.state for device in found for one in list_of_device(connection, str(device.id))]


def certificate_of(folder: Path, serial: str) -> dict[str, Any]:
    found: dict[str, Any] = done(folder, "device", "show", f"Aorta IP3:{serial}", "--json").facts["certificates"][0]
    return found


def second_person(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Another account that logged in, as the kernel would tell."""
    login = folder.parent / "loginuid"
    login.write_text("3999999999")
    patch.setattr("vagus.operations.local_account._LOGIN", login)


def approved_plan(folder: Path, patch: pytest.MonkeyPatch, *more: str) -> int:
    """A plan for the unit with every approval, not run yet."""
    waiting = run(folder, "revoke", "--unit", "h1/icu", "--yes", "--json", *more)
    assert waiting.code == 3, waiting
    plan = int(waiting.facts["id"])
    with patch.context() as other:
        second_person(folder, other)
        done(folder, "revoke", "approve", str(plan), "--yes")
    return plan


def test_counts_come_first_and_a_no_writes_nothing(equipped: Path) -> None:
    facts = done(equipped, "revoke", "--unit", "h1/icu", "--dry-run", "--json").facts
    assert (facts["certificates"], facts["devices"], facts["lists_grow_by_octets"]) == (COUNT, COUNT, COUNT * 53)
    assert facts["ocsp_answers_signed_anew"] == COUNT
    refused = run(equipped, "revoke", "--unit", "h1/icu")
    assert refused.code == 1
    assert "certificates" in refused.out
    assert done(equipped, "revoke", "list", "--json").facts == []
    assert set(states(equipped)) == {"issued"}


def test_a_second_person_approves_and_then_it_runs_in_stages(equipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("revoke", "--unit", "h1/icu", "--reason", "keyCompromise", "--stages", "25,50", "--yes")
    waiting = run(equipped, *asked, "--json")
    assert waiting.code == 3
    assert (waiting.facts["state"], waiting.facts["approvals_needed"], waiting.facts["stages"]) == (
        "proposed",
        2,
        [3, 6, 12],
    )
    assert "approvals are missing" in waiting.err
    plan = str(waiting.facts["id"])
    assert run(equipped, "revoke", "run", plan).code == 3
    denied(equipped, 3, "ALREADY_EXISTS", "revoke", "approve", plan, "--yes")
    second_person(equipped, monkeypatch)
    assert "It may run" in done(equipped, "revoke", "approve", plan, "--yes").out
    first = done(equipped, "revoke", "run", plan, "--json").facts
    assert (first["state"], first["done"]) == ("paused", 3)
    assert states(equipped).count("revoked") == 3
    last = done(equipped, "revoke", "resume", plan, "--yes", "--json").facts
    assert (last["state"], last["done"]) == ("done", 12)
    assert set(states(equipped)) == {"revoked"}
    denied(equipped, 3, "DEVICE_STATE", "revoke", "run", plan)


def test_a_run_that_was_killed_goes_on_where_it_stood(equipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = approved_plan(equipped, monkeypatch, "--stages", "75")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_MID_RUN, str(equipped), str(plan)], check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    cut = done(equipped, "revoke", "show", str(plan), "--json").facts
    assert cut["state"] == "running"
    assert states(equipped).count("revoked") == cut["done"] == 6
    ended = done(equipped, "revoke", "run", str(plan), "--yes", "--json").facts
    assert (ended["state"], ended["done"]) == ("done", COUNT)
    with Installation.open(equipped) as installation, installation.database.reading() as connection:
        from vagus.records.revocation.revocations import newest_sequence

        assert newest_sequence(connection) == COUNT, "each certificate once"
    done(equipped, "audit", "verify")


def test_where_policy_asks_for_one_person_it_runs_at_once(equipped: Path) -> None:
    named = ("--batch", "Aorta IP3:AIP3-000001..AIP3-000004")
    ended = done(equipped, "revoke", *named, "--yes", "--json").facts
    assert (ended["state"], ended["done"], ended["approvals_needed"]) == ("done", 4, 1)
    assert sorted(states(equipped)).count("revoked") == 4
    assert certificate_of(equipped, "AIP3-000004")["state"] == "revoked"


def test_a_plan_that_is_done_says_what_was_issued_since_it(equipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = str(approved_plan(equipped, monkeypatch))
    assert done(equipped, "revoke", "show", plan, "--json").facts["left"] == COUNT
    with Installation.open(equipped, passphrase_sources=SOURCES) as installation:
        pump = find_named(installation.database, "Aorta IP3:AIP3-000002")
        spki = private_keys.spki_of(private_keys.generate(KeyAlgorithm.P256))
        issue(installation, installation.open_issuers(["h1/icu"])["h1/icu"], pump, spki_der=spki)
    ended = done(equipped, "revoke", "run", plan, "--yes", "--json")
    assert (ended.facts["state"], ended.facts["done"], ended.facts["left"]) == ("done", COUNT, 1)
    assert "1 certificates of the selection are left" in ended.err


def test_a_compromise_by_serial_takes_the_keys_other_certificate_with_it_and_the_ledger_agrees(equipped: Path) -> None:
    with Installation.open(equipped, passphrase_sources=SOURCES) as installation:
        pump = find_named(installation.database, "Aorta IP3:AIP3-000002")
        with installation.database.reading() as connection:
            (first,) = list_of_device(connection, str(pump.id))
            _, der = load_bytes(connection, first.leaf_index)
        assert der is not None
        issue(
            installation,
            installation.open_issuers(["h1/icu"])["h1/icu"],
            pump,
            spki_der=decode_certificate(der).spki_der,
        )
        installation.writer.submit(lambda _: None).result()
    named = ("--serial", f"h1/icu#1:{first.serial:x}", "--reason", "keyCompromise", "--yes", "--json")
    assert done(equipped, "revoke", *named).facts["done"] == 1
    assert states(equipped).count("revoked") == 2
    done(equipped, "audit", "verify")


BATCH = ("--batch", "Aorta IP3:AIP3-000001..AIP3-000003", "--stages", "50", "--yes", "--json")


def pump_state(folder: Path, number: int) -> str:
    return str(done(folder, "device", "show", f"Aorta IP3:AIP3-{number:06}", "--json").facts["device"]["state"])


@pytest.mark.parametrize("reason", ["keyCompromise", "cessationOfOperation", "privilegeWithdrawn"])
def test_devices_whose_keys_are_lost_are_locked_out_with_their_certificates(equipped: Path, reason: str) -> None:
    pump = "Aorta IP3:AIP3-000001"
    done(equipped, "token", "make", pump, "--json")
    asked = done(equipped, "revoke", *BATCH, "--reason", reason, "--dry-run").facts
    assert asked["locks_devices_out"] is True
    assert pump_state(equipped, 1) == "received"
    assert done(equipped, "revoke", *BATCH, "--reason", reason).facts["locks_devices_out"] is True
    assert [pump_state(equipped, number) for number in (1, 2, 3, 4)] == ["recalled"] * 3 + ["received"]
    denied(equipped, 3, "DEVICE_STATE", "token", "make", pump)
    kinds = {row["kind"] for row in done(equipped, "audit", "show", "--limit", "40", "--json").facts}
    assert {"revocation", "device-state-changed", "tokens-expired"} <= kinds
    done(equipped, "audit", "verify")


@pytest.mark.parametrize("more", [("--reason", "keyCompromise", "--certificates-only"), ("--reason", "superseded")])
def test_devices_that_get_another_certificate_are_not_locked_out(equipped: Path, more: tuple[str, ...]) -> None:
    assert done(equipped, "revoke", *BATCH, *more).facts["locks_devices_out"] is False
    assert states(equipped).count("revoked") == 3
    assert pump_state(equipped, 1) == "received"


def test_a_plan_is_stopped_for_good(equipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = str(approved_plan(equipped, monkeypatch))
    assert run(equipped, "revoke", "pause", plan).reason == "DEVICE_STATE"
    assert done(equipped, "revoke", "stop", plan, "--yes", "--json").facts["state"] == "stopped"
    assert run(equipped, "revoke", "run", plan).reason == "DEVICE_STATE"
    assert set(states(equipped)) == {"issued"}


def test_holds_are_set_and_ended_by_plan(equipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for option, state in (("--hold", "held"), ("--release", "issued")):
        plan = approved_plan(equipped, monkeypatch, option)
        assert done(equipped, "revoke", "run", str(plan), "--yes", "--json").facts["state"] == "done"
        assert set(states(equipped)) == {state}


def test_each_way_of_naming_selects_its_own(equipped_once: Path) -> None:
    equipped = equipped_once
    with Installation.open(equipped) as installation:
        device = find_named(installation.database, "Aorta IP3:AIP3-000002")
        with installation.database.reading() as connection:
            key = list_of_device(connection, str(device.id))[0].spki_sha256.hex()
    shown = certificate_of(equipped, "AIP3-000001")
    serial = f"{shown['authority']}:{shown['serial']}"
    for named, count in (
        (("--serial", serial), 1),
        (("--device", str(device.id), "--device", "Aorta IP3:AIP3-000003"), 2),
        (("--key", key), 1),
        (("--model", "Aorta IP3"), COUNT),
        (("--batch", "Aorta IP3:AIP3-000003..AIP3-000006"), 4),
        (("--hospital", "h1"), COUNT),
        (("--authority", "h1/icu#1"), COUNT),
        (("--authority", "h1/sdc"), 0),
        (("--unit", "h1/icu", "--batch", "Aorta IP3:AIP3-000001..AIP3-000002"), 2),
        (("--serial", serial.replace(shown["serial"], ":".join(re.findall("..", shown["serial"].upper())))), 1),
        (("--unit", "h1/icu", "--serial", serial, "--key", key), 0),
    ):
        dry = run(equipped, "revoke", *named, "--dry-run", "--json")
        assert (dry.facts["certificates"], dry.code) == (count, 0 if count else 3), named
        assert ("selects no live certificate" in dry.err) is (count == 0), named


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (("--hospital", "h9"), "hospital 'h9' does not exist; known are h1"),
        (("--unit", "h1/er"), "unit 'h1/er' does not exist; known are h1/icu"),
        (("--authority", "h1/"), "authority 'h1/' does not exist; known are h1, h1/icu, h1/infra, h1/sdc, root"),
        (
            ("--authority", "h1/icu#7"),
            "authority 'h1/icu#7' does not exist; known are h1, h1/icu, h1/infra, h1/sdc, root",
        ),
    ],
)
def test_a_misspelt_name_is_refused_with_what_exists(equipped_once: Path, named: tuple[str, ...], message: str) -> None:
    refused = run(equipped_once, "revoke", *named, "--dry-run", "--json")
    error = json.loads(refused.err)["error"]
    assert (refused.code, error["reason"], error["message"]) == (2, "AUTHORITY_UNKNOWN", message)


@pytest.mark.parametrize(
    ("serial", "message"),
    [
        ("h1/icu#7:4A", "'h1/icu#7:4A' names generation 7 of h1/icu, which does not exist; known are h1/icu#1"),
        (
            "h1/er#1:4A",
            "'h1/er#1:4A' names authority 'h1/er', which does not exist; known are h1, h1/icu, h1/infra, h1/sdc, root",
        ),
        (
            "h1/icu:4A",
            "'h1/icu:4A' names no authority's serial; write it as h1/icu#1:0x4a01, see `vagus device show`",
        ),
    ],
)
def test_a_serial_of_no_authority_reports_what_there_is(equipped_once: Path, serial: str, message: str) -> None:
    refused = run(equipped_once, "revoke", "--serial", serial, "--dry-run", "--json")
    error = json.loads(refused.err)["error"]
    assert (refused.code, error["reason"], error["message"]) == (2, "BAD_ARGUMENT", message)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ((), 2, "BAD_ARGUMENT"),
        (("--model", "none"), 2, "BAD_ARGUMENT"),
        (("--batch", "none:1..2"), 2, "BAD_ARGUMENT"),
        (("--batch", "Aorta IP3:AIP3-100001..AIP3-100009"), 3, "NOT_FOUND"),
        (("--unit", "icu"), 2, "NON_CANONICAL"),
        (("--unit", "h1/er"), 2, "AUTHORITY_UNKNOWN"),
        (("--unit", "h1/icu", "--authority", "h1/sdc"), 2, "AUTHORITY_UNKNOWN"),
        (("--hospital", "h9"), 2, "AUTHORITY_UNKNOWN"),
        (("--serial", "h1/icu:12"), 2, "BAD_ARGUMENT"),
        (("--serial", "h1/icu#1:xy"), 2, "BAD_ARGUMENT"),
        (("--serial", "h1/icu#1:0x12"), 3, "NOT_ISSUED"),
        (("--serial", "h1/icu#1:dec:12"), 3, "NOT_ISSUED"),
        (("--serial", "h1/icu#1:0"), 3, "NOT_ISSUED"),
        (("--serial", "h1/icu#1:12"), 2, "BAD_ARGUMENT"),
        (("--key", "00"), 2, "BAD_ARGUMENT"),
        (("--batch", "Aorta IP3:9..10"), 2, "BAD_ARGUMENT"),
        (("--batch", "Aorta IP3:1..2", "--model", "B"), 2, "BAD_ARGUMENT"),
        (("--device", "Aorta IP3:none"), 2, "NOT_IN_INVENTORY"),
        (("--unit", "h1/icu", "--reason", "boredom"), 2, "BAD_ARGUMENT"),
        (("--unit", "h1/icu", "--reason", "certificateHold"), 2, "BAD_ARGUMENT"),
        (("--unit", "h1/icu", "--reason", "superseded", "--hold"), 2, "BAD_ARGUMENT"),
        (("--unit", "h1/icu", "--hold", "--release"), 2, "BAD_ARGUMENT"),
        (("--unit", "h1/icu", "--stages", "half"), 2, "BAD_ARGUMENT"),
        *(
            (("--unit", "h1/icu", "--stages", stages, *more), 2, "BAD_ARGUMENT")
            for stages in ("50,10", "10,10", "0,50", "50,100", "0,100,101")
            for more in ((), ("--dry-run",))
        ),
        (("run", "7"), 2, "NOT_FOUND"),
        (("approve", "7", "--yes"), 2, "NOT_FOUND"),
        (("show", "7"), 2, "NOT_FOUND"),
        (("run", "99999999999999999999"), 2, "BAD_ARGUMENT"),
        (("show", "0"), 2, "BAD_ARGUMENT"),
    ],
)
def test_what_cannot_be_done_has_its_reason(
    equipped_once: Path, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    more = () if arguments and arguments[0] in {"run", "approve", "show"} else ("--yes",)
    denied(equipped_once, code, reason, "revoke", *arguments, *more)


def test_more_than_a_statement_can_name_is_refused(equipped_once: Path) -> None:
    from vagus.errors import LimitExceeded
    from vagus.fleet.revocation_targets import MOST_NAMED, RevocationTarget, select_target

    many = [DeviceId("a" * 26)] * (MOST_NAMED + 1)
    with (
        Installation.open(equipped_once) as installation,
        installation.database.reading() as connection,
        pytest.raises(LimitExceeded) as refusal,
    ):
        select_target(connection, RevocationTarget(devices=many))
    assert refusal.value.reason == "TOO_MANY"
