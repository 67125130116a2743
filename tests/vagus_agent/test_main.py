"""The program as a process of its own: options, output, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.simulator.est_server import Behaviour, Hierarchy, Server, problem
from tests.vagus_agent.conftest import write_papers
from vagus.reasons import Reason
from vagus_agent.__main__ import main
from vagus_agent.commands import COMMANDS

REPOSITORY = Path(__file__).parents[2]
NOW = datetime.now(UTC).replace(microsecond=0)


class Agent:
    """Runs `vagus-agent` in one state folder against one server."""

    def __init__(self, folder: Path, hierarchy: Hierarchy, server: Server) -> None:
        self.folder = folder
        write_papers(folder, hierarchy)
        self.proof = ["--idevid-cert", str(folder / "idevid.pem"), "--idevid-key", str(folder / "idevid-key.pem")]
        self.where = ["--server", str(server.route()), "--relay", str(server.route())]
        self.where += ["--anchors", str(folder / "anchors.pem")]

    def command(self, *arguments: str) -> list[str]:
        command = [sys.executable, "-m", "vagus_agent", *arguments, "--state", str(self.folder / "state")]
        return [*command, "--json", "--patience", "5"]

    def run(self, *arguments: str, feed: str = "", **environment: str) -> tuple[int, list[dict[str, object]]]:
        done = subprocess.run(
            self.command(*arguments),
            input=feed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), **environment},
        )
        assert done.stderr == ""
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def refused(self, *arguments: str) -> tuple[int, object]:
        """The exit code and the reason of a command that fails."""
        code, [result] = self.run(*arguments)
        return code, result["reason"]


@pytest.fixture(scope="module")
def present() -> Hierarchy:
    """Authorities valid today: the program reads the real clock."""
    return Hierarchy(now=NOW)


@pytest.fixture
def station(present: Hierarchy) -> Iterator[Server]:
    """Not yet running: a test says when it is."""
    credential = present.server_credential(changes={"not_before": NOW - timedelta(hours=1)})
    server = Server(present, credential, Behaviour(now=NOW))
    yield server
    server.close()


@pytest.fixture
def agent(tmp_path: Path, present: Hierarchy, station: Server) -> Agent:
    return Agent(tmp_path, present, station)


def test_a_life_in_six_commands(agent: Agent, station: Server) -> None:
    with station:
        code, [enrolled] = agent.run("enrol", *agent.where, *agent.proof, "--category", "ventilator")
        assert (code, enrolled["ok"], enrolled["generation"]) == (0, True, 1)
        code, [first, second] = agent.run("connect", "--connections", "2", "--resume", "--count", "3")
        assert (code, first["resumed"], second["resumed"], second["lines"]) == (0, False, True, 3)
        code, [renewed] = agent.run("renew")
        assert (code, renewed) == (0, {"ok": True, "renewed": False})
        code, [renewed] = agent.run("renew", "--force")
        assert (code, renewed["generation"]) == (0, 2)
        code, results = agent.run("run", "--count", "3")
        assert (code, [r["batch"] for r in results if "batch" in r]) == (0, [1, 2, 3])
        code, [status] = agent.run("status")
        assert (code, status["generation"], status["proven"], status["expired"]) == (0, 2, True, False)
    telemetry = [json.loads(r.body.splitlines()[0]) for r in station.requests if r.path == "/telemetry"]
    assert {line["category"] for line in telemetry} == {"ventilator"}


def test_status_of_an_expired_certificate_ends_with_seven_and_the_next_step(agent: Agent, station: Server) -> None:
    with station:
        assert agent.run("enrol", *agent.where, *agent.proof)[0] == 0
    a_century = str(100 * 365 * 86_400)
    code, [status] = agent.run("status", "--unsafe-clock-offset", a_century)
    assert (code, status["exit"], status["expired"], status["ok"]) == (7, 7, True, True)
    assert str(status["next_step"]).endswith("enrol it again (vagus-agent enrol)")
    (agent.folder / "state" / "idevid" / "certificate.pem").unlink()
    code, [status] = agent.run("status", "--unsafe-clock-offset", a_century)
    assert (code, str(status["next_step"]).endswith("(vagus-agent enrol --token SOURCE)")) == (7, True)
    code, [status] = agent.run("status")
    assert (code, status["expired"], "next_step" in status) == (0, False, False)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_token_that_others_could_read_is_not_used(agent: Agent, tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    file.write_text("once-only-0123456789")
    file.chmod(mode)
    code, [result] = agent.run("enrol", *agent.where, "--token", f"file:{file}")
    assert (code, result["reason"]) == (2, "PERMISSIONS_TOO_OPEN")
    assert f"{mode:04o}" in str(result["message"])


def test_a_token_of_the_owner_alone_is_used(agent: Agent, station: Server, tmp_path: Path) -> None:
    station.behaviour.token = "once-only-0123456789"
    file = tmp_path / "token"
    file.write_text("once-only-0123456789")
    file.chmod(0o400)
    with station:
        assert agent.run("enrol", *agent.where, "--token", f"file:{file}")[0] == 0


def test_help_says_what_each_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-h"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    for name, what in COMMANDS.items():
        assert f"  {name:<10}{what}" in said


def test_a_token_comes_from_the_environment_and_never_from_the_command_line(agent: Agent, station: Server) -> None:
    station.behaviour.token = "once-only-0123456789"
    with station:
        code, [result] = agent.run("enrol", *agent.where, "--token", "once-only-0123456789")
        assert (code, result["reason"]) == (2, "BAD_ARGUMENT")
        assert "once-only" not in str(result)
        assert agent.run("enrol", *agent.where, "--token", "env:T", T="once-only-0123456789")[0] == 0


def test_the_probe_obeys_its_orders(agent: Agent, station: Server) -> None:
    with station:
        agent.run("enrol", *agent.where, *agent.proof)
        orders = "send 1\nopen\nsend 2\nclose\nresume\nsend 1\nwatch 1\nwatch\nnonsense\nquit\nopen\n"
        code, answers = agent.run("probe", feed=orders)
    assert code == 0
    assert [answer["ok"] for answer in answers] == [False, True, True, True, True, True, True, False, False]
    assert (answers[1]["resumed"], answers[4]["resumed"]) == (False, True)
    assert answers[6]["closed"] is False


def test_exit_codes(agent: Agent, station: Server, present: Hierarchy, tmp_path: Path) -> None:
    assert agent.refused("connect") == (3, "CREDENTIAL_MISSING")
    assert agent.refused("enrol", "--server", "not a server") == (2, "BAD_ARGUMENT")
    assert agent.refused("enrol", "--anchors", str(tmp_path / "nowhere")) == (2, "BAD_SETTINGS")
    with station:
        agent.run("enrol", *agent.where, *agent.proof)
        assert agent.refused("connect", "--unsafe-clock-offset", str(400 * 86400)) == (7, "EXPIRED")
        station.behaviour.refuse["/telemetry"] = problem(403, Reason.REVOKED)
        assert agent.refused("connect") == (1, "REVOKED")
        station.behaviour.serves_crl = False
        assert agent.refused("connect", "--unsafe-clock-offset", "-1000000000") == (6, "CLOCK_ROLLBACK")
    assert agent.refused("connect") == (4, "UPSTREAM_UNREACHABLE")
    for path in (tmp_path / "state" / "credentials").glob("*/key.pem"):
        path.write_bytes(b"junk")
    assert agent.refused("connect") == (5, "KEYSTORE_DAMAGED")


def test_two_agents_never_share_a_folder(agent: Agent, station: Server) -> None:
    with station:
        agent.run("enrol", *agent.where, *agent.proof)
        with subprocess.Popen(
            agent.command("probe"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.write("open\n")
            holder.stdin.flush()
            holder.stdout.readline()
            assert agent.refused("renew") == (3, "ALREADY_EXISTS")
            assert agent.run("status")[0] == 0
            holder.stdin.close()


def test_run_gives_up_after_its_attempts_and_says_why(agent: Agent, station: Server) -> None:
    with station:
        agent.run("enrol", *agent.where, *agent.proof)
    code, results = agent.run("run", "--attempts", "2")
    assert code == 4
    assert [result.get("reason") for result in results] == [None, "UPSTREAM_UNREACHABLE", "UPSTREAM_UNREACHABLE"]
    assert "again_in" in results[1]


def test_a_request_for_the_makers_line_keeps_its_key_at_home(agent: Agent, tmp_path: Path) -> None:
    code, [result] = agent.run("request", "--serial", "AIP3-0007")
    assert code == 0
    csr = x509.load_pem_x509_csr(Path(str(result["request"])).read_bytes())
    assert csr.subject.rfc4514_string() == "2.5.4.5=AIP3-0007"
    again = agent.run("request", "--serial", "AIP3-0007")[1][0]
    assert x509.load_pem_x509_csr(Path(str(again["request"])).read_bytes()).public_key() == csr.public_key()
    assert agent.refused("request", "--serial", "a b")[1] == "BAD_ARGUMENT"


def test_the_program_starts_without_sql_or_a_web_server() -> None:
    script = "import vagus_agent.__main__, sys; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert not loaded & {"sqlalchemy", "pydantic", "starlette", "uvicorn", "typer", "rich", "structlog"}


def test_a_relay_and_anchors_given_to_connect_count_once(agent: Agent, station: Server, tmp_path: Path) -> None:
    strange = tmp_path / "strange.pem"
    strange.write_bytes(Hierarchy(now=NOW).infrastructure.pem)
    with station:
        agent.run("enrol", *agent.where, *agent.proof)
        assert agent.run("connect", "--relay", "gate.example=127.0.0.1:9")[0] == 4
        assert agent.refused("connect", "--anchors", str(strange)) == (1, "UNTRUSTED_ANCHOR")
        assert agent.run("connect")[0] == 0


def test_the_only_copy_of_a_birth_key_is_never_replaced(agent: Agent, present: Hierarchy) -> None:
    """A wrong --idevid-key is told before anything is written; so is a pair that is not the folder's own."""
    kept = agent.folder / "state" / "idevid" / "key.pem"
    assert agent.run("request", "--serial", "SN-1")[0] == 0
    before = kept.read_bytes()
    assert agent.refused("enrol", *agent.where, *agent.proof) == (3, Reason.ALREADY_EXISTS)
    (agent.folder / "other.pem").write_bytes(present.idevid().key_pem)
    mixed = ["--idevid-cert", str(agent.folder / "idevid.pem"), "--idevid-key", str(agent.folder / "other.pem")]
    assert agent.refused("enrol", *agent.where, *mixed) == (2, Reason.KEY_MISMATCH)
    assert kept.read_bytes() == before
