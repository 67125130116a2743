"""`vagus device certify` and `pkcs12`: devices without an agent, from the request to the files that they import."""

from __future__ import annotations

import base64
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from tests.simulator.issuing import device_name
from tests.simulator.orders import common_name, new_key, signing_request
from tests.simulator.running import PLAN, denied, done, run
from vagus import durable_files
from vagus.x509.pem import encode_block

PUMP, OTHER = device_name(1), device_name(2)
PASSWORD = b"pump-password 1"
FILES = ["certificate.der", "certificate.pem", "chain.p7b", "chain.pem", "fullchain.pem"]


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P12", PASSWORD.decode())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def request_in(place: Path, key: Any = None, label: str = "CERTIFICATE REQUEST") -> str:
    place.write_bytes(encode_block(signing_request(key or new_key(), common_name("pump")), label))
    return str(place)


def certify(hospital: Path, device: str, request: str, place: Path, *more: str) -> Any:
    return done(hospital, "device", "certify", device, "--request", request, "--out", str(place), *more, "--json").facts


def pkcs12_command(place: Path, *more: str, device: str = PUMP) -> tuple[str, ...]:
    return ("device", "pkcs12", device, "--out", str(place), "--password-source", "env:P12", *more)


def states(hospital: Path, device: str) -> list[str]:
    return [one["state"] for one in done(hospital, "device", "show", device, "--json").facts["certificates"]]


def approvals(hospital: Path) -> list[str]:
    acts = [one["facts"] for one in done(hospital, "audit", "show", "--kind", "operator-act", "--json").facts]
    return [one for one in acts if "act=device-" in one]


def common_names(certificates: list[x509.Certificate]) -> list[str]:
    return [str(one.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value) for one in certificates]


def test_a_folder_gets_the_certificate_in_every_form(hospital: Path, tmp_path: Path, out: Path) -> None:
    key = new_key()
    made = certify(hospital, PUMP, request_in(tmp_path / "pump.csr", key), out)
    assert sorted(one.name for one in out.iterdir()) == FILES == sorted(Path(one).name for one in made["files"])
    leaf = x509.load_der_x509_certificate((out / "certificate.der").read_bytes())
    assert leaf.public_key() == key.public_key()
    assert x509.load_pem_x509_certificates((out / "certificate.pem").read_bytes()) == [leaf]
    chain = x509.load_pem_x509_certificates((out / "chain.pem").read_bytes())
    above = ["Intensive Care Issuing CA", "First Hospital Device CA"]
    assert common_names(chain) == [made["device"], *above]
    whole = x509.load_pem_x509_certificates((out / "fullchain.pem").read_bytes())
    assert common_names(whole) == [made["device"], *above, "Test Group Root"]
    assert set(pkcs7.load_pem_pkcs7_certificates((out / "chain.p7b").read_bytes())) == set(whole)
    assert {stat.S_IMODE((out / name).stat().st_mode) for name in FILES} == {0o644}
    (facts,) = approvals(hospital)
    assert "act=device-certified " in facts
    assert "by=sha256:" in facts
    assert done(hospital, "device", "show", PUMP, "--json").facts["device"]["state"] == "commissioned"


@pytest.mark.parametrize("form", ["NEW CERTIFICATE REQUEST", "der", "base64", "windows"])
def test_a_request_is_read_as_web_pages_give_it(hospital: Path, tmp_path: Path, form: str) -> None:
    key, place = new_key(), tmp_path / "pump.csr"
    der = signing_request(key, common_name("pump"))
    text = {"der": der, "base64": base64.encodebytes(der)}.get(form) or encode_block(der, "NEW CERTIFICATE REQUEST")
    place.write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") if form == "windows" else text)
    certify(hospital, PUMP, str(place), tmp_path / "pump.pem")
    leaf, *above = x509.load_pem_x509_certificates((tmp_path / "pump.pem").read_bytes())
    assert (leaf.public_key(), len(above)) == (key.public_key(), 2), "a chain without the root, if no form is named"


def test_a_lost_output_is_made_again_without_a_second_certificate(hospital: Path, tmp_path: Path, out: Path) -> None:
    request = request_in(tmp_path / "pump.csr")
    first = certify(hospital, PUMP, request, out)
    before = {name: (out / name).read_bytes() for name in FILES}
    command = ("device", "certify", PUMP, "--request", request, "--out", str(out))
    denied(hospital, 3, "ALREADY_EXISTS", *command, says=("certificate.pem exists already", "--replace"))
    (out / "certificate.pem").unlink()
    denied(hospital, 3, "ALREADY_EXISTS", *command)
    assert not (out / "certificate.pem").exists(), "all places are checked before anything is written"
    said = done(hospital, *command, "--replace").out
    assert "certified before" in said
    assert {name: (out / name).read_bytes() for name in FILES} == before
    again = certify(hospital, PUMP, request, tmp_path / "again.p7b", "--form", "p7b")
    assert (first["is_repeat"], again["is_repeat"], first["serial"] == again["serial"]) == (False, True, True)
    assert states(hospital, PUMP) == ["issued"]
    assert len(approvals(hospital)) == 1


