"""Authorities that others made: an existing root taken over, and a root that lives elsewhere (both made by openssl)."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.simulator.running import PLAN, denied, done, run

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")

EXTENSIONS = """
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


NO_LIST = ("--unsafe-no-list",)


def unlisted(folder: Path) -> list[str]:
    """The offline authorities whose lists lack a revocation."""
    waiting = done(folder, "ceremony", "--dry-run", "--json").facts
    return [one["authority"] for one in waiting if one["waits_for"].startswith("its CRLs")]


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


P384 = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")
RSA = ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072")
ROOT_ELSEWHERE = PLAN.replace('domain = "test.example"', 'domain = "test.example"\nroot = "elsewhere"')


def make_root(folder: Path, *key: str) -> None:
    (folder / "ca.cnf").write_text(EXTENSIONS)
    openssl(folder, "genpkey", *key, "-out", "root.key")
    subject = "/C=CH/O=An older trust/CN=A root of before"
    openssl(folder, "req", "-new", "-key", "root.key", "-subj", subject, "-out", "root.csr")
    openssl(
        folder, "x509", "-req", "-in", "root.csr", "-signkey", "root.key", "-days", "9000", "-extfile", "ca.cnf",
        "-extensions", "ca", "-out", "root.pem"
    )  # fmt: skip


def apply(folder: Path, text: str = PLAN) -> int:
    plan = folder.parent / "plan.toml"
    plan.write_text(text)
    return run(folder, "plan", "apply", str(plan), "--yes").code


