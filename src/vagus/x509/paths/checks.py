"""Validates one complete path by RFC 5280 section 6.1, from the anchor to the target; searches for no path.

The numbers in brackets are those of RFC 5280; steps left out say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from vagus.errors import Malformed, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.x509 import extensions as ext
from vagus.x509.budgets import Budget
from vagus.x509.certificates import PathCertificate
from vagus.x509.der import oid_contents, oid_text
from vagus.x509.paths.form import check_anchor_form, check_form, check_leaf_form
from vagus.x509.paths.name_constraints import CompiledConstraints, check_names, compile_constraints
from vagus.x509.paths.policies import PolicyInputs, PolicyState
from vagus.x509.paths.rules import PathRules
from vagus.x509.signatures import key_facts

# RFC 5280 6.1.4 (o), 6.1.5 (f): every extension that this module, the profile or the status check processes.
_PROCESSED = frozenset(
    {
        ext.SUBJECT_KEY_ID,
        ext.KEY_USAGE,
        ext.SUBJECT_ALT_NAME,
        ext.ISSUER_ALT_NAME,
        ext.BASIC_CONSTRAINTS,
        ext.NAME_CONSTRAINTS,
        ext.CRL_DISTRIBUTION_POINTS,
        ext.CERTIFICATE_POLICIES,
        ext.POLICY_MAPPINGS,
        ext.AUTHORITY_KEY_ID,
        ext.POLICY_CONSTRAINTS,
        ext.EXTENDED_KEY_USAGE,
        ext.FRESHEST_CRL,
        ext.INHIBIT_ANY_POLICY,
        ext.AUTHORITY_INFO_ACCESS,
        ext.OCSP_NOCHECK,
        ext.NO_REV_AVAIL,
    }
)

_TLS_PURPOSES = frozenset({oid_contents("1.3.6.1.5.5.7.3.1"), oid_contents("1.3.6.1.5.5.7.3.2")})
_SIGNING_PURPOSES = frozenset(
    {oid_contents("1.3.6.1.5.5.7.3.3"), oid_contents("1.3.6.1.5.5.7.3.8"), oid_contents("1.3.6.1.5.5.7.3.9")}
)


@dataclass(frozen=True, slots=True)
class PathInputs:
    """What the caller wants of the path, RFC 5280 6.1.1 (b) to (g), and the purpose of the key."""

    at: datetime
    purposes: frozenset[bytes] = frozenset()  # the leaf needs one of these extendedKeyUsage OIDs; empty: none is needed
    policy: PolicyInputs = field(default_factory=PolicyInputs)
    longest_path: int = 16  # RFC 5280 6.1.2 (k): CAs between anchor and target, self-issued ones not counted
    # says whether a domain is a public suffix, for profiles that forbid wildcards there
    is_public_suffix: Callable[[str], bool] | None = None
    known_critical: frozenset[bytes] = frozenset()  # critical extensions that the caller itself processes


@lru_cache(maxsize=1024)
def _compiled(certificate: PathCertificate, allows_leading_dot: bool) -> CompiledConstraints | None:
    if certificate.name_constraints is None:
        return None
    return compile_constraints(certificate.name_constraints, allows_leading_dot=allows_leading_dot)


@dataclass(frozen=True, slots=True)
class _Descent:
    """The state of section 6.1 after the anchor and all CAs, before the target."""

    rules: PathRules
    constraints: tuple[CompiledConstraints, ...]
    policy: PolicyState
    comparisons: int  # comparisons of name constraints that the names of the CAs cost
    valid_from: datetime
    valid_until: datetime

    def holds_at(self, rules: PathRules, at: datetime) -> bool:
        """Whether it was reached under these very rules and every certificate of it is in date at `at`."""
        return self.rules is rules and self.valid_from <= at <= self.valid_until


class Descents:
    """Caches how the walk down the CAs ended, since thousands of leaves are issued by the same few CAs.

    A cached descent is as good as a new walk. Its key holds every input of the walk except the moment and the rules,
    and `_Descent.holds_at` compares those two. Only walks without a fault are stored. Revocation is no part of a
    descent: the caller asks for the status of each path anew. Safe to use from several threads: a lost update costs
    one more walk.
    """

    def __init__(self, size: int = 1024) -> None:
        self._size = size
        self._kept: dict[tuple[object, ...], _Descent] = {}

    def find(self, key: tuple[object, ...]) -> _Descent | None:
        """The descent cached under `key`."""
        return self._kept.get(key)

    def keep(self, key: tuple[object, ...], descent: _Descent) -> None:
        """Store it. A full cache is emptied, which costs one walk for each key."""
        if len(self._kept) >= self._size:
            self._kept = {}
        self._kept[key] = descent


def check_path(
    anchor: PathCertificate | None,
    path: Sequence[PathCertificate],
    rules: PathRules,
    inputs: PathInputs,
    budget: Budget,
    descents: Descents | None = None,
) -> frozenset[bytes]:
    """Section 6.1 for `path`, ordered from the certificate that the anchor issued down to the target.

    Signatures (6.1.3 (a)(1)) and name chaining ((a)(4)) are what the search already followed; revocation ((a)(3)) is
    checked by the caller once the path holds. Returns the user-constrained policy set.
    Raises NotTrusted and Malformed with the reason of the first rule that fails, LimitExceeded(BUDGET_EXHAUSTED).
    """
    target = path[-1]
    descent = _descend(anchor, path[:-1], rules, inputs, budget, descents)
    policy = descent.policy.copy()
    # RFC 5280 6.1.3 (a)(2): the certificate is valid at the time `at`, both ends of its validity included.
    _check_validity(target, inputs.at, is_ca=False)
    _check_faults(target)
    # RFC 5280 6.1.3 (b), (c): the names lie within the permitted and outside the excluded subtrees.
    check_names(target, descent.constraints, budget)
    # RFC 5280 6.1.3 (d), (e), (f): certificate policies.
    policy.enter(target, is_final=True)
    check_form(target, rules, is_ca=False)
    _check_key(target, rules, is_final=True)
    # RFC 5280 6.1.5 (c) to (e) hand the public key to the caller, who finds it in the certificate; (f): critical
    # extensions.
    _check_critical(target, inputs)
    _check_purpose(target, rules, inputs, is_final=True)
    check_leaf_form(target, rules, inputs.is_public_suffix)
    # RFC 5280 6.1.5 (a), (b), (g): wrap-up of the policies.
    return policy.finish(target)


def _descend(
    anchor: PathCertificate | None,
    authorities: Sequence[PathCertificate],
    rules: PathRules,
    inputs: PathInputs,
    budget: Budget,
    descents: Descents | None,
) -> _Descent:
    """The walk from the anchor to the last CA, from the cache where it was made before under the same inputs.

    A cached walk costs the budget as much as a new one, so that a verdict never depends on what the cache holds.
    """
    key: tuple[object, ...] = ()
    if descents is not None:
        key = (
            None if anchor is None else anchor.sha256,
            *[certificate.sha256 for certificate in authorities],
            inputs.purposes,
            inputs.policy,
            inputs.longest_path,
            inputs.known_critical,
        )
        known = descents.find(key)
        if known is not None and known.holds_at(rules, inputs.at):
            budget.spend_comparisons(known.comparisons)
            return known
    descent = _walk_down(anchor, authorities, rules, inputs, budget)
    if descents is not None:
        descents.keep(key, descent)
    return descent


def _walk_down(
    anchor: PathCertificate | None,
    authorities: Sequence[PathCertificate],
    rules: PathRules,
    inputs: PathInputs,
    budget: Budget,
) -> _Descent:
    # RFC 5280 6.1.2: initialization.
    constraints: list[CompiledConstraints] = []
    policy = PolicyState(len(authorities) + 1, inputs.policy)
    remaining = inputs.longest_path
    spent = budget.comparisons
    dated = list(authorities)
    if anchor is not None:
        remaining = _enter_anchor(anchor, rules, inputs, constraints, policy, remaining)
        if rules.applies_anchor_validity:
            dated.append(anchor)
    for certificate in authorities:
        # RFC 5280 6.1.3 (a)(2): validity.
        _check_validity(certificate, inputs.at, is_ca=True)
        _check_faults(certificate)
        # RFC 5280 6.1.3 (b), (c): name constraints of the CAs above.
        if not certificate.is_self_issued:
            check_names(certificate, constraints, budget)
        # RFC 5280 6.1.3 (d), (e), (f): certificate policies.
        policy.enter(certificate, is_final=False)
        check_form(certificate, rules, is_ca=True)
        _check_key(certificate, rules, is_final=False)
        # RFC 5280 6.1.4 (a), (b), (h), (i), (j): policy mappings and policy constraints for the next certificate.
        policy.leave(certificate)
        # RFC 5280 6.1.4 (g): name constraints for the next certificate.
        _add_constraints(certificate, rules, constraints)
        # RFC 5280 6.1.4 (k), (n): the issuer is a CA by basicConstraints, and its keyUsage has keyCertSign.
        check_issuer(certificate)
        # RFC 5280 6.1.4 (l), (m): the path length constraint.
        remaining = _shorten(certificate, remaining)
        # RFC 5280 6.1.4 (o): no unknown critical extension.
        _check_critical(certificate, inputs)
        _check_purpose(certificate, rules, inputs, is_final=False)
    return _Descent(
        rules=rules,
        constraints=tuple(constraints),
        policy=policy,
        comparisons=budget.comparisons - spent,
        valid_from=max((one.not_before for one in dated), default=_EVER),
        valid_until=min((one.not_after for one in dated), default=_NEVER),
    )


_EVER, _NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _enter_anchor(
    anchor: PathCertificate,
    rules: PathRules,
    inputs: PathInputs,
    constraints: list[CompiledConstraints],
    policy: PolicyState,
    remaining: int,
) -> int:
    """What the anchor's own certificate adds (RFC 5937), as far as the profile asks for it."""
    if rules.applies_anchor_validity:
        _check_validity(anchor, inputs.at, is_ca=True)
    if rules.checks_anchor_key:
        _check_key(anchor, rules, is_final=False)
    check_anchor_form(anchor, rules)
    if rules.requires_anchor_ca:
        check_issuer(anchor)
    if rules.applies_anchor_constraints:
        _check_faults(anchor)
        _add_constraints(anchor, rules, constraints)
        policy.constrain_by_anchor(anchor)
        _check_critical(anchor, inputs)
        if anchor.version == 3:
            check_issuer(anchor)
        length = anchor.basic_constraints.path_length if anchor.basic_constraints is not None else None
        if length is not None:
            remaining = min(remaining, length)
        if rules.forbids_anchor_purpose and anchor.purposes is not None:
            msg = f"anchor certificate {anchor.label} has an extendedKeyUsage (BR 7.1.2.1.2); use another root"
            raise NotTrusted(Reason.PROFILE_VIOLATION, msg, certificate=anchor.label)
        _check_purpose(anchor, rules, inputs, is_final=False)
    return remaining


