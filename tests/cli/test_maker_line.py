"""A maker's line as its operator types it: requests in, birth certificates out, each file for itself."""

from __future__ import annotations

import csv
import io
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

from tests.cases.est_bodies import with_null
from tests.simulator import plans
from tests.simulator.issuing import publish
from tests.simulator.orders import common_name, new_key, signing_request
from tests.simulator.running import denied, done, run
from vagus.authority import mass_revocation
from vagus.errors import Conflict
from vagus.fleet.line import signing
from vagus.fleet.line.signing import IDevIDLine
from vagus.reasons import Reason
from vagus.records.engine.database import Connection
from vagus.records.revocation.plans import list_recalls
from vagus.x509.pem import encode_block

A, B, C = (f"AIP3-00000{number}" for number in (1, 2, 3))
NAMELESS = x509.Name([])


class Line:
    """A maker's installation with a folder of requests."""

    def __init__(self, maker: Path, place: Path) -> None:
        self.maker, self.requests, self.out = maker, place / "requests", place / "idevids"
        self.requests.mkdir()

    def put(self, serial: str, subject: x509.Name = NAMELESS, key: ec.EllipticCurvePrivateKey | None = None) -> Path:
        """A request of a device, with a key of its own unless one is given."""
        path = self.requests / f"{serial}.csr"
        path.write_bytes(encode_block(signing_request(key or new_key(), subject), "CERTIFICATE REQUEST"))
        return path

    def sign(self, *more: str, code: int = 0) -> dict[str, Any]:
        """What `make-idevids` reports, with its files by name."""
        found = run(self.maker, *self.words, *more, "--json")
        assert found.code == code, found
        facts: dict[str, Any] = found.facts
        return {**facts, "files": {one.pop("file"): one for one in facts["files"]}}

    @property
    def words(self) -> tuple[str, ...]:
        return ("maker", "make-idevids", "--requests", str(self.requests), "--out", str(self.out))

    def certificate(self, serial: str) -> x509.Certificate:
        leaf, line = x509.load_pem_x509_certificates((self.out / serial / "certificate.pem").read_bytes())
        leaf.verify_directly_issued_by(line)
        return leaf

    def counts(self, lot: str = "first") -> dict[str, Any]:
        (found,) = done(self.maker, "maker", "show", "--lot", lot, "--json").facts["lots"]
        return {name: found[name] for name in ("certified", "revoked", "held", "without_certificate")}


@pytest.fixture
def line(maker: Path, tmp_path: Path) -> Line:
    return Line(maker, tmp_path)


def states(found: dict[str, Any]) -> dict[str, str]:
    return {name: one["state"] for name, one in found["files"].items()}


def serial_name(serial: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)])


# signing


def test_each_valid_request_of_the_folder_is_signed_and_a_repeat_makes_nothing_new(line: Line) -> None:
    line.put(A)
    line.put(B, serial_name(B.lower()))
    found = line.sign()
    assert (found["issued"], found["known"], found["refused"], found["without_request"]) == (2, 0, 0, 1)
    assert states(found) == {f"{A}.csr": "signed", f"{B}.csr": "signed"}
    made = {serial: (line.out / serial / "certificate.pem").read_bytes() for serial in (A, B)}
    (serial,) = line.certificate(B).subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    assert serial.value == B, "as the plan spells it"
    (line.out / A / "certificate.pem").unlink()
    again = line.sign()
    assert (again["issued"], again["known"], again["refused"]) == (0, 2, 0)
    assert made == {serial: (line.out / serial / "certificate.pem").read_bytes() for serial in (A, B)}
    assert line.counts() == {"certified": 2, "revoked": 0, "held": 0, "without_certificate": 1}


