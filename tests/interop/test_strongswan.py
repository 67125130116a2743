"""strongSwan's `pki --est` as Debian has it, which speaks TLS 1.2, and with TLS 1.3 switched on in its settings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from tests.simulator.orders import key_pem, new_key, signing_request
from tests.simulator.programs import PATIENCE, Result, program
from tests.simulator.relying import STATUS_HOST, Hospital

pytestmark = pytest.mark.interop

HOSTS = ("enrol.test.example", "enrol-12.test.example", STATUS_HOST)
TLS_1_3 = "pki {\n  tls {\n    version_max = 1.3\n  }\n}\n"


class Pki:
    """The program in a mount namespace of its own, where the names of our listeners lead to loopback."""

    def __init__(self, hospital: Hospital, folder: Path, settings: str) -> None:
        self._hospital, self.folder = hospital, folder
        (folder / "strongswan.conf").write_text(settings)
        lines = Path("/etc/hosts").read_text() + "".join(f"127.0.0.1 {name}\n" for name in HOSTS)
        (folder / "hosts").write_text(lines)

    def est(self, listener: str, content: bytes, *words: str | Path) -> Result:
        """Ask a listener for a certificate."""
        request = self.folder / "request.der"
        request.write_bytes(content)
        url = f"https://{listener}.test.example:{self._hospital.port(listener)}"
        trust = ("--cacert", self._hospital.authority("root"))
        return self._run("--est", "--url", url, "--in", request, *trust, *words)

    def _run(self, *words: str | Path) -> Result:
        inside = 'mount --bind "$0" /etc/hosts && exec "$@"'
        command = [program("unshare"), "--mount", "sh", "-c", inside, self.folder / "hosts", program("pki"), *words]
        around = os.environ | {"STRONGSWAN_CONF": str(self.folder / "strongswan.conf")}
        done = subprocess.run(list(map(str, command)), capture_output=True, timeout=PATIENCE, check=False, env=around)
        text = done.stderr.decode("utf-8", "replace")
        if "mount" in text and "permission denied" in text.lower():
            pytest.skip("no mount namespace may be made here")
        return Result(done.returncode, text, done.stdout)


def check_issued(result: Result, device: str) -> x509.Certificate:
    """The program got a certificate of that device."""
    assert result.raw, result.text
    certificate = x509.load_der_x509_certificate(result.raw)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.partition(".")[0] for name in names.get_values_for_type(x509.DNSName)] == [device]
    return certificate


def subject_of(name: str) -> x509.Name:
    """A subject with that common name."""
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


PLAIN = signing_request(new_key(), subject_of("strongswan"))


def test_as_it_comes_it_enrols_where_tls_1_2_is_allowed_and_nowhere_else(hospital: Hospital, tmp_path: Path) -> None:
    device, token = hospital.spare("h1/er")
    pki = Pki(hospital, tmp_path, "")
    refused = pki.est("enrol", PLAIN, "--userpass", f"{device}:{token}")
    assert (refused.code != 0, refused.raw) == (True, b"")
    assert "protocol version" in refused
    got = pki.est("enrol-12", PLAIN, "--userpass", f"{device}:{token}")
    assert "negotiated TLS 1.2" in got
    check_issued(got, device)


def test_with_tls_1_3_it_enrols_and_renews_under_its_own_names(hospital: Hospital, tmp_path: Path) -> None:
    device, token = hospital.spare("h1/icu")
    pki, old, new = Pki(hospital, tmp_path, TLS_1_3), new_key(), new_key()
    first = pki.est("enrol", signing_request(old, subject_of("anything")), "--userpass", f"{device}:{token}")
    assert "negotiated TLS 1.3" in first
    before = check_issued(first, device)
    (tmp_path / "old.der").write_bytes(first.raw)
    (tmp_path / "old.pem").write_bytes(key_pem(old))
    proof = ("--cert", tmp_path / "old.der", "--key", tmp_path / "old.pem")
    names = before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    after = check_issued(pki.est("enrol", signing_request(new, before.subject, names), *proof), device)
    assert after.serial_number != before.serial_number
    assert after.public_key() == new.public_key()
    refused = pki.est("enrol", signing_request(new, subject_of("another")), *proof)
    assert (refused.raw, "HTTP 400" in refused) == (b"", True)
