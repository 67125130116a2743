"""The files of deploy/: systemd rates the units, and nginx serves what is published and can read nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from tests.simulator.commands import ENVIRONMENT, SOURCE, found_hospital, plan, vagus
from tests.simulator.processes import Served, serving
from tests.simulator.programs import Running, program, run, running
from tests.simulator.waiting import wait_until

pytestmark = pytest.mark.interop

DEPLOY = Path(__file__).parents[2] / "deploy"
WORST_EXPOSURE = 1.5
"""As docs/deployment.md says; 0 is the best, 10 the worst."""
WEB = "www-data"


@pytest.mark.parametrize("unit", ["vagus.service", "vagus-agent.service"])
def test_systemd_rates_the_unit_as_hardened(unit: str) -> None:
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", DEPLOY / unit)
    rated = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said.text)
    assert rated is not None, said.text
    assert float(rated[1]) <= WORST_EXPOSURE, said.text


@pytest.mark.parametrize("unit", ["vagus.service", "vagus-agent.service", "vagus-agent.timer"])
def test_systemd_reads_every_line_of_the_unit(unit: str) -> None:
    said = run("systemd-analyze", "verify", "--man=no", DEPLOY / unit)
    wrong = [line for line in said.text.splitlines() if unit in line and "is not executable" not in line]
    assert not wrong, "the programs are not installed here, and nothing else is wrong"


@contextmanager
def publishing(folder: Path, public: Path) -> Iterator[Served]:
    """A hospital whose published files lie in `public`, made and served with the umask of the unit."""
    folder.mkdir(mode=0o700)
    (folder / "published").symlink_to(public)
    before = os.umask(0o077)
    try:
        found_hospital(folder, plan(1, 9))
        arguments = ("--issue-for", "all", "--passphrase-source", SOURCE)
        with serving(folder, *arguments, around=ENVIRONMENT) as served:
            yield served
    finally:
        os.umask(before)


@contextmanager
def nginx(folder: Path, public: Path, process: int) -> Iterator[Running]:
    """Nginx with our file, its worker as the account of Debian's web servers."""
    lines = (DEPLOY / "nginx-published.conf").read_text("utf-8")
    temporary = "".join(f"{name}_temp_path {name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))

    def command(port: int) -> list[str | Path]:
        ours = lines.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("/srv/vagus-public", str(public))
        ours = ours.replace("127.0.0.1:8080", f"127.0.0.1:{process}")
        whole = f"daemon off; user {WEB}; pid nginx.pid; events {{}} http {{ access_log off; {temporary}\n{ours} }}"
        (folder / "nginx.conf").write_text(whole, encoding="utf-8")
        return [program("nginx"), "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"]

    with running(command, folder) as server:
        yield server


def fetch(server: Running, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
    """Status, media type and body."""
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body)
    try:
        with urllib.request.urlopen(asked, timeout=30) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def caissuers_path(certificate: x509.Certificate) -> str:
    found = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    (url,) = (one for one in found if one.access_method == AuthorityInformationAccessOID.CA_ISSUERS)
    return urlsplit(str(url.access_location.value)).path


def crl_path(certificate: x509.Certificate) -> str:
    (point,) = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    return urlsplit(str(point.full_name[0].value)).path


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run a web server as another account")
def test_a_web_server_of_another_account_serves_what_certificates_point_to_and_reads_nothing_else(
    tmp_path: Path,
) -> None:
    program("nginx")
    with tempfile.TemporaryDirectory(prefix="vagus-deployment-") as place:
        public, folder = Path(place) / "public", Path(place) / "installation"
        Path(place).chmod(0o755)  # so that the mode of the installation's own folder is what keeps others out
        public.mkdir(mode=0o755)
        with publishing(folder, public) as served:
            icu, h1 = (
                x509.load_pem_x509_certificate(vagus(folder, "ca", "export", name).encode())
                for name in ("h1/icu", "h1")
            )
            wait_until((public / caissuers_path(icu)[1:]).exists, "the CA certificates are published")
            with nginx(tmp_path, public, served.port("status")) as server:
                # 1. Chain building and CRLs, with the media types of RFC 2585 and RFC 5280 4.2.2.1.
                expected = 200, "application/pkix-cert", h1.public_bytes(Encoding.DER)
                assert fetch(server, caissuers_path(icu)) == expected
                status, kind, crl_der = fetch(server, crl_path(icu))
                assert (status, kind) == (200, "application/pkix-crl")
                crl = x509.load_der_x509_crl(crl_der)
                assert isinstance(crl, x509.CertificateRevocationList)
                assert crl.issuer == h1.subject
                # 2. What is no file comes from the process: OCSP (here malformedRequest) and the checkpoint.
                assert fetch(server, "/ocsp", b"no request") == (
                    200,
                    "application/ocsp-response",
                    bytes.fromhex("30030a0101"),
                )
                assert fetch(server, "/log/checkpoint")[0] == 200
                # 3. No other file is served, and the account of the web server can read no other either.
                for path in ("/.lock", "/crl/", "/crl/h1/1/.0.crl.new", "/crl/../../installation/vagus.toml"):
                    assert fetch(server, path)[0] in {400, 404}, path
                for name in ("vagus.toml", "vagus.sqlite3", "keystores", "log/checkpoint"):
                    looked = subprocess.run(
                        ["ls", folder / name], user=WEB, capture_output=True, text=True, check=False
                    )
                    assert looked.returncode != 0, looked
                # 4. Without the process the files are still there, and OCSP is not.
                served.stop()
                assert fetch(server, caissuers_path(icu)) == expected
                assert hashlib.sha256(fetch(server, crl_path(icu))[2]).digest() == hashlib.sha256(crl_der).digest()
                assert fetch(server, "/ocsp", b"no request")[0] == 502