def broken_files(line: Line) -> dict[str, str]:
    """Every way in which a file can be no request of its device, with the reason of its refusal."""
    shutil.rmtree(line.requests)
    line.requests.mkdir()
    good = signing_request(new_key(), NAMELESS)
    (line.requests / "AIP3-000003.csr").mkdir()
    contents = {
        "AIP3-000004": (b"", "BAD_ENCODING"),
        "AIP3-000005": (b"hello", "BAD_ENCODING"),
        "AIP3-000006": (good[:-4], "NON_DER"),
        "AIP3-000007": (good[:-1] + bytes([good[-1] ^ 1]), "POP_FAILED"),
        "AIP3-000008": (encode_block(good, "CERTIFICATE"), "BAD_ENCODING"),
        "AIP3-000009": (encode_block(good, "CERTIFICATE REQUEST") * 2, "BAD_ENCODING"),
        "AIP3-000010": (encode_block(good, "CERTIFICATE REQUEST")[:-9], "BAD_ENCODING"),
        "AIP3-000011": (b"\x00" * 200_000, "TOO_LARGE"),
        "AIP3-000012": (signing_request(ec.generate_private_key(ec.SECP192R1()), NAMELESS), "WEAK_KEY"),
        "AIP3-000099": (good, "BAD_ARGUMENT"),
        "README": (b"no request", "BAD_ARGUMENT"),
    }
    for name, (content, _) in contents.items():
        (line.requests / f"{name}.csr").write_bytes(content)
    return {"AIP3-000003.csr": "BAD_ARGUMENT", **{f"{name}.csr": reason for name, (_, reason) in contents.items()}}


def test_broken_files_are_refused_by_name_and_stop_no_other(line: Line) -> None:
    plan = line.maker.parent / "maker.toml"
    plan.write_text(plan.read_text().replace("count = 3", "count = 20"))
    done(line.maker, "plan", "apply", str(plan), "--yes")
    reasons = broken_files(line)
    line.put(A)
    line.put("AIP3-000020")
    found = line.sign(code=1)
    assert (found["issued"], found["refused"]) == (2, len(reasons))
    refused = {name: one for name, one in found["files"].items() if one["state"] == "refused"}
    assert {name: one["reason"] for name, one in refused.items()} == reasons
    assert [name for name, one in refused.items() if not one["message"].startswith(name)] == []
    assert {path.name for path in line.out.iterdir()} == {A, "AIP3-000020"}
    printed = run(line.maker, *line.words)
    assert (printed.code, "AIP3-000007.csr: the request's signature" in printed.out) == (1, True)


def test_ecdsa_with_null_parameters_is_taken_beside_its_twin(line: Line) -> None:
    line.put(A)
    (line.requests / f"{B}.csr").write_bytes(with_null(signing_request(new_key(), NAMELESS)))
    assert line.sign()["issued"] == 2


@pytest.mark.parametrize("label", ["NEW CERTIFICATE REQUEST", "CERTIFICATE REQUEST"])
def test_a_request_with_the_label_of_keytool_is_taken(line: Line, label: str) -> None:
    (line.requests / f"{A}.CSR").write_bytes(encode_block(signing_request(new_key(), NAMELESS), label))
    assert states(line.sign()) == {f"{A}.CSR": "signed"}


# names


@pytest.mark.parametrize(
    "names",
    [
        serial_name(B),
        common_name(B),
        common_name("aip3 000002"),
        x509.Name([*serial_name(A), *serial_name(B)]),
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, B)]),
    ],
    ids=lambda name: name.rfc4514_string(),
)
def test_a_request_that_names_another_serial_number_is_never_signed(line: Line, names: x509.Name) -> None:
    line.put(A, names)
    line.put(C, serial_name(C))
    for more in ((), ("--ignore-names",)):
        found = line.sign(*more, code=1)["files"]
        assert (found[f"{A}.csr"]["reason"], found[f"{C}.csr"]["state"] != "refused") == ("NAME_MISMATCH", True)
        assert f"the file is for {A}" in found[f"{A}.csr"]["message"]
        assert "000002" in found[f"{A}.csr"]["message"]
    assert line.counts()["certified"] == 1