def _check_validity(certificate: PathCertificate, at: datetime, *, is_ca: bool) -> None:
    if at < certificate.not_before:
        msg = f"certificate {certificate.label} is not valid before {certificate.not_before:%Y-%m-%d %H:%M:%S} UTC"
        msg = f"{msg}, and the time of validation is {at:%Y-%m-%d %H:%M:%S}; check the clock"
        raise NotTrusted(Reason.NOT_YET_VALID, msg, certificate=certificate.label)
    if at > certificate.not_after and at.replace(microsecond=0) > certificate.not_after:
        reason = Reason.EXPIRED_CA if is_ca else Reason.EXPIRED
        msg = f"certificate {certificate.label} expired at {certificate.not_after:%Y-%m-%d %H:%M:%S} UTC"
        raise NotTrusted(reason, f"{msg}; renew the certificate", certificate=certificate.label)


def _check_faults(certificate: PathCertificate) -> None:
    for oid, fault in certificate.faults.items():
        msg = f"certificate {certificate.label}: extension {oid_text(oid)} does not decode: {fault.message}"
        raise NotTrusted(Reason.BAD_EXTENSION, msg, certificate=certificate.label, oid=oid_text(oid))


def _add_constraints(certificate: PathCertificate, rules: PathRules, constraints: list[CompiledConstraints]) -> None:
    try:
        compiled = _compiled(certificate, not rules.forbids_leading_dot)
    except Malformed as fault:
        raise NotTrusted(Reason.BAD_EXTENSION, fault.message, certificate=certificate.label) from fault
    if compiled is not None:
        constraints.append(compiled)


