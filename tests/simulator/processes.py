"""A hospital that serves and a device's own program, as processes of their own over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from vagus.addresses import split_address

_ROOT = Path(__file__).parents[2]
SOURCES = [str(_ROOT / "src"), str(_ROOT)]
PATIENCE = 60
START_SECONDS = 90


@dataclass(slots=True)
class Served:
    """An installation that a process of its own serves."""

    folder: Path
    process: subprocess.Popen[str]
    ready: dict[str, Any]

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Host and port of each listener."""
        return {name: split_address(address) for name, address in self.ready["listeners"].items()}

    @property
    def issuers(self) -> list[str]:
        """The generations of authorities that it issues for."""
        issuers: list[str] = self.ready["issuers"]
        return issuers

    def port(self, listener: str) -> int:
        return self.addresses[listener][1]

    def request(
        self, method: str, path: str, body: bytes | None = None, listener: str = "status", **headers: str
    ) -> tuple[int, bytes]:
        """Status and body of the response to one request without TLS."""
        connection = http.client.HTTPConnection(*self.addresses[listener], timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path: str, listener: str = "status") -> bytes:
        """What is at `path`. Raises urllib.error.HTTPError where nothing is."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port(listener)}{path}", timeout=PATIENCE) as response:
            body: bytes = response.read()
        return body

    def ask(self, request_der: bytes) -> ocsp.OCSPResponse:
        """The response to an OCSP request by POST."""
        status, body = self.request("POST", "/ocsp", request_der, **{"Content-Type": "application/ocsp-request"})
        assert status == http.client.OK
        return ocsp.load_der_ocsp_response(body)

    def ask_ocsp(self, certificate: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPResponse:
        asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA256()).build()
        return self.ask(asked.public_bytes(Encoding.DER))

    def reload(self) -> dict[str, Any]:
        """Have it take the plan in force; gives what it says once it has."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGHUP)
        self.ready = json.loads(self.process.stdout.readline())
        return self.ready

    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    def kill(self) -> None:
        """As a power switch would."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """End it as an operator would; gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def serving(
    folder: Path, *arguments: str, around: Mapping[str, str] | None = None, program: str = "vagus"
) -> Iterator[Served]:
    """`vagus serve` from its ready line until the block ends, unless the test ended it before.

    Another `program` is a module that serves as this one does, and takes the folder before its `arguments`.
    """
    command = ["vagus", "--dir", str(folder), "serve"] if program == "vagus" else [program, str(folder)]
    with (folder / "serve.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment() if around is None else {"PYTHONPATH": os.pathsep.join(SOURCES), **around},
        )
    assert process.stdin is not None
    assert process.stdout is not None
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    served = Served(folder, process, {})
    try:
        line = process.stdout.readline()
        watchdog.cancel()
        assert line, served.log()[-3000:]
        served.ready = json.loads(line)
        yield served
    finally:
        watchdog.cancel()
        served.stop()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def environment(**more: str) -> dict[str, str]:
    """What a process of ours finds around it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES), **more}


def agent(state: Path, *arguments: str, **more: str) -> tuple[int, str]:
    """One command of the device's own program: exit code, and all that it said."""
    ran = subprocess.run(
        [sys.executable, "-m", "vagus_agent", "--state", str(state), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(**more),
    )
    return ran.returncode, ran.stdout + ran.stderr


def connect(served: Served, listener: str, credential: Path | None, anchors: Path) -> ssl.SSLSocket:
    """A device's connection to a listener, its server verified as a device does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(anchors)
    # the anchor is the hospital's infrastructure authority, not its root
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if credential is not None:
        context.load_cert_chain(credential)
    raw = socket.create_connection(("127.0.0.1", served.port(listener)), PATIENCE)
    try:
        return context.wrap_socket(raw, server_hostname=f"{listener}.h1.test.example")
    except BaseException:
        raw.close()
        raise