def test_a_hardware_module_name_counts_as_a_serial_number(line: Line) -> None:
    def request(serial: bytes) -> bytes:
        value = b"\x30" + bytes([len(serial) + 6]) + b"\x06\x02\x2a\x03\x04" + bytes([len(serial)]) + serial
        name = x509.OtherName(ObjectIdentifier("1.3.6.1.5.5.7.8.4"), value)
        return signing_request(new_key(), NAMELESS, x509.SubjectAlternativeName([name]))

    (line.requests / f"{A}.csr").write_bytes(request(B.encode()))
    (line.requests / f"{C}.csr").write_bytes(request(C.encode()))
    assert states(line.sign(code=1)) == {f"{A}.csr": "refused", f"{C}.csr": "signed"}


def test_swapped_files_are_both_refused(line: Line) -> None:
    line.put(A, serial_name(B))
    line.put(B, serial_name(A))
    found = line.sign(code=1)
    assert {one["reason"] for one in found["files"].values()} == {"NAME_MISMATCH"}
    assert line.counts()["certified"] == 0


def test_a_fixed_text_needs_the_option_which_the_ledger_records(line: Line) -> None:
    line.put(A, common_name("device"))
    refused = line.sign(code=1)["files"][f"{A}.csr"]
    assert refused["message"].startswith(f"{A}.csr: the request names 'device', and the file is for {A}")
    assert states(line.sign("--ignore-names")) == {f"{A}.csr": "signed"}
    (entry,) = done(line.maker, "audit", "show", "--kind", "operator-act", "--limit", "1", "--json").facts
    assert "idevid-names-ignored" in entry["facts"]


# keys


def test_a_key_that_was_certified_for_another_device_is_refused_with_its_serial_number(line: Line) -> None:
    key = new_key()
    line.put(A, key=key)
    line.sign()
    line.put(B, key=key)
    found = line.sign(code=1)["files"]
    assert (found[f"{A}.csr"]["state"], found[f"{B}.csr"]["reason"]) == ("known", "KEY_REUSE")
    assert f"{B}.csr has the key that was certified for {A}" in found[f"{B}.csr"]["message"]
    assert line.sign("--again", code=1)["files"][f"{B}.csr"]["reason"] == "KEY_REUSE"


def test_a_key_in_two_files_is_certified_for_neither(line: Line) -> None:
    key = new_key()
    line.put(A, key=key)
    line.put(B, key=key)
    line.put(C)
    found = line.sign(code=1)["files"]
    assert [found[f"{serial}.csr"]["state"] for serial in (A, B, C)] == ["refused", "refused", "signed"]
    assert f"{A}.csr has the key that {B}.csr has too" in found[f"{A}.csr"]["message"]


def test_two_files_of_one_device_are_both_refused(line: Line) -> None:
    line.put(A)
    shutil.copy(line.put(B), line.requests / f"{A}.CSR")
    (line.requests / f"{B}.csr").unlink()
    found = line.sign(code=1)
    assert (found["refused"], line.counts()["certified"]) == (2, 0)


def test_a_new_board_needs_the_option_once_and_is_known_from_then_on(line: Line) -> None:
    old, new = new_key(), new_key()
    line.put(A, key=old)
    line.sign()
    line.put(A, key=new)
    refused = line.sign(code=1)["files"][f"{A}.csr"]
    assert (refused["reason"], "--again" in refused["message"]) == ("ALREADY_EXISTS", True)
    assert line.sign("--again")["issued"] == 1
    assert line.sign()["known"] == line.sign("--again")["known"] == 1
    shown = done(line.maker, "audit", "show", "--kind", "operator-act", "--json").facts
    assert len([one for one in shown if "idevid-again" in one["facts"]]) == 1
    assert len(done(line.maker, "maker", "show", "--serial", A, "--json").facts["certificates"]) == 2


