"""A hospital's commands from the plan to the token, as an operator types them."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from tests.simulator import plans
from tests.simulator.issuing import device_name, issue
from tests.simulator.presence import present
from tests.simulator.queries import find_token, list_tokens_of
from tests.simulator.running import PLAN, denied, done, findings, run
from vagus.fleet.tokens import hash_token
from vagus.operations import local_account
from vagus.operations.devices import find_named
from vagus.policy.packs import SHIPPED
from vagus.records.engine.tables import crl_publications, work
from vagus.wiring import Installation


def written(folder: Path, text: str = PLAN) -> str:
    path = folder.parent / "plan.toml"
    path.write_text(text)
    return str(path)


def authority_states(folder: Path) -> dict[str, str]:
    return {row["authority"]: row["state"] for row in done(folder, "ca", "list", "--json").facts}


def test_check_shows_what_would_change_and_changes_nothing(fresh: Path) -> None:
    changes = done(fresh, "plan", "check", written(fresh), "--json").facts
    assert {"act": "add", "what": "authority", "name": "h1/icu", "detail": "issuing-ca, online"} in changes
    assert {"act": "add", "what": "devices", "name": "h1/icu Aorta IP3", "detail": "3"} in changes
    assert done(fresh, "ca", "list", "--json").facts == []
    assert not (fresh / "plan.toml").exists()


def test_apply_without_a_ceremony_writes_requests_and_stops(fresh: Path) -> None:
    stopped = run(fresh, "plan", "apply", written(fresh), "--yes", "--json")
    assert stopped.code == 3
    assert "ceremony needed: 5 requests" in stopped.err
    requests = {path.name for path in (fresh / "requests").iterdir()}
    assert requests == {"h1.icu.1.csr", "h1.infra.1.csr", "h1.sdc.1.csr"}
    assert not (fresh / "keystores" / "root").exists(), "offline keys are made in the ceremony"
    assert done(fresh, "device", "list", "--json").facts[0]["state"] == "received"


def test_devices_are_listed_by_their_profile(fresh: Path) -> None:
    models = [plans.model(), plans.model("Lyra G2", category="glucose-monitor", prefix="LG2")]
    rows = plans.devices("icu", 1, 2), plans.devices("icu", 1, 1, "Lyra G2")
    run(fresh, "plan", "apply", written(fresh, plans.hospital_plan(plans.hospital(*rows), models=models)), "--yes")
    every = done(fresh, "device", "list", "--json").facts
    profiles = {row["profile"] for row in every}
    assert len(every) == 3
    assert len(profiles) == 2
    for profile in profiles:
        found = done(fresh, "device", "list", "--profile", profile, "--json").facts
        assert found == [row for row in every if row["profile"] == profile]
    assert done(fresh, "device", "list", "--profile", "bedside", "--model", "Lyra G2", "--json").facts == []
    denied(fresh, 2, "BAD_ARGUMENT", "device", "list", "--profile", "Bedside", says=("known are", "bedside"))


def test_the_ceremony_makes_offline_keys_and_certifies_what_waits(fresh: Path) -> None:
    run(fresh, "plan", "apply", written(fresh), "--yes")
    assert len(done(fresh, "ceremony", "--dry-run", "--json").facts) == 5
    held = done(fresh, "ceremony", "--yes", "--json").facts
    assert held["certified"] == ["root#1", "h1#1", "h1/sdc#1", "h1/infra#1", "h1/icu#1"]
    assert held["sealed"] == 4
    assert set(authority_states(fresh).values()) == {"active"}
    assert done(fresh, "ca", "show", "h1/icu", "--json").facts["parent"] == "h1#1"
    assert done(fresh, "plan", "apply", written(fresh), "--yes").code == 0


@pytest.mark.parametrize("how", [(), ("--ceremony",)], ids=["apply", "with-ceremony"])
def test_a_second_apply_leaves_a_byte_equal_export(hospital: Path, how: tuple[str, ...]) -> None:
    before = done(hospital, "export").out
    again = done(hospital, "plan", "apply", written(hospital), "--yes", "--json", *how).facts
    assert again["authorities"] == again["devices"] == 0
    assert done(hospital, "export").out == before


def test_a_ceremony_that_was_cut_off_is_held_again_by_the_next_apply(hospital: Path) -> None:
    """Certified, but no list was signed: nothing waits by its state, and yet something is missing."""
    with Installation.open(hospital) as installation:
        installation.writer.submit(lambda batch: batch.connection.execute(delete(crl_publications))).result()
    (hospital / "keystores" / "h1" / "emergency" / "h1.icu.1.sealed").unlink()
    done(hospital, "plan", "apply", written(hospital), "--yes", "--ceremony")
    found = done(hospital, "doctor", "--json").facts
    assert not [one for one in found if "h1#1" in one["finding"] and one["state"] != "well"]
    assert (hospital / "keystores" / "h1" / "emergency" / "h1.icu.1.sealed").exists()


def test_a_ceremony_of_its_own_renews_the_lists(hospital: Path) -> None:
    before = done(hospital, "export").out
    time.sleep(1.1)  # at most one list a second
    held = done(hospital, "ceremony", "--yes", "--json").facts
    assert held["certified"] == []
    assert held["lists"] == ["root#1/0", "root#1/complete", "h1#1/0", "h1#1/complete"]
    assert done(hospital, "export").out != before


def test_apply_asks_and_a_no_changes_nothing(fresh: Path) -> None:
    refused = run(fresh, "plan", "apply", written(fresh))
    assert (refused.code, "--yes" in refused.err) == (1, True)
    assert done(fresh, "ca", "list", "--json").facts == []


def test_a_bad_plan_is_refused_with_file_key_and_remedy(fresh: Path) -> None:
    wrong = written(fresh, PLAN.replace('"icu"', '"sdc"'))
    denied(fresh, 2, "BAD_PLAN", "plan", "check", wrong, says=("hospitals[0].units[0].label", "rename"))


def test_a_plan_with_a_category_that_the_pack_lacks_is_refused(fresh: Path) -> None:
    denied(fresh, 2, "BAD_PLAN", "plan", "check", written(fresh, PLAN.replace("infusion-pump", "toaster")))


def test_a_wrong_passphrase_is_reported(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PASSPHRASE", "another passphrase")
    denied(hospital, 1, "PASSPHRASE_WRONG", "ceremony", "--yes")


def test_devices_are_added_listed_shown_moved_and_given_tokens(hospital: Path) -> None:
    new = ("device", "add", "--unit", "h1/icu", "--model", "Aorta IP3", "--serial", "X1")
    added = done(hospital, *new, "--json").facts
    assert added["profile"] == "bedside"
    denied(hospital, 3, "ALREADY_EXISTS", *new)
    assert len(done(hospital, "device", "list", "--unit", "h1/icu", "--json").facts) == 4
    assert done(hospital, "device", "show", "Aorta IP3:X1", "--json").facts["device"]["id"] == added["id"]
    assert len(done(hospital, "token", "make", added["id"], "--json").facts["token"]) == 32
    done(hospital, "device", "state", added["id"], "commissioned")
    assert done(hospital, "device", "state", added["id"], "quarantined", "--json").facts["state"] == "quarantined"
    denied(hospital, 3, "DEVICE_STATE", "token", "make", added["id"])
    assert done(hospital, "device", "revoke", added["id"], "--yes", "--json").facts["revoked"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("device", "show", "nobody"), 2, "BAD_ARGUMENT"),
        (("device", "show", "Aorta IP3:none"), 2, "NOT_IN_INVENTORY"),
        (("device", "list", "--unit", "icu"), 2, "NON_CANONICAL"),
        (("device", "list", "--state", "lost"), 2, "BAD_ARGUMENT"),
        (("device", "add", "--unit", "h1/er", "--model", "Aorta IP3", "--serial", "1"), 2, "BAD_ARGUMENT"),
        (("device", "revoke", "Aorta IP3:AIP3-000001", "--reason", "boredom", "--yes"), 2, "BAD_ARGUMENT"),
        (("ca", "show", "h9"), 2, "AUTHORITY_UNKNOWN"),
        (("ca", "show", "h1/icu#x"), 2, "AUTHORITY_UNKNOWN"),
        (("ca", "request", "h1/icu"), 3, "ALREADY_EXISTS"),
        (("ca", "retire", "h1/icu#7"), 2, "AUTHORITY_UNKNOWN"),
        (("serve", "--issue-for", "root"), 1, "KEY_OFFLINE"),
        (("serve", "--issue-for", "h9/icu"), 2, "AUTHORITY_UNKNOWN"),
        (("maker", "make-idevids", "--out", "x", "--unsafe-make-keys"), 3, "AUTHORITY_UNKNOWN"),
    ],
)
def test_what_cannot_be_done_has_its_reason(hospital: Path, arguments: tuple[str, ...], code: int, reason: str) -> None:
    denied(hospital, code, reason, *arguments)


def test_a_device_without_a_request_is_named_before_anything_is_issued(maker: Path, tmp_path: Path) -> None:
    asked = ("maker", "make-idevids", "--out", str(tmp_path / "out"), "--requests", str(tmp_path))
    assert "--serial" in denied(maker, 2, "BAD_ARGUMENT", *asked).err
    assert not (tmp_path / "out").exists()


def test_an_authority_is_rolled_and_both_generations_stand(hospital: Path) -> None:
    rolled = run(hospital, "ca", "roll", "h1/icu", "--json")
    assert rolled.code == 3
    assert rolled.facts["authority"] == "h1/icu#2"
    done(hospital, "ceremony", "--yes")
    states = authority_states(hospital)
    assert states["h1/icu#1"] == states["h1/icu#2"] == "active"
    done(hospital, "ca", "retire", "h1/icu#1", "--yes")
    assert authority_states(hospital)["h1/icu#1"] == "retired"


def test_certificates_are_exported_as_pem(hospital: Path, tmp_path: Path) -> None:
    assert done(hospital, "ca", "export", "root").out.count("BEGIN CERTIFICATE") == 1
    done(hospital, "ca", "export", "h1/icu", "--chain", "--out", str(tmp_path / "chain.pem"))
    assert (tmp_path / "chain.pem").read_text().count("BEGIN CERTIFICATE") == 3


def test_the_ledger_is_verified_shown_and_a_cut_is_reported(hospital: Path) -> None:
    report = done(hospital, "audit", "verify", "--json").facts
    assert report["verdict"] == "sound"
    assert "cannot be excluded" in report["caveat"]
    assert len(done(hospital, "audit", "show", "--limit", "5", "--json").facts) == 5
    ceremony = done(hospital, "audit", "show", "--kind", "ceremony-step", "--json").facts
    assert ceremony[0]["facts"].split()[1] == "step=1"
    denied(hospital, 2, "BAD_ARGUMENT", "audit", "show", "--kind", "ceremony_step", says=("ceremony-step",))
    denied(hospital, 4, "CHECKPOINT_INVALID", "audit", "checkpoint")


def test_the_doctor_warns_and_is_content(hospital: Path) -> None:
    states = {one["check"]: one["state"] for one in done(hospital, "doctor", "--json").facts}
    assert states["permissions"] == states["database"] == states["clock"] == "well"
    assert states["keystores"] == "warning", "a weak derivation is reported"


def test_the_doctor_reads_the_derivation_from_keystores_not_settings(hospital: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(hospital, copy)
    settings = copy / "vagus.toml"
    text = settings.read_text("utf-8")
    assert "unsafe_fast = true" in text
    settings.write_text(text.replace("unsafe_fast = true", "unsafe_fast = false"), "utf-8")
    (found,) = findings(copy, "keystores")
    assert (found["state"], "log" in found["finding"]) == ("warning", True)


def test_the_doctor_warns_of_a_shared_account(hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = tmp_path / "loginuid"
    monkeypatch.setattr(local_account, "_LOGIN", login)
    account = local_account.find_operator()
    for told, state in ((None, "warning"), (str(2**32 - 1), "warning"), (str(os.getuid()), "well")):
        if told is not None:
            login.write_text(told)
        (one,) = findings(hospital, "operators", fails=False)
        assert (one["state"], account in one["finding"]) == (state, True), told
        assert ("pam_loginuid" in (one["remedy"] or "")) is (state == "warning")


def test_the_doctor_fails_for_keys_that_others_can_read(hospital: Path) -> None:
    (hospital / "keystores" / "log" / "keystore.toml").chmod(0o644)
    assert "failing" in {one["state"] for one in findings(hospital, "permissions", fails=True)}


def test_a_manifest_is_taken_in_with_its_anchor(hospital: Path, maker: Path, tmp_path: Path) -> None:
    born, manifest, anchor = tmp_path / "born", str(tmp_path / "manifest.json"), str(tmp_path / "anchor.pem")
    made = done(maker, "maker", "make-idevids", "--out", str(born), "--unsafe-make-keys", "--json").facts
    assert made["issued"] == 3
    assert (born / "AIP3-000001" / "certificate.pem").read_text().count("BEGIN CERTIFICATE") == 2
    again = ("--out", str(tmp_path / "again"), "--unsafe-make-keys", "--serial", "AIP3-000002", "--again", "--json")
    assert done(maker, "maker", "make-idevids", *again).facts["issued"] == 1
    assert done(maker, "maker", "manifest", "--out", manifest, "--json").facts["certified"] == 3
    denied(maker, 3, "ALREADY_EXISTS", "maker", "manifest", "--out", manifest, says=("--replace",))
    done(maker, "maker", "manifest", "--out", manifest, "--replace")
    done(maker, "ca", "export", "root", "--out", anchor)
    taken = done(hospital, "device", "import", manifest, "--anchor", anchor, "--json").facts
    assert (taken["known"], taken["added"], taken["unknown"]) == (3, 0, 0)
    assert done(hospital, "device", "import", manifest, "--anchor", anchor, "--json").facts == taken
    other = str(tmp_path / "other.pem")
    done(hospital, "ca", "export", "root", "--out", other)
    denied(hospital, 3, "KEY_MISMATCH", "device", "import", manifest, "--anchor", other)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"kind": "vagus-manifest", "format": 2}', b"\xff", b"[1]"])
def test_what_is_no_manifest_is_refused(hospital: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest").write_bytes(content)
    done(hospital, "ca", "export", "root", "--out", str(tmp_path / "anchor.pem"))
    refused = run(hospital, "device", "import", str(tmp_path / "manifest"), "--anchor", str(tmp_path / "anchor.pem"))
    assert (refused.code, refused.reason) in {(2, "BAD_ENCODING"), (2, "BAD_VERSION")}


def test_an_authority_is_revoked_in_an_emergency_without_its_parents_key(hospital: Path) -> None:
    envelope = hospital / "keystores" / "h1" / "emergency" / "h1.icu.1.sealed"
    told = done(hospital, "ca", "emergency", str(envelope), "--yes", "--json").facts
    assert told == {"revoked": "h1/icu#1", "lists": ["h1#1/0", "h1#1/complete"]}
    assert done(hospital, "ca", "show", "h1/icu#1", "--json").facts["state"] == "revoked"
    assert run(hospital, "serve", "--issue-for", "h1/icu").code == 3
    denied(hospital, 2, "BAD_ARGUMENT", "ca", "emergency", str(hospital / "vagus.toml"), "--yes")


def test_certificates_are_held_and_released(hospital: Path) -> None:
    issue(hospital, 1)
    for act, count, state in (("hold", "held", "held"), ("release", "released", "issued")):
        assert done(hospital, "device", act, device_name(1), "--json").facts[count] == 1
        assert certificate_state(hospital) == state


def certificate_state(hospital: Path) -> object:
    """Of the first device's certificate."""
    return done(hospital, "device", "show", device_name(1), "--json").facts["certificates"][0]["state"]