def test_what_may_not_be_certified_leaves_no_file(hospital: Path, tmp_path: Path, out: Path) -> None:
    key = new_key()
    good, others = request_in(tmp_path / "good.csr", key), request_in(tmp_path / "others.csr")
    certify(hospital, OTHER, good, tmp_path / "other.pem")
    cut = tmp_path / "cut.csr"
    cut.write_bytes(Path(good).read_bytes()[:-40])
    forged = bytearray(signing_request(key, common_name("pump")))
    forged[-1] ^= 1
    (tmp_path / "forged.csr").write_bytes(forged)
    small = request_in(tmp_path / "small.csr", rsa.generate_private_key(65537, 2048))
    odd = request_in(tmp_path / "odd.csr", ec.generate_private_key(ec.SECP521R1()))

    def refused(code: int, reason: str, request: str, *more: str, says: tuple[str, ...] = ()) -> None:
        command = ("device", "certify", PUMP, "--request", request, "--out", str(out / "x.pem"), *more)
        denied(hospital, code, reason, *command, says=says)

    refused(2, "BAD_ENCODING", str(cut), says=("cut.csr", "no END"))
    refused(2, "BAD_ENCODING", str(tmp_path / "other.pem"), says=("other.pem", "CERTIFICATE REQUEST"))
    refused(1, "POP_FAILED", str(tmp_path / "forged.csr"))
    refused(3, "KEY_REUSE", good)
    refused(1, "UNSUPPORTED_ALGORITHM", small, "--reason-for-weak-key", "old", says=("rsa2048",))
    refused(1, "UNSUPPORTED_ALGORITHM", odd)
    refused(2, "BAD_ARGUMENT", others, "--reason-for-weak-key", "old", says=("p256 needs no reason",))
    refused(1, "NOT_FOUND", others, "--label", "server")
    done(hospital, "device", "hold", PUMP)
    refused(1, "ON_HOLD", others)
    done(hospital, "device", "release", PUMP)
    done(hospital, "device", "revoke", PUMP, "--reason", "keyCompromise", "--yes")
    refused(3, "DEVICE_STATE", others, says=("the device is recalled",))
    denied(
        hospital, 2, "BAD_ARGUMENT", "device", "certify", OTHER, "--request", others, "--out", str(out), "--form", "der"
    )
    assert list(out.iterdir()) == []
    assert states(hospital, PUMP) == []
    done(hospital, "device", "certify", OTHER, "--request", others, "--out", str(out / "x.pem"))


