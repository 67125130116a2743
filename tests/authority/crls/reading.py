"""Published CRLs as relying parties read them, and a disk that is full."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.simulator.installation import Installation
from tests.simulator.programs import Result, run
from vagus.authority.issuance import IssuedCertificate


def crl_path(folder: Path, name: str = "0.crl", slug: str = "h1.icu") -> Path:
    """The file of a CRL below the folder of a publisher."""
    return folder / "crl" / slug / "1" / name


def crl_at(folder: Path, name: str = "0.crl", slug: str = "h1.icu") -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(crl_path(folder, name, slug).read_bytes())


def number_of(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def serials_of(crl: x509.CertificateRevocationList) -> set[int]:
    return {entry.serial_number for entry in crl}


@contextmanager
def full_disk() -> Iterator[pytest.MonkeyPatch]:
    """The disk is full while the block lasts."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", full)
        yield patched


def openssl_verify(
    built: Installation,
    folder: Path,
    issued: IssuedCertificate,
    crls: Iterable[x509.CertificateRevocationList],
    *checks: str,
) -> Result:
    """What `openssl verify` says of a certificate of h1/icu with these CRLs, a second from now."""
    chain = [
        x509.load_der_x509_certificate(one) for one in (issued.der, built.icu.certificate_der, *built.icu.chain_der)
    ]
    files: dict[str, Iterable[x509.Certificate | x509.CertificateRevocationList]]
    files = {"leaf.pem": chain[:1], "mid.pem": chain[1:-1], "root.pem": chain[-1:], "lists.pem": crls}
    for name, several in files.items():
        (folder / name).write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in several))
    how = (*checks, "-attime", str(int(built.clock.now().timestamp()) + 1), "-CAfile", "root.pem")
    return run("openssl", "verify", *how, "-untrusted", "mid.pem", "-CRLfile", "lists.pem", "leaf.pem", cwd=folder)
