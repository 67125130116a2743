"""`vagus revoke --certificate FILE`: what is in a file means its serials, when it is ours to the octet."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cli.revocation.test_commands import certificate_of, equipped, equipped_once, states
from tests.simulator.running import denied, done
from vagus.operations.devices import find_named
from vagus.records.authorities import list_authorities
from vagus.records.certificates import list_of_device, load_bytes
from vagus.wiring import Installation

__all__ = ["equipped", "equipped_once"]


def der_of(folder: Path, number: int) -> bytes:
    with Installation.open(folder) as installation:
        pump = find_named(installation.database, f"Aorta IP3:AIP3-{number:06}")
        with installation.database.reading() as connection:
            _, der = load_bytes(connection, list_of_device(connection, str(pump.id))[0].leaf_index)
    return der or b""


def unit_der(folder: Path) -> bytes:
    with Installation.open(folder) as installation, installation.database.reading() as connection:
        return next(one.certificate_der or b"" for one in list_authorities(connection) if one.name == "h1/icu")


def pem(*ders: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)


def test_certificates_in_files_are_revoked_by_issuer_and_serial(equipped: Path, tmp_path: Path) -> None:
    two, one = tmp_path / "two.pem", tmp_path / "one.cer"
    two.write_bytes(b"Certificate:\n  Data: as openssl prints it\n" + pem(der_of(equipped, 1), der_of(equipped, 2)))
    one.write_bytes(der_of(equipped, 3))
    named = ("revoke", "--certificate", str(two), "--certificate", str(one), "--reason", "superseded", "--yes")
    ended = done(equipped, *named, "--json").facts
    shown = [certificate_of(equipped, f"AIP3-{number:06}") for number in (1, 2, 3)]
    assert sorted(ended["selection"]["serials"]) == sorted(f"h1/icu#1:{each['serial']}" for each in shown)
    assert [each["state"] for each in shown] == ["revoked"] * 3
    assert states(equipped).count("revoked") == 3


def test_a_chain_behind_a_devices_certificate_does_not_revoke_its_unit(equipped: Path, tmp_path: Path) -> None:
    chain, alone = tmp_path / "chain.pem", tmp_path / "unit.pem"
    chain.write_bytes(pem(der_of(equipped, 1), unit_der(equipped)))
    alone.write_bytes(pem(unit_der(equipped)))
    dry = done(equipped, "revoke", "--certificate", str(chain), "--dry-run", "--json").facts
    assert (dry["certificates"], dry["devices"]) == (1, 1)
    bundle = tmp_path / "authorities.pem"
    bundle.write_bytes(pem(unit_der(equipped), unit_der(equipped)))
    named = ("revoke", "--certificate", str(bundle), "--yes")
    denied(equipped, 2, "BAD_ARGUMENT", *named, says=("all 2 certificates belong to authorities",))
    assert set(states(equipped)) == {"issued"}
    dry = done(equipped, "revoke", "--certificate", str(alone), "--dry-run", "--json").facts
    assert (dry["certificates"], dry["waits_for_ceremony"]) == (1, ["h1#1"])


def test_foreign_files_are_refused(
    equipped: Path, maker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign, forged, junk = tmp_path / "foreign.cer", tmp_path / "forged.cer", tmp_path / "junk.pem"
    with Installation.open(maker) as installation, installation.database.reading() as connection:
        foreign.write_bytes(next(one.certificate_der or b"" for one in list_authorities(connection)))
    whole = bytearray(der_of(equipped, 1))
    whole[-1] ^= 1  # the signature: issuer and serial alone are anybody's to write
    forged.write_bytes(bytes(whole))
    junk.write_text("no certificate")
    for path, code, reason in (
        (foreign, 3, "AUTHORITY_UNKNOWN"),
        (forged, 3, "AUTHORITY_UNKNOWN"),
        (junk, 2, "BAD_ENCODING"),
        (tmp_path / "none.pem", 2, "OS_ERROR"),
    ):
        denied(equipped, code, reason, "revoke", "--certificate", str(path), "--yes", says=(str(path),))
    ours = tmp_path / "ours.cer"
    ours.write_bytes(der_of(equipped, 2))
    monkeypatch.setattr("vagus.fleet.revocation_targets.find_certificate", lambda *_: None)
    never = "is signed with the key of h1/icu#1, which never issued it"
    denied(equipped, 3, "NOT_ISSUED", "revoke", "--certificate", str(ours), "--yes", says=(never,))
    assert set(states(equipped)) == {"issued"}
