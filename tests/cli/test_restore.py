"""Back from a backup: the log goes on where the world saw it last, or says plainly that it cannot."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from tests.simulator.issuing import SOURCE, Kept, device_name, issue, make_responder, publish
from tests.simulator.presence import present
from tests.simulator.processes import Served, serving
from tests.simulator.queries import find_token
from tests.simulator.refusals import reason_of, refuses
from tests.simulator.running import denied, done, run
from tests.simulator.waiting import wait_until
from vagus.authority import shards
from vagus.errors import IntegrityFailure
from vagus.reasons import Reason
from vagus.records.engine.backup import copy_database
from vagus.records.engine.database import open_database
from vagus.records.engine.writer import Batch
from vagus.records.installation import set_restored
from vagus.records.keys import find_key
from vagus.wiring import Installation
from vagus.x509.crls.decoding import Crl, decode_crl
from vagus_agent.http import Response
from vagus_agent.log_memory import LogMemory

pytestmark = pytest.mark.process

NEWEST_LIST = "crl/h1.icu/1/0.crl"


@dataclass(frozen=True, slots=True)
class Lost:
    """A hospital that was lost behind its backup: what it did last, and what others have of it."""

    backup: Path
    kept: Kept
    before: bytes  # certificates from before the backup and from behind it
    revoked: bytes
    behind: bytes
    memory: Path  # the newest checkpoint, as a device keeps it
    log_key: str

    def remember(self, log: Path) -> None:
        """What a device does that kept the newest checkpoint: it takes another one, or reports."""
        LogMemory(self.memory, self.log_key).refresh(PublishedLog(log))

    def serial(self, der: bytes) -> int:
        return x509.load_der_x509_certificate(der).serial_number


@dataclass(frozen=True, slots=True)
class PublishedLog:
    """What the status listener hands out under /log, read from the folder behind it."""

    folder: Path

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        assert (method, headers, body) == ("GET", None, None)
        return Response(200, {}, (self.folder / path.removeprefix("/log/")).read_bytes(), keeps_alive=False)


@pytest.fixture(scope="module")
def lost_once(hospital_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    folder = shutil.copytree(hospital_once, tmp_path_factory.mktemp("lost") / "hospital")
    place = folder.parent
    make_responder(folder)
    before, revoked = issue(folder, 1), issue(folder, 2)
    publish(folder, "early")
    (place / "token").write_text(done(folder, "token", "make", device_name(1), "--json").facts["token"])
    done(folder, "backup", str(place / "backup.tar"))
    behind = issue(folder, 3)
    done(folder, "device", "revoke", device_name(2), "--reason", "keyCompromise", "--yes")
    done(folder, "device", "state", device_name(1), "decommissioned", "--yes")
    kept = publish(folder)
    log_key = (folder / "log.vkey").read_text()
    LogMemory(place / "memory", log_key).refresh(PublishedLog(kept.log))
    shutil.rmtree(folder)
    return Lost(place / "backup.tar", kept, before, revoked, behind, place / "memory", log_key)


@pytest.fixture
def lost(lost_once: Lost, tmp_path: Path) -> Lost:
    return replace(lost_once, memory=Path(shutil.copy(lost_once.memory, tmp_path)))


def brought_back(lost: Lost, place: Path, *, with_log: bool = True, with_crls: bool = True) -> Path:
    back = place / "back"
    seen = ("--published", str(lost.kept.log), "--checkpoint", str(lost.kept.checkpoint)) if with_log else ()
    done(back, "restore", str(lost.backup), *seen, *(("--crl", str(lost.kept.crls)) if with_crls else ()))
    return back


def close(back: Path, lost: Lost, *arguments: str) -> dict[str, object]:
    evidence = ("--checkpoint", str(lost.kept.checkpoint), "--crl", str(lost.kept.crls))
    found: dict[str, object] = done(back, "restore-gap", *evidence, *arguments, "--yes", "--json").facts
    return found


def states(folder: Path) -> dict[int, str]:
    """The certificates of the inventory by their serials."""
    found: dict[int, str] = {}
    for number in (1, 2, 3):
        shown = done(folder, "device", "show", device_name(number), "--json").facts
        found |= {int(one["serial"], 16): one["state"] for one in shown["certificates"]}
    return found


def newest_list(file: Path) -> Crl:
    return decode_crl(file.read_bytes())


def is_listed(crl: Crl, serial: int) -> bool:
    return serial in {int.from_bytes(octets, "big") for octets in crl.entries.get(crl.issuer.relative_names, {})}


def test_the_log_goes_on_where_the_world_saw_it_last(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path)
    closed = close(back, lost, "--accept")
    assert (closed["act"], closed["issued"], closed["revoked"]) == ("accepted", 1, 0)

    # the newest checkpoint that anybody has is of this log
    against = ("--against", str(lost.kept.checkpoint))
    assert done(back, "audit", "verify", *against, "--json").facts["caveat"] is None

    # what was revoked and decommissioned stays so, the accepted certificate counts
    assert states(back) == {
        lost.serial(lost.before): "revoked",
        lost.serial(lost.revoked): "revoked",
        lost.serial(lost.behind): "issued",
    }
    assert done(back, "device", "show", device_name(1), "--json").facts["device"]["state"] == "decommissioned"

    # and it is content with what is published next
    issue(back, 3, "again")
    lost.remember(publish(back, "next").log)
    assert done(back, "audit", "verify", *against, "--json").facts["verdict"] == "sound"
    kinds = [row["kind"] for row in done(back, "audit", "show", "--limit", "9", "--json").facts]
    assert kinds[: kinds.index("gap-accepted") + 1][-2:] == ["restored", "gap-accepted"]


def test_all_that_was_issued_in_the_gap_can_be_revoked(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path)
    assert close(back, lost, "--revoke")["revoked"] == 1
    assert set(states(back).values()) == {"revoked"}
    published = publish(back, "next")
    before, after = newest_list(lost.kept.crls / NEWEST_LIST), newest_list(published.crls / NEWEST_LIST)
    assert is_listed(after, lost.serial(lost.behind))
    assert is_listed(after, lost.serial(lost.revoked))
    assert present(after.number) > present(before.number)
    assert after.this_update > before.this_update
    assert done(back, "audit", "verify", "--against", str(lost.kept.checkpoint), "--json").facts["verdict"] == "sound"


def test_before_the_gap_is_closed_nothing_is_issued_or_written_down(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path)
    before = done(back, "export").out
    assert done(back, "audit", "verify", "--json").facts["verdict"] == "sound"
    for command in (
        ("serve", "--issue-for", "h1/icu"),
        ("ceremony", "--yes"),
        ("device", "revoke", device_name(3), "--yes"),
        ("device", "state", device_name(3), "quarantined"),
        ("token", "make", device_name(3)),
        ("device", "add", "--unit", "h1/icu", "--model", "Aorta IP3", "--serial", "AIP3-000009"),
        ("backup", str(tmp_path / "again.tar")),
    ):
        refused = run(back, *command)
        assert (refused.code, refused.reason) in {(3, "RESTORE_UNSETTLED"), (3, "DEVICE_STATE")}, command
    assert done(back, "export").out == before


def ocsp_status(served: Served, der: bytes) -> object:
    """What OCSP says of a certificate: its status, or that of a response without one."""
    issuer = x509.load_der_x509_certificate(served.get("/ca/h1.icu/1.cer"))
    answer = served.ask_ocsp(x509.load_der_x509_certificate(der), issuer)
    good = answer.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    return answer.certificate_status if good else answer.response_status


def test_status_is_answered_as_the_world_knows_it_before_the_gap_is_closed(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path)
    with serving(back, "--role", "status", "--issue-for", "h1/icu") as served:
        assert served.get(f"/{NEWEST_LIST}") == (lost.kept.crls / NEWEST_LIST).read_bytes()
        assert served.get("/log/checkpoint") == lost.kept.checkpoint.read_bytes()
        assert ocsp_status(served, lost.revoked) is ocsp.OCSPCertStatus.REVOKED
        assert ocsp_status(served, lost.behind) is ocsp.OCSPCertStatus.GOOD
        # whoever closes the gap meanwhile needs no restart: the next list comes by itself
        close(back, lost, "--revoke")
        serial = lost.serial(lost.behind)
        wait_until(lambda: is_listed(decode_crl(served.get(f"/{NEWEST_LIST}")), serial), "the next CRL")
        assert ocsp_status(served, lost.behind) is ocsp.OCSPCertStatus.REVOKED
        assert served.stop() == 0


def test_ocsp_calls_nothing_good_before_the_gap_is_known(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path, with_log=False)
    with serving(back, "--role", "status", "--issue-for", "h1/icu") as served:
        assert served.get(f"/{NEWEST_LIST}") == (lost.kept.crls / NEWEST_LIST).read_bytes()
        assert ocsp_status(served, lost.revoked) is ocsp.OCSPResponseStatus.TRY_LATER


@pytest.mark.parametrize("with_log", [False, True])
def test_a_restored_system_that_was_shown_no_lists_hands_out_none(lost: Lost, tmp_path: Path, with_log: bool) -> None:
    """Its own are older than what the world has: their numbers would fall, and who was revoked would be good."""
    back = brought_back(lost, tmp_path, with_log=with_log, with_crls=False)
    with serving(back, "--role", "status", "--issue-for", "h1/icu") as served:
        status, body = served.request("GET", f"/{NEWEST_LIST}")
        assert (status, json.loads(body)["reason"]) == (503, "RESTORE_UNSETTLED")
        told = ocsp_status(served, lost.revoked)
        assert told is (ocsp.OCSPCertStatus.REVOKED if with_log else ocsp.OCSPResponseStatus.TRY_LATER)


def set_back(folder: Path, older: Path) -> None:
    """As a database server's own tools do: no mark is left."""
    for left in folder.glob("vagus.sqlite3*"):
        left.unlink()
    shutil.copy(older, folder / "vagus.sqlite3")