def check_issuer(certificate: PathCertificate) -> None:
    """6.1.4 (k) and (n): whether a certificate may have issued another. Raises NotTrusted."""
    label = certificate.label
    if certificate.version != 3:
        msg = f"certificate {label} is v{certificate.version}, so it cannot say that it is a CA; have it issued as v3"
        raise NotTrusted(Reason.BAD_VERSION, msg, certificate=label)
    if not certificate.is_ca:
        msg = f"certificate {label} issued another certificate, but basicConstraints does not make it a CA"
        raise NotTrusted(Reason.NOT_A_CA, msg, certificate=label)
    if certificate.key_usage is not None and not certificate.key_usage & ext.UsageBit.KEY_CERT_SIGN:
        msg = f"certificate {label} issued another certificate, but its keyUsage lacks keyCertSign"
        raise NotTrusted(Reason.KEY_USAGE, msg, certificate=label)


def _shorten(certificate: PathCertificate, remaining: int) -> int:
    if not certificate.is_self_issued:
        if remaining <= 0:
            msg = f"certificate {certificate.label} is one CA more than the path length constraint above it allows"
            raise NotTrusted(Reason.PATHLEN, msg, certificate=certificate.label)
        remaining -= 1
    own = certificate.basic_constraints
    if own is not None and own.path_length is not None:
        remaining = min(remaining, own.path_length)
    return remaining


