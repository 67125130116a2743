"""Java reads what we export and judges what we issue: a runtime with JDK-8267617, a current one, and this machine's."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.authority.test_isolation import LEAVES, documented, stolen_unit
from tests.simulator.certificates import CLIENT_AUTH, key_usage, sign_certificate
from tests.simulator.orders import new_key
from tests.simulator.programs import program, run, succeed
from tests.simulator.relying import Bearer, Hospital
from vagus.testing import NOON

pytestmark = pytest.mark.interop

TOOLS = Path(__file__).parents[2] / ".tools"
BEFORE_17_0_21, CURRENT, HERE = TOOLS / "java-17/bin/java", TOOLS / "java-25/bin/java", Path("java")
PATH_CHECK = Path(__file__).with_name("PathCheck.java")
CHAIN = ("root/complete", "h1/complete", "h1.icu/complete")
SHARDS = ("root/0", "h1/0", "h1.icu/0", "h1.icu/1")

Judge = Callable[..., list[str]]
"""Anchor, paths, a file of CRLs and a time in; what Java says of each path out."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled `PathCheck`, which every Java from 17 on runs."""
    folder = tmp_path_factory.mktemp("java")
    succeed("javac", "--release", "17", "-d", folder, PATH_CHECK)
    return folder


@pytest.fixture(scope="module", params=[BEFORE_17_0_21, CURRENT, HERE], ids=["17.0.9", "25", "here"])
def java(request: pytest.FixtureRequest) -> Path:
    """One runtime after the other."""
    runtime: Path = request.param
    if runtime != HERE and not runtime.exists():
        pytest.skip(f"tests/interop/prepare.sh did not bring {runtime.parents[1].name}")
    return runtime


@pytest.fixture(scope="module")
def judge(java: Path, compiled: Path) -> Judge:
    """PKIX validation by that runtime; one process judges all paths."""

    def ask(anchor: Path, paths: Sequence[Path], crls: Path | None = None, seconds: int | None = None) -> list[str]:
        words = (anchor, crls or "-", str(seconds or "-"), *paths)
        said = run(program(str(java)), "-cp", compiled, "PathCheck", *words)
        lines = said.text.strip().splitlines()
        assert (said.code, len(lines)) == (0, len(paths)), said.text
        return lines

    return ask


class TestPaths:
    @pytest.mark.parametrize("wanted", [SHARDS, CHAIN], ids=["shards", "complete"])
    def test_devices_are_accepted_at_the_root_by_our_crls_and_a_revoked_one_is_not(
        self,
        hospital: Hospital,
        pump: Bearer,
        early: Bearer,
        er_pump: Bearer,
        revoked: Bearer,
        judge: Judge,
        wanted: tuple[str, ...],
    ) -> None:
        hospital.await_complete_crl(revoked)
        crls = hospital.crls("java", *wanted)
        said = judge(hospital.authority("root"), [who.chain for who in (pump, early, revoked, er_pump)], crls)
        assert said[:2] == ["accepts", "accepts"]
        assert said[2].startswith("refuses REVOKED")
        assert said[3].startswith("refuses UNDETERMINED_REVOCATION_STATUS"), "no CRL of its unit was given"

    def test_without_crls_every_branch_is_accepted_and_without_the_path_none(
        self, hospital: Hospital, pump: Bearer, er_pump: Bearer, web: Bearer, revoked: Bearer, judge: Judge
    ) -> None:
        root, sdc = hospital.authority("root"), hospital.bearer("sdc")
        assert judge(root, [who.chain for who in (pump, er_pump, web, sdc, revoked)]) == ["accepts"] * 5
        assert judge(root, [pump.leaf])[0].startswith("refuses")

    def test_the_isolation_table_holds(self, judge: Judge, tmp_path: Path) -> None:
        with stolen_unit(tmp_path / "installation", constrain_dn=False) as unit:
            root = write(tmp_path / "root.pem", unit.chain[-1])
            paths = [
                write(tmp_path / f"{number}.pem", unit.sign(leaf), *unit.chain[:-1])
                for number, leaf in enumerate(LEAVES.values())
            ]
            said = judge(root, paths, seconds=int(unit.at.timestamp()))
        assert {case: line.split()[0] for case, line in zip(LEAVES, said, strict=True)} == {
            case: row["java"] for case, row in documented().items()
        }

    def test_two_cas_in_a_row_that_exclude_all_addresses_break_the_old_java_alone(
        self, java: Path, judge: Judge, tmp_path: Path
    ) -> None:
        """Why our unit CAs leave the exclusion to the device CA: the fault is there, and one CA does not meet it."""
        anchor, twice, once = excluding_chains(tmp_path)
        of_two, of_one = judge(anchor, [twice, once], seconds=int(NOON.timestamp()))
        assert of_one == "accepts"
        if java == BEFORE_17_0_21:
            assert "ArrayIndexOutOfBoundsException" in of_two
        if java == CURRENT:
            assert of_two == "accepts"


def write(path: Path, *certificates: x509.Certificate) -> Path:
    """A PEM file of certificates."""
    path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in certificates))
    return path


def excluding_chains(folder: Path) -> tuple[Path, Path, Path]:
    """A root, a path in which both CAs exclude all addresses, and its twin in which the upper one alone does."""
    everything = [x509.IPAddress(ipaddress.ip_network(text)) for text in ("0.0.0.0/0", "::/0")]
    none = (x509.NameConstraints(None, everything), True)
    authority = [(x509.BasicConstraints(ca=True, path_length=None), True), (key_usage("key_cert_sign"), True)]
    keys = [new_key() for _ in range(4)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in ("r", "d", "u", "leaf")]

    def sign(at: int, *extensions: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
        above = max(at - 1, 0)
        begin, lifetime = NOON - timedelta(days=1), timedelta(days=9)
        subject, issuer, public = names[at], names[above], keys[at].public_key()
        return sign_certificate(subject, public, issuer, keys[above], *extensions, not_before=begin, lifetime=lifetime)

    root, device_ca, unit_ca, bare = (
        sign(0, *authority),
        sign(1, *authority, none),
        sign(2, *authority, none),
        sign(2, *authority),
    )
    leaf = sign(
        3,
        (x509.SubjectAlternativeName([x509.DNSName("pump.test")]), False),
        (x509.ExtendedKeyUsage([CLIENT_AUTH]), False),
    )
    anchor = write(folder / "root.pem", root)
    return (
        anchor,
        write(folder / "twice.pem", leaf, unit_ca, device_ca),
        write(folder / "once.pem", leaf, bare, device_ca),
    )


@pytest.mark.parametrize(("choice", "count"), [(("--roots",), 1), (("h1/icu", "--chain"), 3)], ids=["roots", "chain"])
def test_a_truststore_holds_trusted_entries_under_the_names_of_authorities(
    hospital: Hospital, tmp_path: Path, choice: tuple[str, ...], count: int
) -> None:
    store = tmp_path / "trust.p12"
    hospital.vagus("ca", "export", *choice, "--form", "truststore", "--out", str(store))
    told = succeed("keytool", "-list", "-keystore", store, "-storepass", "changeit")
    assert told.text.count("trustedCertEntry") == count, told.text
    told.must_say("root#1", f"{count} entr")


def test_a_p7b_is_read_whole(hospital: Hospital, tmp_path: Path) -> None:
    bundle = tmp_path / "h1.p7b"
    hospital.vagus("ca", "export", "--hospital", "h1", "--form", "p7b", "--out", str(bundle))
    assert succeed("keytool", "-printcert", "-file", bundle).text.count("Owner: ") == 7
