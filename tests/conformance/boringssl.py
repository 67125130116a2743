"""BoringSSL's pki test data: chains, CRLs, certificates that must or must not parse, name constraints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from tests.conformance.reading import pem_blocks, pem_certificates
from tests.conformance.verdicts import Case, Expected, Got, judge
from tests.x509.rule_sets import with_legacy_algorithms
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.trust.crl_rules import CrlRules
from vagus.trust.crl_status import CrlStatus
from vagus.x509 import extensions as ext
from vagus.x509.certificates import decode_certificate
from vagus.x509.der import oid_contents
from vagus.x509.paths.checks import PathInputs
from vagus.x509.paths.name_constraints import compile_constraints
from vagus.x509.paths.policies import PolicyInputs
from vagus.x509.paths.rules import PKIX, PathRules
from vagus.x509.paths.search import PathAnchor, Pool, Search, find_path
from vagus.x509.signatures import SignatureVerdicts

SUITE = "boringssl-pki"
_VERDICTS = SignatureVerdicts()
_DEFAULT_TIME = datetime(2021, 10, 5, 12, tzinfo=UTC)
_CRL_TIME = datetime(2017, 3, 9, tzinfo=UTC)
_PURPOSES = {
    "ANY_EKU": (),
    "SERVER_AUTH": ("1.3.6.1.5.5.7.3.1",),
    "CLIENT_AUTH": ("1.3.6.1.5.5.7.3.2",),
    "MLS_CLIENT_AUTH": ("2.23.146.2.1.3",),
}
_EXPLICIT = frozenset({"MLS_CLIENT_AUTH"})
_MLS_EXTENSIONS = frozenset({oid_contents("2.23.146.2.1.4"), oid_contents("2.23.146.2.1.5")})  # GSMA RCC.16


def run(folder: Path) -> Iterator[Case]:
    """All four kinds."""
    for test in sorted((folder / "verify_certificate_chain").rglob("*.test")):
        yield _chain_case(folder, test)
    for path in sorted((folder / "crl_unittest").glob("*.pem")):
        yield _crl_case(path)
    for path in sorted((folder / "parse_certificate_unittest").glob("*.pem")):
        yield _parse_case(path)
    for path in sorted((folder / "name_constraints_unittest").glob("*.pem")):
        yield judge(SUITE, f"name-constraints/{path.name}", Expected.EITHER, partial(_read_constraints, path))


# --- chains ------------------------------------------------------------------------------------------------------


def _settings(test: Path) -> tuple[dict[str, str], bool]:
    head, _, tail = test.read_text(encoding="utf-8").partition("expected_errors:")
    settings = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    has_error = any(line.startswith("ERROR:") for line in tail.splitlines())
    return settings, has_error


def _chain_case(folder: Path, test: Path) -> Case:
    settings, has_error = _settings(test)
    name = f"chain/{test.relative_to(folder / 'verify_certificate_chain')}"
    expected = Expected.REFUSE if has_error else Expected.ACCEPT
    trust = settings["last_cert_trust"]
    if settings["key_purpose"].startswith("C2PA"):
        return Case(SUITE, name, expected, Got.UNSUPPORTED, "a purpose defined by the C2PA trust list, not by X.509")
    chain = pem_certificates((test.parent / settings["chain"].strip()).read_text(encoding="utf-8"))
    if len(chain) == 1 and "LEAF" in trust:
        # the verifier trusts anchors, never a leaf as such: design section 4
        return Case(SUITE, name, expected, Got.UNSUPPORTED, "a leaf trusted as such")
    return judge(SUITE, name, expected, lambda: _validate_chain(chain, settings))


def _rules(settings: dict[str, str]) -> PathRules:
    trust = settings["last_cert_trust"]
    purpose = settings["key_purpose"]
    rules = PKIX if settings.get("digest_policy") == "STRONG" else with_legacy_algorithms(PKIX)
    return replace(
        rules,
        name="pkix as the test sets it",
        smallest_rsa=1024,
        unsafe_small_rsa=0,
        applies_anchor_constraints="CONSTRAINTS" in trust,
        applies_anchor_validity="EXPIRATION" in trust,
        requires_purpose="STRICT" in purpose or purpose in _EXPLICIT,
        accepts_any_purpose="STRICT" not in purpose and purpose not in _EXPLICIT,
        accepts_any_purpose_above=not purpose.endswith("_STRICT"),
        forbids_mixed_purposes="STRICT" in purpose,
        forbids_idle_ca_bits="STRICT" in purpose,
        forbids_ca_leaf="STRICT" in purpose,
        requires_anchor_ca="REQUIRE_BASIC_CONSTRAINTS" in trust,
    )


def _validate_chain(chain: list[bytes], settings: dict[str, str]) -> None:
    certificates = [decode_certificate(content) for content in chain]
    anchors = [PathAnchor.from_certificate(certificates[-1])] if "ANCHOR" in settings["last_cert_trust"] else []
    stated = settings["utc_time"]
    at = _DEFAULT_TIME if stated == "DEFAULT" else datetime.strptime(stated + "+0000", "%y%m%d%H%M%SZ%z")
    acceptable = settings.get("user_initial_policy_set")
    policy = PolicyInputs(
        acceptable=frozenset(oid_contents(oid) for oid in acceptable.split(",")) if acceptable else frozenset(),
        require_explicit=settings.get("initial_explicit_policy") == "true",
        inhibit_mapping=settings.get("initial_policy_mapping_inhibit") == "true",
        inhibit_any=settings.get("initial_any_policy_inhibit") == "true",
    )
    purpose = settings["key_purpose"].removesuffix("_LEAF").removesuffix("_STRICT")
    purposes = frozenset(oid_contents(oid) for oid in _PURPOSES[purpose])
    known = _MLS_EXTENSIONS if purpose in _EXPLICIT else frozenset()
    inputs = PathInputs(at=at, purposes=purposes, policy=policy, known_critical=known)
    others = certificates[1:-1] if anchors else certificates[1:]
    found = find_path(certificates[0], Search(Pool(anchors), Pool((), others), _rules(settings), inputs, _VERDICTS))
    wanted = settings.get("expected_user_constrained_policy_set")
    if wanted is not None and found.policies != frozenset(oid_contents(oid) for oid in wanted.split(",")):
        raise AssertionError("another user-constrained policy set")


# --- CRLs --------------------------------------------------------------------------------------------------------


def _crl_case(path: Path) -> Case:
    expected = Expected.ACCEPT if path.name.startswith("good") else Expected.REFUSE
    return judge(SUITE, f"crl/{path.name}", expected, lambda: _check_crl(path))


def _check_crl(path: Path) -> None:
    """Chromium's local rule, a greatest age of seven days, is a switch of ours."""
    blocks = dict(pem_blocks(path.read_text(encoding="utf-8")))
    leaf, issuer = decode_certificate(blocks["CERTIFICATE"]), decode_certificate(blocks["CA CERTIFICATE"])
    rules = CrlRules(longest_life=timedelta(days=7), accepts_indirect=False)
    status = CrlStatus(Pool([PathAnchor.from_certificate(issuer)]), rules=rules, verdicts=_VERDICTS)
    status.load(blocks["CRL"], _CRL_TIME)
    status.check_status(leaf, issuer, _CRL_TIME)


