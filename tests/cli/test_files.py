"""What is wrong with a file is told under its name, whichever of several it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulator.running import denied, done, run
from vagus.x509.pem import encode_block

Words = tuple[str, ...]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    path = tmp_path / "odd.txt"
    path.write_text("shopping list")
    return path


@pytest.fixture
def root(hospital: Path, tmp_path: Path) -> str:
    done(hospital, "ca", "export", "root", "--out", str(tmp_path / "root.pem"))
    return str(tmp_path / "root.pem")


CASES: dict[str, Words] = {
    "leaf": ("validate", "ODD", "--anchors", "ROOT", "--role", "client", "--unsafe-no-status"),
    "chain": ("validate", "ROOT", "ODD", "--anchors", "ROOT", "--role", "client", "--unsafe-no-status"),
    "anchor": ("validate", "ROOT", "--anchors", "ODD", "--role", "client", "--unsafe-no-status"),
    "list": ("validate", "ROOT", "--anchors", "ROOT", "--role", "client", "--crl", "ODD"),
    "response": ("validate", "ROOT", "--anchors", "ROOT", "--role", "client", "--ocsp", "ODD"),
    "imported": ("ca", "import", "h1/icu", "ODD", "ROOT", "--unsafe-no-list"),
    "old list": ("ca", "import", "h1/icu", "ROOT", "ROOT", "--crl", "ODD"),
    "manifest": ("device", "import", "ODD", "--anchor", "ROOT"),
    "maker": ("device", "import", "ROOT", "--anchor", "ODD"),
    "checkpoint": ("audit", "verify", "--against", "ODD"),
    "newest": ("restore-gap", "--accept", "--checkpoint", "ODD"),
    "snapshot": ("snapshot", "show", "ODD"),
    "revoked": ("revoke", "--certificate", "ROOT", "--certificate", "ODD", "--dry-run"),
    "revoked elsewhere": ("ca", "revoke-earlier", "h1/icu", "--certificate", "ODD", "--yes"),
    "lost list": ("restore-gap", "--accept", "--unsafe-no-checkpoint", "--crl", "ODD"),
    "list of serials": ("maker", "list", "--serials", "ODD"),
}
_DECODED = {
    "leaf": "CERTIFICATE",
    "anchor": "CERTIFICATE",
    "list": "X509 CRL",
    "old list": "X509 CRL",
    "lost list": "X509 CRL",
}
_DECODED |= dict.fromkeys(("maker", "revoked", "revoked elsewhere", "imported"), "CERTIFICATE")


def command(case: str, odd: Path, root: str) -> list[str]:
    names = {"ODD": str(odd), "ROOT": root}
    return [names.get(word, word) for word in CASES[case]]


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_something_else_is_named(hospital: Path, odd: Path, root: str, case: str) -> None:
    refused = run(hospital, *command(case, odd, root))
    assert (refused.code, refused.err.startswith(f"vagus: {odd}: "), "reason " in refused.err) == (2, True, True)


@pytest.mark.parametrize("case", _DECODED)
def test_a_file_with_an_object_that_does_not_decode_is_named(hospital: Path, odd: Path, root: str, case: str) -> None:
    odd.write_bytes(encode_block(b"\x30\x03\x02\x01\x01", _DECODED[case]))
    refused = run(hospital, *command(case, odd, root))
    assert (refused.code, f"{odd}: " in refused.err) == (2, True), refused


def test_where_one_anchor_is_wanted_none_of_several_is_taken(hospital: Path, tmp_path: Path, root: str) -> None:
    two = tmp_path / "two.pem"
    two.write_bytes(Path(root).read_bytes() * 2)
    words = ("device", "import", root, "--anchor", str(two))
    denied(hospital, 2, "BAD_ENCODING", *words, says=(f"{two}: ", "2 blocks CERTIFICATE"))
    plan = (tmp_path / "plan.toml").read_text()
    for name, says in (("two.pem", "2 blocks CERTIFICATE"), ("root.pem", "")):
        (tmp_path / "plan.toml").write_text(plan.replace("serial_prefix", f'anchor = "{name}"\nserial_prefix'))
        checked = run(hospital, "plan", "check", str(tmp_path / "plan.toml"))
        assert (checked.code, says in checked.err) == (2 if says else 0, True), checked


def test_a_key_file_of_something_else_is_refused_with_what_it_has(hospital: Path, root: str) -> None:
    words = ("ca", "import", "h1/icu", root, root, "--unsafe-no-list")
    denied(hospital, 2, "BAD_ENCODING", *words, says=("the key file", "it has CERTIFICATE"))


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_is_not_there_is_named(hospital: Path, tmp_path: Path, root: str, case: str) -> None:
    missing = tmp_path / "missing.pem"
    assert str(missing) in denied(hospital, 2, "OS_ERROR", *command(case, missing, root)).err


@pytest.mark.parametrize("command", ["report expiry --csv", "snapshot key", "sbom", "ca export root", "ca crls root"])
def test_a_file_that_is_there_is_replaced_on_request_alone(hospital: Path, odd: Path, command: str) -> None:
    words = (*command.split(), "--out", str(odd))
    denied(hospital, 3, "ALREADY_EXISTS", *words, says=(str(odd), "--replace"))
    assert odd.read_text() == "shopping list"
    done(hospital, *words, "--replace")
    assert odd.read_text() != "shopping list"
    assert [path.name for path in odd.parent.glob(".odd*")] == [], "nothing of the way there stays"
    done(hospital, *words[:-1], "/dev/null")


def test_a_damaged_backup_or_envelope_is_named(hospital: Path, odd: Path, tmp_path: Path) -> None:
    for code, refused in (
        (5, run(tmp_path / "back", "restore", str(odd))),
        (2, run(hospital, "ca", "emergency", str(odd), "--yes")),
    ):
        assert refused.code == code
        assert refused.err.startswith((f"vagus: {odd}: ", f"vagus: file {odd} "))


def test_a_stream_without_end_is_no_certificate(hospital: Path, root: str) -> None:
    denied(hospital, 2, "TOO_LARGE", *command("leaf", Path("/dev/zero"), root))


@pytest.mark.parametrize("serial", ["zz", "-5", "", "a" * 41, "1" * 50, "0x", "1_2", ":", "12:", "dec:ff"])
def test_what_is_no_serial_number_is_reported(hospital: Path, serial: str) -> None:
    asked = ("ca", "revoke-earlier", "h1/icu#1", "--", serial)
    denied(hospital, 2, "BAD_ARGUMENT", *asked, says=("0x4a01",))


def test_a_hold_on_a_device_without_certificates_says_what_it_does(hospital: Path) -> None:
    pump = "Aorta IP3:AIP3-000003"
    assert "it gets none before `vagus device release`" in done(hospital, "device", "hold", pump).out
    assert "It was on hold before" in done(hospital, "device", "hold", pump).out
    assert "nothing was changed" not in done(hospital, "device", "release", pump).out
    assert "No certificate of it is on hold" in done(hospital, "device", "release", pump).out