def test_the_key_of_the_unit_must_be_open(hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_in(tmp_path / "pump.csr")
    command = ("device", "certify", PUMP, "--request", request, "--out", str(tmp_path / "pump.pem"))
    monkeypatch.delenv("VAGUS_PASSPHRASE_SOURCE")
    denied(hospital, 4, "KEY_NOT_OPEN", *command, says=("h1/icu", "--passphrase-source"))
    assert states(hospital, PUMP) == []
    done(hospital, *command, "--passphrase-source", "env:TEST_PASSPHRASE")


@pytest.mark.parametrize("legacy", [(), ("--legacy",)], ids=["modern", "legacy"])
def test_a_pkcs12_file_has_a_new_key_with_its_chain_and_is_private(
    hospital: Path, tmp_path: Path, legacy: tuple[str, ...]
) -> None:
    made = tmp_path / "pump.p12"
    said = done(hospital, *pkcs12_command(made, *legacy))
    assert ("triple DES" in said.err) is bool(legacy)
    assert "A repeat makes another key" in said.out
    store = pkcs12.load_pkcs12(made.read_bytes(), PASSWORD)
    assert store.cert is not None
    assert isinstance(store.key, ec.EllipticCurvePrivateKey)
    assert store.cert.certificate.public_key() == store.key.public_key()
    assert store.cert.friendly_name == b"Aorta IP3 AIP3-000001"
    above = [one.certificate for one in store.additional_certs]
    assert common_names(above) == ["Intensive Care Issuing CA", "First Hospital Device CA"]
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    (facts,) = approvals(hospital)
    assert "act=device-key-made-here " in facts
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_pkcs12(made.read_bytes(), PASSWORD[:-1])


def test_a_repeat_makes_another_key_and_a_file_is_not_overwritten_unasked(hospital: Path, tmp_path: Path) -> None:
    made = tmp_path / "pump.p12"
    done(hospital, *pkcs12_command(made))
    first = made.read_bytes()
    denied(hospital, 3, "ALREADY_EXISTS", *pkcs12_command(made))
    assert (made.read_bytes(), states(hospital, PUMP)) == (first, ["issued"])
    done(hospital, *pkcs12_command(made, "--replace", "--key", "p384"))
    key = pkcs12.load_pkcs12(made.read_bytes(), PASSWORD).key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert (key.curve.name, states(hospital, PUMP)) == ("secp384r1", ["issued", "issued"])


@pytest.mark.parametrize("wrong", ["short", "päss-wort-9", "seven 7"])
def test_a_password_that_programs_read_in_different_ways_is_refused_before_anything_is_made(
    hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("P12", wrong)
    denied(hospital, 2, "BAD_ARGUMENT", *pkcs12_command(tmp_path / "pump.p12"), says=("printable ASCII",))
    assert (states(hospital, PUMP), (tmp_path / "pump.p12").exists()) == ([], False)


def test_a_file_that_cannot_be_written_leaves_nothing_and_no_good_certificate(
    hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "pump.p12"
    denied(hospital, 2, "BAD_ARGUMENT", *pkcs12_command(tmp_path / "missing" / "pump.p12"))
    assert states(hospital, PUMP) == []

    def full(*_given: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(made))

    with monkeypatch.context() as patch:
        patch.setattr(durable_files, "replace_file", full)
        failed = run(hospital, *pkcs12_command(made))
    assert (failed.code, failed.reason) == (4, "OS_ERROR")
    assert (made.exists(), states(hospital, PUMP)) == (False, ["revoked"])
    shown = done(hospital, "device", "show", PUMP, "--json").facts["certificates"]
    assert [one["reason"] for one in shown] == ["cessationOfOperation"]
    done(hospital, *pkcs12_command(made))
    assert sorted(states(hospital, PUMP)) == ["issued", "revoked"]


def test_a_pack_may_allow_rsa_2048_and_the_ledger_has_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "hospital"
    folder.mkdir()
    own = (
        'format = 1\nbase = "iob-2026"\nname = "ours"\nversion = "1"\n[profiles.bedside]\nkeys = ["p256", "rsa2048"]\n'
    )
    (folder / "ours.toml").write_text(own)
    done(folder, "init", "--unsafe-fast-kdf", "--origin", "log.test", "--policy", "ours.toml")
    (tmp_path / "plan.toml").write_text(PLAN)
    done(folder, "plan", "apply", str(tmp_path / "plan.toml"), "--yes", "--ceremony")
    command = pkcs12_command(tmp_path / "pump.p12", "--key", "rsa2048")
    denied(folder, 1, "WEAK_KEY", *command, says=("--reason-for-weak-key",))
    denied(folder, 2, "BAD_ENCODING", *command, "--reason-for-weak-key", "two\nlines", says=("one line",))
    assert (states(folder, PUMP), (tmp_path / "pump.p12").exists()) == ([], False)
    done(folder, *command, "--reason-for-weak-key", "display 2.1 reads no other key")
    (facts,) = approvals(folder)
    assert "reason=display 2.1 reads no other key" in facts
    assert done(folder, "audit", "verify").code == 0


def test_the_report_names_who_must_renew_what_was_certified_by_hand(hospital: Path, tmp_path: Path) -> None:
    certify(hospital, PUMP, request_in(tmp_path / "pump.csr"), tmp_path / "pump.pem")
    done(hospital, *pkcs12_command(tmp_path / "other.p12", device=OTHER))
    report = done(hospital, "report", "expiry", "--within", "3y", "--json").facts
    assert report["totals"] == {"never enrolled": 1, "renewed by hand": 2}
    whos = {one["who_does_what"] for one in report["devices"] if one["situation"] == "renewed by hand"}
    assert whos == {"PKI team: certify it again in time (vagus device certify or pkcs12)"}


def test_a_label_gets_what_the_device_shows_as_a_server_or_to_sdc_peers(hospital: Path, tmp_path: Path) -> None:
    new = ("device", "add", "--unit", "h1/icu", "--model", "Aorta IP3", "--serial", "S1", "--host-name", "a.test")
    done(hospital, *new)
    request = request_in(tmp_path / "s.csr")
    issuers = {}
    for label in ("server", "sdc"):
        made = certify(hospital, "Aorta IP3:S1", request, tmp_path / f"{label}.pem", "--label", label)
        issuers[label] = made["issuer"]
    assert issuers == {"server": "h1/infra#1", "sdc": "h1/sdc#1"}
    assert certify(hospital, "Aorta IP3:S1", request, tmp_path / "own.pem")["issuer"] == "h1/icu#1"
    again = certify(hospital, "Aorta IP3:S1", request, tmp_path / "again.pem", "--label", "sdc")
    assert again["is_repeat"] is True, "each label counts for itself"
    assert (tmp_path / "again.pem").read_bytes() == (tmp_path / "sdc.pem").read_bytes()
    leaf = x509.load_pem_x509_certificates((tmp_path / "server.pem").read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.test"]
