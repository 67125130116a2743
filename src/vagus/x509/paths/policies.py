"""Processes certificate policies, mappings and constraints along a path by the policy graph of RFC 9618.

RFC 5280 6.1.2 describes a tree, in which each node of a level can repeat for every parent. Policy mappings then let a
chain of n certificates make a tree that grows exponentially with n. RFC 9618 merges the nodes of a level that have
the same policy and lets a node have several parents. A level then holds each policy at most once, so it has at most as
many nodes as the certificates down to there name policies. Memory is linear in the size of the chain for each level,
and time is at most nodes times parents between two neighbouring levels.

The graph need not be pruned on the way down, as the tree is in 6.1.3 (d)(3): a node without children cannot be
reached from the last level, and `finish` reads the graph only from there upwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.x509.certificates import PathCertificate
from vagus.x509.extensions import ANY_POLICY


@dataclass(frozen=True, slots=True)
class PolicyInputs:
    """The caller's choice, RFC 5280 6.1.1 (c) to (g). `acceptable` empty means any-policy."""

    acceptable: frozenset[bytes] = frozenset()
    require_explicit: bool = False
    inhibit_mapping: bool = False
    inhibit_any: bool = False


@dataclass(slots=True)
class _Node:
    """A policy at one depth. Its name is its key in the level, so that a level holds each policy once."""

    expected: frozenset[bytes]
    parents: set[bytes] = field(default_factory=set)


_Level = dict[bytes, _Node]


