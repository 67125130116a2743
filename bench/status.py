"""OCSP over HTTP from the real serving process on one core, asked by wrk from the other; nginx beside it."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.issuance import new_request
from bench.rig.installation import UNIT, free_port, hospital, open_installation
from bench.rig.limits import sign_rate
from bench.rig.servers import LOAD_CORE, SERVER_CORE, cpu_seconds, on_load_core, serving
from bench.rows import Row
from vagus.authority.issuance import IssuanceOrder
from vagus.identifiers import DeviceId
from vagus.wiring import Installation
from vagus.x509 import der
from vagus.x509.names.distinguished import SubjectFields
from vagus.x509.ocsp.building import cert_id
from vagus.x509.requests import decode_request

_CERTIFICATES = 400
_SECONDS = 4
_CONNECTIONS = 32
_NONCE_OID = "1.3.6.1.5.5.7.48.1.2"
_MARK = bytes(range(0x60, 0x80))  # where wrk puts a nonce of 32 bytes
_REFERENCE_SIGNS = 69_400.0
_REFERENCE_STATIC = 102_000.0


def rows() -> list[Row]:
    """Row 6 of design section 9; nothing where wrk is not installed."""
    if shutil.which("wrk") is None:
        print("bench: status needs wrk (apt-get install wrk); left out")
        return []
    with hospital(1) as folder:
        with open_installation(folder) as installation:
            requests = _requests(installation)
        signs = sign_rate()
        with serving(folder) as server, on_load_core():
            address = server.addresses["status"]
            scripts = _scripts(folder, requests)
            response = _check(address, requests[0])
            runs = {}
            for name, script in scripts.items():
                before = server.cpu_seconds()
                runs[name] = _wrk(address, script)
                runs[name].cpu_seconds = server.cpu_seconds() - before
        static = _static(folder, response, scripts["get"]) if shutil.which("nginx") else None
    return _as_rows(runs, signs, static)


@dataclass(slots=True)
class _Run:
    """What wrk saw, and what the server used meanwhile."""

    requests: int
    seconds: float
    p99_ms: float
    cpu_seconds: float = 0.0

    @property
    def per_cpu_second(self) -> float:
        return self.requests / self.cpu_seconds

    @property
    def note(self) -> str:
        return f"{self.requests / self.seconds:,.0f}/s wall, p99 {self.p99_ms:.1f} ms, {_CONNECTIONS} connections"


def _as_rows(runs: dict[str, _Run], signs: float, static: _Run | None) -> list[Row]:
    if static is None:
        name, limit, reference, beside = "P-256 signatures (no nginx here)", signs, _REFERENCE_SIGNS, ""
    else:
        name, limit, reference = "nginx, the same bytes from a file", static.per_cpu_second, _REFERENCE_STATIC
        beside = f"; nginx {static.note}"
    found = []
    for key, path, bar in (("post", "OCSP pre-signed, POST", 35_000), ("get", "OCSP pre-signed, GET", 35_000)):
        found.append(
            Row(
                path=path,
                figure=runs[key].per_cpu_second,
                unit="/CPU-s",
                limit_name=name,
                limit=limit,
                bar=bar,
                reference_limit=reference,
                note=f"{_CERTIFICATES} certificates; {runs[key].note}{beside}",
            )
        )
    live = Row(
        path="OCSP live, a nonce of 32 bytes each, POST",
        figure=runs["live"].per_cpu_second,
        unit="/CPU-s",
        limit_name="P-256 signatures",
        limit=signs,
        bar=10_000,
        reference_limit=_REFERENCE_SIGNS,
        note=runs["live"].note,
    )
    return [*found, live]


# what is asked


def _requests(installation: Installation) -> list[bytes]:
    """Issue certificates and give an OCSPRequest for each, as common clients encode it."""
    issuer = installation.open_issuers([UNIT])[UNIT]
    promised = []
    for number in range(_CERTIFICATES):
        device = DeviceId.draw(installation.entropy)
        order = IssuanceOrder(
            request_id=f"bench-{number}",
            profile="bedside",
            owner=f"device:{device}",
            device_id=str(device),
            public_key=decode_request(new_request()).public_key,
            subject=SubjectFields("Bench Hospital", "Intensive Care", str(device)),
            dns_names=(f"{device}.icu.h1.bench.example",),
        )
        promised.append(installation.issuance.commit(installation.issuance.prepare(order, issuer)))
    found = []
    for future in promised:
        recorded = future.result()
        serial = recorded.serial if hasattr(recorded, "serial") else installation.issuance.issue(recorded).serial
        identifier = cert_id(issuer.facts.subject_der, issuer.facts.spki_der, serial)
        found.append(_request(identifier))
    return found


def _request(identifier: bytes, nonce: bytes | None = None) -> bytes:
    """OCSPRequest (RFC 6960 4.1.1) for one certificate."""
    asked = der.sequence(der.sequence(identifier))
    if nonce is None:
        return der.sequence(der.sequence(asked))
    value = der.encode_tlv(0x04, der.encode_tlv(0x04, nonce))
    extensions = der.explicit(2, der.sequence(der.sequence(der.object_identifier(_NONCE_OID), value)))
    return der.sequence(der.sequence(asked, extensions))


def _with_nonce(request: bytes) -> bytes:
    """The same question with a nonce where the mark is."""
    identifier = request
    for _ in range(4):  # OCSPRequest, TBSRequest, requestList, Request
        identifier = der.content_of(identifier, der.SEQUENCE)
    return _request(identifier, _MARK)


def _scripts(folder: Path, requests: Sequence[bytes]) -> dict[str, Path]:
    """What wrk runs: Lua that takes one prepared request after the other."""
    posts = [_http("POST", "/ocsp", one) for one in requests]
    gets = [_http("GET", "/ocsp/" + base64.b64encode(one).decode().replace("/", "%2F"), b"") for one in requests]
    lives = [_http("POST", "/ocsp", _with_nonce(one)) for one in requests]
    plain = "local n = 0\nfunction request()\n n = n + 1\n return requests[n % #requests + 1]\nend\n"
    live = (
        "local n = 0\nfunction request()\n n = n + 1\n local one = requests[n % #requests + 1]\n"
        " local nonce = string.format('%032d', n)\n"
        f" return string.sub(one, 1, -{len(_MARK) + 1}) .. nonce\nend\n"
    )
    found = {}
    for name, wishes, function in (("post", posts, plain), ("get", gets, plain), ("live", lives, live)):
        place = folder / f"{name}.lua"
        listed = ",\n".join('"' + "".join(f"\\{byte:03d}" for byte in wish) + '"' for wish in wishes)
        place.write_text(f"requests = {{{listed}}}\n{function}")
        found[name] = place
    assert all(one.endswith(_MARK) for one in lives)
    return found


def _http(method: str, path: str, body: bytes) -> bytes:
    fields = f"{method} {path} HTTP/1.1\r\nHost: status.bench.example\r\n"
    if body:
        fields += f"Content-Type: application/ocsp-request\r\nContent-Length: {len(body)}\r\n"
    return fields.encode() + b"\r\n" + body


def _check(address: tuple[str, int], request_der: bytes) -> bytes:
    """One response, checked: a benchmark of error messages would be fast."""
    url = f"http://{address[0]}:{address[1]}/ocsp"
    asked = urllib.request.Request(url, request_der, {"Content-Type": "application/ocsp-request"})
    with urllib.request.urlopen(asked, timeout=10) as response:
        body: bytes = response.read()
    assert len(body) > 200, "the responder did not respond with a status"
    return body


# who asks


def _wrk(address: tuple[str, int], script: Path) -> _Run:
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS}s", "--latency", "-s", str(script)]
    url = f"http://{address[0]}:{address[1]}/"
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=True)
    if "Non-2xx" in done.stdout:
        raise RuntimeError(f"wrk got refusals:\n{done.stdout}")
    requests = re.search(r"(\d+) requests in ([0-9.]+)s", done.stdout)
    tail = re.search(r"99%\s+([0-9.]+)(us|ms|s)", done.stdout)
    assert requests is not None, done.stdout
    assert tail is not None, done.stdout
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[tail[2]]
    return _Run(int(requests[1]), float(requests[2]), float(tail[1]) * scale)


def _static(folder: Path, response: bytes, script: Path) -> _Run:
    """Nginx with one worker on the server's core, giving the same bytes for the same GET requests."""
    with _nginx(folder, response) as (port, worker):
        before = cpu_seconds(worker)
        os.sched_setaffinity(0, LOAD_CORE)
        run = _wrk(("127.0.0.1", port), script)
        run.cpu_seconds = cpu_seconds(worker) - before
        return run


@contextmanager
def _nginx(folder: Path, response: bytes) -> Iterator[tuple[int, int]]:
    root = folder / "static"
    root.mkdir()
    (root / "answer").write_bytes(response)
    port = free_port()
    conf = root / "nginx.conf"
    user = "user root;" if os.getuid() == 0 else ""
    conf.write_text(
        f"""daemon off; {user} worker_processes 1; pid {root}/pid; error_log {root}/errors;
events {{ worker_connections 512; }}
http {{ access_log off; keepalive_requests 100000000; open_file_cache max=16; types {{ }}
default_type application/ocsp-response;
client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root}; uwsgi_temp_path {root};
scgi_temp_path {root};
server {{ listen 127.0.0.1:{port}; root {root}; location / {{ try_files /answer =404; }} }} }}
"""
    )
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, SERVER_CORE)
    process = subprocess.Popen(["nginx", "-c", str(conf), "-e", str(root / "errors")])
    os.sched_setaffinity(0, before)
    try:
        yield port, _worker_of(process.pid, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _worker_of(master: int, port: int) -> int:
    for _ in range(200):
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        if children:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
            except OSError:
                pass
            else:
                return int(children[0])
        time.sleep(0.05)
    raise RuntimeError("nginx did not start")
