"""Random chains put to this verifier, to OpenSSL and to pyhanko: every disagreement belongs to an explained class."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from tests.x509.chains import AT
from tests.x509.disagreements import OPENSSL, PYHANKO, explain
from tests.x509.openssl_oracle import Oracle, find_oracle
from tests.x509.random_chains import FAULTS, Scenario, scenario
from tests.x509.walking import walk
from vagus.errors import VagusError
from vagus.reasons import Reason
from vagus.trust.crl_status import CrlStatus
from vagus.x509.der import oid_contents
from vagus.x509.paths.policies import PolicyInputs
from vagus.x509.paths.search import Pool

CASES = 300
SOAK_CASES = int(os.environ.get("DIFFERENTIAL_CASES", "50000"))


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    found = find_oracle()
    if found is None:
        pytest.skip("libcrypto.so.3 is not on this machine; install openssl 3")
    return found


def our_verdict(case: Scenario) -> Reason | None:
    accept = None
    if case.with_crls:
        status = CrlStatus(Pool([case.root.anchor], [made.parsed for made in case.sent]))
        for content in case.crls:
            with suppress(VagusError):
                status.load(content, AT)
        accept = lambda path: status.check_path_status(path, AT)  # noqa: E731
    policy = PolicyInputs(acceptable=frozenset(map(oid_contents, case.acceptable)), require_explicit=case.explicit)
    try:
        walk(case.target, case.sent, [case.root], policy=policy, accept=accept)
    except VagusError as refused:
        return refused.reason
    return None


def openssl_verdict(oracle: Oracle, case: Scenario) -> int:
    return oracle.verify(
        case.target.der,
        [made.der for made in case.sent],
        [case.root.der],
        AT,
        crls=case.crls if case.with_crls else None,
        policies=case.acceptable,
        explicit=case.explicit,
    )


def compare_with_openssl(oracle: Oracle, seeds: range) -> Counter[str]:
    """Counts of agreements and of each class; fails on the first disagreement that has none."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        case = scenario(seed)
        ours, theirs = our_verdict(case), openssl_verdict(oracle, case)
        if (ours is None) == (theirs == 0):
            counts["both accept" if ours is None else "both refuse"] += 1
            continue
        name = explain(case, ours, theirs, OPENSSL)
        assert name is not None, f"seed {seed}, faults {case.labels}: we say {ours}, OpenSSL says {theirs}"
        counts[name] += 1
    return counts


def test_the_same_seed_gives_the_same_case() -> None:
    one, other = scenario(17), scenario(17)
    assert one.labels == other.labels
    assert [made.subject for made in one.sent] == [made.subject for made in other.sent]


def test_a_few_hundred_random_chains_agree_with_openssl(oracle: Oracle) -> None:
    counts = compare_with_openssl(oracle, range(CASES))
    assert counts["both accept"] > CASES // 4
    assert counts["both refuse"] > CASES // 4
    assert counts["both accept"] + counts["both refuse"] > 0.9 * CASES


def test_the_faults_are_all_drawn() -> None:
    drawn = {label for seed in range(3_000, 3_600) for label in scenario(seed).labels}
    assert len(drawn) > 0.9 * len(FAULTS)


@pytest.mark.soak
def test_fifty_thousand_random_chains_agree_with_openssl(oracle: Oracle, soak_seed: int, soak_seconds: float) -> None:
    """DIFFERENTIAL_CASES sets the count; what the soak's time does not allow is left out and said."""
    start, done = time.monotonic(), 0
    counts: Counter[str] = Counter()
    while done < SOAK_CASES and time.monotonic() - start < max(soak_seconds, 30):
        step = min(500, SOAK_CASES - done)
        counts += compare_with_openssl(oracle, range(soak_seed * 100_000 + done, soak_seed * 100_000 + done + step))
        done += step
    print(f"differential: {done} of {SOAK_CASES} chains, seed {soak_seed}: {dict(counts)}")  # noqa: T201
    assert done >= 500


@pytest.mark.interop
def test_random_chains_agree_with_pyhanko() -> None:
    certvalidator = pytest.importorskip("pyhanko_certvalidator", reason="pyhanko-certvalidator is not installed")
    counts: Counter[str] = Counter()
    for seed in range(CASES):
        case = scenario(seed)
        ours, theirs = our_verdict(case), pyhanko_verdict(certvalidator, case)
        if (ours is None) == (theirs == ""):
            counts["agree"] += 1
            continue
        name = explain(case, ours, theirs, PYHANKO)
        assert name is not None, f"seed {seed}, faults {case.labels}: we say {ours}, pyhanko says {theirs}"
        counts[name] += 1
    assert counts["agree"] > 0.8 * CASES


def pyhanko_verdict(certvalidator: Any, case: Scenario) -> str:
    """Empty where it accepts."""
    asn1 = pytest.importorskip("asn1crypto.x509")
    policy = certvalidator.policy_decl
    revocation = policy.REQUIRE_REVINFO if case.with_crls else policy.NO_REVOCATION
    context = certvalidator.ValidationContext(
        trust_roots=[asn1.Certificate.load(case.root.der)],
        other_certs=[asn1.Certificate.load(made.der) for made in case.sent],
        moment=AT,
        crls=list(case.crls),
        revinfo_policy=policy.CertRevTrustPolicy(revocation),
        time_tolerance=timedelta(0),
    )
    validator = certvalidator.CertificateValidator(
        asn1.Certificate.load(case.target.der),
        validation_context=context,
        pkix_params=policy.PKIXValidationParams(
            user_initial_policy_set=frozenset(case.acceptable) or frozenset({"any_policy"}),
            initial_explicit_policy=case.explicit,
        ),
    )
    try:
        asyncio.run(
            validator.async_validate_usage(key_usage=set(), extended_key_usage={"client_auth"}, extended_optional=True)
        )
    except Exception as refused:  # noqa: BLE001  it raises whatever it raises
        return f"{type(refused).__name__}: {refused}"
    return ""