class PolicyState:
    """The policy variables of RFC 5280 6.1.2 while a path of `length` certificates is walked from the anchor down."""

    __slots__ = ("_acceptable", "_explicit", "_inhibit_any", "_is_null", "_levels", "_mapping")

    def __init__(self, length: int, inputs: PolicyInputs) -> None:
        never = length + 1
        self._acceptable = inputs.acceptable
        self._explicit = 0 if inputs.require_explicit else never
        self._mapping = 0 if inputs.inhibit_mapping else never
        self._inhibit_any = 0 if inputs.inhibit_any else never
        self._levels: list[_Level] = [{ANY_POLICY: _Node(frozenset({ANY_POLICY}))}]
        self._is_null = False

    def copy(self) -> PolicyState:
        """The same state, to walk on from. Finished levels are shared, because only the last level ever changes."""
        other = object.__new__(PolicyState)
        other._acceptable = self._acceptable
        other._explicit = self._explicit
        other._mapping = self._mapping
        other._inhibit_any = self._inhibit_any
        other._levels = self._levels.copy()
        other._is_null = self._is_null
        return other

    def constrain_by_anchor(self, anchor: PathCertificate) -> None:
        """Take policies and their constraints from the anchor's own certificate (RFC 5937 section 3)."""
        if anchor.policies is not None:
            self._grow(anchor.policies.oids, allows_any=True)
            self._map(anchor)
        self._tighten(anchor, counts_itself=False)

    def enter(self, certificate: PathCertificate, *, is_final: bool) -> None:
        """Steps 6.1.3 (d), (e), (f) as RFC 9618 5.1 rewrites them. Raises NotTrusted(POLICY_REQUIRED)."""
        if certificate.policies is None:
            # RFC 5280 6.1.3 (e): without certificatePolicies the policy graph becomes NULL.
            self._is_null = True
        elif not self._is_null:
            # RFC 9618 5.3 (d): process the policies of this certificate.
            allows_any = self._inhibit_any > 0 or (not is_final and certificate.is_self_issued)
            self._grow(certificate.policies.oids, allows_any=allows_any)
        # RFC 5280 6.1.3 (f): a NULL graph fails if an explicit policy is required.
        if self._is_null and self._explicit <= 0:
            _refuse(certificate)

    def _grow(self, policies: Iterable[bytes], *, allows_any: bool) -> None:
        above = self._levels[-1]
        expecting: dict[bytes, set[bytes]] = {}
        for name, node in above.items():
            for expected in node.expected:
                expecting.setdefault(expected, set()).add(name)
        level: _Level = {}
        has_any = False
        for policy in policies:
            if policy == ANY_POLICY:
                has_any = True
            elif policy in expecting:
                # RFC 9618 (d)(1)(i): parents that expect this very policy.
                level[policy] = _Node(frozenset({policy}), expecting[policy])
            elif ANY_POLICY in above:
                # RFC 9618 (d)(1)(ii): else a parent that is anyPolicy.
                level[policy] = _Node(frozenset({policy}), {ANY_POLICY})
        if has_any and allows_any:
            # RFC 9618 (d)(2): anyPolicy of this certificate stands for every expected policy.
            for policy, parents in expecting.items():
                if policy not in level:
                    level[policy] = _Node(frozenset({policy}), parents)
        # RFC 9618 (d)(3): nodes without children are not pruned, because `finish` never reaches them. An empty level is
        # NULL.
        self._levels.append(level)
        self._is_null = not level

    def leave(self, certificate: PathCertificate) -> None:
        """Steps 6.1.4 (a), (b), (h), (i), (j) after a certificate that is not the last. Raises NotTrusted."""
        self._map(certificate)
        self._tighten(certificate, counts_itself=not certificate.is_self_issued)

    def _map(self, certificate: PathCertificate) -> None:
        mappings: dict[bytes, set[bytes]] = {}
        for issuer_policy, subject_policy in certificate.policy_mappings:
            # RFC 5280 6.1.4 (a): no mapping may name anyPolicy.
            if ANY_POLICY in {issuer_policy, subject_policy}:
                msg = f"certificate {certificate.label} maps anyPolicy (RFC 5280 4.2.1.5); re-issue without"
                raise NotTrusted(Reason.POLICY_MAPPING, msg, certificate=certificate.label)
            mappings.setdefault(issuer_policy, set()).add(subject_policy)
        if self._is_null or not mappings:
            return
        level = self._levels[-1]
        for issuer_policy, subject_policies in mappings.items():
            if self._mapping > 0:
                # RFC 9618 (b)(1): with mapping allowed, a mapped policy expects its subject domain policies.
                node = level.get(issuer_policy)
                if node is not None:
                    node.expected = frozenset(subject_policies)
                elif ANY_POLICY in level:
                    level[issuer_policy] = _Node(frozenset(subject_policies), {ANY_POLICY})
            else:
                # RFC 9618 (b)(2): with mapping inhibited, a mapped policy is removed.
                level.pop(issuer_policy, None)
        self._is_null = not level

    def _tighten(self, certificate: PathCertificate, *, counts_itself: bool) -> None:
        if counts_itself:
            # RFC 5280 6.1.4 (h): count down the skip counters, except for self-issued certificates.
            self._explicit = max(self._explicit - 1, 0)
            self._mapping = max(self._mapping - 1, 0)
            self._inhibit_any = max(self._inhibit_any - 1, 0)
        constraints = certificate.policy_constraints
        if constraints is not None:
            # RFC 5280 6.1.4 (i): policyConstraints may lower the counters.
            if constraints.require_explicit is not None:
                self._explicit = min(self._explicit, constraints.require_explicit)
            if constraints.inhibit_mapping is not None:
                self._mapping = min(self._mapping, constraints.inhibit_mapping)
        if certificate.inhibit_any_policy is not None:
            # RFC 5280 6.1.4 (j): inhibitAnyPolicy may lower its counter.
            self._inhibit_any = min(self._inhibit_any, certificate.inhibit_any_policy)

    def finish(self, certificate: PathCertificate) -> frozenset[bytes]:
        """Steps 6.1.5 (a), (b), (g) after the last certificate: the user-constrained-policy-set.

        Raises NotTrusted(POLICY_REQUIRED).
        """
        # RFC 5280 6.1.5 (a): count down explicit_policy.
        explicit = max(self._explicit - 1, 0)
        # RFC 5280 6.1.5 (b): requireExplicitPolicy of zero in the target sets it to zero.
        constraints = certificate.policy_constraints
        if constraints is not None and constraints.require_explicit == 0:
            explicit = 0
        # RFC 5280 6.1.5 (g): intersect the graph with the policies that the caller accepts.
        allowed = self._user_constrained()
        if explicit <= 0 and not allowed:
            _refuse(certificate)
        return allowed

    def _user_constrained(self) -> frozenset[bytes]:
        if self._is_null:
            return frozenset()
        authority: set[bytes] = set()
        alive = set(self._levels[-1])
        if ANY_POLICY in alive:
            if self._acceptable:
                return self._acceptable
            authority.add(ANY_POLICY)
        # RFC 9618 5.3: go up from the last level. Only nodes that still have a child there are alive. A live node whose
        # parent is anyPolicy is where a policy of the anchor's own domain begins, whatever it was mapped to below.
        for level in reversed(self._levels[1:]):
            parents: set[bytes] = set()
            for policy in alive:
                node = level[policy]
                parents |= node.parents
                if policy != ANY_POLICY and ANY_POLICY in node.parents:
                    authority.add(policy)
            alive = parents
        if not self._acceptable:
            return frozenset(authority)
        return frozenset(authority) & self._acceptable


def _refuse(certificate: PathCertificate) -> None:
    msg = f"no certificate policy that is acceptable here holds along the path down to certificate {certificate.label}"
    raise NotTrusted(Reason.POLICY_REQUIRED, f"{msg}; issue it under an accepted policy", certificate=certificate.label)
