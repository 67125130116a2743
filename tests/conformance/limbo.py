"""x509-limbo (C2SP), the core and the bettertls cases."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.conformance.reading import pem_blocks, pem_certificate
from tests.conformance.verdicts import Case, Expected, judge
from tests.x509.rule_sets import RFC5280_STRICT, WEBPKI, WEBPKI_COMMON_NAME
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.trust.crl_rules import CrlRules
from vagus.trust.crl_status import CrlStatus
from vagus.x509.certificates import CertificateCache, PathCertificate
from vagus.x509.der import oid_contents
from vagus.x509.paths.checks import PathInputs
from vagus.x509.paths.identity import check_host
from vagus.x509.paths.rules import PKIX, PathRules
from vagus.x509.paths.search import PathAnchor, Pool, Search, find_path
from vagus.x509.signatures import SignatureVerdicts

PROFILES: tuple[tuple[str, PathRules], ...] = (
    # namespace -> profile, the first that fits; no test ids. Why so many: vectors/README.md names the contradictions
    ("webpki::cn::", WEBPKI_COMMON_NAME),
    ("webpki::", WEBPKI),
    ("online::", WEBPKI),
    ("bettertls::", WEBPKI),
    ("cve::", replace(RFC5280_STRICT, name="rfc5280-strict without key identifiers", requires_authority_key_id=False)),
    ("", RFC5280_STRICT),
)
_PURPOSES = {
    "serverAuth": "1.3.6.1.5.5.7.3.1",
    "clientAuth": "1.3.6.1.5.5.7.3.2",
    "codeSigning": "1.3.6.1.5.5.7.3.3",
    "emailProtection": "1.3.6.1.5.5.7.3.4",
    "timeStamping": "1.3.6.1.5.5.7.3.8",
    "OCSPSigning": "1.3.6.1.5.5.7.3.9",
    "anyExtendedKeyUsage": "2.5.29.37.0",
}
_NOW = "2026-11-21T12:00:00+00:00"  # what a case without a time means by now
_USAGES = [  # in the order of their bits
    "digitalSignature",
    "contentCommitment",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
]


def run(folder: Path) -> Iterator[Case]:
    """Every case of limbo-core.json (or limbo.json) and of the bettertls file."""
    verdicts = SignatureVerdicts()
    for path in sorted((*folder.glob("limbo*.json"), *folder.glob("limbo*.json.gz"))):
        if "schema" in path.name:
            continue
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for case in json.loads(raw)["testcases"]:
            yield run_case(case, verdicts)


def run_case(case: dict[str, Any], verdicts: SignatureVerdicts) -> Case:
    """One case as its JSON states it."""
    expected = Expected.ACCEPT if case["expected_result"] == "SUCCESS" else Expected.REFUSE
    return judge("limbo", case["id"], expected, lambda: _validate(case, verdicts))


def public_suffix_test() -> Callable[[str], bool] | None:
    """The public suffix list, where PyPI's publicsuffixlist is installed (a dependency of pkilint)."""
    try:
        from publicsuffixlist import PublicSuffixList
    except ImportError:
        return None
    suffixes = PublicSuffixList()
    return lambda name: bool(suffixes.is_public(name))


_PUBLIC_SUFFIX = public_suffix_test()


def profile_for(name: str) -> PathRules:
    """The profile of a case, by its namespace."""
    return next(rules for namespace, rules in PROFILES if name.startswith(namespace))


def _validate(case: dict[str, Any], verdicts: SignatureVerdicts) -> None:
    cache = CertificateCache()
    anchors = [PathAnchor.from_certificate(cache.decode(pem_certificate(pem))) for pem in case["trusted_certs"]]
    sent = [cache.decode(pem_certificate(pem)) for pem in case["untrusted_intermediates"]]
    leaf = cache.decode(pem_certificate(case["peer_certificate"]))
    rules = profile_for(case["id"])
    purposes = case["extended_key_usage"] or ["serverAuth" if case["validation_kind"] == "SERVER" else "clientAuth"]
    at = datetime.fromisoformat(case["validation_time"] or _NOW)
    longest = {} if case["max_chain_depth"] is None else {"longest_path": case["max_chain_depth"]}
    inputs = PathInputs(
        at=at,
        purposes=frozenset(oid_contents(_PURPOSES[purpose]) for purpose in purposes),
        is_public_suffix=_PUBLIC_SUFFIX,
        **longest,
    )
    accept = None
    if case["crls"]:
        status = CrlStatus(Pool(anchors, sent), rules=CrlRules(path=replace(PKIX, name="crl")), verdicts=verdicts)
        for pem in case["crls"]:
            _, crl_der = pem_blocks(pem)[0]
            status.load(crl_der, at)
        accept = lambda path: status.check_path_status(path, at)  # noqa: E731
    search = Search(Pool(anchors), Pool((), sent), rules, inputs, verdicts, accept=accept)
    find_path(leaf, search)
    _check_peer(leaf, case)


def _check_mailbox(leaf: PathCertificate, mailbox: str) -> None:
    """RFC 5280 4.2.1.6: the local part compares by case, the host without."""
    local, _, host = mailbox.rpartition("@")
    found = {(one.rpartition("@")[0], one.rpartition("@")[2].lower()) for one in leaf.names.emails}
    if (local, host.lower()) not in found:
        raise NotTrusted(Reason.NAME_MISMATCH, f"leaf does not name {mailbox}")


def _check_peer(leaf: PathCertificate, case: dict[str, Any]) -> None:
    for name in (case["expected_peer_name"], *case["expected_peer_names"]):
        if name is None:
            continue
        if name["kind"] in {"DNS", "IP"}:
            check_host(leaf, name["value"])
        else:
            _check_mailbox(leaf, name["value"])
    for usage in case["key_usage"]:
        if leaf.key_usage is None or not leaf.key_usage & 1 << _USAGES.index(usage):
            raise NotTrusted(Reason.KEY_USAGE, f"leaf lacks {usage}")
