"""PKITS from PyPI's cryptography-vectors: every end entity against all certificates and CRLs of the suite at once."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.conformance import pkits
from tests.conformance.pkits import AT, RULES, named_targets, packaged
from tests.conformance.verdicts import Expected
from tests.simulator.refusals import reason_of
from vagus.errors import VagusError
from vagus.reasons import Reason
from vagus.trust.crl_rules import CrlRules
from vagus.trust.crl_status import CrlStatus
from vagus.x509.der import oid_contents
from vagus.x509.paths.policies import PolicyInputs
from vagus.x509.paths.search import PathAnchor, Pool, ValidPath
from vagus.x509.signatures import SignatureVerdicts

_FOUND = packaged()
pytestmark = pytest.mark.skipif(_FOUND is None, reason="cryptography-vectors is not installed")
_NIST = "2.16.840.1.101.3.2.1.48."
_INHERITED = "ValidDSAParameterInheritanceTest5EE"  # 4.1.5: RFC 3279 2.3.2, DSA without its own parameters
_VERDICTS = SignatureVerdicts()

# PKITS 4.8, 4.10, 4.12: the tests whose verdict depends on the caller's policy inputs.
# For each end entity: acceptable NIST policies (none = any), flags (e = explicit, m = inhibit mapping,
# a = inhibit any), and the policies that hold (None = refused).
POLICY_TESTS: dict[str, list[tuple[str, str, str | None]]] = {
    "ValidCertificatePathTest1EE": [("", "e", "1"), ("1", "e", "1"), ("2", "e", None), ("1 2", "e", "1")],
    "AllCertificatesNoPoliciesTest2EE": [("", "", ""), ("", "e", None)],
    "DifferentPoliciesTest3EE": [("", "", ""), ("", "e", None), ("1 2", "e", None)],
    "DifferentPoliciesTest4EE": [("", "", None)],
    "DifferentPoliciesTest5EE": [("", "", None)],
    "OverlappingPoliciesTest6EE": [("", "", "1"), ("1", "", "1"), ("2", "", None)],
    "DifferentPoliciesTest7EE": [("", "", None)],
    "DifferentPoliciesTest8EE": [("", "", None)],
    "DifferentPoliciesTest9EE": [("", "", None)],
    "AllCertificatesSamePoliciesTest10EE": [("", "", "1 2"), ("1", "", "1"), ("2", "", "2")],
    "AllCertificatesanyPolicyTest11EE": [("", "", "any"), ("1", "", "1")],
    "DifferentPoliciesTest12EE": [("", "", None)],
    "AllCertificatesSamePoliciesTest13EE": [("1", "", "1"), ("2", "", "2"), ("3", "", "3")],
    "AnyPolicyTest14EE": [("1", "", "1"), ("2", "", None)],
    "UserNoticeQualifierTest15EE": [("", "", "1")],
    "UserNoticeQualifierTest16EE": [("", "", "1")],
    "UserNoticeQualifierTest17EE": [("", "", "1")],
    "UserNoticeQualifierTest18EE": [("1", "", "1"), ("2", "", "2")],
    "UserNoticeQualifierTest19EE": [("", "", "1")],
    "CPSPointerQualifierTest20EE": [("1", "e", "1")],
    "ValidPolicyMappingTest1EE": [("1", "", "1"), ("2", "", None), ("", "m", None)],
    "ValidPolicyMappingTest3EE": [("1", "", None), ("2", "", "2")],
    "ValidPolicyMappingTest5EE": [("1", "", "1"), ("6", "", None)],
    "ValidPolicyMappingTest6EE": [("1", "", "1"), ("6", "", None)],
    "inhibitAnyPolicyTest3EE": [("", "", "1"), ("", "a", None)],
}


@pytest.fixture(scope="module")
def bag() -> tuple[Pool, CrlStatus]:
    """The root, every other certificate, and every CRL that its issuer signed; the spoilt ones do not load."""
    assert _FOUND is not None
    _, certificates, crls = _FOUND
    pool = Pool([PathAnchor.from_certificate(certificates["TrustAnchorRootCertificate"])], certificates.values())
    status = CrlStatus(pool, rules=CrlRules(path=RULES), verdicts=_VERDICTS)
    loaded = 0
    for crl in crls:
        with suppress(VagusError):
            status.load(crl, AT)
            loaded += 1
    assert loaded > 140
    return pool, status


def find(bag: tuple[Pool, CrlStatus], target: str, policy: PolicyInputs) -> ValidPath:
    assert _FOUND is not None
    pool, status = bag
    return pkits.find(_FOUND[1][target], pool, Pool(()), status, policy)


@pytest.mark.parametrize(("target", "expected"), named_targets(_FOUND[1]) if _FOUND else [])
def test_an_end_entity_is_what_its_name_says(bag: tuple[Pool, CrlStatus], target: str, expected: Expected) -> None:
    if target == _INHERITED:
        assert reason_of(find, bag, target, PolicyInputs()) is Reason.WEAK_KEY
    elif expected is Expected.ACCEPT:
        find(bag, target, PolicyInputs())
    else:
        with pytest.raises(VagusError):
            find(bag, target, PolicyInputs())


@pytest.mark.parametrize(
    ("target", "acceptable", "flags", "expected"),
    [(target, *row) for target, rows in POLICY_TESTS.items() for row in rows],
)
def test_policies_hold_as_the_suite_says(
    bag: tuple[Pool, CrlStatus], target: str, acceptable: str, flags: str, expected: str | None
) -> None:
    policy = PolicyInputs(
        acceptable=frozenset(oid_contents(_NIST + one) for one in acceptable.split()),
        require_explicit="e" in flags,
        inhibit_mapping="m" in flags,
        inhibit_any="a" in flags,
    )
    if expected is None:
        assert reason_of(find, bag, target, policy) is Reason.POLICY_REQUIRED
        return
    wanted = {oid_contents("2.5.29.32.0") if one == "any" else oid_contents(_NIST + one) for one in expected.split()}
    assert find(bag, target, policy).policies == wanted


def test_nearly_the_whole_suite_is_here() -> None:
    assert _FOUND is not None
    assert len(named_targets(_FOUND[1])) >= 200


def test_certificates_that_do_not_parse_are_two_and_known() -> None:
    assert _FOUND is not None
    folder, certificates, _ = _FOUND
    missing = sorted({path.stem for path in (folder / "certs").glob("*.crt")} - set(certificates))
    assert len(missing) == 2
    assert all(name.startswith("Invalid") or "EE" not in name for name in missing), missing