def test_of_two_processes_that_certify_one_device_the_second_is_refused(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.put(A)
    line.sign()
    line.put(A)
    with monkeypatch.context() as stale:
        stale.setattr(signing, "list_births", lambda *_: {})  # read before the other process committed
        refused = line.sign(code=1)["files"][f"{A}.csr"]
    assert (refused["reason"], "at the same time" in refused["message"]) == ("ALREADY_EXISTS", True)
    assert len(done(line.maker, "maker", "show", "--serial", A, "--json").facts["certificates"]) == 1


# selections and lists


def test_a_list_selects_and_its_faults_are_reported_with_file_and_line(line: Line) -> None:
    for serial in (A, B, C):
        line.put(serial)
    listed = line.requests / "lot.csv"
    listed.write_bytes(f"\ufeffno;serial\r\n1;{A}\r\n2;{C}\r\n".encode())
    found = line.sign("--serials", str(listed))
    assert (set(states(found)), found["left_alone"]) == ({f"{A}.csr", f"{C}.csr"}, 2), "another device's, and the list"
    (line.requests / f"{B}.pem").write_bytes(b"not called as a request")
    assert [line.sign(*words)["left_alone"] for words in (("--batch", "first"), ())] == [2, 2]
    for content, words in ((f"{A}\n{A}\n", "line 2"), ("", "no serial number"), (f"{A}\n{'9' * 70}\n", "1-64")):
        listed.write_text(content)
        says = (f"{listed}: ", words)
        denied(line.maker, 2, "BAD_ENCODING", *line.words, "--serials", str(listed), says=says)
    assert run(line.maker, *line.words, "--csv", "--json").code == 2


def test_serial_numbers_of_the_makers_own_are_certified_listed_and_in_the_manifest(line: Line, tmp_path: Path) -> None:
    line.put("X.1-a")
    listed = tmp_path / "own.csv"
    listed.write_text("serial\nX.1-a\nX.1-b\n")
    assert line.sign(code=1)["files"]["X.1-a.csr"]["reason"] == "BAD_ARGUMENT", "no batch has it"
    own = ("--serials", str(listed))
    assert (line.sign(*own)["issued"], line.sign(*own)["without_request"]) == (1, 1)
    (row,) = done(line.maker, "maker", "list", "--json").facts
    assert (row["serial"], row["model"], row["lot"], row["state"]) == ("X.1-a", plans.PUMP, None, "issued")
    rows = done(line.maker, "maker", "list", *own, "--json").facts
    assert [(one["serial"], one["state"]) for one in rows] == [("X.1-a", "issued"), ("X.1-b", "none")]
    manifest = ("maker", "manifest", "--out", str(tmp_path / "manifest.json"), *own, "--json")
    assert (
        done(line.maker, *manifest).facts["devices"],
        done(line.maker, *manifest, "--replace").facts["certified"],
    ) == (2, 1)


def test_a_serial_number_that_is_named_has_its_row_without_a_file_too(line: Line) -> None:
    line.put(A)
    found = line.sign("--serial", A, "--serial", B, code=1)["files"]
    assert (found[f"{A}.csr"]["state"], found[f"{B}.csr"]["state"]) == ("signed", "refused")
    assert f"{B}.csr: there is no regular file" in found[f"{B}.csr"]["message"]


def test_a_report_can_be_a_csv(line: Line) -> None:
    line.put(A)
    line.put(B, serial_name(A))
    printed = run(line.maker, *line.words, "--csv")
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert printed.code == 1
    assert [(one["file"], one["serial"], one["state"], one["reason"]) for one in rows] == [
        (f"{A}.csr", A, "signed", ""),
        (f"{B}.csr", B, "refused", "NAME_MISMATCH"),
    ]
    assert rows[0]["certificate"] == str(line.out / A / "certificate.pem")


# interruptions


def test_an_interruption_leaves_whole_certificates_and_a_repeat_goes_on(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    for serial in (A, B, C):
        line.put(serial)
    finish, count = IDevIDLine._finish, 0

    def interrupted(self: IDevIDLine, *given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return finish(self, *given)

    monkeypatch.setattr(IDevIDLine, "_finish", interrupted)
    assert run(line.maker, *line.words).code == 130
    monkeypatch.undo()
    for name, value in (
        ("TEST_PASSPHRASE", "correct horse battery"),
        ("VAGUS_PASSPHRASE_SOURCE", "env:TEST_PASSPHRASE"),
    ):
        monkeypatch.setenv(name, value)
    first = (line.out / A / "certificate.pem").read_bytes()
    found = line.sign()
    assert (found["known"], found["issued"], found["refused"]) == (1, 2, 0), "two were committed and not signed"
    assert line.counts()["certified"] == 3
    assert (line.out / A / "certificate.pem").read_bytes() == first


def test_a_folder_that_cannot_be_written_loses_no_certificate(line: Line) -> None:
    line.put(A)
    line.out.write_text("a file where a folder belongs")
    assert run(line.maker, *line.words).code == 2
    line.out.unlink()
    assert (line.sign()["known"], line.counts()["certified"]) == (1, 1)


# list, show and revoke


def test_the_line_lists_pages_and_shows_what_it_certified(line: Line) -> None:
    assert done(line.maker, "maker", "list").out == "Devices: none\n"
    for serial in (A, C):
        line.put(serial)
    line.sign()
    page = done(line.maker, "maker", "list", "--lot", "first", "--limit", "2", "--csv")
    assert [one["serial"] for one in csv.DictReader(io.StringIO(page.out))] == [A, B]
    assert f"--after {B}" in page.err
    rest = done(line.maker, "maker", "list", "--lot", "first", "--after", B, "--json").facts
    assert [(one["serial"], one["state"], one["lot"]) for one in rest] == [(C, "issued", "first")]
    assert [one["serial"] for one in done(line.maker, "maker", "list", "--after", A, "--json").facts] == [C]
    (shown,) = done(line.maker, "maker", "show", "--serial", A, "--json").facts["certificates"]
    assert int(shown["certificate"], 16) == line.certificate(A).serial_number
    denied(line.maker, 2, "BAD_ARGUMENT", "maker", "show", "--serial", "AIP3-000099", says=("in no batch",))
    denied(line.maker, 2, "BAD_ARGUMENT", "maker", "list", "--lot", "second", says=("first",))
    denied(line.maker, 2, "BAD_ARGUMENT", "maker", "list", "--lot", "first", "--after", "X")


@pytest.mark.parametrize("how", ["lot", "serial", "list"])
def test_birth_certificates_are_revoked_by_lot_serial_number_and_list(line: Line, how: str, tmp_path: Path) -> None:
    for serial in (A, B):
        line.put(serial)
    line.sign()
    (tmp_path / "recalled.csv").write_text(f"{A}\n{B}\n{C}\n")
    named = {
        "lot": ("--lot", "first"),
        "serial": ("--serial", A, "--serial", B),
        "list": ("--serials", str(tmp_path / "recalled.csv")),
    }[how]
    words = ("maker", "revoke", *named, "--reason", "keyCompromise")
    assert done(line.maker, *words, "--dry-run", "--json").facts["certificates"] == 2
    assert line.counts()["revoked"] == 0
    plan = done(line.maker, *words, "--yes")
    assert ("1 of the devices have no birth certificate" in plan.err) is (how != "serial")
    births = done(line.maker, "revoke", "show", "1", "--json").facts["selection"]["births"]
    assert births == ([f"{A}..{C}"] if how == "lot" else [A, B])
    assert line.counts() == {"certified": 2, "revoked": 2, "held": 0, "without_certificate": 1}
    (shown,) = done(line.maker, "maker", "show", "--serial", A, "--json").facts["certificates"]
    assert (shown["state"], shown["reason"]) == ("revoked", "keyCompromise")
    refused = line.sign(code=1)["files"][f"{A}.csr"]
    assert (refused["reason"], "make a new key and give --again" in refused["message"]) == ("REVOKED", True)


@pytest.mark.parametrize(("reason", "locks"), [("keyCompromise", True), ("superseded", False)])
def test_a_recalled_lot_gets_no_more_certificates_unless_its_devices_are_made_anew(
    line: Line, reason: str, *, locks: bool
) -> None:
    line.put(A)
    line.sign()
    words = ("maker", "revoke", "--lot", "first", "--reason", reason)
    done(line.maker, *words, "--dry-run")
    line.put(B)
    done(line.maker, *words, "--yes")
    found = line.sign("--serial", B, code=int(locks))["files"][f"{B}.csr"]
    assert found["state"] == ("refused" if locks else "signed")
    if locks:
        assert f"revocation plan 1 recalls the lot of {B}" in found["message"]
        assert line.sign("--serial", B, "--again")["issued"] == line.sign("--serial", B)["known"] == 1
    assert line.counts() == {"certified": 2, "revoked": 1, "held": 0, "without_certificate": 1}
    assert done(line.maker, "audit", "verify", "--json").facts["verdict"] == "sound"


def propose_alone(line: Line, patch: pytest.MonkeyPatch) -> None:
    """A recall of the lot that waits: its command ended after the proposal."""

    def cut(*_: object) -> None:
        raise Conflict(Reason.LEASE_LOST, "cut off")

    with patch.context() as late:
        late.setattr(mass_revocation, "_begin", cut)
        run(line.maker, "maker", "revoke", "--lot", "first", "--reason", "keyCompromise", "--yes")
    assert done(line.maker, "revoke", "show", "1", "--json").facts["state"] == "proposed"


def test_a_lot_gets_no_certificate_while_its_recall_waits_which_would_never_come_to_it(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.put(A)
    line.sign()
    propose_alone(line, monkeypatch)
    line.put(B)
    refused = line.sign("--serial", B, code=1)["files"][f"{B}.csr"]
    assert (refused["reason"], f"revocation plan 1 recalls the lot of {B}" in refused["message"]) == ("REVOKED", True)
    assert line.sign("--serial", A)["known"] == 1
    done(line.maker, "revoke", "stop", "1", "--yes")
    assert line.sign("--serial", B)["issued"] == 1, "a plan that was stopped recalls nothing"


def test_a_recall_that_another_process_begins_meanwhile_stops_a_certificate(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.put(A)
    line.sign()
    propose_alone(line, monkeypatch)
    line.put(B)
    reads = count()

    def stale(connection: Connection) -> dict[int, tuple[tuple[str, str], ...]]:
        return list_recalls(connection) if next(reads) else {}  # first before the other process committed

    with monkeypatch.context() as patch:
        patch.setattr(signing, "list_recalls", stale)
        refused = line.sign("--serial", B, "--again", code=1)["files"][f"{B}.csr"]
    assert (refused["reason"], line.counts()["certified"]) == ("REVOKED", 1)
    assert line.sign("--serial", B, "--again")["issued"] == 1, "who has seen the recall decides"


def test_a_revoked_birth_certificate_is_in_the_crl_of_the_line_and_its_neighbour_is_not(line: Line) -> None:
    for serial in (A, B):
        line.put(serial)
    line.sign()
    done(line.maker, "maker", "revoke", "--serial", A, "--reason", "keyCompromise", "--yes")
    crls = publish(line.maker, issuer_name="line").crls
    crl = x509.load_der_x509_crl((crls / "crl" / "line" / "1" / "0.crl").read_bytes())
    revoked = crl.get_revoked_certificate_by_serial_number(line.certificate(A).serial_number)
    assert revoked is not None
    assert revoked.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert crl.get_revoked_certificate_by_serial_number(line.certificate(B).serial_number) is None


def test_one_of_two_is_held_released_and_revoked_alone(line: Line) -> None:
    for serial in (A, B):
        line.put(serial)
    line.sign()
    done(line.maker, "maker", "revoke", "--serial", A, "--hold", "--yes")
    assert line.counts() == {"certified": 2, "revoked": 0, "held": 1, "without_certificate": 1}
    assert line.sign(code=1)["files"][f"{A}.csr"]["reason"] == "ON_HOLD"
    done(line.maker, "maker", "revoke", "--serial", A, "--release", "--yes")
    assert line.sign()["known"] == 2
    done(line.maker, "maker", "revoke", "--serial", B, "--yes")
    assert line.counts() == {"certified": 2, "revoked": 1, "held": 0, "without_certificate": 1}


def test_a_revocation_that_names_nothing_or_nothing_certified_is_refused(line: Line) -> None:
    denied(line.maker, 2, "BAD_ARGUMENT", "maker", "revoke", "--yes", says=("--lot",))
    denied(line.maker, 3, "NOT_ISSUED", "maker", "revoke", "--lot", "first", "--yes")
    denied(line.maker, 2, "BAD_ARGUMENT", "maker", "revoke", "--serial", "AIP3-000099", "--yes")


@pytest.mark.parametrize(
    "words",
    [
        ("device", "show", f"{plans.PUMP}:{A}"),
        ("device", "show", A),
        ("device", "list", "--model", plans.PUMP),
        ("revoke", "--batch", f"{plans.PUMP}:{A}..{B}", "--dry-run"),
        ("revoke", "--device", f"{plans.PUMP}:{A}", "--dry-run"),
    ],
)
def test_commands_about_the_inventory_send_a_maker_to_its_own(
    maker: Path, hospital: Path, words: tuple[str, ...]
) -> None:
    assert "use `vagus maker list`, `show` and `revoke`" in run(maker, *words).err
    assert "vagus maker" not in run(hospital, *words).err


def test_a_hospital_has_no_line(hospital: Path) -> None:
    for words in (("list",), ("show",), ("revoke", "--lot", "first"), ("manifest", "--out", str(hospital / "m.json"))):
        denied(hospital, 3, "AUTHORITY_UNKNOWN", "maker", *words, says=("maker's installation",))


# the plan


def test_a_new_batch_and_a_new_model_show_as_what_they_are(line: Line) -> None:
    plan = line.maker.parent / "maker.toml"
    before = plan.read_text()

    def check(*more: str, old: str = "", new: str = "") -> list[dict[str, str]]:
        plan.write_text(before.replace(old, new) + "".join(more))
        changes: list[dict[str, str]] = done(line.maker, "plan", "check", str(plan), "--json").facts
        return changes

    lot = plans.tables("batches", plans.batch(5, first=10, name="second"))
    added = {"act": "add", "what": "batch", "name": "second", "detail": "5 x Aorta IP3: AIP3-000010 to AIP3-000014"}
    assert check() == []
    assert check(lot) == [added]
    (grown,) = check(old="count = 3", new="count = 4")
    assert (grown["act"], grown["name"], grown["detail"]) == (
        "change",
        "first",
        "4 x Aorta IP3: AIP3-000001 to AIP3-000004",
    )
    hub = plans.tables("models", plans.model("Aorta Hub", maker="", category="home-hub", prefix="AHU"))
    assert check(hub) == [{"act": "add", "what": "model", "name": "Aorta Hub", "detail": "home-hub: AHU"}]
    listener = plans.tables("listeners", plans.STATUS)
    (other,) = check(listener)
    assert (other["what"], other["detail"]) == ("plan", "listeners and words")
    assert [one["what"] for one in check(lot, listener)] == ["batch", "plan"]
    done(line.maker, "plan", "apply", str(plan), "--yes")
    assert [one["act"] for one in check()] == ["remove", "change"]
