"""Go's crypto/x509 and crypto/tls: another verifier, and a client whose only key exchange is X25519MLKEM768."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulator.programs import Result, program, version_of
from tests.simulator.relying import Bearer, Hospital

pytestmark = pytest.mark.interop

Client = Callable[..., Result]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The Go client, built from the standard library alone: no download."""
    go = program("go")
    if version_of("go", "version") < (1, 24, 0):
        pytest.skip("this Go has no X25519MLKEM768 (1.24 has)")
    folder = tmp_path_factory.mktemp("go")
    built = folder / "go_client"
    environment = {
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        "PATH": "/usr/bin:/bin",
        "GOCACHE": str(folder / "cache"),
        "GOPATH": str(folder / "path"),
        "HOME": str(folder),
    }
    command = [go, "build", "-o", str(built), str(Path(__file__).with_name("go_client.go"))]
    made = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"the client does not build with this Go: {made.stderr.strip()[-300:]}")

    def run(*words: str | Path) -> Result:
        done = subprocess.run([built, *words], capture_output=True, timeout=60, check=False)
        return Result(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"), done.stdout)

    return run


def test_it_verifies_every_branch(
    client: Client, hospital: Hospital, pump: Bearer, er_pump: Bearer, pacemaker: Bearer, web: Bearer
) -> None:
    root = hospital.authority("root")
    for bearer, unit in ((pump, "icu"), (er_pump, "er"), (pacemaker, "remote-care")):
        told = client("verify", root, bearer.chain, "client", f"{bearer.device}.{unit}.h1.test.example")
        assert told.text == "verified 1 path of 4\n"
        assert client("verify", root, bearer.chain, "server").code == 1
        assert client("verify", root, bearer.chain, "client", "other.test.example").code == 1
    assert client("verify", root, web.chain, "server", "web.test.example").text == "verified 1 path of 3\n"
    assert client("verify", root, web.chain, "client").code == 1
    assert client("verify", root, hospital.bearer("sdc").chain, "server").code == 0


def test_it_reads_our_lists(client: Client, hospital: Hospital, pump: Bearer, revoked: Bearer) -> None:
    issuer = hospital.authority("h1/icu")
    for name in ("h1.icu/1", "h1.icu/complete"):
        if name.endswith("complete"):
            hospital.await_complete_crl(revoked)
        path = hospital.crls("go", name)
        assert client("list", path, issuer, f"{revoked.certificate.serial_number:x}").text == "revoked 1\n"
        assert client("list", path, issuer, f"{pump.certificate.serial_number:x}").text == "good\n"
        assert client("list", path, hospital.authority("h1/er"), "1").code == 1


@pytest.mark.parametrize("group", ["X25519MLKEM768", "X25519", "P256"])
def test_it_goes_through_the_gate(
    client: Client, hospital: Hospital, pump: Bearer, revoked: Bearer, group: str
) -> None:
    where = (f"127.0.0.1:{hospital.port('control')}", "control.test.example", hospital.authority("root"))
    said, _, version, staple, *line = client("get", *where, pump.chain, pump.key, group).text.split()
    assert (said, version, line) == (group, "1.3", ["HTTP/1.1", "200", "OK"])
    assert int(staple) > 500
    assert "HTTP/1.1 403" in client("get", *where, revoked.chain, revoked.key, group)