# --- parsing -----------------------------------------------------------------------------------------------------


def _parse_case(path: Path) -> Case:
    blocks = pem_blocks(path.read_text(encoding="utf-8"))
    labels = {label for label, _ in blocks}
    name = f"parse/{path.name}"
    if "CERTIFICATE" not in labels:
        return Case(SUITE, name, Expected.EITHER, Got.UNSUPPORTED, "a part of a certificate, not one")
    expected = Expected.REFUSE if "ERRORS" in labels else Expected.ACCEPT
    return judge(SUITE, name, expected, lambda: _parse(dict(blocks)["CERTIFICATE"]))


def _parse(content: bytes) -> None:
    """What a path would refuse in the certificate alone: faults, bad subtrees, an impossible serial."""
    certificate = decode_certificate(content)
    for fault in certificate.faults.values():
        raise fault
    if certificate.name_constraints is not None:
        compile_constraints(certificate.name_constraints, allows_leading_dot=True)
    if certificate.serial < 0 or len(certificate.serial_bytes) > 20:
        raise Malformed(Reason.PROFILE_VIOLATION, "a serial that RFC 5280 4.1.2.2 forbids")
    for oid, decode in (
        (ext.CRL_DISTRIBUTION_POINTS, ext.decode_distribution_points),
        (ext.AUTHORITY_INFO_ACCESS, ext.access_locations),
    ):
        value = certificate.value_of(oid)
        if value is not None:
            decode(value)


def _read_constraints(path: Path) -> None:
    for label, content in pem_blocks(path.read_text(encoding="utf-8")):
        if label == "NAME CONSTRAINTS":
            compile_constraints(ext.decode_name_constraints(content), allows_leading_dot=True)
        elif label == "SUBJECT ALTERNATIVE NAME":
            ext.decode_subject_alt_name(content)