def set_back_after_a_revocation(hospital: Path, older: Path) -> tuple[bytes, Kept]:
    """The second device's certificate is revoked and published, and the database is that of before: `older`."""
    make_responder(hospital)
    stolen = issue(hospital, 2)
    publish(hospital, "early")
    copy_database(open_database(f"sqlite:///{hospital}/vagus.sqlite3"), older)
    done(hospital, "device", "revoke", device_name(2), "--reason", "keyCompromise", "--yes")
    kept = publish(hospital)
    set_back(hospital, older)
    return stolen, kept


@pytest.mark.parametrize("left", ["log", "published", "both"])
def test_a_status_node_over_an_older_database_is_blind(
    hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    stolen, kept = set_back_after_a_revocation(hospital, tmp_path / "old.sqlite3")
    if left == "log":
        shutil.rmtree(hospital / "published")
    elif left == "published":
        shutil.rmtree(hospital / "log")
    place, serial = hospital / "published" / NEWEST_LIST, x509.load_der_x509_certificate(stolen).serial_number
    denied(hospital, 3, "RESTORE_UNSETTLED", "serve", "--issue-for", "h1/icu")
    with monkeypatch.context() as patched:
        patched.setenv("VAGUS_PASSPHRASE_SOURCE", "ocsp=env:TEST_PASSPHRASE")  # a status node has no other
        with serving(hospital, "--role", "status") as served:
            assert ocsp_status(served, stolen) is ocsp.OCSPResponseStatus.TRY_LATER
            if left == "log":
                assert served.request("GET", f"/{NEWEST_LIST}")[0] == 503
                assert not place.exists(), "no older CRL is written"
            else:
                assert served.get(f"/{NEWEST_LIST}") == (kept.crls / NEWEST_LIST).read_bytes()
            lists = ("--crl", str(kept.crls)) if left == "log" else ()
            evidence = ("--checkpoint", str(kept.checkpoint), "--published", str(kept.log), *lists)
            patched.setenv("VAGUS_PASSPHRASE_SOURCE", SOURCE)
            done(hospital, "restore-gap", *evidence, "--accept", "--yes")
            wait_until(lambda: ocsp_status(served, stolen) is ocsp.OCSPCertStatus.REVOKED, "the revocation in OCSP")
            assert served.stop() == 0
    before = newest_list(kept.crls / NEWEST_LIST)
    after = newest_list(publish(hospital, "next").crls / NEWEST_LIST)
    assert is_listed(before, serial)
    assert is_listed(after, serial)
    assert (after.number or 0) > (before.number or 0)


def test_a_status_node_without_files_and_log_of_its_own_answers(hospital: Path, tmp_path: Path) -> None:
    """A node that begins: nothing beside the database, or what another installation left."""
    make_responder(hospital)
    issued = issue(hospital, 1)
    publish(hospital)
    shutil.rmtree(hospital / "log")
    foreign = hospital / "published" / NEWEST_LIST
    content = foreign.read_bytes()
    shutil.rmtree(hospital / "published")
    with serving(hospital, "--role", "status") as served:
        assert ocsp_status(served, issued) is ocsp.OCSPCertStatus.GOOD
        assert served.get(f"/{NEWEST_LIST}") == content
        wait_until(foreign.exists, "the CRL's file")
        assert foreign.read_bytes() == content


def test_a_revocation_of_the_gap_is_in_its_crl(hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shard was opened behind the backup; its list is signed again, and goes on naming who is revoked there."""
    monkeypatch.setattr(shards, "SHARD_PLACES", 2)
    monkeypatch.setattr(shards, "BLOCK", 1)
    make_responder(hospital)
    issue(hospital, 1)
    publish(hospital, "early")
    done(hospital, "backup", str(tmp_path / "backup.tar"))
    behind = [issue(hospital, 2), issue(hospital, 3), *(issue(hospital, 3, f"x{n}") for n in (1, 2))]
    stolen = x509.load_der_x509_certificate(behind[-1])
    points = stolen.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    shard = (points[0].full_name or [])[0].value.rpartition("/")[2]
    assert shard != "0.crl"
    done(hospital, "device", "revoke", device_name(3), "--reason", "keyCompromise", "--yes")
    kept = publish(hospital)
    name = f"crl/h1.icu/1/{shard}"
    assert is_listed(newest_list(kept.crls / name), stolen.serial_number)
    back, checkpoint = tmp_path / "back", ("--checkpoint", str(kept.checkpoint))
    seen = ("--published", str(kept.log), *checkpoint, "--crl", str(kept.crls))
    done(back, "restore", str(tmp_path / "backup.tar"), *seen)
    done(back, "restore-gap", *checkpoint, "--crl", str(kept.crls), "--accept", "--yes")
    for number in range(4):
        issue(back, 1, f"y{number}")
    again = publish(back, "later")
    assert is_listed(newest_list(again.crls / name), stolen.serial_number)
    numbers = [newest_list(place / name).number for place in (kept.crls, again.crls)]
    assert (numbers[0] or 0) < (numbers[1] or 0)
    assert done(back, "audit", "verify", *("--against", str(kept.checkpoint)), "--json").facts["verdict"] == "sound"


def test_a_status_node_serves_no_crl_of_the_backup_after_a_gap_closed_without_crls(lost: Lost, tmp_path: Path) -> None:
    """The log tells that a newer one is out: the backup's lacks who was revoked, and waits for whoever signs."""
    back = tmp_path / "back"
    done(back, "restore", str(lost.backup), "--published", str(lost.kept.log))
    done(back, "restore-gap", "--checkpoint", str(lost.kept.checkpoint), "--accept", "--yes")
    with serving(back, "--role", "status") as served:
        assert ocsp_status(served, lost.revoked) is ocsp.OCSPCertStatus.REVOKED
        assert served.request("GET", f"/{NEWEST_LIST}")[0] >= 400
        assert served.get("/crl/root/1/0.crl"), "no newer one is out"
    assert not (back / "published" / NEWEST_LIST).exists()
    before, after = (newest_list(place / NEWEST_LIST) for place in (lost.kept.crls, publish(back, "next").crls))
    assert is_listed(after, lost.serial(lost.revoked))
    assert (after.number or 0) > (before.number or 0)


def test_without_the_published_log_nothing_goes_on_under_the_old_name(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path, with_log=False)
    evidence = ("--checkpoint", str(lost.kept.checkpoint), "--crl", str(lost.kept.crls))
    assert "--new-origin" in denied(back, 3, "LOG_TRUNCATED", "restore-gap", *evidence, "--accept", "--yes").err
    assert run(back, "token", "make", device_name(3)).reason == "RESTORE_UNSETTLED"

    denied(back, 2, "BAD_ARGUMENT", "restore-gap", *evidence, "--accept", "--new-origin", "log.test", "--yes")
    closed = close(back, lost, "--accept", "--new-origin", "log.test/2")
    assert str(closed["log_key"]).startswith("log.test/2+")
    assert states(back)[lost.serial(lost.revoked)] == "revoked", "the lists told so"
    published = publish(back, "next")
    assert published.checkpoint.read_text().startswith("log.test/2\n")
    assert done(back, "audit", "verify", "--json").facts["origin"] == "log.test/2"
    # devices that remember the other log take nothing of this one for it
    assert reason_of(lost.remember, published.log, error=IntegrityFailure) is Reason.CHECKPOINT_INVALID


def test_crls_that_the_restore_was_shown_count_though_they_are_not_given_again(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path, with_log=False)
    evidence = ("--checkpoint", str(lost.kept.checkpoint), "--new-origin", "log.test/2")
    done(back, "restore-gap", *evidence, "--accept", "--yes")
    assert states(back)[lost.serial(lost.revoked)] == "revoked"
    assert is_listed(newest_list(publish(back, "next").crls / NEWEST_LIST), lost.serial(lost.revoked))


def test_an_old_copy_of_the_published_log_is_not_taken_for_the_newest(lost: Lost, tmp_path: Path) -> None:
    early = lost.backup.parent / "early" / "log"
    newest = ("--checkpoint", str(lost.kept.checkpoint))
    denied(tmp_path / "back", 5, "LOG_TRUNCATED", "restore", str(lost.backup), "--published", str(early), *newest)
    assert not (tmp_path / "back").exists()

    back = brought_back(lost, tmp_path, with_log=False)
    denied(back, 5, "LOG_TRUNCATED", "restore-gap", "--published", str(early), *newest, "--accept", "--yes")
    # for a log under another name it is good enough: it tells what it can
    done(back, "restore-gap", "--published", str(early), *newest, "--accept", "--new-origin", "log.test/2", "--yes")
    assert done(back, "audit", "verify", "--json").facts["verdict"] == "sound"


def test_the_published_log_may_be_found_later(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path, with_log=False)
    assert close(back, lost, "--published", str(lost.kept.log), "--accept")["issued"] == 1
    lost.remember(publish(back, "next").log)


def test_without_any_checkpoint_the_published_log_is_taken_at_the_operators_word(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path)
    done(back, "restore-gap", "--unsafe-no-checkpoint", "--accept", "--yes")
    assert done(back, "audit", "verify", "--against", str(lost.kept.checkpoint), "--json").facts["caveat"] is None
    denied(back, 3, "ALREADY_EXISTS", "restore-gap", "--unsafe-no-checkpoint", "--accept", "--yes")


def test_a_backup_behind_which_nothing_was_published_goes_on_at_once(hospital: Path, tmp_path: Path) -> None:
    kept = publish(hospital)
    done(hospital, "backup", str(tmp_path / "backup.tar"))
    back = tmp_path / "back"
    done(back, "restore", str(tmp_path / "backup.tar"))
    done(back, "restore-gap", "--checkpoint", str(kept.checkpoint), "--accept", "--yes")
    done(back, "ceremony", "--yes")
    assert done(back, "audit", "verify", "--against", str(kept.checkpoint), "--json").facts["verdict"] == "sound"


def test_a_clock_behind_what_was_published_closes_nothing(lost: Lost, tmp_path: Path) -> None:
    from datetime import timedelta

    from vagus.maintenance.restored_gap import close_gap, measure_gap
    from vagus.testing import FrozenClock

    back = brought_back(lost, tmp_path)
    with Installation.open(back, passphrase_sources=[SOURCE]) as installation:
        gap = measure_gap(installation, installation.actor, checkpoint=None, published=None, crls=())
        installation.clock = FrozenClock(installation.clock.now() - timedelta(days=1))  # type: ignore[assignment]
        with refuses(Reason.CLOCK_ROLLBACK, match="set the clock"):
            close_gap(installation, installation.actor, gap, is_revoking=False)


def test_a_spent_token_stays_spent(lost: Lost, tmp_path: Path, hospital: Path) -> None:
    """A token that bought a certificate behind the backup buys nothing for another key afterwards."""
    from vagus.fleet.tokens import check_token, hash_token, spend_token

    made = done(hospital, "token", "make", device_name(1), "--json").facts["token"]
    done(hospital, "backup", str(tmp_path / "backup.tar"))
    with Installation.open(hospital, passphrase_sources=[SOURCE]) as installation:

        def spend(batch: Batch) -> None:
            row = check_token(find_token(batch.connection, hash_token(made)), b"k" * 32, at=batch.at)
            spend_token(batch, row, b"k" * 32)

        installation.writer.submit(spend).result()
    kept = publish(hospital)
    back = tmp_path / "back"
    done(back, "restore", str(tmp_path / "backup.tar"), "--published", str(kept.log))
    with Installation.open(back) as installation, installation.database.reading() as connection:
        assert present(find_token(connection, hash_token(made))).bound_spki_sha256 == b"k" * 32


def test_a_list_of_another_house_is_refused(lost: Lost, tmp_path: Path, maker: Path) -> None:
    foreign = next(iter((maker / "published").rglob("*.crl")))
    denied(tmp_path / "back", 1, "CRL_INVALID", "restore", str(lost.backup), "--crl", str(foreign))
    assert not (tmp_path / "back").exists()


def test_a_checkpoint_of_another_history_closes_nothing(lost: Lost, tmp_path: Path) -> None:
    lines = lost.kept.checkpoint.read_text().splitlines()
    forged = tmp_path / "checkpoint"
    forged.write_text("\n".join([lines[0], "5", *lines[2:]]) + "\n")
    back = brought_back(lost, tmp_path)
    denied(back, 5, "CHECKPOINT_INVALID", "restore-gap", "--checkpoint", str(forged), "--accept", "--yes")
    assert run(back, "ceremony", "--yes").reason == "RESTORE_UNSETTLED"


def test_a_house_that_was_forked_by_hand_is_caught(lost: Lost, tmp_path: Path) -> None:
    """Whoever takes the mark of the restore away and writes on is found out by the next publication."""
    from vagus.records.installation import set_settled

    back = brought_back(lost, tmp_path, with_log=False)
    with Installation.open(back) as installation:
        installation.writer.submit(lambda batch: set_settled(batch.connection)).result()
    done(back, "token", "make", device_name(3))
    with Installation.open(back) as installation:
        installation.writer.submit(
            lambda batch: set_restored(batch.connection, batch.at, size=1, backup_sha256=bytes(32))
        ).result()
    evidence = ("--published", str(lost.kept.log), "--unsafe-no-checkpoint")
    denied(back, 5, "LOG_TAMPERED", "restore-gap", *evidence, "--accept", "--yes")


def test_a_database_that_other_tools_restored_issues_nothing(hospital: Path, tmp_path: Path) -> None:
    """As after pg_restore: no mark in the database, but the published log is still beside it."""
    issue(hospital, 2, "before")
    shutil.copy(hospital / "vagus.sqlite3", tmp_path / "old.sqlite3")
    issue(hospital, 1)
    kept = publish(hospital)
    set_back(hospital, tmp_path / "old.sqlite3")
    for command in (("device", "hold", device_name(2)), ("serve", "--issue-for", "h1/icu")):
        denied(hospital, 3, "RESTORE_UNSETTLED", *command)
    closed = done(hospital, "restore-gap", "--checkpoint", str(kept.checkpoint), "--accept", "--yes", "--json").facts
    assert closed["issued"] == 1
    assert done(hospital, "audit", "verify", "--against", str(kept.checkpoint), "--json").facts["verdict"] == "sound"
    publish(hospital, "next")


def test_a_database_set_back_and_written_says_no_good(
    hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process, which had no published log beside it: there are as many entries as before, and others."""
    stolen, _ = set_back_after_a_revocation(hospital, tmp_path / "old.sqlite3")
    shutil.rmtree(hospital / "published")
    (hospital / "log").rename(tmp_path / "log")
    for _ in range(8):
        done(hospital, "token", "make", device_name(3))
    (tmp_path / "log").rename(hospital / "log")
    monkeypatch.setenv("VAGUS_PASSPHRASE_SOURCE", "ocsp=env:TEST_PASSPHRASE")  # a status node has no other
    with serving(hospital, "--role", "status") as served:
        assert ocsp_status(served, stolen) is ocsp.OCSPResponseStatus.TRY_LATER
    denied(hospital, 3, "RESTORE_UNSETTLED", "token", "make", device_name(3))


def test_a_key_that_was_compromised_behind_the_backup_stays_blocked(lost: Lost, tmp_path: Path) -> None:
    back = brought_back(lost, tmp_path)
    spki = x509.load_der_x509_certificate(lost.revoked).public_key()
    digest = hashlib.sha256(spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    with Installation.open(back) as installation, installation.database.reading() as connection:
        assert present(find_key(connection, digest)).is_blocked
