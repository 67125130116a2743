"""What a unit's CA could do to its neighbours if it were stolen: our verifier, OpenSSL and pyca, leaf by leaf.

The leaves are signed with the unit CA's own key behind the back of issuance, which would refuse every one of them.
The table in docs/isolation.md is asserted row by row: what it says is what happens here. tests/interop/test_java.py
asserts its column for Java.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.simulator.installation import ER, GROUP, H1, ICU, ROOT, SECRET, new_installation
from tests.simulator.programs import run
from vagus.errors import VagusError
from vagus.trust.anchors import AnchorSet
from vagus.trust.status import UnsafeNoStatus
from vagus.trust.validation import Expectation, Role, Validator

DEVICE = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
OWN = f"{DEVICE}.icu.h1.{GROUP}"
FOREIGN = f"{DEVICE}.er.h1.{GROUP}"
TABLE = Path(__file__).parents[2] / "docs" / "isolation.md"
_ROW = re.compile(
    r"^\| (?P<case>[^|]+?) \| (?P<ours>[^|]+?) \| (?P<openssl>[^|]+?) \| (?P<pyca>[^|]+?) \| (?P<java>[^|]+?) "
    r"\| (?P<dn>[^|]+?) \|$"
)

Names = list[x509.GeneralName]
Attribute = tuple[x509.ObjectIdentifier, str]

OWN_SUBJECT: list[Attribute] = [
    (NameOID.ORGANIZATION_NAME, "Hospital 1"),
    (NameOID.ORGANIZATIONAL_UNIT_NAME, "ICU"),
    (NameOID.COMMON_NAME, DEVICE),
]


class Leaf(NamedTuple):
    """A subject and its alternative names; None: no such extension."""

    subject: list[Attribute]
    names: Names | None


def subject(**changes: str) -> list[Attribute]:
    named = {"o": NameOID.ORGANIZATION_NAME, "ou": NameOID.ORGANIZATIONAL_UNIT_NAME, "cn": NameOID.COMMON_NAME}
    swapped = {named[key]: value for key, value in changes.items()}
    return [(oid, swapped.get(oid, value)) for oid, value in OWN_SUBJECT]


def also(*names: x509.GeneralName) -> Names:
    return [x509.DNSName(OWN), *names]


uri = x509.UniformResourceIdentifier
REGISTERED = x509.RegisteredID(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"))
OTHER_NAME = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05er@h1")
FOREIGN_DN = x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Hospital 2")]))
LEAVES: dict[str, Leaf] = {
    "own identity (control)": Leaf(OWN_SUBJECT, also()),
    "no SAN, CN of a device of another unit": Leaf(subject(cn=DEVICE, ou="ER"), None),
    "no SAN, CN a host name of another unit": Leaf(subject(cn="pump1.er.h1.example"), None),
    "own SAN, CN a foreign host name": Leaf(subject(cn="pump1.er.h1.example"), also()),
    "own SAN, O of another hospital": Leaf(subject(o="Hospital 2"), also()),
    "own SAN, OU of another unit": Leaf(subject(ou="ER"), also()),
    "registeredID alone": Leaf(OWN_SUBJECT, [REGISTERED]),
    "own SAN and registeredID": Leaf(OWN_SUBJECT, also(REGISTERED)),
    "otherName alone": Leaf(OWN_SUBJECT, [OTHER_NAME]),
    "own SAN and otherName": Leaf(OWN_SUBJECT, also(OTHER_NAME)),
    "own SAN and a foreign directoryName": Leaf(OWN_SUBJECT, also(FOREIGN_DN)),
    "wildcard of the own unit": Leaf(OWN_SUBJECT, [x509.DNSName(f"*.icu.h1.{GROUP}")]),
    "the bare unit name": Leaf(OWN_SUBJECT, [x509.DNSName(f"icu.h1.{GROUP}")]),
    "two own identities": Leaf(OWN_SUBJECT, also(x509.DNSName(f"{'b' * 24}aa.icu.h1.{GROUP}"))),
    "https://none.invalid/ beside the own SAN": Leaf(OWN_SUBJECT, also(uri("https://none.invalid/"))),
    "a@none.invalid beside the own SAN": Leaf(OWN_SUBJECT, also(x509.RFC822Name("a@none.invalid"))),
    "a device of another unit": Leaf(OWN_SUBJECT, [x509.DNSName(FOREIGN)]),
    "own SAN and a device of another unit": Leaf(OWN_SUBJECT, also(x509.DNSName(FOREIGN))),
    "wildcard of the whole hospital": Leaf(OWN_SUBJECT, [x509.DNSName(f"*.h1.{GROUP}")]),
    "a foreign URI": Leaf(OWN_SUBJECT, also(uri("https://er.h1.example/"))),
    "urn:uuid: beside the own SAN": Leaf(OWN_SUBJECT, also(uri("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"))),
    "a foreign mail address": Leaf(OWN_SUBJECT, also(x509.RFC822Name("a@er.h1.example"))),
    "an IPv4 address": Leaf(OWN_SUBJECT, also(x509.IPAddress(ipaddress.ip_address("10.0.0.7")))),
    "an IPv6 address": Leaf(OWN_SUBJECT, also(x509.IPAddress(ipaddress.ip_address("2001:db8::7")))),
}


class Unit(NamedTuple):
    """A unit CA whose key was stolen."""

    key: ec.EllipticCurvePrivateKey
    chain: list[x509.Certificate]  # unit, hospital, root
    at: datetime

    def sign(self, leaf: Leaf) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(oid, value) for oid, value in leaf.subject])
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        builder = (
            x509.CertificateBuilder(self.chain[0].subject, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(self.at - timedelta(minutes=5))
            .not_valid_after(self.at + timedelta(days=300))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    self.chain[0].extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                critical=False,
            )
        )
        if leaf.names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(leaf.names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@contextmanager
def stolen_unit(folder: Path, *, constrain_dn: bool) -> Iterator[Unit]:
    with new_installation(folder) as installation:
        installation.build(ROOT, *(replace(one, constrain_dn=constrain_dn) for one in (H1, ICU, ER)))
        issuer = installation.issuers("h1/icu")["h1/icu"]
        pem = installation.keystore("h1/icu").export_pkcs8("ca-1", SECRET)
        key = serialization.load_pem_private_key(pem, SECRET.unsafe_reveal())
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        chain = [x509.load_der_x509_certificate(one) for one in (issuer.certificate_der, *issuer.chain_der)]
        yield Unit(key, chain, installation.clock.now())


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unit]:
    with stolen_unit(tmp_path_factory.mktemp("plain"), constrain_dn=False) as stolen:
        yield stolen


@pytest.fixture(scope="module")
def unit_bound_by_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unit]:
    with stolen_unit(tmp_path_factory.mktemp("bound"), constrain_dn=True) as stolen:
        yield stolen


def ours(unit: Unit, leaf: x509.Certificate) -> str:
    """As the listener of that unit asks."""
    validator = Validator(AnchorSet.from_der([unit.chain[-1].public_bytes(Encoding.DER)]), UnsafeNoStatus())
    expectation = Expectation(role=Role.CLIENT, group_domain=GROUP, units=frozenset({"h1/icu"}))
    chain = [one.public_bytes(Encoding.DER) for one in unit.chain[:-1]]
    try:
        accepted = validator.validate(leaf.public_bytes(Encoding.DER), chain, expectation, unit.at)
    except VagusError as refusal:
        return str(refusal.reason)
    assert str(accepted.device_name) == OWN, "no leaf is accepted as anything but a device of this unit"
    return "accepts"


def pyca(unit: Unit, leaf: x509.Certificate) -> str:
    builder = verification.PolicyBuilder().store(verification.Store([unit.chain[-1]])).time(unit.at)
    try:
        builder.build_client_verifier().verify(leaf, unit.chain[:-1])
    except (verification.VerificationError, ValueError):
        return "refuses"
    return "accepts"


def openssl(unit: Unit, leaf: x509.Certificate, folder: Path) -> str:
    (folder / "root.pem").write_bytes(unit.chain[-1].public_bytes(Encoding.PEM))
    (folder / "mid.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in unit.chain[:-1]))
    (folder / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    at = str(int(unit.at.timestamp()))
    files = ("-CAfile", "root.pem", "-untrusted", "mid.pem", "leaf.pem")
    done = run("openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-attime", at, *files, cwd=folder)
    return "accepts" if done.code == 0 else "refuses"


def documented() -> dict[str, dict[str, str]]:
    rows = (_ROW.match(line) for line in TABLE.read_text().splitlines())
    return {row["case"]: row.groupdict() for row in rows if row and row["case"] in LEAVES}


def test_the_table_has_every_case() -> None:
    assert list(documented()) == list(LEAVES)


@pytest.mark.parametrize("case", LEAVES)
def test_our_verifier_believes_own_identities_alone(unit: Unit, case: str) -> None:
    assert ours(unit, unit.sign(LEAVES[case])) == documented()[case]["ours"]


@pytest.mark.parametrize("case", LEAVES)
def test_pyca_does_what_the_table_says(unit: Unit, case: str) -> None:
    assert pyca(unit, unit.sign(LEAVES[case])) == documented()[case]["pyca"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
@pytest.mark.parametrize("case", LEAVES)
def test_openssl_does_what_the_table_says(unit: Unit, unit_bound_by_name: Unit, case: str, tmp_path: Path) -> None:
    row = documented()[case]
    assert openssl(unit, unit.sign(LEAVES[case]), tmp_path) == row["openssl"]
    bound = unit_bound_by_name
    assert openssl(bound, bound.sign(LEAVES[case]), tmp_path) == row["dn"]


def test_with_constrain_dn_pyca_refuses_even_the_good_leaf(unit_bound_by_name: Unit) -> None:
    """Why it is an option and not the rule (docs/isolation.md)."""
    bound = unit_bound_by_name
    leaf = bound.sign(LEAVES["own identity (control)"])
    assert pyca(bound, leaf) == "refuses"
    assert ours(bound, leaf) == "accepts"
