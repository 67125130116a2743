"""NIST PKITS 1.0.1: by the manifest of the vectors folder, or by test names where only PyPI's copy is at hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from tests.conformance.verdicts import Case, Expected, judge
from tests.x509.rule_sets import with_legacy_algorithms
from vagus.errors import VagusError
from vagus.trust.crl_rules import CrlRules
from vagus.trust.crl_status import CrlStatus
from vagus.x509.certificates import CertificateCache, PathCertificate
from vagus.x509.der import oid_contents
from vagus.x509.paths.checks import PathInputs
from vagus.x509.paths.policies import PolicyInputs
from vagus.x509.paths.rules import PKIX
from vagus.x509.paths.search import PathAnchor, Pool, Search, ValidPath, find_path
from vagus.x509.signatures import SignatureVerdicts

AT = datetime(2022, 5, 1, tzinfo=UTC)
RULES = replace(with_legacy_algorithms(PKIX), name="pkix with DSA")  # 4.1.4 to 4.1.6 are DSA
_VERDICTS = SignatureVerdicts()
_CACHE = CertificateCache()


def run(folder: Path) -> Iterator[Case]:
    """Every scenario of pkits_cases.json."""
    for case in json.loads((folder / "pkits_cases.json").read_text(encoding="utf-8")):
        expected = Expected.ACCEPT if case["should_validate"] else Expected.REFUSE
        yield judge("pkits", f"{case['id']} {case['name']}", expected, partial(_run_scenario, folder, case))


def _run_scenario(folder: Path, case: dict[str, Any]) -> None:
    certificates = [_CACHE.decode((folder / "certs" / f"{name}.crt").read_bytes()) for name in case["certs"]]
    crls = [(folder / "crls" / f"{name}.crl").read_bytes() for name in case["crls"]]
    acceptable = frozenset(oid_contents(policy) for policy in case["initial_policy_set"] or ())
    policy = PolicyInputs(
        acceptable=acceptable - {oid_contents("2.5.29.32.0")},
        require_explicit=case["initial_explicit_policy"],
        inhibit_mapping=case["initial_policy_mapping_inhibit"],
        inhibit_any=case["initial_any_policy_inhibit"],
    )
    anchors, others = [PathAnchor.from_certificate(certificates[0])], certificates[1:-1]
    status = CrlStatus(Pool(anchors, others), rules=CrlRules(path=RULES), verdicts=_VERDICTS)
    for crl in crls:
        with suppress(VagusError):  # many of the CRLs are bad on purpose; what needs them will miss them
            status.load(crl, AT)
    found = find(certificates[-1], Pool(anchors), Pool((), others), status, policy)
    expected = case["user_constrained_policy_set"]
    if expected is not None and found.policies != frozenset(oid_contents(oid) for oid in expected if oid):
        raise AssertionError(f"user-constrained policy set {found.policies!r}")


def find(target: PathCertificate, pool: Pool, extra: Pool, status: CrlStatus, policy: PolicyInputs) -> ValidPath:
    """A path to `target` with full CRL checking."""
    inputs = PathInputs(at=AT, policy=policy)
    accept = lambda path: status.check_path_status(path, AT)  # noqa: E731
    return find_path(target, Search(pool, extra, RULES, inputs, _VERDICTS, accept=accept))


# --- PyPI's copy: 405 certificates and 173 CRLs, and no manifest ----------------------------------------------------


@lru_cache(maxsize=1)
def packaged() -> tuple[Path, dict[str, PathCertificate], list[bytes]] | None:
    """The files of cryptography-vectors, None where the package is not installed."""
    try:
        import cryptography_vectors
    except ImportError:
        return None
    folder = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
    certificates: dict[str, PathCertificate] = {}
    for path in sorted((folder / "certs").glob("*.crt")):
        with suppress(VagusError):
            certificates[path.stem] = _CACHE.decode(path.read_bytes())
    return folder, certificates, [path.read_bytes() for path in sorted((folder / "crls").glob("*.crl"))]


def named_targets(certificates: dict[str, PathCertificate]) -> list[tuple[str, Expected]]:
    """The end entities whose own name says what is expected; policies are tested from the manifest."""
    found = []
    for name in certificates:
        match = re.match(r"(Valid|Invalid).*EE$", name)
        if match is not None:
            found.append((name, Expected.ACCEPT if match[1] == "Valid" else Expected.REFUSE))
    return found
