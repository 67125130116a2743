"""Authorities and their CRLs as files for other software: every form, every choice, and what is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7, pkcs12
from sqlalchemy import update

from tests.simulator import plans
from tests.simulator.running import denied, done, run
from vagus.authority.crls.publisher import CrlPublisher
from vagus.records.engine.tables import crl_publications
from vagus.wiring import Installation

TWO_HOSPITALS = plans.hospital_plan(
    plans.hospital(plans.devices("icu", 1, 3)),
    plans.hospital(plans.devices("icu", 11, 2), label="h2", title="Second Hospital"),
    status_url="http://127.0.0.1:1",
)


def names_of(certificates: list[x509.Certificate]) -> list[str]:
    """The common names, in order."""
    return [str(one.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value) for one in certificates]


def exported(folder: Path, *options: str) -> list[str]:
    return names_of(x509.load_pem_x509_certificates(done(folder, "ca", "export", *options).out.encode()))


def sign_crls(folder: Path) -> None:
    """Sign the CRLs of the online authorities, as a serving process does."""
    with Installation.open(folder, passphrase_sources=["env:TEST_PASSPHRASE"]) as site:
        names = [row.name for row in site.operations.authorities.list_all(site.actor) if not row.is_offline]
        publisher = CrlPublisher(site.pack, site.database, site.writer, site.clock, folder=site.settings.published)
        for issuer in site.open_issuers(sorted(set(names))).every():
            publisher.publish_all(issuer)


@pytest.fixture
def signed(hospital: Path) -> Path:
    """A hospital where each authority has a CRL."""
    sign_crls(hospital)
    return hospital


def test_roots_a_chain_without_its_root_and_all_of_a_hospital(hospital: Path, tmp_path: Path) -> None:
    plan = tmp_path / "two.toml"
    plan.write_text(TWO_HOSPITALS)
    done(hospital, "plan", "apply", str(plan), "--yes", "--ceremony")
    (root,) = exported(hospital, "--roots")
    assert exported(hospital, "root") == [root]
    icu, h1, above = exported(hospital, "h1/icu", "--chain")
    assert above == root
    assert exported(hospital, "h1/icu", "--chain", "--no-root") == [icu, h1]
    whole = exported(hospital, "--hospital", "h1")
    assert (len(whole), whole[-1]) == (5, root)
    assert {icu, h1} < set(whole)
    second = exported(hospital, "--hospital", "h2", "--no-root")
    assert len(second) == 4
    assert set(second) & set(whole) == {icu}, "both units bear the same title, and nothing else is shared"


def test_a_retired_generation_whose_certificates_live_is_part_of_its_hospital(hospital: Path) -> None:
    before = exported(hospital, "--hospital", "h1")
    assert run(hospital, "ca", "roll", "h1/icu").code == 3
    assert exported(hospital, "--hospital", "h1") == before, "a request has no certificate"
    done(hospital, "ceremony", "--yes")
    done(hospital, "ca", "retire", "h1/icu#1", "--yes")
    assert len(exported(hospital, "--hospital", "h1")) == len(before) + 1


def test_every_form_holds_the_same_certificates(hospital: Path, tmp_path: Path) -> None:
    pem = x509.load_pem_x509_certificates(done(hospital, "ca", "export", "h1/icu", "--chain").out.encode())
    for form in ("p7b", "truststore", "der"):
        few = ("--chain",) if form != "der" else ()
        done(hospital, "ca", "export", "h1/icu", *few, "--form", form, "--out", str(tmp_path / form))
    assert set(pkcs7.load_pem_pkcs7_certificates((tmp_path / "p7b").read_bytes())) == set(pem)
    assert (tmp_path / "der").read_bytes() == pem[0].public_bytes(Encoding.DER)
    store = pkcs12.load_pkcs12((tmp_path / "truststore").read_bytes(), b"changeit")
    aliases = {one.friendly_name: one.certificate for one in store.additional_certs}
    assert aliases == dict(zip([b"h1/icu#1", b"h1#1", b"root#1"], pem, strict=True))


def test_a_truststore_has_the_password_that_is_given(hospital: Path, tmp_path: Path) -> None:
    made = tmp_path / "roots.p12"
    options = ("--form", "truststore", "--store-password", "env:TEST_PASSPHRASE", "--out", str(made))
    done(hospital, "ca", "export", "--roots", *options)
    assert len(pkcs12.load_pkcs12(made.read_bytes(), os.environb[b"TEST_PASSPHRASE"]).additional_certs) == 1
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_pkcs12(made.read_bytes(), b"changeit")


@pytest.mark.parametrize(
    ("code", "reason", "arguments", "says"),
    [
        (2, "BAD_ARGUMENT", (), "AUTHORITY, --roots, or --hospital"),
        (2, "BAD_ARGUMENT", ("h1/icu", "--roots"), "name one of"),
        (2, "BAD_ARGUMENT", ("--roots", "--hospital", "h1"), "name one of"),
        (2, "BAD_ARGUMENT", ("--roots", "--no-root"), "--no-root does not go with --roots"),
        (2, "BAD_ARGUMENT", ("--hospital", "h1", "--chain"), "--chain belongs to one AUTHORITY"),
        (2, "BAD_ARGUMENT", ("root", "--no-root"), "root#1 is a root"),
        (2, "BAD_ARGUMENT", ("h1/icu", "--chain", "--form", "der"), "one certificate and here are 3"),
        (2, "BAD_ARGUMENT", ("--hospital", "h1", "--form", "der"), "take form pem, p7b or truststore"),
        (2, "BAD_ARGUMENT", ("root", "--form", "truststore", "--store-password", "secret"), "fd:NUMBER"),
        (2, "AUTHORITY_UNKNOWN", ("h9/icu",), "vagus ca list"),
        (2, "AUTHORITY_UNKNOWN", ("h1/icu#9",), "h1/icu#9"),
        (2, "AUTHORITY_UNKNOWN", ("--hospital", "h9"), "there are h1"),
        (2, "AUTHORITY_UNKNOWN", ("--hospital", "root"), "there are h1"),
        (2, "AUTHORITY_UNKNOWN", ("--hospital", ""), "there are h1"),
    ],
)
def test_a_wrong_choice_is_refused_and_writes_nothing(
    hospital: Path, tmp_path: Path, code: int, reason: str, arguments: tuple[str, ...], says: str
) -> None:
    out = tmp_path / "out"
    denied(hospital, code, reason, "ca", "export", *arguments, "--out", str(out), says=(says,))
    assert not out.exists()


def test_before_a_ceremony_there_is_nothing_to_export(fresh: Path) -> None:
    denied(fresh, 3, "CEREMONY_NEEDED", "ca", "export", "--roots", says=("vagus ceremony",))
    denied(fresh, 3, "AUTHORITY_UNKNOWN", "ca", "export", "--hospital", "h1", says=("there are none",))


COMMANDS = {"certificates": ("ca", "export", "--roots"), "CRLs": ("ca", "crls", "h1/icu")}


@pytest.mark.parametrize("what", COMMANDS)
def test_a_file_that_exists_is_replaced_only_when_asked_for(signed: Path, tmp_path: Path, what: str) -> None:
    out, command = tmp_path / "out.pem", COMMANDS[what]
    out.write_text("what was there")
    denied(signed, 3, "ALREADY_EXISTS", *command, "--out", str(out), says=("--replace",))
    assert out.read_text() == "what was there"
    done(signed, *command, "--out", str(out), "--replace")
    assert out.read_text() == done(signed, *command).out
    assert out.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.glob(".out*")) == []
    denied(signed, 2, "BAD_ARGUMENT", *command, "--out", str(tmp_path), "--replace", says=("is a folder",))
    denied(signed, 2, "BAD_ARGUMENT", *command, "--out", str(tmp_path / "no" / "out.pem"), says=("does not exist",))
    done(signed, *command, "--out", os.devnull, "--replace")
    assert not Path(os.devnull).is_file(), "a device is written to and never replaced"


def issuers_of(pem: str) -> list[str]:
    blocks = [block + "-----END X509 CRL-----\n" for block in pem.split("-----END X509 CRL-----\n")[:-1]]
    return [x509.load_pem_x509_crl(block.encode()).issuer.rfc4514_string() for block in blocks]


def test_the_crls_of_a_path_are_one_pem_with_every_level_once(signed: Path, tmp_path: Path) -> None:
    pem = done(signed, "ca", "crls", "h1/icu").out
    chain = x509.load_pem_x509_certificates(done(signed, "ca", "export", "h1/icu", "--chain").out.encode())
    assert issuers_of(pem) == [one.subject.rfc4514_string() for one in chain]
    assert issuers_of(done(signed, "ca", "crls", "h1/icu", "h1", "root#1", "h1/icu#1").out) == issuers_of(pem)
    for name, content in (("crls", pem), ("root", done(signed, "ca", "export", "--roots").out)):
        (tmp_path / name).write_text(content)
    (tmp_path / "h1").write_text(done(signed, "ca", "export", "h1").out)
    (tmp_path / "icu").write_text(done(signed, "ca", "export", "h1/icu").out)
    words = [
        "verify",
        "-x509_strict",
        "-crl_check_all",
        "-CAfile",
        "root",
        "-untrusted",
        "h1",
        "-CRLfile",
        "crls",
        "icu",
    ]
    told = subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.stdout == "icu: OK\n", told.stderr


def test_the_crls_of_every_living_generation_are_there(signed: Path) -> None:
    assert run(signed, "ca", "roll", "h1/icu").code == 3
    done(signed, "ceremony", "--yes")
    done(signed, "ca", "retire", "h1/icu#1", "--yes")
    sign_crls(signed)
    assert len(issuers_of(done(signed, "ca", "crls", "h1/icu").out)) == 4
    assert len(issuers_of(done(signed, "ca", "crls", "h1/icu#2").out)) == 3


def test_a_crl_that_is_missing_or_unknown_is_named_with_what_brings_it(hospital: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "crls.pem"))
    denied(hospital, 2, "AUTHORITY_UNKNOWN", "ca", "crls", "h9", *out)
    denied(hospital, 4, "STATUS_UNAVAILABLE", "ca", "crls", "h1/icu", *out, says=("vagus serve --issue-for h1/icu",))
    with Installation.open(hospital) as installation, installation.database.writing() as connection:
        connection.execute(crl_publications.delete())
    denied(hospital, 4, "STATUS_UNAVAILABLE", "ca", "crls", "root", *out, says=("root#1", "vagus ceremony"))
    assert not (tmp_path / "crls.pem").exists()
    assert run(hospital, "ca", "crls").code == 2


def test_a_crl_that_ended_is_written_and_reported(signed: Path) -> None:
    with Installation.open(signed) as installation, installation.database.writing() as connection:
        connection.execute(update(crl_publications).values(next_update=1))
    told = done(signed, "ca", "crls", "h1/icu")
    assert len(issuers_of(told.out)) == 3
    assert told.err.count("ended at 1970-01-01") == 3