def test_the_end_of_a_devices_life_revokes_its_certificates(hospital: Path) -> None:
    issue(hospital, 1)
    done(hospital, "device", "state", device_name(1), "decommissioned", "--yes")
    assert certificate_state(hospital) == "revoked"


def test_a_plan_does_not_remove_an_authority_that_devices_rely_on(hospital: Path) -> None:
    issue(hospital, 1)
    without = PLAN.replace('label = "icu", title = "Intensive Care"', 'label = "er", title = "Emergency"')
    without = without.replace('unit = "icu"', 'unit = "er"')
    denied(hospital, 3, "AUTHORITY_IN_USE", "plan", "check", written(hospital, without))


MOVED = "http://crl.moved.example"


def test_a_plan_does_not_move_away_from_the_status_url_that_certificates_name(hospital: Path) -> None:
    moved = written(hospital, PLAN.replace("http://127.0.0.1:1", MOVED))
    for arguments in (("check", moved), ("apply", moved, "--yes")):
        refused = denied(hospital, 3, "AUTHORITY_IN_USE", "plan", *arguments)
        assert "Keep http://127.0.0.1:1 in the plan" in refused.err.replace("\n", " ")


def test_the_status_url_may_change_as_long_as_nothing_is_issued(fresh: Path) -> None:
    assert run(fresh, "plan", "apply", written(fresh), "--yes").code == 3, "a ceremony is needed"
    run(fresh, "plan", "apply", written(fresh, PLAN.replace("http://127.0.0.1:1", MOVED)), "--yes")
    assert MOVED in (fresh / "plan.toml").read_text()


