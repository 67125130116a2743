"""The runner of cases: what it recognises, what it fails, and its exit codes; the inputs are made here."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.cases.__main__ import main
from tests.cases.case import Case, Check, Observation, judge, load_cases
from tests.cases.certificates import make_chain
from tests.cases.compressed_points import compressed_request
from tests.cases.est_bodies import with_null
from tests.cases.registry import CHECKS
from tests.cases.takeovers import make_takeover
from tests.cases.workshop import Workshop
from tests.simulator.orders import new_key, signing_request
from tests.simulator.running import PLAN
from tests.x509 import chains
from vagus.x509 import der
from vagus.x509.pem import encode_block

AT = datetime(2026, 11, 30, tzinfo=UTC)
REQUEST = signing_request(new_key(), x509.Name([]))
TEXT = base64.b64encode(REQUEST)
PEM = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(REQUEST) + b"-----END CERTIFICATE REQUEST-----\n"


def _path(*names: x509.GeneralName) -> dict[str, bytes]:
    chain = make_chain(AT, *names, is_server=True).chain
    certificates = zip(("one", "two", "three"), (chain.leaf, *chain.authorities), strict=True)
    return {f"{name}.der": each.public_bytes(Encoding.DER) for name, each in certificates}


def _with_crls() -> dict[str, bytes]:
    made = make_chain(AT)
    crls = made.crl(2, is_revoked=True), made.crl(1, is_revoked=False), made.root_crl()
    certificates = made.chain.leaf, *made.chain.authorities
    return {
        **{f"{number}.der": one.public_bytes(Encoding.DER) for number, one in enumerate(certificates)},
        **{f"{number}.crl": one.public_bytes(Encoding.DER) for number, one in enumerate(crls)},
    }


OLD_ROOT = chains.root()


def _takeover() -> dict[str, bytes]:
    made = make_takeover(ExtendedKeyUsageOID.CLIENT_AUTH)
    return {"chain.pem": made.chain, "key.pem": made.key, "old.crl": made.crl}


KINDS: dict[str, tuple[Mapping[str, bytes], list[str]]] = {
    "a request in base64": ({"x.b64": TEXT}, ["EST requests"]),
    "a request in DER": ({"x.bin": REQUEST}, ["EST requests"]),
    "a request with NULL": ({"x.b64": base64.b64encode(with_null(REQUEST))}, ["EST requests"]),
    "a request after a byte order mark": ({"x.b64": b"\xef\xbb\xbf" + TEXT}, ["EST bodies"]),
    "a request in PEM after text": ({"x.pem": b"Certificate Request:\n" + PEM}, ["EST bodies"]),
    "a request with a line end": ({"x.bin": REQUEST + b"\r\n"}, ["EST bodies"]),
    "two bodies": ({"x.b64": TEXT, "y.pem": PEM}, ["EST requests", "EST bodies"]),
    "a compressed point": ({"x.b64": base64.b64encode(compressed_request(new_key()))}, ["compressed points"]),
    "HEAD": ({"any.txt": b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"}, ["HTTP requests"]),
    "several CRLs of one issuer": (_with_crls(), ["orders of CRLs"]),
    "a server certificate": (_path(x509.DNSName("a.example")), ["host names"]),
    "requests on a line": (
        {"A-1.csr": REQUEST, "A-2.csr": with_null(signing_request(new_key(), x509.Name([])))},
        ["requests on a line"],
    ),
    "a request of keytool": (
        {"A-1.csr": encode_block(REQUEST, "NEW CERTIFICATE REQUEST")},
        ["requests on a line", "PEM labels of requests"],
    ),
    "a CA with its key and CRL": (_takeover(), ["imported CAs"]),
    "a CRL with an empty SEQUENCE": (
        {"ca.der": OLD_ROOT.der, "empty.crl": chains.crl(OLD_ROOT, body=der.sequence())},
        ["CRLs with small faults"],
    ),
    "a plan": ({"any.toml": PLAN.encode()}, ["no temporary folder"]),
    "a plan after a byte order mark": ({"any.toml": b"\xef\xbb\xbf" + PLAN.encode()}, ["encodings of plans"]),
    "a plan with IPv6 addresses": (
        {"any.toml": PLAN.replace("127.0.0.1:0", "[::1]:0").encode()},
        ["addresses of listeners", "no temporary folder"],
    ),
    "a text": ({"x.txt": b"words"}, []),
    "nothing": ({}, []),
}


def _folder(place: Path, files: Mapping[str, bytes], name: str = "01-ecdsa-null-parameters") -> Path:
    """A case; by its name it could be any."""
    folder = place / name
    folder.mkdir()
    (folder / "README.md").write_text("POST it to /.well-known/est/simpleenroll")
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_is_recognised_by_its_input_alone(tmp_path: Path, kind: str) -> None:
    files, names = KINDS[kind]
    case = Case.load(_folder(tmp_path, files))
    assert [check.name for check in CHECKS if check.recognises(case)] == names


def test_a_case_of_words_alone_is_recognised_by_its_command(tmp_path: Path) -> None:
    command = "vagus --dir D ca revoke-earlier h1/icu#2 {} --yes"
    for digits, names in (("1" * 38, ["serial numbers of earlier certificates"]), ("0x" + "1" * 38, [])):
        case = Case(tmp_path, {}, command.format(digits))
        assert [check.name for check in CHECKS if check.recognises(case)] == names


def test_a_case_without_a_check_fails_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _folder(tmp_path, {"x.txt": b"words"})
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("FAILED  01-ecdsa-null-parameters: no check recognises this input (x.txt)")
    assert out[1] == "0 of 1 cases passed"


def test_a_path_that_is_no_folder_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing")]) == 2
    assert "missing is no folder" in capsys.readouterr().err


def test_a_folder_of_cases_and_one_case_are_both_read(tmp_path: Path) -> None:
    files = {"x.b64": TEXT}
    first, second = _folder(tmp_path, files, "a"), _folder(tmp_path, files, "b")
    assert [case.folder for case in load_cases(tmp_path)] == [first, second]
    assert [case.folder for case in load_cases(second)] == [second]


def test_a_check_that_fails_or_observes_nothing_or_sees_what_is_wrong_fails_the_case(tmp_path: Path) -> None:
    def fail(_case: Case, _workshop: Workshop) -> list[Observation]:
        msg = "it broke"
        raise RuntimeError(msg)

    case = Case.load(_folder(tmp_path, {"x.txt": b"words"}))
    right, wrong = Observation("a", "1", "1", is_right=True), Observation("b", "1", "2", is_right=False)
    for observe, faults in {
        fail: ("check: RuntimeError: it broke",),
        lambda *_: []: ("check: it observed nothing",),
        lambda *_: [right, wrong]: ("b: seen 1; right is 2",),
        lambda *_: [right]: (),
    }.items():
        with Workshop.new() as workshop:
            assert judge(case, [Check("check", lambda _: True, observe)], workshop).faults == faults


@pytest.mark.process
def test_every_kind_passes_on_inputs_of_this_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, (files, names) in KINDS.items():
        if names:
            _folder(tmp_path, files, kind)
    assert main([str(tmp_path)]) == 0, capsys.readouterr().out
