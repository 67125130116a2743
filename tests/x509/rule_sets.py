"""Verifier profiles that only tests use: RFC 5280 section 4 in full, the web PKI, and old algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from vagus.x509.paths.rules import DEVICE, IDEVID, PKIX, PathRules

# What both of the following ask for beyond section 6.
_COMPLETE = PathRules(
    name="complete",
    applies_anchor_constraints=True,
    applies_anchor_validity=True,
    requires_v3=True,
    forbids_idle_ca_bits=True,
    requires_readable_pointers=True,
    requires_valid_names=True,
    smallest_rsa=2048,
    smallest_leaf_rsa=2048,
    checks_anchor_key=True,
)

RFC5280_STRICT = replace(
    _COMPLETE,
    name="rfc5280-strict",
    checks_anchor_form=True,
    requires_positive_serial=True,
    requires_authority_key_id=True,
    requires_subject_key_id=True,
    forbids_critical_key_ids=True,
    requires_critical_ca=True,
    requires_critical_constraints=True,
    forbids_leaf_constraints=True,
    forbids_critical_access=True,
    requires_subject=True,
    forbids_leading_dot=True,
)

WEBPKI = replace(
    _COMPLETE,
    name="webpki",
    requires_names=True,
    forbids_authority_key_issuer=True,
    forbids_ca_leaf=True,
    forbids_critical_names_with_subject=True,
    forbids_critical_purpose=True,
    forbids_public_suffix_wildcard=True,
    accepts_any_purpose=False,
    requires_purpose=True,
    forbids_anchor_purpose=True,
    forbids_mixed_purposes=True,
    rsa_in_bytes=True,
)

WEBPKI_COMMON_NAME = replace(WEBPKI, name="webpki-cn", common_name_in_names=True)


def with_legacy_algorithms(rules: PathRules) -> PathRules:
    """`rules` for vectors made with SHA-1, DSA and RSA-512."""
    return replace(rules, unsafe_legacy=True, unsafe_small_rsa=512)


PROFILES: Mapping[str, PathRules] = MappingProxyType(
    {rules.name: rules for rules in (PKIX, RFC5280_STRICT, WEBPKI, WEBPKI_COMMON_NAME, DEVICE, IDEVID)}
)
"""The columns of the table in docs/verifier.md."""
