"""curl and openssl s_client against the gate: handshakes, resumption, refusals and odd commands."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.simulator.certificates import Issued, authority, pump, server_credential, stranger
from tests.simulator.listeners import PeerJudge, Served, serving
from tests.simulator.upstreams import Seen, http_upstream
from tests.transport.test_listeners import gate
from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.gateway.http_relay import HttpRelay
from vagus.endpoints.gateway.upstream import Upstream
from vagus.reasons import Reason
from vagus.tls import TLS_1_2, ServerContext, ServerTls
from vagus.transport.limits import Limits
from vagus.transport.listeners import ListenerSpec

pytestmark = pytest.mark.interop


def tool(name: str) -> str:
    """The program, or a skip with its reason."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """root.pem, and pump.pem, pump.key, rogue.pem, rogue.key."""
    (tmp_path / "root.pem").write_bytes(authority().root.certificate.public_bytes(serialization.Encoding.PEM))
    for name, issued in (("pump", pump()), ("rogue", stranger().issue("pump.icu.h1.test"))):
        _write(tmp_path, name, issued)
    return tmp_path


def _write(folder: Path, name: str, issued: Issued) -> None:
    (folder / f"{name}.pem").write_bytes(issued.credential.chain_pem)
    (folder / f"{name}.key").write_bytes(issued.credential.key_pem)


@pytest.fixture
def judge() -> PeerJudge:
    return PeerJudge()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def served(judge: PeerJudge, seen: Seen) -> Iterator[Served]:
    def spec(name: str, relay: HttpRelay, **settings: object) -> ListenerSpec:
        tls = ServerContext(server_credential(), ServerTls(**settings))  # type: ignore[arg-type]
        return gate(judge, name=name, app=relay, tls=tls, close=relay.close, limits=Limits(linger_seconds=0.5))

    with http_upstream() as (port, upstream_saw):
        upstream_saw.headers = seen.headers
        relays = [HttpRelay(Upstream("127.0.0.1", port), judge.decisions.append) for _ in range(2)]
        modern = spec("gate", relays[0], client_auth="optional")
        legacy = spec("legacy", relays[1], client_auth="required", minimum_version=TLS_1_2)
        with serving(modern, legacy, judges=[judge]) as running:
            yield running


def curl(files: Path, port: int, *words: str, who: str | None = "pump", path: str = "/5") -> tuple[int, bytes]:
    """Status and body."""
    command = [tool("curl"), "-sS", "--cacert", str(files / "root.pem"), "-o", str(files / "out"), "-w", "%{http_code}"]
    if who is not None:
        command += ["--cert", str(files / f"{who}.pem"), "--key", str(files / f"{who}.key")]
    (files / "out").unlink(missing_ok=True)
    done = subprocess.run(
        [*command, *words, f"https://localhost:{port}{path}", "--resolve", f"localhost:{port}:127.0.0.1"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    body = (files / "out").read_bytes() if (files / "out").exists() else b""
    return int(done.stdout or b"0"), body


def s_client(files: Path, port: int, *words: str, said: bytes = b"", who: str | None = "pump") -> str:
    """What s_client tells."""
    command = [tool("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost"]
    command += ["-CAfile", str(files / "root.pem"), "-verify_return_error", "-verify_hostname", "localhost"]
    if who is not None:
        command += ["-cert", str(files / f"{who}.pem"), "-cert_chain", str(files / f"{who}.pem")]
        command += ["-key", str(files / f"{who}.key")]
    done = subprocess.run([*command, *words], input=said, capture_output=True, timeout=30, check=False)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def _wait_for(program: subprocess.Popen[bytes], words: bytes) -> None:
    """Read what it tells until it says `words`."""
    assert program.stdout is not None
    told, until = b"", time.monotonic() + 20
    while words not in told:
        ready, _, _ = select.select([program.stdout], [], [], until - time.monotonic())
        assert ready, f"{words!r} was not said, but {told!r}"
        part = os.read(program.stdout.fileno(), 65_536)
        assert part, f"it ended with {told!r}"
        told += part


REQUEST = b"GET /5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class TestCurl:
    def test_a_device_is_let_in_and_its_look_alike_told_why_not(self, served: Served, files: Path, seen: Seen) -> None:
        assert curl(files, served.port()) == (200, b"xxxxx")
        assert len(seen.headers) == 1
        status, body = curl(files, served.port(), who="rogue")
        assert (status, json.loads(body)["reason"]) == (403, Reason.BAD_SIGNATURE)
        status, body = curl(files, served.port(), who=None)
        assert (status, json.loads(body)["reason"]) == (403, Reason.CREDENTIAL_MISSING)
        assert len(seen.headers) == 1

    def test_a_revoked_device_is_refused(self, served: Served, files: Path, judge: PeerJudge) -> None:
        assert curl(files, served.port())[0] == 200
        judge.revoke(pump().serial)
        status, body = curl(files, served.port())
        assert (status, json.loads(body)["reason"]) == (403, Reason.REVOKED)

    def test_forged_headers_and_large_bodies(self, served: Served, files: Path, seen: Seen) -> None:
        big = files / "big"
        big.write_bytes(bytes(range(256)) * 20_000)
        status, body = curl(files, served.port(), "-H", "Client-Cert: :bm9ib2R5:", "--data-binary", f"@{big}")
        assert (status, body) == (200, big.read_bytes())  # curl asks 100-continue for it
        assert "bm9ib2R5" not in str(seen.headers)
        status, body = curl(files, served.port(), "-T", str(big), "-H", "Transfer-Encoding: chunked", path="/put")
        assert (status, body) == (200, big.read_bytes())

    def test_tls_1_2_only_where_it_is_allowed(self, served: Served, files: Path) -> None:
        assert curl(files, served.port("legacy"), "--tls-max", "1.2") == (200, b"xxxxx")
        assert curl(files, served.port(), "--tls-max", "1.2")[0] == 0

    def test_a_websocket_is_refused(self, served: Served, files: Path) -> None:
        words = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Key: eA=="]
        status, body = curl(files, served.port(), "--http1.1", *words)
        assert (status, json.loads(body)["reason"]) == (501, Reason.UPGRADE_REFUSED)


class TestOpenssl:
    def test_the_servers_chain_and_name_verify(self, served: Served, files: Path) -> None:
        told = s_client(files, served.port(), "-ign_eof", said=REQUEST)
        assert "Verify return code: 0 (ok)" in told
        assert "TLSv1.3" in told
        assert "xxxxx" in told

    @pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
    def test_a_session_resumes_and_is_judged_anew(
        self, served: Served, files: Path, judge: PeerJudge, version: str
    ) -> None:
        session = str(files / "session")
        port = served.port("legacy")
        told = s_client(files, port, version, "-sess_out", session, "-ign_eof", said=REQUEST)
        assert "200 OK" in told
        told = s_client(files, port, version, "-sess_in", session, "-ign_eof", said=REQUEST)
        assert "Reused, TLSv1." in told
        assert "200 OK" in told
        assert [each.resumed for each in judge.told(Outcome.ADMITTED)] == [False, True]
        judge.revoke(pump().serial)
        told = s_client(files, port, version, "-sess_in", session, "-ign_eof", said=REQUEST)
        assert "Reused, TLSv1." in told
        assert "403 Forbidden" in told
        assert "REVOKED" in told

    @pytest.mark.parametrize("command", [b"K\n", b"k\n"])
    def test_a_key_update_is_answered_and_the_connection_goes_on(
        self, served: Served, files: Path, command: bytes
    ) -> None:
        # s_client reads K as "update my key and ask for yours": our answer must leave although we have nothing to say.
        openssl = subprocess.Popen(
            [
                tool("openssl"),
                *("s_client", "-connect", f"127.0.0.1:{served.port()}", "-servername", "localhost"),
                *("-cert", str(files / "pump.pem"), "-cert_chain", str(files / "pump.pem")),
                *("-key", str(files / "pump.key"), "-CAfile", str(files / "root.pem")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert openssl.stdin is not None
        try:
            _wait_for(openssl, b"read R BLOCK")
            for words, answer in ((command, b"KEYUPDATE"), (command, b"KEYUPDATE"), (REQUEST, b"xxxxx")):
                openssl.stdin.write(words)
                openssl.stdin.flush()
                _wait_for(openssl, answer)
        finally:
            openssl.kill()
            openssl.communicate()

    def test_renegotiation_is_declined_and_the_connection_does_not_hang(self, served: Served, files: Path) -> None:
        told = s_client(files, served.port("legacy"), "-tls1_2", said=b"R\n")
        assert "RENEGOTIATING" in told
        assert "no renegotiation" in told.lower()

    def test_a_missing_certificate_is_an_alert_where_one_is_required(self, served: Served, files: Path) -> None:
        told = s_client(files, served.port("legacy"), "-ign_eof", said=REQUEST, who=None)
        assert "certificate required" in told
        assert "200 OK" not in told

    def test_another_protocol_is_an_alert(self, served: Served, files: Path) -> None:
        assert "no application protocol" in s_client(files, served.port(), "-alpn", "h2,imap")

    def test_early_data_is_not_taken(self, served: Served, files: Path) -> None:
        session = str(files / "session")
        s_client(files, served.port(), "-tls1_3", "-sess_out", session, "-ign_eof", said=REQUEST)
        (files / "early").write_bytes(REQUEST)
        told = s_client(
            files, served.port(), "-sess_in", session, "-early_data", str(files / "early"), "-ign_eof", said=REQUEST
        )
        assert "Early data was accepted" not in told
