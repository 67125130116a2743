"""The main path with real processes and sockets: plan, ceremony, serve, enrol, relay, revoke, refused."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.simulator import plans
from tests.simulator.issuing import device_name, write_credential
from tests.simulator.processes import PATIENCE, Served, agent, connect, environment, serving
from tests.simulator.proxy_headers import read_proxy_header
from tests.simulator.running import PLAN, denied, done, findings, run
from tests.simulator.upstreams import Seen, http_upstream, raw_upstream
from tests.simulator.waiting import wait_until

pytestmark = pytest.mark.process

POLL = 1.0  # another process looks for revocations every 250 ms, and says nothing when it has looked
CUT_WITHIN = 2.0


def relays(upstream: int, echo: int) -> str:
    """Listeners that relay to these ports: telemetry, control, and control over raw lines."""
    rows = [("telemetry", "relay-http", upstream, {}), ("control", "relay-http", upstream, {"function": "control"})]
    rows.append(("lines", "relay-tcp", echo, {"function": "control"}))
    rows.append(("named", "relay-tcp", echo, {"proxy_protocol": "v2"}))
    listeners = (
        plans.listener(name, kind, f"{name}.h1.test.example", port, hospital="h1", **more)
        for name, kind, port, more in rows
    )
    return plans.tables("listeners", *listeners)


@dataclass(frozen=True, slots=True)
class Hospital:
    """A hospital that serves, what stands behind its gates, and what its devices were given."""

    served: Served
    upstream: int
    seen: Seen
    anchors: Path
    plan: Path

    @property
    def folder(self) -> Path:
        return self.served.folder

    def connect(self, listener: str, credential: Path | None) -> ssl.SSLSocket:
        return connect(self.served, listener, credential, self.anchors)


def give_back(connection: socket.socket) -> None:
    """An upstream of raw lines."""
    while data := connection.recv(65_536):
        connection.sendall(data)


@pytest.fixture(scope="module")
def hospital_that_serves(hospital_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """One for all tests of this file: each takes devices of its own."""
    place = tmp_path_factory.mktemp("served")
    folder = Path(shutil.copytree(hospital_once, place / "hospital"))
    with (folder / "vagus.toml").open("a") as settings:
        settings.write('health = "127.0.0.1:0"\n')
    with http_upstream() as (upstream, seen), raw_upstream(give_back) as echo:
        plan = place / "plan.toml"
        plan.write_text(PLAN.replace("count = 3", "count = 20") + relays(upstream, echo))
        done(folder, "plan", "apply", str(plan), "--yes")
        done(folder, "ca", "export", "h1/infra", "--out", str(place / "anchors.pem"))
        with serving(folder, "--issue-for", "h1/icu,h1/infra") as served:
            yield Hospital(served, upstream, seen, place / "anchors.pem", plan)


@pytest.fixture
def hospital(hospital_that_serves: Hospital) -> Hospital:
    return hospital_that_serves


def post(connection: ssl.SSLSocket, body: bytes = b"61") -> bytes:
    """One request on a kept-alive connection; gives the status line."""
    connection.sendall(b"POST /no-content HTTP/1.1\r\nhost: gate\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    return connection.recv(65_536).split(b"\r\n")[0]


def seconds_until_cut(connection: ssl.SSLSocket) -> float:
    """How long it takes until the other side ends the connection."""
    began = time.monotonic()
    connection.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while connection.recv(65_536):
            pass
    return time.monotonic() - began


# let in, and refused


def test_a_device_is_let_in_and_after_its_revocation_refused(hospital: Hospital, tmp_path: Path) -> None:
    served, seen = hospital.served, hospital.seen
    token = done(hospital.folder, "token", "make", device_name(1), "--json").facts["token"]
    state = tmp_path / "device"

    # enrolled
    where = ("--server", f"enrol.h1.test.example=127.0.0.1:{served.port('enrol')}", "--anchors", str(hospital.anchors))
    relay = ("--relay", f"telemetry.h1.test.example=127.0.0.1:{served.port('telemetry')}")
    status = ("--status", f"127.0.0.1:{served.port('status')}")
    more = ("--token", "env:DEVICE_TOKEN", "--log-key", (hospital.folder / "log.vkey").read_text().strip())
    code, said = agent(state, "enrol", *where, *relay, *status, *more, DEVICE_TOKEN=token)
    assert code == 0, said + served.log()

    # let in
    code, said = agent(state, "connect", "--count", "2")
    assert code == 0, said
    assert seen.values("client-cert"), "the upstream learns who it is (RFC 9440)"

    # refused
    revoked = done(hospital.folder, "device", "revoke", device_name(1), "--yes", "--json").facts
    assert (revoked["revoked"], revoked["state"]) == (1, "quarantined")
    time.sleep(POLL)
    count = len(seen.lines)
    code, said = agent(state, "connect", "--count", "2", "--attempts", "1")
    assert code != 0
    assert "REVOKED" in said, said
    assert len(seen.lines) == count, "no byte of a revoked device reaches the upstream"

    # and it can be told afterwards
    narrow = ("--device", device_name(1), "--reason", "REVOKED", "--json")
    wait_until(lambda: bool(done(hospital.folder, "gateway", "log", *narrow).facts), "the gateway's lines")
    for line in done(hospital.folder, "gateway", "log", *narrow).facts:
        assert (line["listener"], line["claimed_device"]) == ("telemetry", None)
        assert line["device"].partition(".")[0] == revoked["device"]
    assert done(hospital.folder, "audit", "verify", "--json").facts["revocations"] >= 1


def test_raw_lines_are_relayed_both_ways_and_a_stranger_gets_none(hospital: Hospital, tmp_path: Path) -> None:
    credential = write_credential(hospital.folder, 2, tmp_path / "lines.pem")
    with hospital.connect("lines", credential) as lines:
        for line in (b"one\n", b"two\n", b"x" * 50_000 + b"\n"):
            lines.sendall(line)
            got = b""
            while len(got) < len(line):
                got += lines.recv(65_536)
            assert got == line
    with contextlib.suppress(ssl.SSLError, ConnectionError), hospital.connect("lines", None) as stranger:
        stranger.sendall(b"one\n")
        assert stranger.recv(10) == b""


def test_an_upstream_learns_the_device_where_the_plan_says_so(hospital: Hospital, tmp_path: Path) -> None:
    credential = write_credential(hospital.folder, 11, tmp_path / "named.pem")
    device = done(hospital.folder, "device", "show", device_name(11), "--json").facts["device"]["id"]
    with hospital.connect("named", credential) as named:
        named.sendall(b"hello\n")
        got = b""
        while not got.endswith(b"hello\n"):
            got += named.recv(65_536)
        header = read_proxy_header(got)  # this upstream gives back all that it gets
        assert (header.source, header.rest) == (named.getsockname(), b"hello\n")
        assert header.destination == named.getpeername()
    assert (header.tls[0x22].decode(), header.values[0xE1], header.values[0xE2]) == (device, b"h1/icu", b"AIP3-000011")
    with hospital.connect("telemetry", credential) as asking:
        forged = b"x_vagus-device: forged\r\nX-VAGUS-UNIT: forged\r\n"
        asking.sendall(b"GET /1 HTTP/1.1\r\nhost: gate\r\n" + forged + b"\r\n")
        assert b"200 OK" in asking.recv(65_536)
    seen = {name.lower(): value for name, value in hospital.seen.headers[-1] if "vagus" in name.lower()}
    assert seen.pop("via", "1.1 vagus") == "1.1 vagus"
    assert seen == {"x-vagus-device": device, "x-vagus-unit": "h1/icu", "x-vagus-serial": "AIP3-000011"}


@pytest.mark.parametrize(
    ("number", "listener", "command"),
    [
        (3, "lines", ("device", "revoke", "{}", "--yes")),
        (4, "control", ("device", "revoke", "{}", "--yes", "--keep-enrolling")),
        (5, "lines", ("device", "state", "{}", "quarantined")),
        (6, "control", ("device", "state", "{}", "decommissioned", "--yes")),
        (7, "lines", ("device", "hold", "{}")),
    ],
)
def test_an_open_connection_ends_in_two_seconds(
    hospital: Hospital, tmp_path: Path, number: int, listener: str, command: tuple[str, ...]
) -> None:
    credential = write_credential(hospital.folder, number, tmp_path / "device.pem")
    twin = write_credential(hospital.folder, 8, tmp_path / f"twin-{number}.pem")
    if command[-1] == "quarantined":
        done(hospital.folder, "device", "state", device_name(number), "in-service", "--yes")
    with hospital.connect(listener, credential) as connection, hospital.connect("control", twin) as other:
        if listener == "lines":
            connection.sendall(b"line\n")
            assert connection.recv(10) == b"line\n"
        else:
            assert post(connection) == b"HTTP/1.1 204 No Content"
        assert post(other) == b"HTTP/1.1 204 No Content"
        done(hospital.folder, *(part.format(device_name(number)) for part in command))
        assert seconds_until_cut(connection) < CUT_WITHIN
        assert post(other) == b"HTTP/1.1 204 No Content", "its twin goes on"


# what it says of itself


def health(served: Served) -> tuple[int, dict[str, Any]]:
    code, body = served.request("GET", "/health", listener="health")
    return code, json.loads(body)


def test_status_and_health_are_served(hospital: Hospital) -> None:
    served = hospital.served
    assert served.get("/crl/h1.icu/1/0.crl")[0] == 0x30
    assert served.get("/ca/h1.icu/1.cer")[0] == 0x30
    assert served.get("/log/checkpoint").startswith(b"log.test\n")
    code, facts = health(served)
    assert (code, facts["status"]) == (200, "well"), facts
    assert set(facts["listeners"]) == set(served.ready["listeners"])
    assert facts["sequence"]["is_lost"] is False
    assert facts["work"]["lists"]["failures"] == 0
    assert served.request("GET", "/else", listener="health")[0] == 404


def test_the_names_on_health_and_in_the_metrics_are_those_that_operators_watch(hospital: Hospital) -> None:
    """Dashboards and alerts are written for these names: one that is missing here breaks them."""
    wait_until(lambda: health(hospital.served)[1]["published"]["probe"] is not None, "a probe")
    facts = health(hospital.served)[1]
    assert set(facts) - {"waits"} == {"status", "sequence", "work", "listeners", "answers", "published"}
    assert set(facts["sequence"]) == {"position", "is_lost", "bound_seconds", "seen_at"}
    assert set(facts["work"]) == {
        *("lists", "files", "clock", "responders", "answers", "gates", "certificates", "anchors", "plan"),
        *(
            "ledger",
            "newest-lists",
            "list-ages",
            "probe",
            "work",
            "events",
            "certificate-ends",
            "contacts",
            "signature-rows",
            "unsigned",
        ),
    }
    assert set(facts["work"]["lists"]) == {"runs", "failures", "last_error"}
    assert facts["listeners"]["status"] == {"open": 0, "turned_away": 0}
    assert set(facts["answers"]) == {"is_behind", "turned_away"}
    published = {"status", "from_memory", "due", "unlisted", "silent", "expired_responders", "probe"}
    assert set(facts["published"]) == published
    assert set(facts["published"]["from_memory"]) == {"lists", "as_of", "is_away"}
    assert set(facts["published"]["probe"]) == {"at", "lists", "answers", "defects"}
    text = hospital.served.get("/metrics", "health").decode()
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert families == {
        *("vagus_sequence_position", "vagus_sequence_lost", "vagus_sequence_age_seconds", "vagus_task_runs_total"),
        *("vagus_task_failures_total", "vagus_task_hangs", "vagus_listener_connections", "vagus_lacks"),
        *("vagus_events_total", "vagus_refusals_total", "vagus_certificates_ending"),
        *("vagus_certificates_unsigned", "vagus_signature_rows_waiting"),
        *("vagus_listener_turned_away_total", "vagus_ocsp_turned_away_total", "vagus_list_seconds_left"),
        *("vagus_lists_due", "vagus_lists_behind", "vagus_authorities_silent", "vagus_probe_defects"),
        *("vagus_probe_lists", "vagus_probe_answers", "vagus_probe_seconds", "vagus_probe_age_seconds"),
    }
    assert 'vagus_listener_connections{listener="status"} 0.0' in text
    assert 'vagus_listener_turned_away_total{listener="status"} 0.0' in text
    assert 'vagus_task_runs_total{task="lists"}' in text


def test_a_kept_checkpoint_is_continued_while_it_serves(hospital: Hospital, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(hospital.served.get("/log/checkpoint"))
    done(hospital.folder, "token", "make", device_name(9))
    verified = done(hospital.folder, "audit", "verify", "--against", str(tmp_path / "kept"), "--json").facts
    assert (verified["verdict"], verified["caveat"]) == ("sound", None)
    assert done(hospital.folder, "audit", "checkpoint", "--json").facts["size"] > 0


# what operators change while it serves


def test_sighup_takes_a_plans_listeners_and_open_connections_go_on(hospital: Hospital, tmp_path: Path) -> None:
    credential = write_credential(hospital.folder, 10, tmp_path / "device.pem")
    served = hospital.served
    more = hospital.plan.read_text() + (
        '[[listeners]]\nname = "second"\nkind = "relay-http"\naddress = "127.0.0.1:0"\nhospital = "h1"\n'
        f'host_names = ["second.h1.test.example"]\nupstream = "127.0.0.1:{hospital.upstream}"\n'
    )
    (tmp_path / "plan.toml").write_text(more)
    with hospital.connect("control", credential) as open_before:
        assert post(open_before) == b"HTTP/1.1 204 No Content"
        done(hospital.folder, "plan", "apply", str(tmp_path / "plan.toml"), "--yes")
        wait_until(lambda: "SIGHUP" in health(served)[1].get("waits", {}).get("plan", ""), "a plan that waits")
        assert "second" in served.reload()["listeners"]
        wait_until(lambda: "plan" not in health(served)[1].get("waits", {}), "the plan taken")
        with hospital.connect("second", credential) as new:
            assert post(new) == b"HTTP/1.1 204 No Content"
        assert post(open_before) == b"HTTP/1.1 204 No Content"
    # and away again
    done(hospital.folder, "plan", "apply", str(hospital.plan), "--yes")
    port = served.port("second")
    assert "second" not in served.reload()["listeners"]
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_new_generation_issues_without_a_restart(hospital: Hospital, tmp_path: Path) -> None:
    assert run(hospital.folder, "ca", "roll", "h1/icu").code == 3, "a ceremony is needed"
    done(hospital.folder, "ceremony", "--yes")
    wait_until(lambda: hospital.served.request("GET", "/crl/h1.icu/2/0.crl")[0] == 200, "the new generation's CRL")
    token = done(hospital.folder, "token", "make", device_name(11), "--json").facts["token"]
    where = ("--server", f"enrol.h1.test.example=127.0.0.1:{hospital.served.port('enrol')}")
    words = (*where, "--anchors", str(hospital.anchors), "--token", "env:DEVICE_TOKEN")
    code, said = agent(tmp_path / "device", "enrol", *words, DEVICE_TOKEN=token)
    assert code == 0, said + hospital.served.log()
    shown = done(hospital.folder, "device", "show", device_name(11), "--json").facts["certificates"]
    assert "h1/icu#2" in {one["authority"] for one in shown}, "beside those that other tests had it enrolled for"


def test_a_maker_taken_in_while_it_serves_is_known_at_once(hospital: Hospital, maker: Path, tmp_path: Path) -> None:
    plan = maker.parent / "maker.toml"
    plan.write_text(plan.read_text().replace("first = 1\ncount = 3", "first = 12\ncount = 1"))
    done(maker, "plan", "apply", str(plan), "--yes")
    done(maker, "maker", "make-idevids", "--out", str(tmp_path / "born"), "--unsafe-make-keys")
    done(maker, "maker", "manifest", "--out", str(tmp_path / "manifest.json"))
    done(maker, "ca", "export", "root", "--out", str(tmp_path / "maker.pem"))
    done(hospital.folder, "device", "import", str(tmp_path / "manifest.json"), "--anchor", str(tmp_path / "maker.pem"))
    born = tmp_path / "born" / "AIP3-000012"
    where = ("--server", f"enrol.h1.test.example=127.0.0.1:{hospital.served.port('enrol')}")
    idevid = ("--idevid-cert", str(born / "certificate.pem"), "--idevid-key", str(born / "key.pem"))
    time.sleep(2.5)  # the listeners look for new makers every other second
    code, said = agent(tmp_path / "device", "enrol", *where, "--anchors", str(hospital.anchors), *idevid)
    assert code == 0, said
    shown = done(hospital.folder, "device", "show", device_name(12), "--json").facts
    assert shown["device"]["state"] == "commissioned"


def test_a_backup_taken_while_it_serves_is_sound(hospital: Hospital, tmp_path: Path) -> None:
    done(hospital.folder, "backup", str(tmp_path / "backup.tar"))
    assert hospital.served.process.poll() is None
    back = tmp_path / "back"
    done(back, "restore", str(tmp_path / "backup.tar"))
    assert done(back, "audit", "verify", "--json").facts["verdict"] == "sound"


# beginnings and ends


def test_a_process_that_is_asked_to_stop_ends_cleanly(hospital_once: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hospital_once, tmp_path / "hospital"))
    with serving(folder, "--issue-for", "all") as served:
        assert served.ready["issuers"] == ["h1/icu#1", "h1/infra#1", "h1/sdc#1"]
        assert served.stop() == 0
    assert "Traceback" not in served.log()


def test_what_others_could_read_is_not_served(hospital_once: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hospital_once, tmp_path / "hospital"))
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery")
    secret.chmod(0o600)
    serve = ("serve", "--issue-for", "h1/icu", "--passphrase-source", f"file:{secret}")
    for path in (secret, folder / "vagus.sqlite3", folder / "keystores" / "h1.icu" / "ca-1.key"):
        path.chmod(0o644)
        assert str(path) in denied(folder, 2, "PERMISSIONS_TOO_OPEN", *serve).err
        path.chmod(0o600)
    (folder / "keystores" / "h1.icu").chmod(0o755)
    assert run(folder, *serve).reason == "PERMISSIONS_TOO_OPEN"
    (folder / "keystores" / "h1.icu").chmod(0o700)
    assert [one["state"] for one in findings(folder, "permissions", fails=False)] == ["well"]


def test_an_apply_that_is_killed_converges(fresh: Path) -> None:
    plan = fresh.parent / "plan.toml"
    plan.write_text(PLAN.replace("count = 3", "count = 3000"))
    command = [sys.executable, "-m", "vagus", "--dir", str(fresh), "plan", "apply", str(plan), "--yes", "--ceremony"]
    for seconds in (0.7, 1.2):
        with contextlib.suppress(subprocess.TimeoutExpired):  # which kills it
            subprocess.run(command, capture_output=True, env=environment(), check=False, timeout=seconds)
    done(fresh, "plan", "apply", str(plan), "--yes", "--ceremony")
    before = done(fresh, "export").out
    assert [one["state"] for one in json.loads(before)["devices"]] == ["received"] * 3000
    done(fresh, "plan", "apply", str(plan), "--yes", "--ceremony")
    assert done(fresh, "export").out == before
    assert run(fresh, "plan", "check", str(plan), "--json").facts == []
    assert done(fresh, "audit", "verify", "--json").facts["verdict"] == "sound"
