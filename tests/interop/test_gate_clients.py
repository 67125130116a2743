"""curl and openssl s_client against the gate: handshakes, resumption, refusals and odd commands."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.simulator.certificates import authority, pump, server_credential, stranger
from tests.simulator.listeners import PeerJudge, Served, serving
from tests.simulator.programs import Result, program, run
from tests.simulator.upstreams import Seen
from tests.transport.test_listeners import gate
from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.gateway.http_relay import HttpRelay
from vagus.endpoints.gateway.upstream import Upstream
from vagus.reasons import Reason
from vagus.tls import TLS_1_2, ServerContext, ServerTls
from vagus.transport.limits import Limits
from vagus.transport.listeners import ListenerSpec

pytestmark = pytest.mark.interop


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """root.pem, and pump.pem, pump.key, rogue.pem, rogue.key."""
    (tmp_path / "root.pem").write_bytes(authority().root.certificate.public_bytes(serialization.Encoding.PEM))
    for name, issued in (("pump", pump()), ("rogue", stranger().issue("pump.icu.h1.test"))):
        (tmp_path / f"{name}.pem").write_bytes(issued.credential.chain_pem)
        (tmp_path / f"{name}.key").write_bytes(issued.credential.key_pem)
    return tmp_path


@pytest.fixture
def served(judge: PeerJudge, upstream: tuple[int, Seen]) -> Iterator[Served]:
    def spec(name: str, relay: HttpRelay, **settings: object) -> ListenerSpec:
        tls = ServerContext(server_credential(), ServerTls(**settings))  # type: ignore[arg-type]
        return gate(judge, name=name, app=relay, tls=tls, close=relay.close, limits=Limits(linger_seconds=0.5))

    relays = [HttpRelay(Upstream("127.0.0.1", upstream[0]), judge.decisions.append) for _ in range(2)]
    modern = spec("gate", relays[0], client_auth="optional")
    legacy = spec("legacy", relays[1], client_auth="required", minimum_version=TLS_1_2)
    with serving(modern, legacy, judges=[judge]) as running:
        yield running


def curl(files: Path, port: int, *words: str, who: str | None = "pump", path: str = "/5") -> tuple[int, bytes]:
    """Status and body."""
    out = files / "out"
    out.unlink(missing_ok=True)
    shown = () if who is None else ("--cert", files / f"{who}.pem", "--key", files / f"{who}.key")
    where = ("--cacert", files / "root.pem", "--resolve", f"localhost:{port}:127.0.0.1")
    url = f"https://localhost:{port}{path}"
    told = run("curl", "-sS", "-o", out, "-w", "%{http_code}", *where, *shown, *words, url)
    return int(told.raw or b"0"), out.read_bytes() if out.exists() else b""


def refusal(files: Path, port: int, *words: str, who: str | None = "pump") -> tuple[int, str]:
    """Status, and the reason in the problem document."""
    status, body = curl(files, port, *words, who=who)
    return status, json.loads(body)["reason"]


def s_client_words(files: Path, port: int, who: str | None = "pump") -> list[str | Path]:
    """The arguments for a TLS connection to a listener."""
    chain, key = files / f"{who}.pem", files / f"{who}.key"
    shown = () if who is None else ("-cert", chain, "-cert_chain", chain, "-key", key)
    where = ("-connect", f"127.0.0.1:{port}", "-servername", "localhost")
    return ["s_client", *where, "-CAfile", files / "root.pem", *shown]


def s_client(files: Path, port: int, *words: str | Path, said: bytes = b"", who: str | None = "pump") -> Result:
    """What s_client tells."""
    strict = ("-verify_return_error", "-verify_hostname", "localhost")
    return run("openssl", *s_client_words(files, port, who), *strict, *words, said=said)


def _wait_for(client: subprocess.Popen[bytes], words: bytes) -> None:
    """Read what it tells until it says `words`."""
    assert client.stdout is not None
    told, until = b"", time.monotonic() + 20
    while words not in told:
        ready, _, _ = select.select([client.stdout], [], [], until - time.monotonic())
        assert ready, f"{words!r} was not said, but {told!r}"
        part = os.read(client.stdout.fileno(), 65_536)
        assert part, f"it ended with {told!r}"
        told += part


REQUEST = b"GET /5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class TestCurl:
    def test_a_device_is_let_in_and_its_look_alike_refused_with_the_reason(
        self, served: Served, files: Path, seen: Seen
    ) -> None:
        assert curl(files, served.port()) == (200, b"xxxxx")
        assert len(seen.headers) == 1
        assert refusal(files, served.port(), who="rogue") == (403, Reason.BAD_SIGNATURE)
        assert refusal(files, served.port(), who=None) == (403, Reason.CREDENTIAL_MISSING)
        assert len(seen.headers) == 1

    def test_a_revoked_device_is_refused(self, served: Served, files: Path, judge: PeerJudge) -> None:
        assert curl(files, served.port())[0] == 200
        judge.revoke(pump().serial)
        assert refusal(files, served.port()) == (403, Reason.REVOKED)

    def test_forged_headers_and_large_bodies(self, served: Served, files: Path, seen: Seen) -> None:
        big = files / "big"
        big.write_bytes(bytes(range(256)) * 20_000)
        words = ("-H", "Client-Cert: :bm9ib2R5:", "--data-binary", f"@{big}")
        assert curl(files, served.port(), *words) == (200, big.read_bytes())  # curl asks 100-continue for it
        assert "bm9ib2R5" not in str(seen.headers)
        words = ("-T", str(big), "-H", "Transfer-Encoding: chunked")
        assert curl(files, served.port(), *words, path="/put") == (200, big.read_bytes())

    def test_tls_1_2_only_where_it_is_allowed(self, served: Served, files: Path) -> None:
        assert curl(files, served.port("legacy"), "--tls-max", "1.2") == (200, b"xxxxx")
        assert curl(files, served.port(), "--tls-max", "1.2")[0] == 0

    def test_a_websocket_is_refused(self, served: Served, files: Path) -> None:
        words = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Key: eA=="]
        assert refusal(files, served.port(), "--http1.1", *words) == (501, Reason.UPGRADE_REFUSED)


class TestOpenssl:
    def test_the_servers_chain_and_name_verify(self, served: Served, files: Path) -> None:
        told = s_client(files, served.port(), "-ign_eof", said=REQUEST)
        told.must_say("Verify return code: 0 (ok)", "TLSv1.3", "xxxxx")

    @pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
    def test_a_session_resumes_and_is_judged_anew(
        self, served: Served, files: Path, judge: PeerJudge, version: str
    ) -> None:
        def ask(option: str) -> Result:
            session = files / "session"
            return s_client(files, served.port("legacy"), version, option, session, "-ign_eof", said=REQUEST)

        assert "200 OK" in ask("-sess_out")
        ask("-sess_in").must_say("Reused, TLSv1.", "200 OK")
        assert [each.resumed for each in judge.told(Outcome.ADMITTED)] == [False, True]
        judge.revoke(pump().serial)
        ask("-sess_in").must_say("Reused, TLSv1.", "403 Forbidden", "REVOKED")

    @pytest.mark.parametrize("command", [b"K\n", b"k\n"])
    def test_a_key_update_is_answered_and_the_connection_goes_on(
        self, served: Served, files: Path, command: bytes
    ) -> None:
        # s_client reads K as "update my key and ask for yours": our answer must leave although we have nothing to say.
        openssl = subprocess.Popen(
            [program("openssl"), *s_client_words(files, served.port())],
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
        assert "no renegotiation" in told.text.lower()

    def test_a_missing_certificate_is_an_alert_where_one_is_required(self, served: Served, files: Path) -> None:
        told = s_client(files, served.port("legacy"), "-ign_eof", said=REQUEST, who=None)
        assert "certificate required" in told
        assert "200 OK" not in told

    def test_another_protocol_is_an_alert(self, served: Served, files: Path) -> None:
        assert "no application protocol" in s_client(files, served.port(), "-alpn", "h2,imap")

    def test_early_data_is_not_taken(self, served: Served, files: Path) -> None:
        session, early = files / "session", files / "early"
        s_client(files, served.port(), "-tls1_3", "-sess_out", session, "-ign_eof", said=REQUEST)
        early.write_bytes(REQUEST)
        words = ("-sess_in", session, "-early_data", early, "-ign_eof")
        assert "Early data was accepted" not in s_client(files, served.port(), *words, said=REQUEST)