def with_own_pack(hospital: Path, **changes: str) -> str:
    """Give the hospital a policy pack of its own, in which values are changed; gives the text of its settings."""
    own = SHIPPED.read_text().replace('version = "', 'version = "9', 1)
    for name, value in changes.items():
        own, count = re.subn(rf'(?m)^{name} = ".*?"', f'{name} = "{value}"', own)
        assert count == 1
    (hospital / "own.toml").write_text(own)
    settings = hospital / "vagus.toml"
    text = settings.read_text().replace('# policy_pack = "our-pack.toml"', 'policy_pack = "own.toml" #')
    settings.write_text(text)
    return text


def test_a_token_may_go_to_a_file_of_its_owner_alone(hospital: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    made = done(hospital, "token", "make", device_name(1), "--out", str(file), "--json")
    assert "token" not in made.facts
    text = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert text not in made.out
    with Installation.open(hospital) as installation, installation.database.reading() as connection:
        assert find_token(connection, hash_token(text)) is not None
        device = find_named(installation.database, device_name(1)).id
        count = len(list_tokens_of(connection, device))
    denied(hospital, 3, "ALREADY_EXISTS", "token", "make", device_name(1), "--out", str(file))
    with Installation.open(hospital) as installation, installation.database.reading() as connection:
        assert len(list_tokens_of(connection, device)) == count, "no token is made that nobody can read"


@pytest.mark.parametrize("hours", ["nan", "inf", "0", "2161"])
def test_a_token_is_for_a_number_of_hours(hospital: Path, hours: str) -> None:
    assert run(hospital, "token", "make", device_name(1), "--hours", hours).code == 2


def test_tokens_and_transfers_follow_the_policy_pack(hospital: Path) -> None:
    with_own_pack(hospital, token_lifetime="2d", transfer_overlap="3h")
    done(hospital, "token", "make", device_name(1))
    done(hospital, "token", "make", device_name(1), "--hours", "5")
    with_er = PLAN.replace('Intensive Care"}', 'Intensive Care"}, {label = "er", title = "Emergency"}')
    done(hospital, "plan", "apply", written(hospital, with_er), "--yes", "--ceremony")
    done(hospital, "device", "transfer", device_name(1), "h1/er")
    with Installation.open(hospital) as installation, installation.database.reading() as connection:
        made = list_tokens_of(connection, find_named(installation.database, device_name(1)).id)
        assert sorted(one.expires_at - one.made_at for one in made) == [5 * 3600, 2 * 86400]
        (job,) = connection.execute(select(work.c.run_after)).scalars()
        assert 3 * 3600 - 60 < job - installation.clock.now().timestamp() <= 3 * 3600


def test_another_policy_pack_is_adopted_with_an_entry(hospital: Path) -> None:
    text = with_own_pack(hospital)
    settings = hospital / "vagus.toml"
    assert "warning" in {one["state"] for one in findings(hospital, "policy pack", fails=False)}
    done(hospital, "plan", "apply", written(hospital), "--yes")
    assert len(done(hospital, "audit", "show", "--kind", "policy-adopted", "--json").facts) == 2
    settings.write_text(text.replace("own.toml", "none.toml"))
    denied(hospital, 2, "BAD_PACK", "plan", "check", written(hospital))


def test_a_revoked_device_is_locked_out_until_the_inventory_says_otherwise(hospital: Path) -> None:
    issue(hospital, 1)
    done(hospital, "device", "state", device_name(1), "commissioned")
    before = done(hospital, "token", "make", device_name(1), "--json").facts
    done(hospital, "device", "revoke", device_name(2), "--yes")  # never commissioned, never certified
    revoked = done(hospital, "device", "revoke", device_name(1), "--yes", "--json").facts
    assert (revoked["revoked"], revoked["state"]) == (1, "quarantined")
    assert state_of(hospital, 2) == "recalled"
    for number in (1, 2):
        denied(hospital, 3, "DEVICE_STATE", "token", "make", device_name(number))
    with Installation.open(hospital) as installation, installation.database.reading() as connection:
        token = present(find_token(connection, hash_token(before["token"])))
        assert token.expires_at <= int(installation.clock.now().timestamp())


def test_a_device_may_be_left_to_enrol_anew(hospital: Path) -> None:
    for number, how in ((1, ("--keep-enrolling",)), (2, ("--reason", "superseded"))):
        issue(hospital, number)
        done(hospital, "device", "state", device_name(number), "commissioned")
        revoked = done(hospital, "device", "revoke", device_name(number), *how, "--yes", "--json").facts
        assert (revoked["revoked"], revoked["state"]) == (1, "commissioned")
        done(hospital, "token", "make", device_name(number))


def state_of(hospital: Path, number: int) -> str:
    found: str = done(hospital, "device", "show", device_name(number), "--json").facts["device"]["state"]
    return found


def test_a_token_for_both_certificates_needs_a_device_with_host_names(hospital: Path) -> None:
    denied(hospital, 2, "BAD_ARGUMENT", "token", "make", device_name(1), "--both")
    add = ("device", "add", "--unit", "h1/icu", "--model", "Aorta IP3", "--serial", "AIP3-009999")
    added = done(hospital, *add, "--host-name", "pump.h1.five-hospitals.example", "--json").facts
    text = done(hospital, "token", "make", added["id"], "--both", "--json").facts["token"]
    with Installation.open(hospital) as installation, installation.database.reading() as connection:
        for label in (None, "server"):
            assert present(find_token(connection, hash_token(text, label))).device_id.text == added["id"]