def _check_critical(certificate: PathCertificate, inputs: PathInputs) -> None:
    for oid, extension in certificate.extensions.items():
        if extension.is_critical and oid not in _PROCESSED and oid not in inputs.known_critical:
            msg = f"certificate {certificate.label} has the critical extension {oid_text(oid)}, which is not known here"
            raise NotTrusted(Reason.UNKNOWN_CRITICAL, msg, certificate=certificate.label, oid=oid_text(oid))
    policies = certificate.policies
    if policies is not None and policies.has_unknown_qualifier and certificate.is_critical(ext.CERTIFICATE_POLICIES):
        # RFC 5280 4.2.1.4: a critical certificatePolicies binds the verifier to its qualifiers as well.
        msg = f"certificate {certificate.label} has a critical policy with a qualifier that is not known here"
        raise NotTrusted(Reason.UNKNOWN_CRITICAL, msg, certificate=certificate.label)


def _check_purpose(certificate: PathCertificate, rules: PathRules, inputs: PathInputs, *, is_final: bool) -> None:
    """4.2.1.12. For CA certificates nesting is custom, not RFC."""
    purposes = certificate.purposes
    if purposes is None:
        if is_final and rules.requires_purpose:
            msg = f"certificate {certificate.label} has no extendedKeyUsage, so it has no role; issue it with one"
            raise NotTrusted(Reason.ROLE_MISSING, msg, certificate=certificate.label)
        return
    if is_final and rules.forbids_mixed_purposes and purposes & _SIGNING_PURPOSES and purposes & _TLS_PURPOSES:
        msg = f"certificate {certificate.label} is for TLS and also for code, times or OCSP (BR 7.1.2.7.10)"
        raise NotTrusted(Reason.ROLE_FORBIDDEN, f"{msg}; issue one for each purpose", certificate=certificate.label)
    if not inputs.purposes or not (is_final or rules.nests_purposes):
        return
    if is_final and not rules.accepts_any_purpose and ext.ANY_EXTENDED_KEY_USAGE in purposes:
        msg = f"certificate {certificate.label} claims every purpose (anyExtendedKeyUsage); issue it for its role"
        raise NotTrusted(Reason.ROLE_FORBIDDEN, msg, certificate=certificate.label)
    is_for_all = ext.ANY_EXTENDED_KEY_USAGE in purposes and (is_final or rules.accepts_any_purpose_above)
    if not purposes & inputs.purposes and not is_for_all:
        msg = f"certificate {certificate.label} lacks the required extendedKeyUsage; issue one for this role"
        raise NotTrusted(Reason.ROLE_FORBIDDEN, msg, certificate=certificate.label)


def _check_key(certificate: PathCertificate, rules: PathRules, *, is_final: bool) -> None:
    try:
        facts = key_facts(certificate.spki_der)
    except VagusError as fault:
        raise NotTrusted(fault.reason, f"key of certificate {certificate.label}: {fault.message}") from fault
    if facts.is_legacy and not rules.unsafe_legacy:
        msg = f"certificate {certificate.label} has a {facts.name} key; issue it for P-256, RSA-3072 or ML-DSA"
        raise NotTrusted(Reason.UNSUPPORTED_ALGORITHM, msg, certificate=certificate.label)
    if facts.exponent:
        smallest = rules.smallest_leaf_rsa if is_final else rules.smallest_rsa
        if facts.bits < (rules.unsafe_small_rsa or smallest):
            msg = f"certificate {certificate.label} has an RSA key of {facts.bits} bits, {smallest} is the least here"
            raise NotTrusted(Reason.WEAK_KEY, f"{msg}; make a larger RSA key", certificate=certificate.label)
        if rules.rsa_in_bytes and facts.bits % 8:
            msg = f"certificate {certificate.label} has an RSA key of {facts.bits} bits, no multiple of 8 (BR 6.1.5)"
            raise NotTrusted(Reason.WEAK_KEY, f"{msg}; make another RSA key", certificate=certificate.label)
