"""openssl and Java read key and chain from what `vagus device pkcs12` writes, in both forms, and verify the chain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.simulator.commands import SOURCE, make_installation, vagus
from tests.simulator.programs import succeed

pytestmark = pytest.mark.interop

SECRET = "pump-password-1"


@dataclass(frozen=True, slots=True)
class Made:
    """A file of one form with its device, and the root."""

    file: Path
    device: str
    root: Path
    is_legacy: bool


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("pkcs12") / "hospital"
    (device,) = make_installation(folder, devices=1)
    return folder, device.text


@pytest.fixture(params=[False, True], ids=["modern", "legacy"])
def made(request: pytest.FixtureRequest, installation: tuple[Path, str], tmp_path: Path) -> Made:
    folder, device = installation
    password, root, file = tmp_path / "password", tmp_path / "root.pem", tmp_path / "pump.p12"
    password.touch(0o600)
    password.write_text(SECRET + "\n")
    vagus(folder, "ca", "export", "root", "--out", str(root))
    more = ("--legacy",) if request.param else ()
    options = ("--out", str(file), "--password-source", f"file:{password}", "--passphrase-source", SOURCE, *more)
    vagus(folder, "device", "pkcs12", device, *options)
    return Made(file, device, root, is_legacy=request.param)


def test_openssl_reads_key_and_chain(made: Made, tmp_path: Path) -> None:
    given = ("-in", made.file, "-passin", f"pass:{SECRET}", *(("-legacy",) if made.is_legacy else ()))
    pem = tmp_path / "all.pem"
    told = succeed("openssl", "pkcs12", *given, "-info", "-nodes", "-out", pem)
    scheme = "pbeWithSHA1And3-KeyTripleDES-CBC" if made.is_legacy else "PBES2, PBKDF2, AES-256-CBC"
    told.must_say("MAC: sha1" if made.is_legacy else "MAC: sha256", scheme)
    assert pem.read_text().count("BEGIN CERTIFICATE") == 3, "the leaf and two CAs, no root"
    key = succeed("openssl", "pkey", "-in", pem, "-pubout").text
    assert succeed("openssl", "x509", "-in", pem, "-noout", "-pubkey").text == key
    succeed("openssl", "verify", "-x509_strict", "-CAfile", made.root, "-untrusted", pem, pem).must_say("OK")


def test_java_reads_one_entry_with_its_chain(made: Made) -> None:
    told = succeed("keytool", "-list", "-v", "-keystore", made.file, "-storepass", SECRET)
    told.must_say("1 entry", "PrivateKeyEntry", "Certificate chain length: 3", f"CN={made.device}", "aorta ip3")