@pytest.mark.parametrize("key", [P384, RSA], ids=["P-384", "RSA-3072"])
def test_an_imported_root_certifies_the_hierarchy(fresh: Path, tmp_path: Path, key: tuple[str, ...]) -> None:
    make_root(tmp_path, *key)
    assert apply(fresh) == 3
    pair = (str(tmp_path / "root.pem"), str(tmp_path / "root.key"))
    taken = done(fresh, "ca", "import", "root", *pair, *NO_LIST, "--json").facts
    assert taken == {"authority": "root#1", "state": "active", "revoked": 0}
    held = done(fresh, "ceremony", "--yes", "--json").facts
    assert held["certified"] == ["h1#1", "h1/sdc#1", "h1/infra#1", "h1/icu#1"]
    assert done(fresh, "ca", "export", "root").out == (tmp_path / "root.pem").read_text()
    done(fresh, "ca", "export", "h1/icu", "--out", str(tmp_path / "icu.pem"))
    done(fresh, "ca", "export", "h1", "--out", str(tmp_path / "h1.pem"))
    openssl(tmp_path, "verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "h1.pem", "icu.pem")


def test_a_key_that_is_not_the_certificates_is_refused(fresh: Path, tmp_path: Path) -> None:
    make_root(tmp_path, *P384)
    openssl(tmp_path, "genpkey", *P384, "-out", "other.key")
    apply(fresh)
    pair = (str(tmp_path / "root.pem"), str(tmp_path / "other.key"))
    denied(fresh, 3, "KEY_MISMATCH", "ca", "import", "root", *pair, *NO_LIST)


def test_an_import_without_its_revocations_is_refused_and_with_them_keeps_them(fresh: Path, tmp_path: Path) -> None:
    make_root(tmp_path, *P384)
    (tmp_path / "old.cnf").write_text(
        "[ca]\ndefault_ca=old\n[old]\ndatabase=index.txt\ncrlnumber=number\ndefault_md=sha384\ndefault_crl_days=30\n"
        "[extensions]\nauthorityKeyIdentifier=keyid\n"
    )
    (tmp_path / "index.txt").write_text("R\t400101000000Z\t260101000000Z,keyCompromise\t5EED\tunknown\t/CN=lost\n")
    (tmp_path / "number").write_text("2A\n")
    signer = ("-cert", "root.pem", "-keyfile", "root.key")
    openssl(tmp_path, "ca", "-gencrl", "-config", "old.cnf", *signer, "-crlexts", "extensions", "-out", "old.crl")
    apply(fresh)
    pair = (str(tmp_path / "root.pem"), str(tmp_path / "root.key"))
    denied(fresh, 2, "BAD_ARGUMENT", "ca", "import", "root", *pair)
    done(fresh, "ca", "import", "root", *pair, "--crl", str(tmp_path / "old.crl"))
    assert unlisted(fresh) == [], "its old operator's list says it"
    done(fresh, "ceremony", "--yes")
    asked = run(fresh, "ca", "revoke-earlier", "root#1", "BEEF")
    assert (asked.code, "Revoke the certificate 0xbeef (decimal 48879) that root#1 issued" in asked.err) == (1, True)
    assert done(fresh, "ca", "revoke-earlier", "root#1", "BEEF", "--yes", "--json").facts["revoked"] == 1
    assert done(fresh, "ca", "revoke-earlier", "root#1", "5eed", "--yes", "--json").facts["revoked"] == 0
    assert unlisted(fresh) == ["root#1"]
    done(fresh, "ceremony", "--yes")
    entry = x509.load_pem_x509_crl(
        done(fresh, "ca", "crls", "root").out.encode()
    ).get_revoked_certificate_by_serial_number(0x5EED)
    assert entry is not None
    assert entry.revocation_date_utc == datetime(2026, 1, 1, tzinfo=UTC), "as the old operator's list says"
    denied(fresh, 3, "NOT_ISSUED", "ca", "revoke-earlier", "h1/icu#1", "BEEF")
    denied(fresh, 2, "BAD_ARGUMENT", "ca", "revoke-earlier", "root#1", "no number")
    done(fresh, "audit", "verify")


def test_requests_go_to_a_root_elsewhere_and_its_certificates_come_in(fresh: Path, tmp_path: Path) -> None:
    make_root(tmp_path, *P384)
    assert apply(fresh, ROOT_ELSEWHERE) == 3
    held = done(fresh, "ceremony", "--yes", "--json").facts
    assert held["certified"] == [], "what a root elsewhere must certify waits for it"
    for name in ("h1", "h1/sdc", "h1/infra"):
        stem = name.replace("/", ".")
        done(fresh, "ca", "request", name, "--out", str(tmp_path / f"{stem}.csr"))
        openssl(
            tmp_path, "x509", "-req", "-in", f"{stem}.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "4000",
            "-extfile", "ca.cnf", "-extensions", "ca", "-out", f"{stem}.pem"
        )  # fmt: skip
        chain = tmp_path / f"{stem}.chain.pem"
        chain.write_text((tmp_path / f"{stem}.pem").read_text() + (tmp_path / "root.pem").read_text())
        assert done(fresh, "ca", "accept", name, str(chain), "--json").facts["state"] == "active"
    signed = (tmp_path / "h1.pem").read_text()
    denied(fresh, 3, "ALREADY_EXISTS", "ca", "request", "h1/icu", "--out", str(tmp_path / "h1.pem"))
    assert (tmp_path / "h1.pem").read_text() == signed, "the certificate that came back is no place for a request"
    held = done(fresh, "ceremony", "--yes", "--json").facts
    assert held["certified"] == ["h1/icu#1"]
    assert done(fresh, "ca", "export", "h1/icu", "--chain").out.count("BEGIN CERTIFICATE") == 3
    denied(fresh, 3, "ALREADY_EXISTS", "ca", "accept", "h1", str(tmp_path / "h1.chain.pem"))
    root = (tmp_path / "root.pem").read_text()
    assert done(fresh, "ca", "export", "--roots").out == root
    assert root not in done(fresh, "ca", "export", "--hospital", "h1", "--no-root").out
    store = tmp_path / "roots.p12"
    done(fresh, "ca", "export", "--roots", "--form", "truststore", "--out", str(store))
    (alias,) = pkcs12.load_pkcs12(store.read_bytes(), b"changeit").additional_certs
    assert alias.friendly_name == b"h1/sdc#1 above 1", (
        "no authority here has it, so it is named by one that it certified"
    )
    told = done(fresh, "ca", "crls", "h1")
    assert told.out.count("BEGIN X509 CRL") == 1
    assert "h1#1 was certified elsewhere: add the CRLs of the authorities above it" in told.err


def test_a_certificate_for_another_key_is_not_accepted(fresh: Path, tmp_path: Path) -> None:
    make_root(tmp_path, *P384)
    apply(fresh, ROOT_ELSEWHERE)
    denied(fresh, 3, "KEY_MISMATCH", "ca", "accept", "h1/infra", str(tmp_path / "root.pem"))


DECIMAL = "285513222750778441919232283329085112611"
"""0xD6CBD8B5A0C1F2E3A4B5C6D7E8F90123 as Vault, step, Ansible and Windows show it."""


@pytest.fixture
def taken_over(fresh: Path, tmp_path: Path) -> Path:
    """An installation with an imported root, from which two earlier certificates come: leaf.pem and zero.pem."""
    make_root(tmp_path, *P384)
    openssl(tmp_path, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            "leaf.key", "-subj", "/CN=leaf", "-out", "leaf.csr")  # fmt: skip
    for name, serial in (("leaf", DECIMAL), ("zero", "0")):
        openssl(tmp_path, "x509", "-req", "-in", "leaf.csr", "-CA", "root.pem", "-CAkey", "root.key",
                "-set_serial", serial, "-out", f"{name}.pem")  # fmt: skip
    apply(fresh)
    done(fresh, "ca", "import", "root", str(tmp_path / "root.pem"), str(tmp_path / "root.key"), *NO_LIST)
    return fresh


def test_a_serial_that_can_be_read_in_two_ways_revokes_nothing(taken_over: Path) -> None:
    earlier = ("ca", "revoke-earlier", "root#1")
    says = (f"0x{DECIMAL}", f"dec:{DECIMAL}", "0xd6cbd8b5a0c1f2e3a4b5c6d7e8f90123")
    denied(taken_over, 2, "BAD_ARGUMENT", *earlier, DECIMAL, "--yes", says=says)
    assert unlisted(taken_over) == []
    revoked = done(taken_over, *earlier, f"dec:{DECIMAL}", "--yes", "--json").facts
    assert revoked["serial"] == "d6cbd8b5a0c1f2e3a4b5c6d7e8f90123"
    assert revoked["serial_decimal"] == DECIMAL
    assert (
        done(taken_over, *earlier, "D6:CB:D8:B5:A0:C1:F2:E3:A4:B5:C6:D7:E8:F9:01:23", "--yes", "--json").facts[
            "revoked"
        ]
        == 0
    )


def test_an_earlier_certificate_is_revoked_by_its_file_and_one_of_serial_zero_too(
    taken_over: Path, tmp_path: Path
) -> None:
    earlier, chain = ("ca", "revoke-earlier", "root#1"), tmp_path / "chain.pem"
    chain.write_text((tmp_path / "leaf.pem").read_text())
    assert done(taken_over, *earlier, "--certificate", str(chain), "--yes", "--json").facts["revoked"] == 1
    assert done(taken_over, *earlier, "0", "--yes", "--json").facts["revoked"] == 1
    assert (
        done(taken_over, *earlier, "--certificate", str(tmp_path / "zero.pem"), "--yes", "--json").facts["revoked"] == 0
    )
    chain.write_text((tmp_path / "leaf.pem").read_text() + (tmp_path / "zero.pem").read_text())
    denied(taken_over, 3, "NOT_ISSUED", *earlier, "--certificate", str(chain), "--yes", says=("signed 2 of the 2",))
    denied(taken_over, 3, "NOT_ISSUED", "ca", "revoke-earlier", "h1/icu#1", "--certificate", str(tmp_path / "leaf.pem"))
    denied(taken_over, 2, "BAD_ARGUMENT", *earlier)
    denied(taken_over, 2, "BAD_ARGUMENT", *earlier, "0x1", "--certificate", str(chain))


@pytest.fixture
def old_unit(fresh: Path, tmp_path: Path) -> tuple[str, ...]:
    """What `openssl ca` leaves of a unit's CA: chain, key, CRL, newcerts and index.txt; the words that import it."""
    make_root(tmp_path, *P384)
    new_key = ("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(tmp_path, *new_key, "-keyout", "ca.key", "-subj", "/CN=ICU CA of before", "-out", "ca.csr")
    signed = ("-CA", "root.pem", "-CAkey", "root.key", "-extfile", "ca.cnf", "-extensions", "ca")
    for name, days in (("ca", "4000"), ("short", "500")):
        openssl(tmp_path, "x509", "-req", "-in", "ca.csr", *signed, "-days", days, "-out", f"{name}.pem")
    (tmp_path / "newcerts").mkdir()
    (tmp_path / "index.txt").touch()
    (tmp_path / "serial").write_text("1000\n")
    (tmp_path / "number").write_text("2A\n")
    (tmp_path / "old.cnf").write_text(
        "[ca]\ndefault_ca=old\n[old]\ndatabase=index.txt\nserial=serial\ncrlnumber=number\nnew_certs_dir=newcerts\n"
        "default_md=sha256\ndefault_days=300\ndefault_crl_days=30\npolicy=any\nunique_subject=no\nx509_extensions=client\n"
        "[any]\ncommonName=supplied\n"
        "[client]\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
    )
    ca = ("ca", "-batch", "-config", "old.cnf", "-cert", "ca.pem", "-keyfile", "ca.key")
    for number in (1, 2, 9):
        openssl(tmp_path, *new_key, "-keyout", "k", "-subj", f"/CN=AIP3-00000{number}", "-out", "r.csr")
        openssl(tmp_path, *ca, "-in", "r.csr")
    openssl(tmp_path, *ca, "-gencrl", "-out", "old.crl")
    openssl(tmp_path, *ca, "-revoke", "newcerts/1001.pem", "-crl_reason", "keyCompromise")
    apply(fresh)
    chain = tmp_path / "chain.pem"
    chain.write_text((tmp_path / "ca.pem").read_text() + (tmp_path / "root.pem").read_text())
    done(fresh, "ceremony", "--yes")
    return ("h1/icu", str(chain), str(tmp_path / "ca.key"), "--crl", str(tmp_path / "old.crl"))


def test_a_unit_ca_comes_with_its_living_certificates(fresh: Path, tmp_path: Path, old_unit: tuple[str, ...]) -> None:
    """The index knows a revocation that the CRL does not, and one certificate is of no device here."""
    earlier = ("--certificates", str(tmp_path / "newcerts"), "--index", str(tmp_path / "index.txt"))
    taken = done(fresh, "ca", "import", *old_unit, *earlier, "--json").facts
    refused = taken.pop("refused")
    counts = {"revoked": 1, "certificates_taken_in": 1, "certificates_refused": 2}
    assert taken == {"authority": "h1/icu#2", "state": "active", **counts}
    assert {one["serial"]: one["reason"] for one in refused} == {"1001": "REVOKED", "1002": "NOT_IN_INVENTORY"}
    shown = done(fresh, "cert", "find", "--issuer", "h1/icu#2", "--json").facts
    assert {one["serial"]: one["state"] for one in shown} == {"1000": "issued", "1001": "revoked"}
    done(fresh, "audit", "verify")
    again = run(fresh, "ca", "take-in", "h1/icu#2", str(tmp_path / "newcerts"), "--csv")
    assert again.code == 1, "one of them is still of no device"
    rows = list(csv.DictReader(io.StringIO(again.out)))
    assert [row["reason"] for row in rows if row["serial"] == "1000"] == [""]


def test_an_import_says_how_many_are_revoked_and_refuses_a_broken_index_before_anything(
    fresh: Path, tmp_path: Path, old_unit: tuple[str, ...]
) -> None:
    before = done(fresh, "ca", "list", "--json").facts
    (tmp_path / "bad.txt").write_text("V\tno index\n")
    denied(fresh, 2, "BAD_ENCODING", "ca", "import", *old_unit, "--index", str(tmp_path / "bad.txt"))
    assert done(fresh, "ca", "list", "--json").facts == before
    imported = done(fresh, "ca", "import", *old_unit)
    assert (imported.out.split()[-2:], imported.err) == (["revoked", "0"], "")
    denied(fresh, 3, "NOT_ISSUED", "ca", "take-in", "h1/icu#1", str(tmp_path / "newcerts"))


def test_an_import_says_which_profiles_the_ca_can_issue_no_more(
    fresh: Path, tmp_path: Path, old_unit: tuple[str, ...]
) -> None:
    said = done(fresh, "ca", "import", "h1/icu", str(tmp_path / "short.pem"), *old_unit[2:])
    assert "h1/icu#2 ends too soon for certificates of bedside, " in said.err
    assert "vagus ca roll h1/icu" in said.err
    assert "life-support" not in said.err, "these last a year"


@pytest.mark.parametrize(
    ("extension", "reason"),
    [
        ("extendedKeyUsage=emailProtection", "ROLE_FORBIDDEN"),
        ("nameConstraints=critical,permitted;DNS:old.example", "NAME_CONSTRAINT"),
        ("extendedKeyUsage=clientAuth", None),
        ("nameConstraints=critical,permitted;DNS:icu.h1.test.example", None),
    ],
)
def test_a_ca_is_imported_exactly_if_gateways_would_admit_its_devices(
    fresh: Path, tmp_path: Path, old_unit: tuple[str, ...], extension: str, reason: str | None
) -> None:
    (tmp_path / "odd.cnf").write_text(f"{EXTENSIONS}{extension}\n")
    signed = ("-CA", "root.pem", "-CAkey", "root.key", "-extfile", "odd.cnf", "-extensions", "ca", "-days", "4000")
    openssl(tmp_path, "x509", "-req", "-in", "ca.csr", *signed, "-out", "odd.pem")
    words = ("ca", "import", "h1/icu", str(tmp_path / "odd.pem"), *old_unit[2:])
    if reason is None:
        assert done(fresh, *words, "--json").facts["authority"] == "h1/icu#2"
        return
    denied(fresh, 1, reason, *words, says=("our own gateways would refuse", "have the CA certified anew"))
    assert "h1/icu#2" not in done(fresh, "ca", "list").out
    done(fresh, "audit", "verify")
