"""Software of others that judges the chain: an OpenSSL from 3.5 on, as a program and as the library that Python has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from cryptography import x509
from examples.demo.stage import REPOSITORY
from OpenSSL import SSL, crypto

OLDEST: Final = (3, 5)
"""The first OpenSSL that knows ML-DSA (FIPS 204) and X25519MLKEM768."""
_UNPACKED: Final = REPOSITORY / ".tools" / "openssl-3.5" / "openssl"
"""Where tests/interop/prepare.sh puts one."""


def find_openssl() -> tuple[str, str] | None:
    """An `openssl` program from 3.5 on, and what it says of itself; None where there is none."""
    for name in (shutil.which("openssl"), _UNPACKED if _UNPACKED.exists() else None):
        if name is None:
            continue
        said = subprocess.run([str(name), "version"], capture_output=True, text=True, timeout=30, check=False).stdout
        # the version of the library: an older program may run on it
        found = re.findall(r"OpenSSL (\d+)\.(\d+)", said)
        if found and tuple(int(part) for part in found[-1]) >= OLDEST:
            return str(name), said.strip()
    return None


def verify_by_program(openssl: str, leaf: Path, untrusted: Path, root: Path, crls: Path) -> str:
    """What `openssl verify` says of the leaf, with the CRL of every level: OK, or the error."""
    words = ["verify", "-x509_strict", "-crl_check_all", "-check_ss_sig", "-purpose", "sslclient"]
    words += ["-CAfile", str(root), "-untrusted", str(untrusted), "-CRLfile", str(crls), str(leaf)]
    done = subprocess.run([openssl, *words], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode == 0:
        return "OK"
    lines = (done.stdout + done.stderr).splitlines()
    return next((line for line in lines if line.startswith("error ")), "\n".join(lines))


def verify_by_library(leaf: Path, untrusted: Path, root: Path, crls: Path) -> str:
    """The same by the OpenSSL that the package `cryptography` brings: OK, or the error."""
    store = crypto.X509Store()
    store.add_cert(_first(root))
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    for block in re.findall(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", crls.read_bytes(), re.DOTALL):
        store.add_crl(x509.load_pem_x509_crl(block))
    above = [crypto.X509.from_cryptography(one) for one in x509.load_pem_x509_certificates(untrusted.read_bytes())]
    try:
        crypto.X509StoreContext(store, _first(leaf), above).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return "OK"


def library_version() -> str:
    """The OpenSSL of the package `cryptography`."""
    return SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii")


def _first(path: Path) -> crypto.X509:
    return crypto.X509.from_cryptography(x509.load_pem_x509_certificates(path.read_bytes())[0])
