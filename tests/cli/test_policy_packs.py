"""Choosing a policy pack: at the beginning, and later over authorities that another pack made."""

from __future__ import annotations

import tarfile
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, mldsa

from tests.simulator.running import PLAN, denied, done, findings, run
from vagus.settings import load_settings

PQ = "iob-2026-pq"
OWN = 'format = 1\nbase = "iob-2026-pq"\nname = "ours"\nversion = "1"\n[oids]\narc = "1.3.6.1.4.1.99999"\n'


def begin(folder: Path, *options: str) -> tuple[str, ...]:
    return ("init", "--unsafe-fast-kdf", "--origin", "log.test", *options)


def plan_in(folder: Path) -> str:
    path = folder.parent / "plan.toml"
    path.write_text(PLAN)
    return str(path)


def key_of(folder: Path, authority: str) -> object:
    return x509.load_pem_x509_certificate(done(folder, "ca", "export", authority).out.encode()).public_key()


def test_a_hospital_begins_with_post_quantum_authorities(tmp_path: Path) -> None:
    folder = tmp_path / "hospital"
    begun = done(folder, *begin(folder, "--policy", PQ), "--json").facts
    assert begun["policy_pack"] == "iob-2026-pq 2026.1"
    done(folder, "plan", "apply", plan_in(folder), "--yes", "--ceremony")
    assert isinstance(key_of(folder, "root"), mldsa.MLDSA87PublicKey)
    assert isinstance(key_of(folder, "h1/icu"), mldsa.MLDSA65PublicKey)
    assert done(folder, "plan", "check", plan_in(folder)).out.count("Note:") == 0
    said = findings(folder, "policy pack")
    assert [one["finding"] for one in said if "post-quantum" in one["finding"]] == []
    backup = tmp_path / "backup.tar"
    done(folder, "backup", str(backup))
    with tarfile.open(backup) as archive:
        assert [name for name in archive.getnames() if PQ in name] == [], "the program has this pack itself"
    done(tmp_path / "restored", "restore", str(backup))
    assert load_settings(tmp_path / "restored").policy_pack == load_settings(folder).policy_pack


def test_a_pack_of_ones_own_lies_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "hospital"
    folder.mkdir()
    (folder / "ours.toml").write_text(OWN)
    assert done(folder, *begin(folder, "--policy", "ours.toml"), "--json").facts["oid_arc"] == "1.3.6.1.4.1.99999"
    backup = tmp_path / "backup.tar"
    done(folder, "backup", str(backup))
    with tarfile.open(backup) as archive:
        assert "ours.toml" in archive.getnames()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("iob-2027", "name iob-2026 or iob-2026-pq"),
        ("", "there is no such policy pack"),
        ("/none/p.toml", "vagus: /none/p.toml: there"),
        ("ours.toml", "a relative path begins at"),
        ("bad.toml", "base: "),
    ],
)
def test_a_pack_that_cannot_be_used_leaves_nothing_behind(tmp_path: Path, name: str, says: str) -> None:
    folder = tmp_path / "hospital"
    if name == "bad.toml":
        folder.mkdir()
        (folder / name).write_text(OWN.replace(PQ, "other"))
    before = sorted(tmp_path.rglob("*"))
    refused = denied(folder, 2, "BAD_PACK", *begin(folder, "--policy", name))
    assert says in refused.err.replace("\n", " ")
    assert sorted(tmp_path.rglob("*")) == before


def test_adopting_it_over_classical_authorities_says_what_changes_and_what_does_not(hospital: Path) -> None:
    settings = hospital / "vagus.toml"
    settings.write_text(settings.read_text().replace('# policy_pack = "our-pack.toml"', f'policy_pack = "{PQ}" #'))
    told = " ".join(done(hospital, "plan", "check", plan_in(hospital)).out.split())
    for words in (
        "policy pack iob-2026-pq 2026.1 is adopted by plan apply and by serve",
        "certificates and keys that exist stay as they are",
        "listeners have mldsa65 keys from the next start of vagus serve on",
        "OCSP responders mldsa44 keys from their next renewal on",
        "authorities keep their keys until each is rolled, from the root down",
        "root#1 (p384, not mldsa87), h1#1 (p384, not mldsa65)",
    ):
        assert words in told
    done(hospital, "plan", "apply", plan_in(hospital), "--yes")
    assert "Note:" not in done(hospital, "plan", "check", plan_in(hospital)).out, "it is adopted"
    assert isinstance(key_of(hospital, "h1/icu"), ec.EllipticCurvePublicKey)
    (left,) = [one for one in findings(hospital, "policy pack") if "post-quantum" in one["finding"]]
    assert (left["state"], "root#1 (p384, not mldsa87)" in left["finding"]) == ("warning", True)
    for name in ("root", "h1", "h1/sdc", "h1/infra", "h1/icu"):
        assert run(hospital, "ca", "roll", name).code == 3
    done(hospital, "ceremony", "--yes")
    assert [one for one in findings(hospital, "policy pack") if "post-quantum" in one["finding"]] == []
    chain = x509.load_pem_x509_certificates(done(hospital, "ca", "export", "h1/icu", "--chain").out.encode())
    kinds = [type(one.public_key()).__name__ for one in chain]
    assert kinds == ["MLDSA65PublicKey", "MLDSA65PublicKey", "MLDSA87PublicKey"]
    for below, above in pairwise(chain):
        below.verify_directly_issued_by(above)
